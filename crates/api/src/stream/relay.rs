//! Copies between a client and a monitor, both ways, in bounded buffers.
//!
//! ```text
//! client ──input──▶ monitor     the client's shutdown(WR) is the end of standard input, output goes on
//! client ◀─output── monitor     its end ends the whole
//! ```
//! It also ends when the client has gone, or has typed the keys to detach.

use std::time::Duration;

use bytes::Bytes;
use dozen_engine::{PendingAttach, StdioStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::detach::{DetachKeys, Typed};
use super::hangup::Hangup;

const BUFFER_BYTES: usize = 32 << 10;
/// How long a client that keeps sending is read after the end of the output: Linux turns the end of file of a
/// unix socket into "connection reset" for the peer if bytes of its own were left unread at the close.
const LINGER: Duration = Duration::from_secs(1);

/// What becomes of the client's bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Input {
    /// They are standard input; otherwise they are read and dropped.
    pub(crate) forward: bool,
    /// They are typed at a terminal, which these keys leave.
    pub(crate) detach: Option<DetachKeys>,
}

/// Relays once the container has started; a client that goes before that is noticed.
pub(crate) async fn attach(client: UnixStream, early: Bytes, pending: PendingAttach, input: Input) {
    let Ok(hangup) = Hangup::of(&client) else { return };
    let connected = tokio::select! {
        connected = pending.connected() => connected,
        () = hangup.wait() => return,
    };
    match connected {
        Ok(stream) => relay(client, early, stream, input).await,
        // Whoever starts the container is told why it failed; here the stream just ends, as Docker's does.
        Err(error) => tracing::debug!(%error, "an attachment came to nothing"),
    }
}

/// Relays until one side ends it.
pub(crate) async fn relay(client: UnixStream, early: Bytes, stream: StdioStream, input: Input) {
    let Ok(hangup) = Hangup::of(&client) else { return };
    let (mut client_read, mut client_write) = client.into_split();
    let (monitor_read, monitor_write) = stream.socket.into_split();
    let output = async {
        let mut output = BufReader::with_capacity(BUFFER_BYTES, monitor_read);
        let _ = tokio::io::copy_buf(&mut output, &mut client_write).await;
        let _ = client_write.shutdown().await;
    };
    let ended = tokio::select! {
        () = output => Ended::Output,
        () = feed(&mut client_read, early, monitor_write, input) => Ended::Detached,
        () = hangup.wait() => Ended::Gone,
    };
    if let Ended::Output = ended {
        let mut rest = [0u8; 4096];
        let drain = async { while client_read.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

enum Ended {
    Output,
    Detached,
    Gone,
}

/// Feeds standard input, and returns only when the client wants to detach. After the client's end of file, or
/// when the process reads no more, the output alone decides when all is over.
async fn feed(client: &mut OwnedReadHalf, early: Bytes, mut monitor: OwnedWriteHalf, mut input: Input) {
    let mut buffer = vec![0u8; BUFFER_BYTES];
    let mut passed = Vec::new();
    let mut typed = early;
    let mut open = input.forward;
    loop {
        if open && !typed.is_empty() {
            passed.clear();
            let verdict = match &mut input.detach {
                Some(keys) => keys.filter(&typed, &mut passed),
                None => {
                    passed.extend_from_slice(&typed);
                    Typed::Go
                }
            };
            // The process may have closed its standard input: what follows is read and dropped.
            open = monitor.write_all(&passed).await.is_ok();
            if verdict == Typed::Detach {
                return;
            }
        }
        match client.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => typed = Bytes::copy_from_slice(&buffer[..count]),
        }
    }
    if input.forward {
        let _ = monitor.shutdown().await;
    }
    // Both halves of the monitor's socket stay open: its output goes on.
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ends {
        client: UnixStream,
        monitor: UnixStream,
        relay: tokio::task::JoinHandle<()>,
    }

    fn relayed(early: &'static [u8], input: Input) -> Ends {
        let (client, theirs) = UnixStream::pair().unwrap();
        let (monitor, socket) = UnixStream::pair().unwrap();
        let stream = StdioStream { socket, terminal: input.detach.is_some() };
        let relay = tokio::spawn(relay(theirs, Bytes::from_static(early), stream, input));
        Ends { client, monitor, relay }
    }

    #[tokio::test]
    async fn a_half_close_ends_the_input_and_output_goes_on() {
        let mut ends = relayed(b"ear", Input { forward: true, detach: None });
        ends.client.write_all(b"ly").await.unwrap();
        ends.client.shutdown().await.unwrap();
        let mut text = String::new();
        ends.monitor.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "early");
        ends.monitor.write_all(b"answer").await.unwrap();
        drop(ends.monitor);
        text.clear();
        ends.client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
        drop(ends.client);
        ends.relay.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_after_its_half_close_is_noticed() {
        let mut ends = relayed(b"", Input { forward: true, detach: None });
        ends.client.shutdown().await.unwrap();
        assert_eq!(ends.monitor.read(&mut [0; 8]).await.unwrap(), 0);
        drop(ends.client);
        ends.relay.await.unwrap();
    }

    #[tokio::test]
    async fn input_that_nobody_asked_for_is_dropped_and_a_client_that_goes_is_noticed() {
        let mut ends = relayed(b"x", Input::default());
        ends.client.write_all(b"y").await.unwrap();
        drop(ends.client);
        ends.relay.await.unwrap();
        let mut text = String::new();
        ends.monitor.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "");
    }

    #[tokio::test]
    async fn the_keys_detach() {
        let mut ends = relayed(b"a", Input { forward: true, detach: Some(DetachKeys::default()) });
        ends.client.write_all(b"b\x10\x11c").await.unwrap();
        let mut text = String::new();
        ends.monitor.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "ab");
        ends.relay.await.unwrap();
    }

    #[tokio::test]
    async fn unread_input_does_not_turn_the_end_into_a_reset() {
        let mut ends = relayed(b"", Input { forward: true, detach: None });
        ends.monitor.write_all(b"bye").await.unwrap();
        ends.monitor.shutdown().await.unwrap();
        let mut text = String::new();
        ends.client.write_all(&vec![b'y'; 100_000]).await.unwrap();
        ends.client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "bye");
        drop(ends.client);
        ends.relay.await.unwrap();
    }
}
