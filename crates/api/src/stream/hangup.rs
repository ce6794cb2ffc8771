//! Telling a client that has gone from one that has only finished sending.
//!
//! A read gives 0 for both. poll(2) knows: POLLHUP on a unix socket means that the peer has shut down both
//! directions, which a closed descriptor does and `shutdown(SHUT_WR)` does not.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Whether the peer has gone altogether.
pub(crate) fn hung_up(socket: impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(&socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut descriptors, Some(&now)).is_ok() && descriptors[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Waits until a socket's peer has gone. A registration of its own, on a duplicate of the descriptor, so that it
/// can clear readiness without taking it from whoever reads and writes.
#[derive(Debug)]
pub(crate) struct Hangup(UnixStream);

impl Hangup {
    pub(crate) fn of(socket: impl AsFd) -> io::Result<Self> {
        let duplicate = std::os::unix::net::UnixStream::from(socket.as_fd().try_clone_to_owned()?);
        Ok(Self(UnixStream::from_std(duplicate)?))
    }

    /// Returns once the peer has gone.
    pub(crate) async fn wait(&self) {
        while self.0.writable().await.is_ok() && !hung_up(&self.0) {
            // "Would block" clears the readiness. The registration is edge-triggered: the hang-up raises it anew.
            let cleared: io::Result<()> = self.0.try_io(Interest::WRITABLE, || Err(io::ErrorKind::WouldBlock.into()));
            debug_assert!(cleared.is_err());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream as Plain;

    #[tokio::test]
    async fn a_half_closed_peer_has_not_gone() {
        let (ours, theirs) = Plain::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        assert!(!hung_up(&ours));
        theirs.shutdown(Shutdown::Write).unwrap();
        assert!(!hung_up(&ours));
        let hangup = Hangup::of(&ours).unwrap();
        let waiting = tokio::spawn(async move { hangup.wait().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(theirs);
        waiting.await.unwrap();
        assert!(hung_up(&ours));
    }
}
