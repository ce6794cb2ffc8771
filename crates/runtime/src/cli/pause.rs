//! `pause`, `resume`, and what all commands on a living container's cgroup begin with.

use super::state::{Directory, Record, Status};
use crate::cgroup::Cgroup;
use crate::error::RuntimeError;

pub(super) fn pause(directory: &Directory) -> Result<(), RuntimeError> {
    let (record, cgroup) = living(directory)?;
    if record.status() == Status::Paused {
        return Err(RuntimeError::Conflict(format!("container {} is paused already", record.id)));
    }
    cgroup.pause()
}

pub(super) fn resume(directory: &Directory) -> Result<(), RuntimeError> {
    let (record, cgroup) = living(directory)?;
    if record.status() != Status::Paused {
        return Err(RuntimeError::Conflict(format!("container not paused: {}", record.id)));
    }
    cgroup.resume()
}

/// A container that has been made and has not ended, and where its processes are.
pub(super) fn living(directory: &Directory) -> Result<(Record, Cgroup), RuntimeError> {
    let record = directory.read()?;
    let lives = matches!(record.status(), Status::Created | Status::Running | Status::Paused);
    match record.cgroup()?.filter(|_| lives) {
        Some(cgroup) => Ok((record, cgroup)),
        None => Err(RuntimeError::Conflict(format!("container not running: {}", record.id))),
    }
}
