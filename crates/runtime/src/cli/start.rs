//! `start`: the word to a container that another command has created.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::notify::{Notify, pass_on};
use super::process::send;
use super::state::{Directory, Record, Status};
use super::told::Told;
use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint;
use crate::process::start_over;

/// A `start` that comes a moment before its `create` has ended waits that moment.
const PATIENCE_ROUNDS: u32 = 50;
const PATIENCE_ROUND: Duration = Duration::from_millis(10);

pub(super) fn start(directory: &Directory, warn: &dyn Fn(&str)) -> Result<(), RuntimeError> {
    let mut record = directory.read()?;
    for _ in 0..PATIENCE_ROUNDS {
        if record.phase() != Status::Creating {
            break;
        }
        // Its `create` is still at work, or was killed.
        std::thread::sleep(PATIENCE_ROUND);
        record = directory.read()?;
    }
    match record.phase() {
        Status::Created => {}
        Status::Creating => {
            return Err(RuntimeError::Conflict("cannot start a container that is being created".to_owned()));
        }
        Status::Running | Status::Paused => {
            return Err(RuntimeError::Conflict("cannot start an already running container".to_owned()));
        }
        Status::Stopped => return Err(RuntimeError::Conflict("cannot start a container that has stopped".to_owned())),
    }
    let told = Told::of(directory, &record)?;
    // First: one that has nobody to answer for it waits on.
    let agent = told.as_ref().map_or(Ok(None), |told| told.agent(record.pid))?;
    let is_answered = agent.is_some();
    let listening = match Notify::of_environment(directory)? {
        Some(notify) => notify.listen(&directory.read_spec()?)?,
        None => None,
    };
    let (_held, name) = short_name(directory)?;
    let socket = packet_socket()?;
    rustix::net::SocketAddrUnix::new(&name).and_then(|address| rustix::net::connect(&socket, &address)).map_err(
        |errno| match errno {
            Errno::CONNREFUSED | Errno::NOENT => {
                RuntimeError::Conflict("cannot start a container that has been started".to_owned())
            }
            errno => RuntimeError::system(format!("connect to {}", directory.socket().display()), errno),
        },
    )?;
    let started = start_over(&socket, agent);
    // Who answers for it may not have got what it answers by.
    started.inspect_err(|_| {
        if is_answered {
            stop(&record)
        }
    })?;
    failpoint("command.start.told");
    record.started = true;
    directory.write(&record)?;
    failpoint("command.start.record");
    if let Some(told) = told {
        told.run_poststart(record.pid).inspect_err(|_| stop(&record))?;
    }
    // It has served.
    let _ = fs::remove_file(directory.socket());
    if let Some(process) = record.process() {
        pass_on(listening, process.as_fd(), Some(record.pid), warn);
    }
    Ok(())
}

/// A container whose hook has failed is stopped (runtime.md, "Lifecycle", step 9); to delete it is left to `delete`,
/// which then runs the hooks that take away what others have made.
fn stop(record: &Record) {
    // What comes of it is seen by `state`.
    if let Ok(Some(cgroup)) = Cgroup::open(&record.cgroup) {
        let _ = cgroup.kill();
    }
    if let Some(pidfd) = record.process() {
        let _ = send(&pidfd, libc::SIGKILL);
    }
}

/// The name is reached through a descriptor of its directory: an address has room for 107 bytes.
fn short_name(directory: &Directory) -> Result<(File, PathBuf), RuntimeError> {
    let held = File::open(&directory.path).context(|| format!("open {}", directory.path.display()))?;
    let name = directory.socket().file_name().map(PathBuf::from).unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())).join(name);
    Ok((held, short))
}

fn packet_socket() -> Result<OwnedFd, RuntimeError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .and_then(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 3));
    socket.context(|| "make a socket".to_owned())
}

/// Where the container's first process waits for the word.
pub(super) fn listen(directory: &Directory) -> Result<OwnedFd, RuntimeError> {
    let (_held, name) = short_name(directory)?;
    let socket = packet_socket()?;
    rustix::net::SocketAddrUnix::new(&name)
        .and_then(|address| rustix::net::bind(&socket, &address))
        .and_then(|()| rustix::net::listen(&socket, 1))
        .context(|| format!("listen on {}", directory.socket().display()))?;
    Ok(socket)
}
