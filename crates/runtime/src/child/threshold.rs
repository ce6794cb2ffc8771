//! The first process of a container that has a user or a time namespace: an usher goes before it.
//!
//! The usher, still a process of the host's, joins what is joined, makes or joins these two, has them mapped and set from
//! outside, and clones the first process into all other namespaces at once: so they belong to the user namespace, and
//! nobody is in the pid namespace before process 1.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::finish::finish;
use super::first::{
    FirstProcess, join_namespaces, move_in, name_host, run_hooks_before_pivot, run_start_hooks, unshare_cgroups,
};
use super::limits::{raise_limits, set_limits};
use super::prepare::{Prepared, become_user};
use super::sight;
use super::{Surroundings, adjust_oom_score, await_introduction, begin, bring_in, control_terminal, exit};
use crate::about::About;
use crate::cgroup::Cgroup;
use crate::create::Root;
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint_of_child;
use crate::message::{self, Message};
use crate::mounts::{Brought, RootTree};
use crate::plan::{Plan, UserNamespace};
use crate::{namespace, sys};

/// Never returns.
pub(super) fn run(first: FirstProcess<'_>) -> ! {
    let kept: Vec<RawFd> = first.namespaces().into_iter().chain(first.brought.descriptors()).collect();
    let FirstProcess { plan, root, cgroup, network_namespace, mount_namespace, pid_namespace, about, .. } = first;
    let FirstProcess { mut brought, mut surroundings, .. } = first;
    let ready = (|| {
        begin(&surroundings, &kept)?;
        failpoint_of_child("child.begun");
        adjust_oom_score(&plan.process)?;
        if let Some(refusal) = pid_namespace.map(sight::refusal_of_rights).transpose()?.flatten() {
            return Err(refusal);
        }
        await_word(&surroundings)?;
        cgroup.enter_version_1()?;
        // With the host's rights, which those of a user namespace are less than.
        raise_limits(&plan.process)?;
        join_namespaces(plan, network_namespace)?;
        if let Some(namespace) = pid_namespace {
            sys::setns(namespace, libc::CLONE_NEWPID).context(|| "join the pid namespace".to_owned())?;
        }
        cross(plan)?;
        message::send(surroundings.socket.as_fd(), &Message::Unshared, None)
            .context(|| "tell the parent".to_owned())?;
        if let Some(root) = await_word(&surroundings)? {
            brought.set_root(root);
        }
        if plan.user_namespace.is_some() {
            become_root_inside()?;
        }
        let kept = mount_namespace.iter().map(AsRawFd::as_raw_fd).chain(brought.descriptors());
        surroundings.close_all_else(&kept.collect::<Vec<RawFd>>()).context(|| "close descriptors".to_owned())
    })();
    bring_in(&surroundings, ready, plan.new_namespaces);
    let prepared = born(plan, root, cgroup, about, brought, mount_namespace, &surroundings);
    finish(&plan.process, &mut surroundings, prepared, |environment| run_start_hooks(plan, about, environment))
}

/// The container's first process, in all its namespaces.
fn born(
    plan: &Plan,
    root: &Root,
    cgroup: &Cgroup,
    about: Option<&About>,
    mut brought: Brought,
    mount_namespace: Option<BorrowedFd<'_>>,
    surroundings: &Surroundings,
) -> Result<(Prepared, Option<OwnedFd>), RuntimeError> {
    await_introduction(surroundings)?;
    name_host(plan)?;
    let tree = RootTree::mount(root, plan, &mut brought)?;
    failpoint_of_child("child.rooted");
    tree.furnish(plan, cgroup, &mut brought, || unshare_cgroups(plan))?;
    drop(brought);
    tree.take_null_streams()?;
    failpoint_of_child("child.furnished");
    run_hooks_before_pivot(plan, about, &tree, &surroundings.socket)?;
    let master = move_in(tree, plan, &surroundings.stdio, mount_namespace)?;
    control_terminal(&surroundings.stdio)?;
    Ok((become_user(&plan.process, set_limits, true)?, master))
}

/// Makes or joins the user namespace, and makes the time namespace, which then belongs to it.
fn cross(plan: &Plan) -> Result<(), RuntimeError> {
    match &plan.user_namespace {
        Some(UserNamespace::New(_)) => {
            sys::unshare(libc::CLONE_NEWUSER).context(|| "unshare the user namespace".to_owned())?;
        }
        Some(UserNamespace::Joined { path, .. }) => {
            let namespace = namespace::open(path, libc::CLONE_NEWUSER)?;
            sys::setns(namespace, libc::CLONE_NEWUSER).context(|| format!("join namespace {}", path.display()))?;
        }
        None => {}
    }
    if plan.time_offsets.is_some() {
        sys::unshare(libc::CLONE_NEWTIME).context(|| "unshare the time namespace".to_owned())?;
    }
    Ok(())
}

/// From root of the host, who is nobody here, to the container's.
pub(super) fn become_root_inside() -> Result<(), RuntimeError> {
    sys::set_ids(0, 0, &[]).context(|| "become root of the user namespace".to_owned())?;
    // Credentials that change make a process visible again (PR_SET_DUMPABLE of prctl(2)).
    sys::make_undumpable().context(|| "become undumpable".to_owned())
}

/// Waits for the parent's word to go on, and what comes with it.
fn await_word(surroundings: &Surroundings) -> Result<Option<OwnedFd>, RuntimeError> {
    match message::receive(&surroundings.socket)? {
        Some((Message::Grouped, descriptor)) => Ok(descriptor),
        // The parent could not, and will say so itself.
        _ => exit(),
    }
}
