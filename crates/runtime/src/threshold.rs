//! What the outside does for a container that has a user or a time namespace, before its first process is born.
//!
//! An usher has made or joined them and waits at the threshold ([`crate::child`]): a user namespace is mapped by who has
//! rights outside of it, a time namespace is set before anyone lives in it (time_namespaces(7)).

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Uid};

use crate::cgroup::Cgroup;
use crate::create::{CreateOptions, Root, Stdio};
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint;
use crate::message::{self, Message};
use crate::mounts::Brought;
use crate::overlay;
use crate::plan::{IdRange, Plan, UserNamespace, outside, read_map};
use crate::process::Process;
use crate::{delegation, id_map};

/// linux/magic.h.
const PIPEFS_MAGIC: i64 = 0x5049_5045;

/// Waits for the usher, does all this, and lets it go on. Whatever fails, the usher is the caller's to kill.
pub(crate) fn prepare(
    usher: &Process,
    socket: &OwnedFd,
    options: &CreateOptions<'_>,
    plan: &Plan,
    cgroup: &Cgroup,
    brought: &Brought,
) -> Result<(), RuntimeError> {
    match message::receive(socket)? {
        Some((Message::Unshared, _)) => {}
        answer => return Err(Process::failure(answer.map(|(message, _)| message))),
    }
    let pid = usher.pid;
    let mut root = None;
    if let Some(user_namespace) = &plan.user_namespace {
        if let UserNamespace::New(map) = user_namespace {
            id_map::write(pid, map)?;
        }
        let namespace = id_map::of_process(pid)?;
        brought.map_to(&namespace, plan)?;
        // As the kernel has it, also for a namespace that was joined.
        let owner = Owner::of_process(pid)?;
        if let Root::Overlay { lower, upper, work } = options.root {
            root = Some(overlay::mount_idmapped(lower, (upper, work), None, &namespace, owner.root)?);
        }
        owner.give_pipes(&options.stdio);
        let user = plan.numbered_user().and_then(|uid| outside(&owner.users, uid));
        delegation::delegate(plan, cgroup, user.unwrap_or(owner.root.0))?;
    }
    if let Some(offsets) = plan.time_offsets.as_ref().filter(|offsets| !offsets.is_empty()) {
        fs::write(format!("/proc/{pid}/timens_offsets"), offsets)
            .context(|| format!("set the clocks of the time namespace ({:?})", offsets.trim_end()))?;
    }
    failpoint("create.mapped");
    // One that has died meanwhile says why when it is listened to.
    let _ = message::send(socket.as_fd(), &Message::Grouped, root.as_ref().map(AsFd::as_fd));
    Ok(())
}

/// The container's ids as the outside sees them.
pub(crate) struct Owner {
    users: Vec<IdRange>,
    /// User and group of its root.
    root: (u32, u32),
}

impl Owner {
    pub(crate) fn of_process(pid: i32) -> Result<Self, RuntimeError> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).map(|text| read_map(&text)).context(|| format!("read {path}"))
        };
        let (users, groups) = (read("uid_map")?, read("gid_map")?);
        match (outside(&users, 0), outside(&groups, 0)) {
            (Some(user), Some(group)) => Ok(Self { users, root: (user, group) }),
            _ => Err(RuntimeError::Invalid("the user namespace maps no root".to_owned())),
        }
    }

    /// Who opens /dev/stdout is not who made the pipe: it is given to the container's root, who may give it on. Files and
    /// terminals of somebody's stay theirs.
    pub(crate) fn give_pipes(&self, stdio: &Stdio) {
        let Stdio::Streams(streams) = stdio else { return };
        for stream in streams {
            // Not one that has a name in somebody's directory.
            let is_pipe = rustix::fs::fstatfs(stream).is_ok_and(|status| status.f_type == PIPEFS_MAGIC);
            if is_pipe {
                let (user, group) = self.root;
                let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
            }
        }
    }
}
