//! What a container leaves is taken away, and last the record that says what there is: what resists can be asked for again.

use rustix::event::{PollFd, PollFlags, Timespec};

use super::process::send;
use super::resctrl;
use super::state::{Directory, Record};
use super::told::Told;
use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint;

/// How long a process may take to die: one that writes a large core or waits for a disk is not gone at once.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Ends whoever is left of a container and removes what is left. Goes on past a failure and reports all.
pub(super) fn remove(
    directory: &Directory,
    record: &Record,
    told: Option<&Told>,
    warn: &dyn Fn(&str),
) -> Result<(), RuntimeError> {
    let steps = [
        remove_cgroup(record),
        // It may have left its cgroup.
        end_process(record),
        resctrl::remove(record.resctrl_group.as_ref()),
    ];
    report(&record.id, steps.into_iter().filter_map(Result::err).collect())?;
    failpoint("command.delete.cgroup");
    directory.remove()?;
    failpoint("command.delete.directory");
    if let Some(told) = told {
        told.run_poststop(warn);
    }
    Ok(())
}

fn remove_cgroup(record: &Record) -> Result<(), RuntimeError> {
    let Some(cgroup) = record.cgroup()? else { return Cgroup::sweep(&record.cgroup, record.cgroup_identity) };
    if cgroup.remove_unused()? {
        return Ok(());
    }
    let killed = cgroup.kill();
    // A created container's process is not yet the user's: it goes with the container.
    let sent = record.process().map_or(Ok(()), |pidfd| send(&pidfd, libc::SIGKILL));
    failpoint("command.delete.killed");
    // Once it is gone all is well, whatever came before.
    cgroup.delete().map_err(|error| killed.and(sent).err().unwrap_or(error))
}

fn end_process(record: &Record) -> Result<(), RuntimeError> {
    let Some(pidfd) = record.process() else { return Ok(()) };
    send(&pidfd, libc::SIGKILL)?;
    let context = || format!("wait for the end of process {}", record.pid);
    match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&PATIENCE)).context(context)? {
        0 => Err(RuntimeError::Conflict(format!("process {} has been killed and does not end", record.pid))),
        _ => Ok(()),
    }
}

fn report(id: &str, mut failures: Vec<RuntimeError>) -> Result<(), RuntimeError> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => {
            let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
            Err(RuntimeError::Conflict(format!("container {id} cannot be removed: {}", all.join("; "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_told() {
        let told = |failures: &[&str]| {
            let failures = failures.iter().map(|text| RuntimeError::NotFound((*text).to_owned())).collect();
            report("x", failures).map_err(|error| error.to_string())
        };
        assert_eq!(told(&[]), Ok(()));
        assert_eq!(told(&["a"]), Err("a".to_owned()));
        assert_eq!(told(&["a", "b"]), Err("container x cannot be removed: a; b".to_owned()));
    }
}
