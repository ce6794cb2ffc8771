//! One client on monitor.sock.

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::log::Stream;
use crate::outbox::Outbox;
use crate::protocol::Reply;
use crate::watched::Watched;

/// The longest request line: an exec with a large environment (the kernel itself takes no more than a few MiB).
pub const LONGEST_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Its request has not come whole.
    Asking,
    /// It follows events.
    Watching,
    /// It follows a process's streams.
    Attached(Attachment),
    /// Nobody moves in the container for its sake.
    Holding,
    /// It has its answer.
    Answered,
}

/// Which streams a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// Whose.
    pub session: u32,
    /// It feeds standard input.
    pub stdin: bool,
    /// It follows standard output, or the terminal.
    pub stdout: bool,
    /// It follows standard error.
    pub stderr: bool,
    /// Without frames.
    pub raw: bool,
}

impl Attachment {
    /// True if it follows this stream.
    pub fn follows(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// A client.
#[derive(Debug)]
pub struct Connection {
    /// Its socket.
    pub stream: Watched,
    /// What it is for.
    pub role: Role,
    /// The request, as far as it has come.
    pub inbox: Vec<u8>,
    /// What it is to be sent.
    pub outbox: Outbox,
    /// It has sent all that it will.
    pub read_ended: bool,
    /// It takes nothing any more.
    pub gone: bool,
    /// Close it once everything is sent.
    pub closing: bool,
}

impl Connection {
    /// A fresh one.
    pub fn new(stream: Watched) -> Self {
        Self {
            stream,
            role: Role::Asking,
            inbox: Vec::new(),
            outbox: Outbox::default(),
            read_ended: false,
            gone: false,
            closing: false,
        }
    }

    /// What it follows, if it is attached.
    pub fn attachment(&self) -> Option<&Attachment> {
        match &self.role {
            Role::Attached(attachment) => Some(attachment),
            _ => None,
        }
    }

    /// Puts a line in the outbox.
    pub fn reply(&mut self, reply: &Reply) {
        if !self.gone
            && let Ok(mut line) = serde_json::to_vec(reply)
        {
            line.push(b'\n');
            self.outbox.push_raw(&line);
        }
    }

    /// Puts output in the outbox.
    pub fn output(&mut self, stream: Stream, raw: bool, bytes: &[u8]) {
        if self.gone {
        } else if raw {
            self.outbox.push_raw(bytes);
        } else {
            self.outbox.push_frame(stream, bytes);
        }
    }

    /// Sends what the socket takes. True if any of it went.
    pub fn flush(&mut self) -> bool {
        let before = self.outbox.length();
        while !self.outbox.is_empty() {
            match rustix::net::send(&self.stream, self.outbox.front(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.outbox.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.leave();
                    break;
                }
            }
        }
        self.outbox.length() < before
    }

    /// Ends it. Input that nobody wants is read first: closing a socket over unread bytes would reach the client as
    /// ECONNRESET instead of end of file (unix(7)).
    pub fn close(self) {
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
        let mut unwanted = [0_u8; 4096];
        for _ in 0..256 {
            if !rustix::io::read(&self.stream, &mut unwanted).is_ok_and(|count| count > 0) {
                break;
            }
        }
    }

    /// The client takes nothing any more; what it has sent is still read.
    pub fn leave(&mut self) {
        self.gone = true;
        self.outbox = Outbox::default();
    }

    /// Everything is done: it can be closed.
    pub fn is_finished(&self) -> bool {
        let feeds = self.attachment().is_some_and(|attachment| attachment.stdin) && !self.read_ended;
        (self.closing && self.outbox.is_empty()) || (self.gone && !feeds)
    }

    /// What to watch it for. `input_has_room`: the process that it feeds takes more.
    pub fn interest(&self, input_has_room: bool) -> Option<EventFlags> {
        let reads = !self.read_ended
            && !self.closing
            && match &self.role {
                Role::Asking | Role::Watching | Role::Holding | Role::Answered => true,
                Role::Attached(attachment) => !attachment.stdin || input_has_room,
            };
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, reads);
        flags.set(EventFlags::OUT, !self.outbox.is_empty());
        // A hang-up is reported for ever: one that waits for the process to take its input is not watched at all.
        (!flags.is_empty() || !self.gone).then_some(flags)
    }
}
