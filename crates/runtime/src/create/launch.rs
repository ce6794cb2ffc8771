//! The first process is cloned, and the parent does its part while that builds its root ([`crate::message`]).

use std::os::fd::{AsFd, OwnedFd};

use dozen_model::ErrorKind;
use rustix::fs::{Mode, OFlags};

use super::{CreateOptions, Stdio};
use crate::about::About;
use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint;
use crate::message::{self, Message};
use crate::mounts::Brought;
use crate::plan::Plan;
use crate::process::{Process, set_patience, socket_pair};
use crate::{child, delegation, device_filter, hooks, mounts, namespace, net_devices, scheduling, sys, threshold};

/// From a plan to a first process that waits, with the connection to it, and the master of its terminal.
pub(super) fn launch(
    options: &CreateOptions<'_>,
    plan: &Plan,
    cgroup: &Cgroup,
    surroundings: impl FnOnce(OwnedFd, Stdio) -> child::Surroundings,
    about: Option<&About>,
    is_hooked: &mut bool,
) -> Result<(Process, OwnedFd, Option<OwnedFd>), RuntimeError> {
    let directory = cgroup.unified_directory()?;
    if let Some(rules) = options.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()?.devices().as_ref())
        && let (false, Some(directory)) = (cgroup.has_devices_controller(), &directory)
        && !rules.is_empty()
    {
        sys::attach_device_program(directory, &device_filter::compile(rules)?)
            .context(|| "limit the container's devices".to_owned())?;
    }
    let (socket, childs_socket) = socket_pair()?;
    let stdio = options.stdio.copy()?;
    let joined = plan.join.iter().find(|(_, kind)| *kind == libc::CLONE_NEWPID);
    let pid_namespace = match joined {
        Some((path, kind)) => Some(namespace::open(path, *kind)?),
        None => None,
    };
    let mount_namespace = mounts::open_joined(plan)?;
    let mount_namespace = mount_namespace.as_ref().map(AsFd::as_fd);
    let brought = Brought::new(options.root, plan, mount_namespace)?;
    if plan.user_namespace.is_none()
        && let Some(user) = plan.numbered_user()
    {
        delegation::delegate(plan, cgroup, user)?;
    }
    let namespaces = if plan.needs_threshold() { 0 } else { plan.new_namespaces };
    let child = |brought| child::FirstProcess {
        brought,
        plan,
        root: options.root,
        cgroup,
        network_namespace: options.network_namespace,
        mount_namespace,
        pid_namespace: pid_namespace.as_ref().map(AsFd::as_fd),
        about,
        surroundings: surroundings(childs_socket, stdio),
    };
    // SAFETY: `create` asks its callers for a process with one thread.
    let cloned = unsafe { sys::clone_process(namespaces, directory.as_ref().map(AsFd::as_fd)) }
        .context(|| "clone the container's first process".to_owned())?;
    let mut process = match cloned {
        sys::Cloned::Child => child(brought).run(),
        sys::Cloned::Parent { pid, pidfd } => {
            // The child has its copies; ours go, so that its end is the end of the connection.
            drop(child);
            Process { pid, pidfd }
        }
    };
    failpoint("create.cloned");
    let needs_threshold = plan.needs_threshold();
    if plan.joins_pid_namespace() || needs_threshold {
        let grouped = group(options, cgroup, &socket)
            .and_then(|()| match needs_threshold {
                true => threshold::prepare(&process, &socket, options, plan, cgroup, &brought),
                false => move_devices(options, plan, &process)
                    .and_then(|()| hook_before_pivot(plan, about, &process, &socket, is_hooked)),
            })
            .inspect_err(|_| process.kill_usher(&socket));
        process = grouped.and_then(|()| process.sibling(&socket))?;
        if needs_threshold {
            move_devices(options, plan, &process).inspect_err(|_| process.kill())?;
        }
        // Hooks take the time that they take.
        let is_hookless = plan.hooks.start_container.is_empty() && !(needs_threshold && plan.hooks.before_pivot());
        if plan.joins_pid_namespace() && is_hookless {
            set_patience(&socket).inspect_err(|_| process.kill())?;
        }
        let _ = message::send(socket.as_fd(), &Message::Grouped, None);
        if needs_threshold {
            hook_before_pivot(plan, about, &process, &socket, is_hooked).inspect_err(|_| process.kill())?;
        }
    } else {
        group(options, cgroup, &socket)
            .and_then(|()| move_devices(options, plan, &process))
            .and_then(|()| hook_before_pivot(plan, about, &process, &socket, is_hooked))
            .inspect_err(|_| process.kill())?;
    }
    failpoint("create.limited");
    let terminal = process.wait_until_ready(&socket).map_err(|error| want_of_memory(cgroup).unwrap_or(error))?;
    failpoint("create.ready");
    scheduling::apply(&plan.process.scheduling, process.pid).inspect_err(|_| process.kill())?;
    Ok((process, socket, terminal))
}

/// The host's network devices that the container gets, to the network in which the process is.
fn move_devices(options: &CreateOptions<'_>, plan: &Plan, process: &Process) -> Result<(), RuntimeError> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let joined = plan.join.iter().find(|(_, kind)| *kind == libc::CLONE_NEWNET);
    let path = joined.map_or_else(|| format!("/proc/{}/ns/net", process.pid).into(), |(path, _)| path.clone());
    let opened = match options.network_namespace {
        Some(_) => None,
        None => Some(
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("open namespace {}", path.display()))?,
        ),
    };
    let network = options.network_namespace.or(opened.as_ref().map(AsFd::as_fd));
    let network = network.expect("one of the two is there");
    if child::is_own_network(network).context(|| "examine the network namespace".to_owned())? {
        return Err(RuntimeError::Invalid("linux.netDevices: the network namespace is the host's".to_owned()));
    }
    net_devices::move_to(&plan.net_devices, network)?;
    failpoint("create.devices_moved");
    Ok(())
}

/// The runtime's own hooks, between the child's mounts and its pivot_root(2).
fn hook_before_pivot(
    plan: &Plan,
    about: Option<&About>,
    process: &Process,
    socket: &OwnedFd,
    is_hooked: &mut bool,
) -> Result<(), RuntimeError> {
    let Some(about) = about.filter(|_| plan.hooks.before_pivot()) else { return Ok(()) };
    match message::receive(socket)? {
        Some((Message::Furnished, _)) => {}
        answer => return Err(Process::failure(answer.map(|(message, _)| message))),
    }
    *is_hooked = true;
    failpoint("hooks.furnished");
    hooks::run_before_pivot(&plan.hooks, about, process.pid)?;
    failpoint("hooks.hooked");
    // A child that has died meanwhile says why when it is listened to.
    let _ = message::send(socket.as_fd(), &Message::Hooked, None);
    Ok(())
}

/// In version 2 the first process lives under the container's limit from its birth, and says nothing when that kills it.
pub(super) fn want_of_memory(cgroup: &Cgroup) -> Option<RuntimeError> {
    cgroup.oom_kills().is_ok_and(|kills| kills > 0).then(|| RuntimeError::Inside {
        kind: ErrorKind::Invalid,
        message:
            "the container's first process was killed for want of memory while it was set up: the limit is too low"
                .to_owned(),
    })
}

/// What the parent does while the child mounts: cgroups of version 1 with their devices, then everyone's limits.
fn group(options: &CreateOptions<'_>, cgroup: &Cgroup, socket: &OwnedFd) -> Result<(), RuntimeError> {
    let resources = options.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    cgroup.create_version_1()?;
    // Before the child is in it: between two rules it could neither make its devices nor open any.
    resources.map_or(Ok(()), |resources| cgroup.limit_first(resources))?;
    failpoint("create.version_1");
    // A child that has died meanwhile says why when it is listened to.
    let _ = message::send(socket.as_fd(), &Message::Grouped, None);
    failpoint("create.grouped");
    resources.map_or(Ok(()), |resources| cgroup.apply(resources))
}
