//! A container's first process: namespaces, root, terminal, masks.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::finish::finish;
use super::limits::{raise_limits, set_limits};
use super::prepare::{Prepared, become_user};
use super::sight::{self, Confinement};
use super::threshold;
use super::usher::{confine_in_time, settle};
use super::{
    Surroundings, adjust_oom_score, await_introduction, begin, bring_in, control_terminal, exit, gone_or, take_terminal,
};
use crate::about::About;
use crate::cgroup::Cgroup;
use crate::create::{Root, Stdio};
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint_of_child;
use crate::hooks::{self, Place, Stage};
use crate::message::{self, Message};
use crate::mounts::{Brought, RootTree};
use crate::plan::{Plan, PlannedMount};
use crate::seccomp::Call;
use crate::{labels, namespace, sys, terminal};

/// The container's first process.
pub(crate) struct FirstProcess<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) root: &'a Root,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) network_namespace: Option<BorrowedFd<'a>>,
    /// Into which the root is brought when it stands.
    pub(crate) mount_namespace: Option<BorrowedFd<'a>>,
    /// Where others are already: then this process is only the usher of the container's.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    /// What hooks are told, if there are any.
    pub(crate) about: Option<&'a About>,
    /// Mounts that the parent has made.
    pub(crate) brought: Brought,
    pub(crate) surroundings: Surroundings,
}

impl FirstProcess<'_> {
    /// By number.
    pub(super) fn namespaces(&self) -> Vec<RawFd> {
        let namespaces = [self.network_namespace, self.mount_namespace, self.pid_namespace];
        namespaces.iter().flatten().map(AsRawFd::as_raw_fd).collect()
    }

    /// Becomes the container. Never returns.
    pub(crate) fn run(self) -> ! {
        if self.plan.needs_threshold() {
            threshold::run(self);
        }
        let kept: Vec<RawFd> = self.namespaces().into_iter().chain(self.brought.descriptors()).collect();
        let Self { plan, root, cgroup, network_namespace, mount_namespace, pid_namespace, about, .. } = self;
        let Self { mut brought, mut surroundings, .. } = self;
        let confinement = Confinement::of(&plan.process, &surroundings.stdio, besides(&surroundings));
        let furnished = (|| {
            begin(&surroundings, &kept)?;
            failpoint_of_child("child.begun");
            adjust_oom_score(&plan.process)?;
            if let Some(namespace) = pid_namespace {
                confinement.check(&plan.process, || namespace::identity(namespace))?;
            }
            join_namespaces(plan, network_namespace)?;
            name_host(plan)?;
            let mut tree = RootTree::mount(root, plan, &mut brought)?;
            failpoint_of_child("child.rooted");
            let is_shown = match pid_namespace {
                Some(namespace) if plan.mounts.iter().any(PlannedMount::is_on_procfs) => tree.show(namespace)?,
                _ => true,
            };
            // The host's procfs is still seen.
            if let (false, Some(namespace)) = (is_shown, pid_namespace)
                && let Some(refusal) = sight::refusal_of_rights(namespace)?
            {
                return Err(refusal);
            }
            tree.furnish(plan, cgroup, &mut brought, || join_cgroups(plan, cgroup, &surroundings.socket))?;
            tree.take_null_streams()?;
            failpoint_of_child("child.furnished");
            run_hooks_before_pivot(plan, about, &tree, &surroundings.socket)?;
            Ok((tree, is_shown))
        })();
        let prepared = match (pid_namespace, furnished) {
            (None, furnished) => furnished.and_then(|(tree, _)| {
                drop(brought);
                let master = move_in(tree, plan, &surroundings.stdio, mount_namespace)?;
                control_terminal(&surroundings.stdio)?;
                Ok((become_user(&plan.process, set_limits, true)?, master))
            }),
            (Some(namespace), Ok((tree, true))) => {
                drop(brought);
                let ready = (|| {
                    let master = move_in(tree, plan, &surroundings.stdio, mount_namespace)?;
                    join_pid_namespace(namespace)?;
                    let kept: Vec<RawFd> = master.iter().map(AsRawFd::as_raw_fd).collect();
                    surroundings.close_all_else(&kept).context(|| "close descriptors".to_owned())?;
                    let mut prepared = become_user(&plan.process, raise_limits, true)?;
                    confine_in_time(&plan.process, &mut prepared, &confinement, &surroundings)?;
                    Ok((prepared, master))
                })();
                let (prepared, ready) = match ready {
                    Ok(prepared) => (Some(prepared), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                bring_in(&surroundings, ready, 0);
                let prepared = prepared.expect("only what is ready is brought in");
                settle(&plan.process, &surroundings).map(|()| prepared)
            }
            (Some(namespace), furnished) => {
                let ready = furnished.and_then(|(tree, _)| {
                    if plan.furnish_dev && matches!(surroundings.stdio, Stdio::Terminal { .. }) {
                        tree.make_console()?;
                    }
                    tree.close_off_beside_procfs(plan)?;
                    labels::apply(&plan.process)?;
                    tree.enter(plan)?;
                    drop(tree);
                    join_pid_namespace(namespace)?;
                    // What is left of these goes below /proc, in the container's sight anyway, or is joined.
                    let kept = mount_namespace.iter().map(AsRawFd::as_raw_fd).chain(brought.descriptors());
                    surroundings.close_all_else(&kept.collect::<Vec<_>>()).context(|| "close descriptors".to_owned())
                });
                bring_in(&surroundings, ready, 0);
                in_joined_pid_namespace(plan, cgroup, brought, mount_namespace, &surroundings)
            }
        };
        finish(&plan.process, &mut surroundings, prepared, |environment| run_start_hooks(plan, about, environment))
    }
}

fn join_pid_namespace(namespace: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    sys::setns(namespace, libc::CLONE_NEWPID).map_err(|errno| gone_or(errno, "join the pid namespace"))
}

/// What a first process does, brought in or not, and others do not.
fn besides(surroundings: &Surroundings) -> &'static [Call] {
    const WAITS_ELSEWHERE: [Call; 2] = [Call::any("accept4"), Call::any("execveat")];
    match (&surroundings.listener, &surroundings.init) {
        (Some(_), Some(_)) => &WAITS_ELSEWHERE,
        (Some(_), None) => &WAITS_ELSEWHERE[..1],
        (None, Some(_)) => &WAITS_ELSEWHERE[1..],
        (None, None) => &[],
    }
}

/// From a furnished root, with the host's still beside it, to the container's alone.
pub(super) fn move_in(
    tree: RootTree,
    plan: &Plan,
    stdio: &Stdio,
    mount_namespace: Option<BorrowedFd<'_>>,
) -> Result<Option<OwnedFd>, RuntimeError> {
    if let Some(mounts) = mount_namespace {
        labels::apply(&plan.process)?;
        return complete_in(mounts, tree, plan, stdio);
    }
    let master = complete(&tree, plan, stdio)?;
    labels::apply(&plan.process)?;
    tree.enter(plan)?;
    tree.propagate(plan)?;
    Ok(master)
}

/// What is left to do in a furnished root that goes into a mount namespace which is joined: those who are there see nothing
/// of it before it is masked.
fn complete_in(
    mounts: BorrowedFd<'_>,
    tree: RootTree,
    plan: &Plan,
    stdio: &Stdio,
) -> Result<Option<OwnedFd>, RuntimeError> {
    if plan.furnish_dev && matches!(stdio, Stdio::Terminal { .. }) {
        tree.make_console()?;
    }
    close(&tree, plan)?;
    enter_joined(mounts, tree, plan, stdio)
}

fn enter_joined(
    mounts: BorrowedFd<'_>,
    tree: RootTree,
    plan: &Plan,
    stdio: &Stdio,
) -> Result<Option<OwnedFd>, RuntimeError> {
    let tree = tree.enter_joined(mounts)?;
    // One of the mounts that stay, or its name would lead nowhere (ttyname(3)).
    let master = make_terminal(&tree, plan, stdio)?;
    tree.propagate(plan)?;
    Ok(master)
}

/// What is left to do in a furnished root: the terminal, the working directory, the masks.
fn complete(tree: &RootTree, plan: &Plan, stdio: &Stdio) -> Result<Option<OwnedFd>, RuntimeError> {
    let master = make_terminal(tree, plan, stdio)?;
    close(tree, plan)?;
    Ok(master)
}

fn make_terminal(tree: &RootTree, plan: &Plan, stdio: &Stdio) -> Result<Option<OwnedFd>, RuntimeError> {
    let Stdio::Terminal { size } = stdio else { return Ok(None) };
    let master = tree.open_terminals()?;
    let slave = terminal::open_pair(&master, *size)?;
    if plan.furnish_dev {
        tree.bind_console(&slave)?;
    }
    take_terminal(&slave)?;
    Ok(Some(master))
}

fn close(tree: &RootTree, plan: &Plan) -> Result<(), RuntimeError> {
    tree.make_working_directory(&plan.process.working_directory)?;
    tree.close_off(plan)
}

/// The process that an usher has brought in, in the root that the usher has entered, where only who is inside has a procfs
/// that shows it: it comes with all rights, and so only where nobody takes them.
fn in_joined_pid_namespace(
    plan: &Plan,
    cgroup: &Cgroup,
    mut brought: Brought,
    mount_namespace: Option<BorrowedFd<'_>>,
    surroundings: &Surroundings,
) -> Result<(Prepared, Option<OwnedFd>), RuntimeError> {
    await_introduction(surroundings)?;
    let tree = RootTree::of_this_process()?;
    tree.mount_procfs(plan, cgroup, &mut brought)?;
    drop(brought);
    let close = |tree: &RootTree| {
        tree.make_working_directory(&plan.process.working_directory)?;
        tree.close_off_procfs(plan)
    };
    let master = match mount_namespace {
        Some(mounts) => {
            close(&tree)?;
            enter_joined(mounts, tree, plan, &surroundings.stdio)?
        }
        None => {
            let master = make_terminal(&tree, plan, &surroundings.stdio)?;
            close(&tree)?;
            tree.propagate(plan)?;
            master
        }
    };
    control_terminal(&surroundings.stdio)?;
    Ok((become_user(&plan.process, set_limits, true)?, master))
}

/// The parent's hooks first, then those of the container's own namespaces. They begin in its root.
pub(super) fn run_hooks_before_pivot(
    plan: &Plan,
    about: Option<&About>,
    tree: &RootTree,
    socket: &OwnedFd,
) -> Result<(), RuntimeError> {
    let Some(about) = about.filter(|_| plan.hooks.before_pivot()) else { return Ok(()) };
    message::send(socket.as_fd(), &Message::Furnished, None)
        .context(|| "tell that the root is furnished".to_owned())?;
    match message::receive(socket)? {
        Some((Message::Hooked, _)) => {}
        // The parent has gone, or one of its hooks has failed.
        _ => exit(),
    }
    let root = tree.open(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY).context(|| "open the root".to_owned())?;
    let place = Place { directory: Some(root.as_fd()), environment: None };
    hooks::run(Stage::CreateContainer, &plan.hooks.create_container, about, own_pid(), place)
}

/// In the container, confined as its program will be.
pub(super) fn run_start_hooks(plan: &Plan, about: Option<&About>, environment: &[CString]) -> Result<(), RuntimeError> {
    let Some(about) = about else { return Ok(()) };
    let place = Place { directory: None, environment: Some(environment) };
    hooks::run(Stage::StartContainer, &plan.hooks.start_container, about, own_pid(), place)
}

/// As the container sees it.
fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

pub(super) fn join_namespaces(plan: &Plan, network: Option<BorrowedFd<'_>>) -> Result<(), RuntimeError> {
    if let Some(network) = network {
        sys::setns(network, libc::CLONE_NEWNET).context(|| "join the network namespace".to_owned())?;
    }
    for (path, kind) in plan.join.iter().filter(|(_, kind)| *kind != libc::CLONE_NEWPID) {
        let context = || format!("join namespace {}", path.display());
        let namespace = namespace::open(path, *kind)?;
        let changes_network = plan.sysctls.iter().any(|(name, _)| name.starts_with("net/"));
        if *kind == libc::CLONE_NEWNET && changes_network && is_own_network(&namespace).context(context)? {
            return Err(RuntimeError::Invalid("sysctls of net are not allowed in the host's network".to_owned()));
        }
        sys::setns(namespace, *kind).context(context)?;
    }
    Ok(())
}

pub(crate) fn is_own_network(namespace: impl AsFd) -> Result<bool, Errno> {
    namespace::is_that_of(namespace, "/proc/self/ns/net")
}

/// Once the parent has made them; the cgroup namespace begins where the process then is (cgroup_namespaces(7)).
fn join_cgroups(plan: &Plan, cgroup: &Cgroup, socket: &OwnedFd) -> Result<(), RuntimeError> {
    match message::receive(socket)? {
        Some((Message::Grouped, _)) => cgroup.enter_version_1()?,
        // The parent could not, and will say so itself.
        _ => exit(),
    }
    unshare_cgroups(plan)
}

pub(super) fn unshare_cgroups(plan: &Plan) -> Result<(), RuntimeError> {
    if plan.new_cgroup_namespace {
        sys::unshare(libc::CLONE_NEWCGROUP).context(|| "unshare the cgroup namespace".to_owned())?;
    }
    failpoint_of_child("child.grouped");
    Ok(())
}

pub(super) fn name_host(plan: &Plan) -> Result<(), RuntimeError> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).context(|| format!("set hostname {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).context(|| format!("set domainname {name:?}"))?;
    }
    Ok(())
}
