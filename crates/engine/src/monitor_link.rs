//! The engine's end of a monitor's socket, without blocking.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::Path;

use dozen_monitor::protocol::{Failure, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::EngineError;

/// No reply is longer: an exit record with its error is the longest.
const REPLY_LIMIT: usize = 64 * 1024;

/// A connection to one monitor, on which one request was made.
#[derive(Debug)]
pub(crate) struct MonitorLink {
    socket: UnixStream,
}

impl MonitorLink {
    /// Sends the request and reads the first reply; a [`Reply::Failed`] is an error.
    pub(crate) async fn request(run_directory: &Path, request: &Request) -> Result<(Self, Reply), EngineError> {
        let lost = |action: &'static str| {
            EngineError::system(move || format!("{action} the monitor at {}", run_directory.display()))
        };
        // By descriptor: the path may be longer than the 108 bytes of an address (unix(7)).
        let directory = File::open(run_directory).map_err(lost("reach"))?;
        let address = format!("/proc/self/fd/{}/monitor.sock", directory.as_raw_fd());
        let mut socket = UnixStream::connect(address).await.map_err(lost("reach"))?;
        let mut line = serde_json::to_vec(request).expect("requests have string keys only");
        line.push(b'\n');
        socket.write_all(&line).await.map_err(lost("ask"))?;
        let mut link = Self { socket };
        match link.next().await? {
            Some(Reply::Failed(failure)) => Err(failure.into()),
            Some(reply) => Ok((link, reply)),
            None => Err(lost("hear from")(Error::from(ErrorKind::UnexpectedEof))),
        }
    }

    /// The next line; `None` once the monitor has closed the connection.
    ///
    /// Reads byte by byte: what follows the line may be a stream that belongs to someone else.
    pub(crate) async fn next(&mut self) -> Result<Option<Reply>, EngineError> {
        let mut line = Vec::with_capacity(128);
        loop {
            match self.socket.read_u8().await {
                Ok(b'\n') => break,
                Ok(byte) if line.len() < REPLY_LIMIT => line.push(byte),
                Ok(_) => return Err(malformed("it is longer than 64 KiB")),
                // A monitor that dies over bytes it has not read resets the connection (unix(7)).
                Err(error)
                    if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
                        && line.is_empty() =>
                {
                    return Ok(None);
                }
                Err(error) => {
                    return Err(EngineError::System { action: "read a monitor's reply".into(), source: error });
                }
            }
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| malformed(&error.to_string()))
    }

    /// The bytes that follow.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.socket
    }
}

fn malformed(why: &str) -> EngineError {
    Failure {
        kind: dozen_model::ErrorKind::Internal,
        message: format!("a monitor's reply cannot be read: {why}"),
        hint: None,
    }
    .into()
}
