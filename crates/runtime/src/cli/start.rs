//! `start`: the word to a container that waits for it.
//!
//! The record says that it was started before the word is said, and is taken back if the word cannot be said. So nobody who
//! runs is ever taken for one who waits, whom `delete` may end without `--force`. Who was killed between the two has left
//! one that waits and is taken for running: its socket is still there, and the next `start` is answered.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::notify::{Listening, Notify};
use super::process::send;
use super::start_socket;
use super::state::{Directory, Record, Status};
use super::told::Told;
use crate::error::RuntimeError;
use crate::failpoint::failpoint;
use crate::process::{hear_out_heard, say_start};

/// A `start` that comes a moment before its `create` has ended waits that moment.
const PATIENCE_ROUNDS: u32 = 50;
const PATIENCE_ROUND: Duration = Duration::from_millis(10);

pub(super) fn start(directory: &Directory, warn: &dyn Fn(&str)) -> Result<(), RuntimeError> {
    // To say that there is none.
    directory.read()?;
    // Until we end, however we do.
    let _only_start = directory.lock()?;
    let mut record = startable(directory)?;
    let told = Told::of(directory, &record)?;
    // First: one that has nobody to answer for it waits on.
    let agent = told.as_ref().map_or(Ok(None), |told| told.agent(record.pid))?;
    let is_answered = agent.is_some();
    let listening = match Notify::of_environment(directory)? {
        Some(notify) => notify.listen(&directory.read_spec()?)?,
        None => None,
    };
    record.started = true;
    directory.write(&record)?;
    failpoint("command.start.record");
    let connected = start_socket::connect(directory).inspect_err(|_| {
        record.started = false;
        // If not even that can be written, the next `start` finds it waiting all the same.
        let _ = directory.write(&record);
    });
    let Some(socket) = connected? else { return Err(not_waiting(&record)) };
    say_start(&socket)?;
    failpoint("command.start.said");
    let started = hear_out_heard(&socket, agent);
    // Who answers for it may not have got what it answers by.
    started.inspect_err(|_| {
        if is_answered {
            stop(&record)
        }
    })?;
    failpoint("command.start.told");
    if let Some(told) = told {
        told.run_poststart(record.pid).inspect_err(|_| stop(&record))?;
    }
    // It has served.
    let _ = fs::remove_file(directory.socket());
    failpoint("command.start.served");
    if let Some(process) = record.process() {
        pass_on(listening, process.as_fd(), Some(record.pid), warn);
    }
    Ok(())
}

/// The record of a container that may be waiting for its start.
fn startable(directory: &Directory) -> Result<Record, RuntimeError> {
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
        Status::Created => Ok(record),
        // Who was to start it may have been killed before the word.
        Status::Running if directory.socket().exists() => Ok(record),
        Status::Creating => Err(RuntimeError::Conflict("cannot start a container that is being created".to_owned())),
        Status::Running | Status::Paused | Status::Stopped => Err(not_waiting(&record)),
    }
}

fn not_waiting(record: &Record) -> RuntimeError {
    RuntimeError::Conflict(match record.process() {
        Some(_) => "cannot start an already running container".to_owned(),
        None => "cannot start a container that has stopped".to_owned(),
    })
}

/// A container whose hook has failed is stopped (runtime.md, "Lifecycle", step 9); to delete it is left to `delete`,
/// which then runs the hooks that take away what others have made.
fn stop(record: &Record) {
    // What comes of it is seen by `state`.
    if let Ok(Some(cgroup)) = record.cgroup() {
        let _ = cgroup.kill();
    }
    if let Some(pidfd) = record.process() {
        let _ = send(&pidfd, libc::SIGKILL);
    }
}

/// Waits until the container is ready. That nobody hears of it is no reason to stop it.
pub(super) fn pass_on(
    listening: Option<Listening>,
    process: BorrowedFd<'_>,
    leaving: Option<i32>,
    warn: &dyn Fn(&str),
) {
    if let Some(Err(error)) = listening.map(|listening| listening.wait(process, leaving)) {
        warn(&error.to_string());
    }
}
