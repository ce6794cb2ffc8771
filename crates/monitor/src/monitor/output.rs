//! What processes write: to the log first, then to the clients that follow it.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::{CHUNK_BYTES, INIT, Monitor};
use crate::connection::Connection;
use crate::log::Stream;
use crate::session::Session;

/// How many chunks before others have their turn.
const CHUNKS_A_TURN: usize = 8;
/// A client that does not read while the container ends may leave so much waiting.
const MOST_WAITING_BYTES: usize = 4 * 1024 * 1024;

impl Monitor<'_> {
    /// A session has output. It goes to the log first.
    pub(super) fn on_output(&mut self, id: u32, index: usize) {
        for _ in 0..CHUNKS_A_TURN {
            if !self.read_output(id, index) {
                return;
            }
        }
    }

    /// Reads one chunk. False if there is nothing to read, or nobody to take it.
    pub(super) fn read_output(&mut self, id: u32, index: usize) -> bool {
        let stream = Session::stream(index);
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let ending = session.exit_code.is_some() && id == INIT;
        let has_room = has_room(&self.connections, id, stream) && (id != INIT || self.files.log.has_room());
        if !ending && !has_room {
            return false;
        }
        let Some(output) = &session.outputs[index] else { return false };
        self.scratch.resize(CHUNK_BYTES, 0);
        let count = match rustix::io::read(output, self.scratch.as_mut_slice()) {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => return true,
            // A terminal whose other side is closed answers EIO.
            Err(_) => None,
        };
        let Some(count) = count else {
            session.outputs[index] = None;
            return false;
        };
        let chunk = &self.scratch[..count];
        if id == INIT {
            self.files.log.push(stream, chunk);
        }
        for connection in self.connections.values_mut() {
            let Some(attachment) = connection.attachment().copied() else { continue };
            if attachment.session == id && attachment.follows(stream) {
                connection.output(stream, attachment.raw, chunk);
                connection.flush();
                if connection.outbox.length() > MOST_WAITING_BYTES {
                    connection.leave();
                }
            }
        }
        true
    }

    /// Reads what is left of a session's output and lets go of it: the grace is over.
    pub(super) fn cut_output(&mut self, id: u32) {
        for index in 0..2 {
            // At most what a pipe can hold (pipe(7), F_SETPIPE_SZ up to 1 MiB): someone may write for ever.
            for _ in 0..(1024 * 1024 / CHUNK_BYTES + 1) {
                if !self.read_output(id, index) {
                    break;
                }
            }
            if let Some(session) = self.sessions.get_mut(&id) {
                session.outputs[index] = None;
            }
        }
    }

    pub(super) fn followers_have_room(&self, id: u32) -> bool {
        has_room(&self.connections, id, Stream::Stdout) && has_room(&self.connections, id, Stream::Stderr)
    }
}

/// True unless a client that follows the stream has as much waiting as it may.
pub(super) fn has_room(connections: &BTreeMap<u32, Connection>, session: u32, stream: Stream) -> bool {
    connections.values().all(|connection| {
        connection.gone
            || connection.outbox.has_room()
            || connection
                .attachment()
                .is_none_or(|attachment| attachment.session != session || !attachment.follows(stream))
    })
}
