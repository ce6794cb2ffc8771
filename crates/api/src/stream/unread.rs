//! Giving a client the time to take the head of an answer before the stream follows.
//!
//! Several SDKs (docker-py among them) read the head through a buffer, and then go on at the bare socket: bytes of
//! the stream that arrive together with the head stay in the buffer and are lost. An engine that takes longer to
//! start a process never shows it; ours has the output ready at once.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// A client that has not read its head by then gets the stream all the same: it may be waiting to read both.
const PATIENCE: Duration = Duration::from_millis(50);
/// The first looks follow each other closely: a client that waits for the head takes it in microseconds.
const FIRST_PAUSE: Duration = Duration::from_micros(50);

/// Returns once the client has read everything that was written, or its patience is over.
pub(super) async fn until_read(client: &UnixStream) {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    while unread_bytes(client).is_ok_and(|bytes| bytes > 0) && Instant::now() < deadline {
        sleep(pause).await;
        pause *= 2;
    }
}

/// What lies in the socket and the peer has not read yet (unix(7), SIOCOUTQ; the number is TIOCOUTQ's).
fn unread_bytes(socket: impl AsFd) -> rustix::io::Result<libc::c_int> {
    // SAFETY: TIOCOUTQ writes one int, which is what the getter gives it room for.
    unsafe {
        let getter = rustix::ioctl::Getter::<{ libc::TIOCOUTQ as rustix::ioctl::Opcode }, libc::c_int>::new();
        rustix::ioctl::ioctl(socket, getter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn it_waits_for_the_reader_and_not_for_ever() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"head").await.unwrap();
        assert_eq!(unread_bytes(&ours).map(|bytes| bytes > 0), Ok(true));
        until_read(&ours).await;
        assert_eq!(unread_bytes(&ours).map(|bytes| bytes > 0), Ok(true), "its patience ended");
        let mut head = [0; 4];
        theirs.read_exact(&mut head).await.unwrap();
        assert_eq!(unread_bytes(&ours), Ok(0));
        until_read(&ours).await;
    }
}
