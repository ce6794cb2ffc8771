//! When and where a process runs, done: by who makes it and has all rights, or by itself where only that can be.

use rustix::io::Errno;

use crate::error::{Context, RuntimeError};
use crate::plan::{Scheduling, Set};
use crate::sys;

/// What the runtime sets for a process of its own, once that is in its cgroup.
pub(crate) fn apply(wanted: &Scheduling, pid: i32) -> Result<(), RuntimeError> {
    if let Some(attributes) = &wanted.scheduler {
        sys::sched_setattr(pid, attributes).context(|| "set the scheduler".to_owned())?;
    }
    if let Some(priority) = wanted.io_priority {
        sys::set_io_priority(pid, priority).context(|| "set the io priority".to_owned())?;
    }
    Ok(())
}

/// What a process can set for itself alone. What it clones has it, too.
pub(crate) fn apply_to_this_process(wanted: &Scheduling) -> Result<(), RuntimeError> {
    if let Some(domain) = wanted.personality {
        sys::personality(domain).context(|| format!("set the personality {domain:#x}"))?;
    }
    if let Some(policy) = &wanted.memory_policy {
        sys::set_memory_policy(policy.mode, &policy.nodes.0).context(|| "set the memory policy".to_owned())?;
    }
    Ok(())
}

/// Our own processors, for as long as this lives: what is cloned meanwhile begins there.
#[derive(Debug)]
pub(crate) struct Visit {
    ours: Vec<u64>,
}

impl Visit {
    pub(crate) fn to(processors: &Set) -> Result<Self, RuntimeError> {
        let context = || "set the initial CPU affinity".to_owned();
        let ours = sys::affinity().context(context)?;
        set_affinity(0, processors).context(context)?;
        Ok(Self { ours })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Where we were we may be, unless those processors have gone meanwhile: then any will do.
        let _ = sys::set_affinity(0, &self.ours);
    }
}

/// sched_setaffinity(2) of a process, or of ours (0).
pub(crate) fn set_affinity(pid: i32, processors: &Set) -> Result<(), Errno> {
    sys::set_affinity(pid, &processors.0)
}
