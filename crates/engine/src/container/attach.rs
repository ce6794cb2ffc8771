//! Streams of a container or an exec, as the API passes them on.

use dozen_monitor::protocol::LogEnd;
use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::EngineError;

/// Which streams a client follows and feeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the streams' own names")]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The log comes first: [`PendingAttach::not_running`] and [`StdioStream::log_end`] say how far it is to be read.
    pub log: bool,
}

/// A connection to the monitor. What is written is standard input, shutting down the writing half is its end.
/// What is read goes to the client as it is: raw bytes with a terminal, else Docker's multiplexed frames.
#[derive(Debug)]
pub struct StdioStream {
    /// The connection.
    pub socket: UnixStream,
    /// Raw bytes, not frames.
    pub terminal: bool,
    /// For an attachment to a running container with its log: it goes on from here. `None` also if its monitor is too
    /// old to know.
    pub log_end: Option<LogEnd>,
}

/// An attachment that is registered, to a container that may not have started yet.
#[derive(Debug)]
pub struct PendingAttach {
    /// Raw bytes, not frames: known before the container starts.
    pub terminal: bool,
    /// The container does not run: all of its output is in the log until this moment, and in the streams after it.
    pub not_running: Option<Timestamp>,
    pub(crate) stream: oneshot::Receiver<Result<StdioStream, EngineError>>,
}

impl PendingAttach {
    /// The streams, once the container has been created; no byte of output is missed.
    pub async fn connected(self) -> Result<StdioStream, EngineError> {
        self.stream.await.unwrap_or(Err(EngineError::ShuttingDown))
    }
}
