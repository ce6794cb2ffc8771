//! Copies between a client and a monitor, both ways, in bounded buffers.
//!
//! ```text
//! client ──input──▶ monitor     the client's shutdown(WR) is the end of standard input, output goes on
//! client ◀─output── monitor     its end ends the whole
//! ```
//! It also ends when the client has gone, or has typed the keys to detach, or, where it only looks on, when it has read
//! nothing for a while: output that nobody takes off holds up the container, as a pipe does.

use std::time::Duration;

use bytes::Bytes;
use dozen_engine::{PendingAttach, StdioStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::detach::{DetachKeys, Typed};
use super::hangup::Hangup;

const BUFFER_BYTES: usize = 32 << 10;
/// A byte for the stream, three zeros, the length as a big-endian u32 (Docker's API, "Attach to a container").
const FRAME_HEAD_BYTES: usize = 8;
/// How long a client that keeps sending is read after the end of the output: Linux turns the end of file of a
/// unix socket into "connection reset" for the peer if bytes of its own were left unread at the close.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that has attached to a running container may read nothing of what waits for it. The one that was
/// there before the start is what the container was started for, as the next command of a pipeline: it may take its time.
pub(crate) const ONLOOKERS_PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of the client's bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Input {
    /// They are standard input; otherwise they are read and dropped.
    pub(crate) forward: bool,
    /// They are typed at a terminal, which these keys leave.
    pub(crate) detach: Option<DetachKeys>,
}

/// What becomes of the output.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Output {
    /// A client that has read nothing for so long is let go.
    pub(crate) patience: Option<Duration>,
    /// It is a terminal's, and the client wants frames: all of it is standard output.
    pub(crate) framed: bool,
}

/// The streams once the container has started; `None` if it has not, or the client has gone before that.
pub(crate) async fn connected(client: &UnixStream, pending: PendingAttach) -> Option<StdioStream> {
    let hangup = Hangup::of(client).ok()?;
    let connected = tokio::select! {
        connected = pending.connected() => connected,
        () = hangup.wait() => return None,
    };
    match connected {
        Ok(stream) => Some(stream),
        // Whoever starts the container is told why it failed; here the stream just ends, as Docker's does.
        Err(error) => {
            tracing::debug!(%error, "an attachment came to nothing");
            None
        }
    }
}

/// Relays until one side ends it. True if the client has typed the keys to detach.
pub(crate) async fn relay(client: UnixStream, early: Bytes, stream: StdioStream, input: Input, output: Output) -> bool {
    let Ok(hangup) = Hangup::of(&client) else { return false };
    let (mut client_read, mut client_write) = client.into_split();
    let (monitor_read, monitor_write) = stream.socket.into_split();
    let output = async {
        let is_over = copy(monitor_read, &mut client_write, output).await;
        if is_over {
            let _ = client_write.shutdown().await;
        }
        is_over
    };
    let ended = tokio::select! {
        is_over = output => if is_over { Ended::Output } else { Ended::Stalled },
        () = feed(&mut client_read, early, monitor_write, input) => Ended::Detached,
        () = hangup.wait() => Ended::Gone,
    };
    if let Ended::Output = ended {
        let mut rest = [0u8; 4096];
        let drain = async { while client_read.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
    matches!(ended, Ended::Detached)
}

/// Copies to the end of the output or of the client; false if the client had to be given up.
async fn copy(mut from: OwnedReadHalf, client: &mut OwnedWriteHalf, output: Output) -> bool {
    // Room for a frame's head before what is read.
    let mut buffer = vec![0; FRAME_HEAD_BYTES + BUFFER_BYTES];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer[FRAME_HEAD_BYTES..]).await else { return true };
        buffer[..4].copy_from_slice(&[1, 0, 0, 0]);
        buffer[4..FRAME_HEAD_BYTES].copy_from_slice(&(count as u32).to_be_bytes());
        let begin = if output.framed { 0 } else { FRAME_HEAD_BYTES };
        let mut rest = &buffer[begin..FRAME_HEAD_BYTES + count];
        while !rest.is_empty() {
            let written = client.write(rest);
            let written = match output.patience {
                None => written.await,
                Some(patience) => match tokio::time::timeout(patience, written).await {
                    Ok(written) => written,
                    Err(_) => {
                        tracing::warn!(seconds = patience.as_secs(), "an attached client reads nothing: it is let go");
                        return false;
                    }
                },
            };
            match written {
                Ok(count @ 1..) => rest = &rest[count..],
                _ => return true,
            }
        }
    }
}

enum Ended {
    Output,
    Stalled,
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
        relay: tokio::task::JoinHandle<bool>,
    }

    fn relayed(early: &'static [u8], input: Input) -> Ends {
        let (client, theirs) = UnixStream::pair().unwrap();
        let (monitor, socket) = UnixStream::pair().unwrap();
        let stream = StdioStream { socket, terminal: input.detach.is_some(), log_end: None };
        let relay = tokio::spawn(relay(theirs, Bytes::from_static(early), stream, input, Output::default()));
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
    async fn a_terminals_output_can_be_framed() {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        let (mut monitor, socket) = UnixStream::pair().unwrap();
        let output = Output { framed: true, patience: None };
        let relay = tokio::spawn(relay(
            theirs,
            Bytes::new(),
            StdioStream { socket, terminal: true, log_end: None },
            Input::default(),
            output,
        ));
        monitor.write_all(b"hi\r\n").await.unwrap();
        drop(monitor);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"\x01\0\0\0\0\0\0\x04hi\r\n");
        drop(client);
        relay.await.unwrap();
    }

    /// However long it takes: the monitor's end goes on as soon as the client is given up, and not before it had its time.
    #[tokio::test]
    async fn an_onlooker_that_reads_nothing_is_let_go() {
        for patience in [None, Some(Duration::from_millis(20))] {
            let (client, theirs) = UnixStream::pair().unwrap();
            let (mut monitor, socket) = UnixStream::pair().unwrap();
            let stream = StdioStream { socket, terminal: false, log_end: None };
            let relay =
                tokio::spawn(relay(theirs, Bytes::new(), stream, Input::default(), Output { patience, framed: false }));
            // More than all buffers on the way hold.
            let output = vec![b'x'; 16 << 20];
            let fed = tokio::spawn(async move { monitor.write_all(&output).await });
            if patience.is_some() {
                relay.await.unwrap();
                assert!(fed.await.unwrap().is_err(), "the monitor is told");
            } else {
                // One for whom it runs gets all of it, whenever it reads.
                let mut client = client;
                let mut read = Vec::new();
                client.read_to_end(&mut read).await.unwrap();
                assert_eq!(read.len(), 16 << 20);
                fed.await.unwrap().unwrap();
                drop(client);
                relay.await.unwrap();
            }
        }
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
