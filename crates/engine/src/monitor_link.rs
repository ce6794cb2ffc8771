//! The engine's end of a monitor's socket, without blocking.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use dozen_monitor::client;
use dozen_monitor::protocol::{Failure, Reply, Request};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::EngineError;

/// How long a monitor may take to answer. It waits for nothing but its disk, so one that takes longer is stopped, or
/// its disk hangs: nobody is to wait with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The same where it has to bring a process into the container, which may keep that one waiting for 10 seconds.
const EXEC_PATIENCE: Duration = Duration::from_secs(15);
/// A monitor that accepts nobody is tried again so often.
const RETRY: Duration = Duration::from_millis(50);
/// No reply is longer: the longest names all running execs with 67 bytes each, and there may be many thousands.
const REPLY_LIMIT_BYTES: usize = 16 << 20;
/// Read at once; nearly every reply is shorter.
const PART_BYTES: usize = 2048;

/// A connection to one monitor, on which one request was made.
#[derive(Debug)]
pub(crate) struct MonitorLink {
    socket: UnixStream,
}

impl MonitorLink {
    /// Sends the request and reads the first reply; a [`Reply::Failed`] is an error, and so is a monitor that does
    /// not answer in time.
    pub(crate) async fn request(run_directory: &Path, request: &Request) -> Result<(Self, Reply), EngineError> {
        let patience = if matches!(request, Request::Exec(_)) { EXEC_PATIENCE } else { PATIENCE };
        tokio::time::timeout(patience, Self::ask(run_directory, request)).await.unwrap_or_else(|_| {
            Err(EngineError::MonitorHangs { pid: client::process(run_directory), patience_s: patience.as_secs() })
        })
    }

    async fn ask(run_directory: &Path, request: &Request) -> Result<(Self, Reply), EngineError> {
        let lost = |action: &'static str| {
            EngineError::system(move || format!("{action} the monitor at {}", run_directory.display()))
        };
        // By descriptor: the path may be longer than the 108 bytes of an address (unix(7)).
        let directory = File::open(run_directory).map_err(lost("reach"))?;
        let address = format!("/proc/self/fd/{}/monitor.sock", directory.as_raw_fd());
        let mut socket = loop {
            match UnixStream::connect(&address).await {
                // Its queue is full (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY).await,
                connected => break connected.map_err(lost("reach"))?,
            }
        };
        let mut line = serde_json::to_vec(request).expect("requests have string keys only");
        line.push(b'\n');
        socket.write_all(&line).await.map_err(lost("ask"))?;
        let mut link = Self { socket };
        match link.next().await? {
            Some(Reply::Failed(failure)) => Err(failure.into()),
            Some(reply) => Ok((link, reply)),
            None => Err(lost("hear from")(io::Error::from(io::ErrorKind::UnexpectedEof))),
        }
    }

    /// The next line; `None` once the monitor has closed the connection.
    ///
    /// Takes not a byte more: what follows the line may be a stream that belongs to someone else.
    pub(crate) async fn next(&mut self) -> Result<Option<Reply>, EngineError> {
        let mut line = Vec::new();
        loop {
            match self.take_part(&mut line).await {
                Ok(0) if line.is_empty() => return Ok(None),
                Ok(0) => return Err(lost_in_the_middle(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) if line.last() == Some(&b'\n') => break,
                Ok(_) if line.len() > REPLY_LIMIT_BYTES => return Err(malformed("it is longer than 16 MiB")),
                Ok(_) => {}
                // A monitor that dies over bytes it has not read resets the connection (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && line.is_empty() => return Ok(None),
                Err(error) => return Err(lost_in_the_middle(error)),
            }
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| malformed(&error.to_string()))
    }

    /// Moves what is there from the socket to `line`, up to the line's end: looks first, then takes.
    async fn take_part(&self, line: &mut Vec<u8>) -> io::Result<usize> {
        self.socket
            .async_io(Interest::READABLE, || {
                let mut part = [0_u8; PART_BYTES];
                let seen = receive(&self.socket, &mut part, RecvFlags::PEEK)?;
                let end = part[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |newline| newline + 1);
                let count = if end == 0 { 0 } else { receive(&self.socket, &mut part[..end], RecvFlags::empty())? };
                line.extend_from_slice(&part[..count]);
                Ok(count)
            })
            .await
    }

    /// The bytes that follow.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.socket
    }
}

fn receive(socket: &UnixStream, part: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *part, flags) {
            Ok((_, count)) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn lost_in_the_middle(source: io::Error) -> EngineError {
    EngineError::System { action: "read a monitor's reply".into(), source }
}

fn malformed(why: &str) -> EngineError {
    Failure {
        kind: dozen_model::ErrorKind::Internal,
        message: format!("a monitor's reply cannot be read: {why}"),
        hint: None,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link whose monitor has said this and hung up.
    fn after(said: &[u8]) -> MonitorLink {
        let (socket, mut monitor) = UnixStream::pair().unwrap();
        let said = said.to_vec();
        // Who has read enough hangs up first.
        tokio::spawn(async move { monitor.write_all(&said).await });
        MonitorLink { socket }
    }

    #[tokio::test]
    async fn a_line_is_read_and_not_a_byte_more() {
        let long = Reply::ExecStarted { exec_id: "e".repeat(3 * PART_BYTES), pid: 7 };
        let mut said = serde_json::to_vec(&long).unwrap();
        said.extend_from_slice(b"\n\"Done\"\nstream");
        let mut link = after(&said);
        assert_eq!(link.next().await.unwrap(), Some(long));
        assert_eq!(link.next().await.unwrap(), Some(Reply::Done));
        let mut rest = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut link.into_stream(), &mut rest).await.unwrap();
        assert_eq!(rest, "stream");
    }

    #[tokio::test]
    async fn what_is_no_line_is_refused() {
        assert_eq!(after(b"").next().await.unwrap(), None);
        for (said, want) in [
            (b"\"Do".to_vec(), "cannot read a monitor's reply"),
            (b"{}\n".to_vec(), "a monitor's reply cannot be read"),
            (vec![b'x'; REPLY_LIMIT_BYTES + PART_BYTES], "it is longer than 16 MiB"),
        ] {
            let error = after(&said).next().await.unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
