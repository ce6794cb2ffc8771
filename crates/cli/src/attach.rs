//! The streams of an attached container or exec: our stdin to it, its output to ours.
//!
//! Two directions that end apart: at the end of our stdin the connection is half-closed and output goes on; at the
//! end of the output everything ends, whatever stdin does.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::arguments::detach_keys::{DetachKeys, DetachScanner};
use crate::client::Prefixed;
use crate::demultiplex::{Demultiplexer, Target};
use crate::failure::Failure;
use crate::signals::Signals;
use crate::terminal::RawMode;

const BUFFER_BYTES: usize = 32 << 10;
/// Output comes by the hundred megabytes (`logs`), and each write of it changes threads.
const OUTPUT_BYTES: usize = 128 << 10;

/// Which streams are connected, and how.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Our stdin goes to the process.
    pub stdin: bool,
    /// The process has a terminal: one stream of bytes instead of frames.
    pub is_tty: bool,
    /// Keys that end the attachment and not the process; looked for only at a terminal.
    pub detach_keys: DetachKeys,
}

/// How an attachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The process's output is over.
    OutputEnded,
    /// The detach keys came.
    Detached,
    /// A signal came that would have ended us.
    Signalled(i32),
}

/// Connects the streams until one of the endings. `are_signals_ours`: a signal that would end us ends the attachment
/// (after raw mode), because nobody passes it on.
pub async fn connect(stream: Prefixed, streams: &Streams, are_signals_ours: bool) -> Result<Ending, Failure> {
    let raw_mode = (streams.stdin && streams.is_tty).then(RawMode::enter).flatten();
    let mut signals = (are_signals_ours && raw_mode.is_some()).then(Signals::that_end_us);
    let (from_process, to_process) = tokio::io::split(stream);
    let output = copy_output(from_process, streams.is_tty, tokio::io::stdout(), tokio::io::stderr());
    let input = async {
        if !streams.stdin {
            return std::future::pending().await;
        }
        let scanner = raw_mode.as_ref().map(|_| DetachScanner::new(streams.detach_keys.clone()));
        // A process that no longer reads is no failure of ours; its exit code tells what happened.
        match copy_input(tokio::io::stdin(), to_process, scanner).await {
            Ok(true) => Ending::Detached,
            _ => std::future::pending().await,
        }
    };
    let signalled = async {
        match &mut signals {
            Some(signals) => signals.next().await,
            None => std::future::pending().await,
        }
    };
    let ending = tokio::select! {
        biased;
        result = output => result.map(|()| Ending::OutputEnded),
        ending = input => Ok(ending),
        number = signalled => Ok(Ending::Signalled(number)),
    };
    drop(raw_mode);
    ending
}

/// Copies the process's output until it ends. Output that nobody takes is read on and dropped, so that a container
/// whose reader has gone (`| head`) is not stopped by a full pipe.
pub async fn copy_output(
    mut from: impl AsyncRead + Unpin,
    is_raw: bool,
    stdout: impl AsyncWrite + Unpin,
    stderr: impl AsyncWrite + Unpin,
) -> Result<(), Failure> {
    let mut stdout = Sink::new(stdout);
    let mut stderr = Sink::new(stderr);
    let mut demultiplexer = Demultiplexer::default();
    let mut buffer = vec![0; OUTPUT_BYTES];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(Failure::new(format!("cannot read the container's output: {error}"))),
        };
        let bytes = &buffer[..length];
        if is_raw {
            stdout.write(bytes).await?;
            continue;
        }
        out.clear();
        err.clear();
        let fed = demultiplexer.feed(bytes, |target, payload| match target {
            Target::Stdout => out.extend_from_slice(payload),
            Target::Stderr => err.extend_from_slice(payload),
        });
        stdout.write(&out).await?;
        stderr.write(&err).await?;
        fed.map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(())
}

/// Copies our input until its end, then half-closes; `true` if the detach keys came first.
async fn copy_input(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut scanner: Option<DetachScanner>,
) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut passed = Vec::new();
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            to.shutdown().await?;
            return Ok(false);
        }
        let Some(scanner) = &mut scanner else {
            to.write_all(&buffer[..length]).await?;
            continue;
        };
        passed.clear();
        let is_detach = scanner.scan(&buffer[..length], &mut passed);
        to.write_all(&passed).await?;
        if is_detach {
            return Ok(true);
        }
    }
}

/// One of our outputs, until nobody reads it any more.
struct Sink<W> {
    writer: Option<W>,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    fn new(writer: W) -> Self {
        Self { writer: Some(writer) }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        let written = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        match written.await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.writer = None;
                Ok(())
            }
            Err(error) => Err(Failure::new(format!("cannot write the container's output: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn frames_go_to_their_streams() {
        let bytes = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\x01!";
        let (mut out, mut err) = (Vec::new(), Vec::new());
        copy_output(&bytes[..], false, &mut out, &mut err).await.unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (&b"out!"[..], &b"err"[..]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn input_ends_with_a_half_close() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        assert!(!copy_input(&b"hello"[..], ours, None).await.unwrap());
        let mut received = String::new();
        theirs.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "hello");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn detach_keys_end_the_input_and_are_not_sent() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let scanner = DetachScanner::new(DetachKeys::default());
        assert!(copy_input(&b"ls\x10\x11more"[..], ours, Some(scanner)).await.unwrap());
        let mut received = String::new();
        theirs.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "ls");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn output_that_nobody_reads_is_dropped() {
        let (ours, theirs) = tokio::io::duplex(4);
        drop(theirs);
        assert_eq!(copy_output(&b"much more than four"[..], true, ours, Vec::new()).await, Ok(()));
    }
}
