//! Who brings a further process into a running container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::finish::{confine, finish};
use super::limits::{raise_limits, set_limits};
use super::prepare::{Prepared, become_user};
use super::sight::Confinement;
use super::threshold::become_root_inside;
use super::{
    Surroundings, adjust_oom_score, await_introduction, begin, bring_in, control_terminal, gone_or, take_terminal,
};
use crate::cgroup::Cgroup;
use crate::create::Stdio;
use crate::error::{Context, RuntimeError};
use crate::exec::not_running;
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
    /// The same, by number.
    pub(crate) pid: i32,
    /// CLONE_NEWUSER and CLONE_NEWTIME, if it has these.
    pub(crate) rare_namespaces: libc::c_int,
    pub(crate) confinement: &'a Confinement,
    pub(crate) surroundings: Surroundings,
}

impl Usher<'_> {
    /// Becomes the usher, and its sibling a process of the container. Never returns.
    ///
    /// The usher stays in our own pid namespace: as long as a process still has something of the host's, be it a
    /// descriptor, its root or its rights, nobody in the container may see it, let alone trace it. What is cloned last
    /// has none of them from its first instruction on (`sight`).
    pub(crate) fn run(self) -> ! {
        let Self { plan, cgroup, container, pid, rare_namespaces, confinement, mut surroundings } = self;
        let prepared = (|| {
            begin(&surroundings, &[container.as_raw_fd()])?;
            failpoint_of_child("usher.begun");
            confinement.check(plan, || {
                let namespace = rustix::fs::stat(format!("/proc/{pid}/ns/pid")).map_err(|_| not_running())?;
                Ok((namespace.st_dev, namespace.st_ino))
            })?;
            cgroup.enter_version_1()?;
            failpoint_of_child("usher.grouped");
            adjust_oom_score(plan)?;
            labels::apply(plan)?;
            if rare_namespaces & libc::CLONE_NEWUSER != 0 {
                // Later nobody here has the right to.
                raise_limits(plan)?;
            }
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
            let master = open_terminal(&surroundings.stdio)?;
            confine_in_time(plan, &mut prepared, confinement, &surroundings)?;
            Ok((prepared, master))
        })();
        let (prepared, ready) = match prepared {
            Ok(prepared) => (Some(prepared), Ok(())),
            Err(error) => (None, Err(error)),
        };
        bring_in(&surroundings, ready, 0);
        let prepared = prepared.expect("only what is ready is brought in");
        let prepared = settle(plan, &surroundings).map(|()| prepared);
        finish(plan, &mut surroundings, prepared, |_| Ok(()))
    }
}

/// By the usher, the last that it does: the filter, or what is in its place until it comes.
pub(super) fn confine_in_time(
    plan: &ProcessPlan,
    prepared: &mut Prepared,
    confinement: &Confinement,
    surroundings: &Surroundings,
) -> Result<(), RuntimeError> {
    surroundings.mark_descriptors()?;
    prepared.is_brought_in = true;
    if let Confinement::Early = confinement {
        prepared.confined = true;
        return confine(plan, prepared, Some(surroundings.socket.as_fd()));
    }
    match confinement.stand_in(plan) {
        Some(filter) => sys::install_filter(&filter.program, filter.flags)
            .map(drop)
            .context(|| "install a seccomp filter".to_owned()),
        None => Ok(()),
    }
}

/// By who was brought in: what nobody else can do for it.
pub(super) fn settle(plan: &ProcessPlan, surroundings: &Surroundings) -> Result<(), RuntimeError> {
    await_introduction(surroundings)?;
    control_terminal(&surroundings.stdio)?;
    set_limits(plan)
}

/// One of the container's. Its user owns it.
fn open_terminal(stdio: &Stdio) -> Result<Option<OwnedFd>, RuntimeError> {
    let Stdio::Terminal { size } = stdio else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let pts = rustix::fs::openat(CWD, "/dev/pts", flags, Mode::empty()).context(|| "open /dev/pts".to_owned())?;
    let master = crate::mounts::open_multiplexer(&pts)?;
    take_terminal(&terminal::open_pair(&master, *size)?)?;
    Ok(Some(master))
}
