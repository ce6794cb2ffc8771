//! Telling a client that has gone from one that has only finished sending.
//!
//! A read gives 0 for both. poll(2) knows: POLLHUP on a unix socket means that the peer has shut down both
//! directions, which a closed descriptor does and `shutdown(SHUT_WR)` does not.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whether the peer has gone altogether.
pub(crate) fn hung_up(socket: impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(&socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut descriptors, Some(&now)).is_ok() && descriptors[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Waits until a socket's peer has gone. A registration of its own, on a duplicate of the descriptor, so that it
/// can clear readiness without taking it from whoever reads and writes.
#[derive(Debug)]
pub(crate) struct Hangup(AsyncFd<OwnedFd>);

impl Hangup {
    pub(crate) fn of(socket: impl AsFd) -> std::io::Result<Self> {
        let duplicate = socket.as_fd().try_clone_to_owned()?;
        AsyncFd::with_interest(duplicate, Interest::WRITABLE).map(Self)
    }

    /// Returns once the peer has gone.
    pub(crate) async fn wait(&self) {
        loop {
            let Ok(mut guard) = self.0.writable().await else { return };
            if hung_up(self.0.get_ref()) {
                return;
            }
            // The registration is edge-triggered: the hang-up raises it anew.
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    #[tokio::test]
    async fn a_half_closed_peer_has_not_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
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
