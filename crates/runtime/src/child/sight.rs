//! What is seen of a process that comes into a pid namespace in which others are already.
//!
//! Who may trace there (CAP_SYS_PTRACE) takes whatever it has, from its first instruction on. So its usher, whom nobody
//! inside sees, does all that needs a right, gives the rights up, and loads the filter: what is then cloned has no right
//! that the container has not. A few filters cannot come so early, since they refuse what is left to do. With
//! no_new_privs a filter needs no right, and until it comes one is in its place that lets only those calls through
//! besides. Without, it takes CAP_SYS_ADMIN to load it inside: where anyone is who could take that, nobody comes in.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use crate::create::Stdio;
use crate::error::{Context, RuntimeError};
use crate::plan::ProcessPlan;
use crate::seccomp::{Call, Filter};
use crate::{capability, namespace, sys};

/// When the filter of a process that is brought in comes into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Confinement {
    /// With the usher.
    Early,
    /// Right before execve(2).
    Late {
        /// The call that the filter refuses.
        refused: &'static str,
        /// Besides the filter, this much is let through until then.
        calls: Vec<Call>,
    },
}

/// What the usher has still to do when the filter is loaded, and what it has cloned, until its program runs.
const CALLS: [Call; 16] = [
    Call::any("brk"),
    Call::any("capset"),
    Call::with("clone", 0, sys::SIBLING as u32),
    Call::any("close"),
    Call::any("execve"),
    Call::any("exit_group"),
    Call::any("fcntl"),
    Call::any("getpid"),
    Call::any("mmap"),
    Call::any("mremap"),
    Call::any("munmap"),
    Call::any("prctl"),
    Call::any("prlimit64"),
    Call::any("recvmsg"),
    Call::any("sendmsg"),
    Call::any("setsid"),
];

/// For the session, if it has a terminal.
const TAKE_TERMINAL: Call = Call::with("ioctl", 1, libc::TIOCSCTTY as u32);

impl Confinement {
    /// `besides`: what such a process does that others do not.
    pub(crate) fn of(plan: &ProcessPlan, stdio: &Stdio, besides: &[Call]) -> Self {
        let Some(filter) = &plan.filter else { return Self::Early };
        let terminal = matches!(stdio, Stdio::Terminal { .. }).then_some(TAKE_TERMINAL);
        let calls = || CALLS.into_iter().chain(terminal).chain(besides.iter().copied());
        match calls().find(|call| !filter.permits(call)) {
            None => Self::Early,
            Some(call) => Self::Late { refused: call.name, calls: calls().chain([Call::any("seccomp")]).collect() },
        }
    }

    /// Asked before anything is done. `namespace`: device and number of the pid namespace that it comes into.
    pub(super) fn check(
        &self,
        plan: &ProcessPlan,
        namespace: impl FnOnce() -> Result<(u64, u64), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let Self::Late { refused, .. } = self else { return Ok(()) };
        let asks = plan.filter.as_ref().is_some_and(|filter| filter.listener.is_some());
        // By the descriptor of a filter that asks, who takes it answers himself.
        if plan.no_new_privileges && !asks {
            return Ok(());
        }
        if !somebody_may_trace(namespace()?, 0)? {
            return Ok(());
        }
        let remedy = if asks { "" } else { ", or no_new_privs" };
        Err(RuntimeError::Invalid(format!(
            "the seccomp filter does not let {refused} through, without which it cannot be in force when a process comes \
             into this pid namespace, and someone in there may trace (CAP_SYS_PTRACE): that process's rights would be \
             theirs; it needs a filter that allows {refused}{remedy}"
        )))
    }

    /// What is in the filter's place until it comes: nothing, where that takes a right that is not there any more.
    pub(super) fn stand_in(&self, plan: &ProcessPlan) -> Option<Filter> {
        match self {
            Self::Late { calls, .. } if plan.no_new_privileges => plan.filter.as_ref().map(|f| f.besides(calls)),
            _ => None,
        }
    }
}

/// Why nobody may come into this pid namespace with all rights, if so: someone there could take them, and has not got them
/// already.
pub(super) fn refusal_of_rights(namespace: BorrowedFd<'_>) -> Result<Option<RuntimeError>, RuntimeError> {
    let ours = sys::capget_permitted().context(|| "read our capabilities".to_owned())?;
    Ok(somebody_may_trace(namespace::identity(namespace)?, ours)?.then(|| {
        RuntimeError::Invalid(
            "someone in the pid namespace that is joined may trace (CAP_SYS_PTRACE): the rights of the process that \
             sets the container up would be theirs. Since Linux 6.17 it can be set up from outside, without a user or \
             time namespace"
                .to_owned(),
        )
    }))
}

/// Whether anyone who could not do so anyway may trace who comes into a pid namespace. Who may have all of `harmless`
/// besides is not meant.
fn somebody_may_trace(namespace: (u64, u64), harmless: u64) -> Result<bool, RuntimeError> {
    // In our own this program is seen with all its rights, whatever it brings in.
    let own = fs::metadata("/proc/self/ns/pid").context(|| "look at our own pid namespace".to_owned())?;
    Ok((own.dev(), own.ino()) != namespace && has_tracer(namespace, harmless)?)
}

/// Whether any thread in a pid namespace has CAP_SYS_PTRACE, or may come to have it. By the procfs of ours, in which a
/// namespace has one device and one number.
fn has_tracer(namespace: (u64, u64), harmless: u64) -> Result<bool, RuntimeError> {
    let context = || "look at the processes of the pid namespace".to_owned();
    let trace = capability::bit("SYS_PTRACE").unwrap_or(0);
    for process in fs::read_dir("/proc").context(context)? {
        let process = process.context(context)?.path();
        // Who has gone meanwhile traces nobody. A thread shares its process's namespace.
        let is_there = fs::metadata(process.join("ns/pid")).is_ok_and(|file| (file.dev(), file.ino()) == namespace);
        if !is_there {
            continue;
        }
        for thread in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let rights = rights(&status);
            if rights & trace != 0 && (harmless == 0 || rights & harmless != harmless) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// All that a thread has in any set, by its status (proc_pid_status(5)).
fn rights(status: &str) -> u64 {
    let sets = ["CapInh:", "CapPrm:", "CapBnd:"];
    let set = |line: &str| {
        let text = sets.iter().find_map(|name| line.strip_prefix(name))?;
        // What cannot be read might be all.
        Some(u64::from_str_radix(text.trim(), 16).unwrap_or(u64::MAX))
    };
    status.lines().filter_map(set).fold(0, |all, one| all | one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_any_set() {
        let status = "Name:\tx CapPrm: 1\nCapInh:\t0000000000000001\nCapPrm:\t0000000000080000\nCapEff:\t0000000000000100\n\
            CapBnd:\t0000000000000004\n";
        assert_eq!(rights(status), 0x80005);
        assert_eq!(rights("CapBnd:\tx"), u64::MAX);
        assert_eq!(rights(""), 0);
    }

    #[test]
    fn this_process_is_found() {
        let namespace = fs::metadata("/proc/self/ns/pid").unwrap();
        let expected = rights(&fs::read_to_string("/proc/self/status").unwrap()) & 1 << 19 != 0;
        let namespace = (namespace.dev(), namespace.ino());
        assert!(!expected || has_tracer(namespace, 0).unwrap());
        assert!(!has_tracer((namespace.0, 1), 0).unwrap());
        assert!(!somebody_may_trace(namespace, 0).unwrap());
    }
}
