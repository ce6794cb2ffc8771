//! Clients on monitor.sock: accepted, read from, told, left.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::time::Timespec;

use super::ending::LINGER;
use super::{CHUNK_BYTES, INIT, Monitor, Stage};
use crate::connection::{Connection, Role};
use crate::protocol::Reply;
use crate::session::Session;
use crate::watched::{Token, Watched};

/// After an accept for which no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A watcher is an engine; one that has left so much unread hangs.
const MOST_EVENTS_BYTES: usize = 1024 * 1024;

impl Monitor<'_> {
    pub(super) fn on_listener(&mut self) {
        let Some(listener) = &self.listener else { return };
        let socket = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                // The client keeps waiting; asking again at once would only burn the processor.
                self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                return;
            }
            Err(_) => return,
        };
        self.next_id += 1;
        if let Ok(stream) = Watched::new(socket, Token::Connection(self.next_id)) {
            self.connections.insert(self.next_id, Connection::new(stream));
        }
    }

    pub(super) fn on_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.flush() && self.stage == Stage::Ended {
            self.linger_until = Some(Instant::now() + LINGER);
        }
        self.read_connection(id);
    }

    /// Reads from a client what can be used now.
    pub(super) fn read_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.read_ended || connection.closing {
            // Only a hang-up can have woken us.
            if !connection.gone && hung_up(connection.stream.as_fd()) {
                connection.leave();
            }
            return;
        }
        let feeds = connection.attachment().filter(|attachment| attachment.stdin).map(|attachment| attachment.session);
        let room = feeds.is_none_or(|session| self.sessions.get(&session).is_none_or(Session::input_has_room));
        if !room {
            if !connection.gone && hung_up(connection.stream.as_fd()) {
                connection.leave();
            }
            return;
        }
        self.scratch.resize(CHUNK_BYTES, 0);
        match rustix::io::read(&connection.stream, self.scratch.as_mut_slice()) {
            Ok(0) => self.on_end_of_client(id),
            Ok(count) => match feeds {
                Some(session) => {
                    if let Some(session) = self.sessions.get_mut(&session) {
                        session.feed(&self.scratch[..count]);
                    }
                }
                None if connection.role == Role::Asking => {
                    connection.inbox.extend_from_slice(&self.scratch[..count]);
                    self.read_request(id);
                }
                // Bytes that nobody asked for.
                None => {}
            },
            Err(Errno::AGAIN | Errno::INTR) => {
                if connection.gone {
                    self.on_end_of_client(id);
                }
            }
            Err(_) => {
                connection.leave();
                self.on_end_of_client(id);
            }
        }
    }

    /// Clients that are gone are not watched; they are read on when their process takes input again.
    pub(super) fn read_departed(&mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            while self.connections.get(&id).is_some_and(|connection| connection.gone && !connection.read_ended) {
                let feeds = self.connections.get(&id).and_then(|connection| connection.attachment()).copied();
                let room = feeds
                    .and_then(|attachment| self.sessions.get(&attachment.session))
                    .is_none_or(Session::input_has_room);
                if !room {
                    break;
                }
                self.read_connection(id);
            }
        }
    }

    /// A client has sent all that it will.
    pub(super) fn on_end_of_client(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.read_ended = true;
        match connection.attachment().copied() {
            None => connection.leave(),
            Some(attachment) => {
                // Half-closed, or closed? The socket knows.
                if hung_up(connection.stream.as_fd()) {
                    connection.leave();
                }
                let ends_input = attachment.stdin && (attachment.session != INIT || self.stdin_once);
                if ends_input && let Some(session) = self.sessions.get_mut(&attachment.session) {
                    session.end_input();
                }
            }
        }
    }

    pub(super) fn close_followers(&mut self, id: u32) {
        for connection in self.connections.values_mut() {
            if connection.attachment().is_some_and(|attachment| attachment.session == id) {
                connection.flush();
                connection.closing = true;
            }
        }
    }

    pub(super) fn announce(&mut self, event: &Reply) {
        for connection in self.connections.values_mut().filter(|connection| connection.role == Role::Watching) {
            connection.reply(event);
            connection.flush();
            if connection.outbox.length() > MOST_EVENTS_BYTES {
                connection.leave();
            }
        }
    }

    /// Drops the connections that are done.
    pub(super) fn sweep(&mut self) {
        let finished: Vec<u32> =
            self.connections.iter().filter(|(_, connection)| connection.is_finished()).map(|(id, _)| *id).collect();
        let removed: Vec<Connection> = finished.iter().filter_map(|id| self.connections.remove(id)).collect();
        if removed.iter().any(|connection| connection.role == Role::Holding) && !self.is_held() {
            self.resume();
        }
        removed.into_iter().for_each(Connection::close);
    }
}

/// True if the other side has closed both halves.
pub(super) fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut asked = [rustix::event::PollFd::from_borrowed_fd(socket, rustix::event::PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let hang_up = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
    rustix::event::poll(&mut asked, Some(&now)).is_ok_and(|_| asked[0].revents().intersects(hang_up))
}
