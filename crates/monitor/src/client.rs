//! The engine's side: starting a monitor, and talking to one that runs. Every call blocks; an engine makes them on
//! threads that may.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use dozen_model::ErrorKind;
use rustix::net::RecvFlags;
use serde::de::DeserializeOwned;

use crate::protocol::{Failure, Go, Reply, Request, StartReply, StartRequest};
use crate::{lock, packet};

/// A monitor that is on its way. Dropped, the monitor undoes everything and ends.
#[derive(Debug)]
pub struct PendingStart {
    pair: OwnedFd,
}

/// Starts a monitor, `program monitor`, and tells it what to run.
///
/// `program` may be a path like `/proc/self/fd/N`. The new process gets no environment and no descriptor but its end
/// of the start pair; it detaches itself and the process that was spawned is reaped here.
///
/// # Errors
/// The program cannot be run, or the request cannot be sent.
pub fn spawn(
    program: &Path,
    request: &StartRequest,
    network_namespace: Option<BorrowedFd<'_>>,
) -> Result<PendingStart, Failure> {
    spawn_with_log(program, request, network_namespace, Stdio::null())
}

/// [`spawn`], with a place for the monitor's own complaints.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with_log(
    program: &Path,
    request: &StartRequest,
    network_namespace: Option<BorrowedFd<'_>>,
    log: Stdio,
) -> Result<PendingStart, Failure> {
    let failed = |why: io::Error| internal(format_args!("cannot start a monitor from {}: {why}", program.display()));
    let (pair, theirs) = packet::pair().map_err(failed)?;
    // No pre_exec, no directory, no identity: std takes posix_spawn(3), which does not copy the engine's page tables.
    let mut command = Command::new(program);
    command.arg("monitor").env_clear();
    dozen_failpoint::pass_on(&mut command);
    let mut child = command.stdin(theirs).stdout(Stdio::null()).stderr(log).spawn().map_err(failed)?;
    // It holds our copy of the monitor's end, which has to be the monitor's alone.
    drop(command);
    let sent = packet::send(pair.as_fd(), request, network_namespace);
    child.wait().map_err(failed)?;
    sent.map_err(failed)?;
    Ok(PendingStart { pair })
}

impl PendingStart {
    /// Waits until the container stands. Answers its process 1, in the host's pid namespace; monitor.sock listens.
    ///
    /// # Errors
    /// The container could not be made; nothing of it is left.
    pub fn wait_created(&mut self) -> Result<i32, Failure> {
        match self.receive()? {
            StartReply::Created { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets the process run. Returns when it runs the wanted program.
    ///
    /// # Errors
    /// The program cannot be run; nothing of the container is left.
    pub fn go(self) -> Result<(), Failure> {
        packet::send(self.pair.as_fd(), &Go, None).map_err(|error| died(&error))?;
        match self.receive()? {
            StartReply::Started => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn receive(&self) -> Result<StartReply, Failure> {
        match packet::receive(self.pair.as_fd()) {
            Ok((StartReply::Failed(failure), _)) => Err(failure),
            Ok((reply, _)) => Ok(reply),
            Err(error) => Err(died(&error)),
        }
    }
}

/// True while a monitor owns this directory, and when that cannot be found out: a living container is not given up
/// because the one who asks is short of descriptors.
pub fn is_alive(run_directory: &Path) -> bool {
    lock::holder(run_directory).map_or(true, |holder| holder.is_some())
}

/// The monitor's own process, while it owns this directory; for tests and for whoever has to end a monitor that hangs.
pub fn process(run_directory: &Path) -> Option<i32> {
    lock::holder(run_directory).ok().flatten().map(|pid| pid.as_raw_nonzero().get())
}

/// Makes one request of a running monitor. The stream carries what follows the reply: events for Watch, the
/// container's or exec's bytes for Attach and Exec. [`Reply::Failed`] comes as an error.
///
/// # Errors
/// Nobody listens there (kind NotFound), or the monitor refused.
pub fn connect(run_directory: &Path, request: &Request) -> Result<(UnixStream, Reply), Failure> {
    let path = run_directory.join("monitor.sock");
    let failed = |why: io::Error| Failure {
        kind: match why.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::UnexpectedEof => {
                ErrorKind::NotFound
            }
            _ => ErrorKind::Internal,
        },
        message: format!("cannot talk to the monitor at {}: {why}", path.display()),
        hint: None,
    };
    let talk = || -> io::Result<(UnixStream, Reply)> {
        // By descriptor: the path may be longer than the 108 bytes of an address (unix(7)).
        let directory = File::open(run_directory)?;
        let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/monitor.sock", directory.as_raw_fd()))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let reply = read_line(&stream)?;
        Ok((stream, reply))
    };
    match talk().map_err(failed)? {
        (_, Reply::Failed(failure)) => Err(failure),
        answered => Ok(answered),
    }
}

/// Reads one line of JSON, a [`Reply`], and not a byte more.
///
/// # Errors
/// The stream ends before the line does (UnexpectedEof), or the line is not what was expected.
pub fn read_line<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    let mut part = [0_u8; 2048];
    loop {
        let (_, seen) = rustix::net::recv(stream, &mut part, RecvFlags::PEEK)?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let newline = part[..seen].iter().position(|byte| *byte == b'\n');
        let wanted = newline.map_or(seen, |newline| newline + 1);
        let (_, count) = rustix::net::recv(stream, &mut part[..wanted], RecvFlags::empty())?;
        line.extend_from_slice(&part[..count]);
        if line.last() == Some(&b'\n') {
            return Ok(serde_json::from_slice(&line)?);
        }
    }
}

fn internal(message: impl Display) -> Failure {
    Failure { kind: ErrorKind::Internal, message: message.to_string(), hint: None }
}

fn died(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            internal("the monitor died while it started the container")
        }
        _ => internal(format_args!("cannot talk to the monitor: {error}")),
    }
}

fn unexpected(reply: &StartReply) -> Failure {
    internal(format_args!("the monitor gave an unexpected answer: {reply:?}"))
}
