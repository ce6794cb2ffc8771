//! One connection to `[::1]`, copied to a container by splice(2): the bytes stay in the kernel.
//!
//! Each direction has a pipe between its two sockets. End of file travels on alone (half-close): when one side has
//! sent all, the other's sending half is shut down, and the way back stays open. Sockets are watched edge-triggered,
//! so [`Forward::pump`] copies until nothing moves.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::handover::{Descriptors, HandedDirection, HandedForward};
use crate::snapshot::PortKey;

/// Copied at most at once, and rounds of that before other connections have their turn.
const CHUNK_BYTES: usize = 64 * 1024;
const ROUNDS: usize = 32;
/// A silent peer is asked for a sign of life after this long; unanswered, the connection ends some minutes later.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What came of copying.
#[derive(Debug, PartialEq, Eq)]
pub enum Pumped {
    /// Nothing moves; the next edge wakes it.
    Waiting,
    /// It had its turn and has more to do.
    Hungry,
    /// Both directions have ended, or one broke.
    Finished,
}

/// A client's connection and ours to the container.
pub struct Forward {
    client: OwnedFd,
    container: OwnedFd,
    /// Client to container, container to client.
    directions: [Direction; 2],
}

struct Direction {
    reader: OwnedFd,
    writer: OwnedFd,
    in_pipe: usize,
    ended: bool,
    passed_on: bool,
}

impl Forward {
    /// Begins to connect an accepted client to the container.
    pub fn begin(client: OwnedFd, to: SocketAddr) -> Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let container = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // Once it is closed it waits for a minute (TIME_WAIT), and without this nobody could take the port again
        // meanwhile: not even a reservation that allows it (socket(7), SO_REUSEADDR of both).
        sockopt::set_socket_reuseaddr(&client, true)?;
        for socket in [&client, &container] {
            sockopt::set_socket_keepalive(socket, true)?;
            sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
            sockopt::set_tcp_keepintvl(socket, KEEPALIVE / 4)?;
            sockopt::set_tcp_nodelay(socket, true)?;
        }
        match rustix::net::connect(&container, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { client, container, directions: [Direction::new()?, Direction::new()?] })
    }

    /// As the next program takes it over.
    pub fn hand_over(&self, key: PortKey) -> HandedForward {
        let [client, container] = [&self.client, &self.container].map(AsRawFd::as_raw_fd);
        let directions = [&self.directions[0], &self.directions[1]].map(|direction| HandedDirection {
            reader: direction.reader.as_raw_fd(),
            writer: direction.writer.as_raw_fd(),
            in_pipe: direction.in_pipe,
            ended: direction.ended,
            passed_on: direction.passed_on,
        });
        HandedForward { key, client, container, directions }
    }

    /// As the program before has left it.
    pub fn take_over(handed: &HandedForward, descriptors: &mut Descriptors) -> std::io::Result<Self> {
        let mut direction = |handed: &HandedDirection| -> std::io::Result<Direction> {
            Ok(Direction {
                reader: descriptors.take(handed.reader)?,
                writer: descriptors.take(handed.writer)?,
                in_pipe: handed.in_pipe,
                ended: handed.ended,
                passed_on: handed.passed_on,
            })
        };
        let directions = [direction(&handed.directions[0])?, direction(&handed.directions[1])?];
        Ok(Self {
            client: descriptors.take(handed.client)?,
            container: descriptors.take(handed.container)?,
            directions,
        })
    }

    /// Both sockets, to be watched.
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.client.as_fd(), self.container.as_fd()]
    }

    /// Copies what there is.
    pub fn pump(&mut self) -> Pumped {
        let [up, down] = &mut self.directions;
        let mut hungry = false;
        for (direction, from, to) in [(up, &self.client, &self.container), (down, &self.container, &self.client)] {
            match direction.pump(from.as_fd(), to.as_fd()) {
                Ok(more) => hungry |= more,
                Err(_) => return Pumped::Finished,
            }
        }
        match (self.directions.iter().all(|direction| direction.passed_on), hungry) {
            (true, _) => Pumped::Finished,
            (false, true) => Pumped::Hungry,
            (false, false) => Pumped::Waiting,
        }
    }
}

impl Direction {
    fn new() -> Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer, in_pipe: 0, ended: false, passed_on: false })
    }

    /// True if there is more to do at once.
    fn pump(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool> {
        for _ in 0..ROUNDS {
            let mut moved = false;
            if !self.ended {
                match splice(from, self.writer.as_fd())? {
                    Some(0) => self.ended = true,
                    Some(count) => {
                        self.in_pipe += count;
                        moved = true;
                    }
                    None => {}
                }
            }
            if self.in_pipe > 0
                && let Some(count) = splice(self.reader.as_fd(), to)?
            {
                self.in_pipe = self.in_pipe.saturating_sub(count);
                moved = true;
            }
            if self.ended && self.in_pipe == 0 {
                if !self.passed_on {
                    self.passed_on = true;
                    rustix::net::shutdown(to, Shutdown::Write)?;
                }
                return Ok(false);
            }
            if !moved {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// `None` if it would block. A socket that is still connecting answers ENOTCONN to a read, EAGAIN to a write.
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Option<usize>> {
    loop {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(from, None, to, None, CHUNK_BYTES, flags) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
