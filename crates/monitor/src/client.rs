//! The engine's side: starting a monitor, and talking to one that runs. Every call blocks; an engine makes them on
//! threads that may.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dozen_model::ErrorKind;
use dozen_runtime::detach::NAME;
use dozen_runtime::rest;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::sockopt::{self, Timeout};
use rustix::process::{PidfdFlags, Signal};
use rustix::time::Timespec;
use serde::de::DeserializeOwned;

use crate::protocol::{Failure, Go, Reply, Request, StartReply, StartRequest};
use crate::{lock, packet};

/// How long a monitor may take between two words while it starts a container: far longer than the slowest disk needs
/// for its few files. One that takes longer is stopped, or hangs.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a killed monitor may take to be gone.
const DEATH_PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A monitor that is on its way. Dropped, the monitor undoes everything and ends.
#[derive(Debug)]
pub struct PendingStart {
    pair: OwnedFd,
    run_directory: PathBuf,
}

/// A monitor's process that does not know yet what to run, and has done nothing. Dropped, it ends.
#[derive(Debug)]
pub struct Spawned {
    /// Closed before the child is waited for, which does not depend on it.
    pair: Option<OwnedFd>,
    child: Child,
}

/// Starts a monitor, `program monitor CGROUP`, and tells it what to run.
///
/// # Errors
/// As [`spawn_idle`] and [`Spawned::ask`].
pub fn spawn(
    program: &Path,
    request: &StartRequest,
    network_namespace: Option<BorrowedFd<'_>>,
) -> Result<PendingStart, Failure> {
    spawn_idle(program, &request.monitor_cgroup, Stdio::null())?.ask(request, network_namespace)
}

/// Starts a monitor, `program monitor CGROUP`, which gets ready while the caller finds out what it is to run. The cgroup
/// is the one that the request will name; its own complaints go to `log`.
///
/// `program` may be a path like `/proc/self/fd/N`. The new process gets no environment and no descriptor but its end
/// of the start pair; it detaches itself and the process that was spawned is reaped here.
///
/// # Errors
/// The program cannot be run.
pub fn spawn_idle(program: &Path, monitor_cgroup: &str, log: Stdio) -> Result<Spawned, Failure> {
    let failed = |why: io::Error| internal(format_args!("cannot start a monitor from {}: {why}", program.display()));
    let (pair, theirs) = packet::pair().map_err(failed)?;
    // No pre_exec, no directory, no identity: std takes posix_spawn(3), which does not copy the engine's page tables.
    let mut command = Command::new(program);
    command.arg0(NAME).arg("monitor").arg(monitor_cgroup).env_clear();
    rest::keep_no_free_memory(&mut command);
    dozen_failpoint::pass_on(&mut command);
    let child = command.stdin(theirs).stdout(Stdio::null()).stderr(log).spawn().map_err(failed)?;
    // The command holds our copy of the monitor's end, which has to be the monitor's alone, and is dropped here.
    Ok(Spawned { pair: Some(pair), child })
}

impl Spawned {
    /// Tells it what to run.
    ///
    /// # Errors
    /// The request cannot be sent.
    pub fn ask(
        mut self,
        request: &StartRequest,
        network_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<PendingStart, Failure> {
        let failed = |why: io::Error| internal(format_args!("cannot tell a monitor what to run: {why}"));
        let Some(pair) = self.pair.take() else { return Err(failed(io::ErrorKind::NotConnected.into())) };
        let pending = PendingStart { pair, run_directory: request.run_directory.clone() };
        pending.wait_at_most(START_PATIENCE).map_err(failed)?;
        packet::send(pending.pair.as_fd(), request, network_namespace).map_err(failed)?;
        Ok(pending)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        drop(self.pair.take());
        // It has forked and ended, or is about to: the monitor is its grandchild.
        let _ = self.child.wait();
    }
}

impl PendingStart {
    /// Waits until the container stands. Answers its process 1, in the host's pid namespace; monitor.sock listens.
    ///
    /// # Errors
    /// The container could not be made; nothing of it is left, unless the monitor hung and was killed, or was killed by
    /// others: then the container's cgroup is the caller's to end.
    pub fn wait_created(&mut self) -> Result<i32, Failure> {
        match self.receive()? {
            StartReply::Created { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// For tests: less patience than a user's machine may need.
    ///
    /// # Errors
    /// The system refuses so short a time.
    #[doc(hidden)]
    pub fn wait_at_most(&self, patience: Duration) -> io::Result<()> {
        for direction in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&self.pair, direction, Some(patience))?;
        }
        Ok(())
    }

    /// Lets the process run. Returns when it runs the wanted program.
    ///
    /// # Errors
    /// As [`Self::wait_created`]; or the program cannot be run.
    pub fn go(self) -> Result<(), Failure> {
        packet::send(self.pair.as_fd(), &Go, None).map_err(|error| self.lost(&error))?;
        match self.receive()? {
            StartReply::Started => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn receive(&self) -> Result<StartReply, Failure> {
        match packet::receive(self.pair.as_fd()) {
            Ok((StartReply::Failed(failure), _)) => Err(failure),
            Ok((reply, _)) => Ok(reply),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// One that hangs is killed: it must not go on later with what was given up.
    fn lost(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                internal("the monitor died while it started the container")
            }
            io::ErrorKind::WouldBlock => match kill(&self.run_directory) {
                Ok(()) => internal("the monitor did not answer while it started the container, and was killed"),
                Err(error) => internal(format_args!(
                    "the monitor does not answer while it starts the container, and cannot be killed: {error}"
                )),
            },
            _ => internal(format_args!("cannot talk to the monitor: {error}")),
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

/// Kills a monitor that hangs, and waits until it is gone; fine if there is none. Its container's processes are the
/// caller's to end.
///
/// # Errors
/// The lock cannot be read, or the process does not die.
pub fn kill(run_directory: &Path) -> io::Result<()> {
    let Some(pid) = lock::holder(run_directory)? else { return Ok(()) };
    let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        opened => opened?,
    };
    // The number could have been given to another process since: who has the lock now, and had it before, is meant.
    if lock::holder(run_directory)? != Some(pid) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&DEATH_PATIENCE))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
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

fn unexpected(reply: &StartReply) -> Failure {
    internal(format_args!("the monitor gave an unexpected answer: {reply:?}"))
}
