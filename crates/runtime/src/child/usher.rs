//! Who brings a further process into a running container.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::finish::{confine, finish};
use super::limits::{raise_limits, set_limits};
use super::prepare::become_user;
use super::threshold::become_root_inside;
use super::{Surroundings, adjust_oom_score, await_introduction, begin, bring_in, gone_or, take_terminal};
use crate::cgroup::Cgroup;
use crate::create::Stdio;
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint_of_child;
use crate::mounts::RootTree;
use crate::plan::ProcessPlan;
use crate::{labels, sys, terminal};

/// Who brings a further process in.
pub(crate) struct Usher<'a> {
    pub(crate) plan: &'a ProcessPlan,
    pub(crate) cgroup: &'a Cgroup,
    /// Process 1, whose namespaces are joined.
    pub(crate) container: BorrowedFd<'a>,
    /// CLONE_NEWUSER and CLONE_NEWTIME, if it has these.
    pub(crate) rare_namespaces: libc::c_int,
    pub(crate) surroundings: Surroundings,
}

impl Usher<'_> {
    /// Becomes the usher, and its sibling a process of the container. Never returns.
    ///
    /// The usher stays in our own pid namespace: as long as a process still has something of the host's, be it a
    /// descriptor, its root or its rights, nobody in the container may see it, let alone trace it. What is cloned last
    /// has none of them from its first instruction on.
    pub(crate) fn run(self) -> ! {
        let Self { plan, cgroup, container, rare_namespaces, mut surroundings } = self;
        let prepared = (|| {
            begin(&surroundings, &[container.as_raw_fd()])?;
            failpoint_of_child("usher.begun");
            cgroup.enter_version_1()?;
            failpoint_of_child("usher.grouped");
            adjust_oom_score(plan)?;
            labels::apply(plan)?;
            let namespaces = rare_namespaces
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWCGROUP
                | libc::CLONE_NEWPID;
            sys::setns(container, namespaces).map_err(|errno| gone_or(errno, "join the container's namespaces"))?;
            if rare_namespaces & libc::CLONE_NEWUSER != 0 {
                become_root_inside()?;
            }
            surroundings.close_all_else(&[]).context(|| "close the container's descriptor".to_owned())?;
            // Also in place of a terminal, which is not there yet.
            RootTree::of_this_process()?.take_null_streams()?;
            // What stands in a terminal's place is not the user's.
            let streams = matches!(surroundings.stdio, Stdio::Streams(_));
            let mut prepared = become_user(plan, raise_limits, streams)?;
            if may_be_confined_early(plan) {
                confine(plan, &prepared, None)?;
                prepared.confined = true;
            }
            Ok(prepared)
        })();
        let (prepared, ready) = match prepared {
            Ok(prepared) => (Some(prepared), Ok(())),
            Err(error) => (None, Err(error)),
        };
        bring_in(&surroundings, ready, 0);
        let prepared = prepared.expect("only what is ready is brought in");
        let prepared = further_process(plan, &surroundings).map(|master| (prepared, master));
        finish(plan, &mut surroundings, prepared, |_| Ok(()))
    }
}

/// Whether what a process brought in has yet to do may be done under its filter: then it never has a right, not even
/// for a moment, that is not the container's. Those in the container who may trace (CAP_SYS_PTRACE) would take it.
fn may_be_confined_early(plan: &ProcessPlan) -> bool {
    const CALLS: [&str; 19] = [
        "brk",
        "capset",
        "close",
        "close_range",
        "dup3",
        "execve",
        "exit_group",
        "fcntl",
        "fstatfs",
        "getpid",
        "mmap",
        "mremap",
        "munmap",
        "openat",
        "prctl",
        "prlimit64",
        "recvmsg",
        "sendmsg",
        "setsid",
    ];
    let requests = [libc::TIOCSPTLCK, libc::TIOCGPTPEER, libc::TIOCSWINSZ, libc::TIOCSCTTY];
    plan.filter.as_ref().is_none_or(|filter| {
        // The parent hears of one that asks only from who is brought in.
        filter.listener.is_none()
            && filter.permits(&CALLS.map(|name| (name, [0, 0])))
            && filter.permits(&requests.map(|request| ("ioctl", [0, request])))
            && filter.permits(&[("clone", [sys::SIBLING, 0])])
    })
}

/// A further process of a running container, brought in: the usher has done all but this.
fn further_process(plan: &ProcessPlan, surroundings: &Surroundings) -> Result<Option<OwnedFd>, RuntimeError> {
    await_introduction(surroundings)?;
    let master = match surroundings.stdio {
        Stdio::Terminal { size } => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let pts =
                rustix::fs::openat(CWD, "/dev/pts", flags, Mode::empty()).context(|| "open /dev/pts".to_owned())?;
            let master = crate::mounts::open_multiplexer(&pts)?;
            take_terminal(terminal::open_pair(&master, size)?)?;
            Some(master)
        }
        Stdio::Streams(_) => None,
    };
    set_limits(plan)?;
    Ok(master)
}
