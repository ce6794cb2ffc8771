//! Carries bytes, half-closes and the end between a connection over TCP and one end of a socket pair.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::tcp::Tcp;

const BUFFER_BYTES: usize = 32 << 10;
/// How long a client has to take what was said to it last, and leave.
const LINGER: Duration = Duration::from_secs(5);

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The command line's: when it has finished sending, it still listens.
    Client,
    /// The engine's: when it has finished sending, the conversation is over.
    Engine,
}

/// Runs until the peer is gone (that is the error), or both directions are over. `here` is closed by whoever has it
/// afterwards: then it hangs up.
///
/// `peer` speaks over `tcp`. A peer that has finished sending may be waiting for the rest of the answer, whether it has
/// said so (`close_notify`) or closed its half of the connection (FIN): some clients do the one, some both. Whether it is
/// still there, keepalive tells, or the next thing that is said to it.
pub(crate) async fn relay<S>(side: Side, peer: S, tcp: &Tcp, here: &mut UnixStream) -> Result<(), io::Error>
where
    S: AsyncRead + AsyncWrite,
{
    let watched = UnixStream::from_std(here.as_fd().try_clone_to_owned()?.into())?;
    let (mut from_peer, mut to_peer) = tokio::io::split(peer);
    let (mut from_here, mut to_here) = here.split();
    let inward = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut is_heard = true;
        loop {
            match from_peer.read(&mut buffer).await? {
                0 => break,
                // Nobody here reads any more: it is thrown away, and what is still to be said to the peer goes on.
                count if is_heard => is_heard = to_here.write_all(&buffer[..count]).await.is_ok(),
                _ => {}
            }
        }
        let _ = to_here.shutdown().await;
        io::Result::Ok(())
    };
    let outward = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from_here.read(&mut buffer).await {
            let written = async {
                to_peer.write_all(&buffer[..count]).await?;
                to_peer.flush().await
            };
            if written.await.is_err() {
                // What the peer has said of it is still to be read.
                return;
            }
        }
        let _ = to_peer.shutdown().await;
    };
    let (mut inward, mut outward) = (std::pin::pin!(inward), std::pin::pin!(outward));
    tokio::select! {
        read = &mut inward => {
            read?;
            tokio::select! {
                () = outward => Ok(()),
                error = tcp.broken() => Err(error),
            }
        }
        () = &mut outward => match side {
            Side::Client => tokio::select! {
                read = inward => read,
                () = hung_up(&watched) => Ok(()),
            },
            // A connection that is closed with something unread takes what was said last along (tcp(7), RST).
            Side::Engine => tokio::time::timeout(LINGER, inward).await.unwrap_or(Ok(())),
        }
    }
}

/// Returns once the other end of a socket pair is closed, and not only half: poll(2) knows the two apart. `watched` is a
/// registration of its own, so that its readiness can be cleared.
async fn hung_up(watched: &UnixStream) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    while watched.writable().await.is_ok() {
        let mut descriptors = [PollFd::new(watched, PollFlags::empty())];
        if poll(&mut descriptors, Some(&now)).is_ok() && descriptors[0].revents().contains(PollFlags::HUP) {
            return;
        }
        // "Would block" clears it; it is edge-triggered, and the end raises it anew.
        let _: io::Result<()> = watched.try_io(Interest::WRITABLE, || Err(io::ErrorKind::WouldBlock.into()));
    }
}
