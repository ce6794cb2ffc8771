//! A descriptor in the epoll set, and what it is watched for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Result;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    /// The start pair.
    Pair,
    /// monitor.sock.
    Listener,
    /// A session's process has ended.
    End(u32),
    /// A session's output: 0 stdout or the terminal, 1 stderr.
    Output(u32, u8),
    /// A session's standard input.
    Input(u32),
    /// A connection.
    Connection(u32),
    /// The connection to a log server, or a child that compresses a log.
    Log,
}

impl Token {
    fn encode(self) -> EventData {
        let (kind, id) = match self {
            Self::Pair => (0, 0),
            Self::Listener => (1, 0),
            Self::End(id) => (2, id),
            Self::Output(id, stream) => (3 + u64::from(stream & 1), id),
            Self::Input(id) => (5, id),
            Self::Connection(id) => (6, id),
            Self::Log => (7, 0),
        };
        EventData::new_u64(kind << 32 | u64::from(id))
    }

    /// The token of an event.
    pub fn decode(data: EventData) -> Option<Self> {
        let id = data.u64() as u32;
        Some(match data.u64() >> 32 {
            0 => Self::Pair,
            1 => Self::Listener,
            2 => Self::End(id),
            3 => Self::Output(id, 0),
            4 => Self::Output(id, 1),
            5 => Self::Input(id),
            6 => Self::Connection(id),
            7 => Self::Log,
            _ => return None,
        })
    }
}

/// An owned descriptor with its registration. Closing it removes it from the set.
#[derive(Debug)]
pub struct Watched {
    descriptor: OwnedFd,
    token: Token,
    /// `None`: not in the set at all; an empty set of flags still reports errors and hang-ups.
    watched_for: Option<EventFlags>,
}

impl Watched {
    /// Not watched yet; made non-blocking.
    pub fn new(descriptor: OwnedFd, token: Token) -> Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self { descriptor, token, watched_for: None })
    }

    /// One that takes no FIONBIO: a pidfd.
    pub fn as_is(descriptor: OwnedFd, token: Token) -> Self {
        Self { descriptor, token, watched_for: None }
    }

    /// Changes what it is watched for.
    pub fn watch(&mut self, epoll: &OwnedFd, wanted: Option<EventFlags>) -> Result<()> {
        if wanted == self.watched_for {
            return Ok(());
        }
        match (self.watched_for, wanted) {
            (None, Some(flags)) => epoll::add(epoll, &self.descriptor, self.token.encode(), flags)?,
            (Some(_), Some(flags)) => epoll::modify(epoll, &self.descriptor, self.token.encode(), flags)?,
            (_, None) => epoll::delete(epoll, &self.descriptor)?,
        }
        self.watched_for = wanted;
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Pair,
            Token::Listener,
            Token::End(0),
            Token::Output(7, 0),
            Token::Output(u32::MAX, 1),
            Token::Input(3),
            Token::Connection(9),
            Token::Log,
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
    }
}
