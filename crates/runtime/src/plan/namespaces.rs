//! Which namespaces are made, and which are joined.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxTimeOffset};

use super::ids::{IdMap, outside};
use super::{Plan, Who, invalid, not_built};
use crate::Spec;
use crate::error::RuntimeError;

/// Whose ids a container has, if not the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserNamespace {
    New(IdMap),
    /// That of another.
    Joined {
        path: PathBuf,
        /// As the spec says that it is mapped.
        map: Option<IdMap>,
    },
}

impl UserNamespace {
    /// Who is behind the ids inside, where the spec says so.
    pub(crate) fn map(&self) -> Option<&IdMap> {
        match self {
            Self::New(map) => Some(map),
            Self::Joined { map, .. } => map.as_ref(),
        }
    }
}

impl Plan {
    /// Others are in its pid namespace, and may look at what comes into it.
    pub(crate) fn joins_pid_namespace(&self) -> bool {
        self.join.iter().any(|(_, kind)| *kind == libc::CLONE_NEWPID)
    }

    /// A user namespace must be mapped, and a time namespace set, by who is outside, before the container's first process
    /// is born in it: an usher makes them.
    pub(crate) fn needs_threshold(&self) -> bool {
        self.user_namespace.is_some() || self.time_offsets.is_some()
    }

    /// It has one of its own of this kind: its procfs or sysfs shows that one.
    pub(crate) fn is_new(&self, kind: libc::c_int) -> bool {
        self.new_namespaces & kind as u64 != 0
    }

    /// What /proc/self/cgroup shows begins at the container's own cgroup, or at that of who is joined.
    pub(crate) fn has_cgroup_namespace(&self) -> bool {
        self.new_cgroup_namespace || self.join.iter().any(|(_, kind)| *kind == libc::CLONE_NEWCGROUP)
    }

    /// The process's user inside, where it is given by number.
    pub(crate) fn numbered_user(&self) -> Option<u32> {
        match &self.process.user {
            Who::Numbers(identity) => Some(identity.uid),
            Who::Named(..) => None,
        }
    }

    pub(super) fn namespaces(&mut self, spec: &Spec, own_network: bool) -> Result<(), RuntimeError> {
        let linux = spec.linux().as_ref().ok_or_else(|| invalid("the spec has no linux section"))?;
        let mut seen = Vec::new();
        for namespace in linux.namespaces().iter().flatten() {
            let kind = namespace.typ();
            if seen.contains(&kind) {
                return Err(invalid(format!("namespace {kind} is given twice")));
            }
            seen.push(kind);
            let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
            if let Some(path) = path
                && !path.is_absolute()
            {
                return Err(invalid(format!("namespace {kind}: {} is not an absolute path", path.display())));
            }
            match (kind, path) {
                (LinuxNamespaceType::User, path) => self.user_namespace = Some(user_namespace(linux, path)?),
                (LinuxNamespaceType::Time, None) => {
                    self.time_offsets = Some(time_offsets(linux.time_offsets().iter().flatten())?);
                }
                (LinuxNamespaceType::Network, _) if own_network => {}
                (LinuxNamespaceType::Cgroup, None) => self.new_cgroup_namespace = true,
                (LinuxNamespaceType::Mount, Some(path)) => {
                    self.new_namespaces |= libc::CLONE_NEWNS as u64;
                    self.joined_mounts = Some(path.clone());
                }
                (kind, None) => self.new_namespaces |= kind as u64,
                (kind, Some(path)) => self.join.push((path.clone(), kind as libc::c_int)),
            }
        }
        if !self.is_new(libc::CLONE_NEWNS) {
            return not_built("a container without a mount namespace of its own");
        }
        if !self.is_new(libc::CLONE_NEWUTS) && (self.hostname.is_some() || self.domainname.is_some()) {
            return Err(invalid("unable to set hostname without a private UTS namespace"));
        }
        if self.time_offsets.is_none() && linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) {
            return Err(invalid("linux.timeOffsets need a new time namespace"));
        }
        self.check_user_namespace(linux)
    }

    /// The root is made in a namespace of its own, and its mounts are then cloned into that which is joined.
    pub(super) fn check_joined_mounts(&self) -> Result<(), RuntimeError> {
        if self.joined_mounts.is_none() {
            return Ok(());
        }
        if let Some(UserNamespace::New(_)) = self.user_namespace {
            return Err(invalid(
                "a new user namespace may change nothing in a mount namespace that was there before it: \
                 join the user namespace that this one belongs to (user_namespaces(7))",
            ));
        }
        if self.root_propagation == libc::MS_SHARED {
            return Err(invalid(
                "rootfsPropagation=shared needs a new mount namespace: who is joined has mounts of its own",
            ));
        }
        match self.mounts.iter().find(|mount| mount.propagation == libc::MS_UNBINDABLE) {
            Some(mount) => Err(invalid(format!(
                "the mount on {} is unbindable: it could not be brought into the mount namespace that is joined",
                mount.target.display()
            ))),
            None => Ok(()),
        }
    }

    fn check_user_namespace(&self, linux: &Linux) -> Result<(), RuntimeError> {
        match &self.user_namespace {
            None if IdMap::new("linux", linux.uid_mappings(), linux.gid_mappings())?.is_some() => {
                Err(invalid("linux.uidMappings and gidMappings need a user namespace"))
            }
            // Its procfs would be refused by the kernel, and who is in there may trace what is still ours.
            Some(UserNamespace::New(_)) if self.joins_pid_namespace() => {
                not_built("a new user namespace with the pid namespace of another")
            }
            _ => Ok(()),
        }
    }
}

/// Of a running container: CLONE_NEWUSER and CLONE_NEWTIME, if it has a namespace of this kind that is not the host's.
pub(crate) fn rare_namespaces(spec: &Spec) -> libc::c_int {
    let namespaces = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    let rare = namespaces.map(|namespace| match namespace.typ() {
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
        _ => 0,
    });
    rare.fold(0, |all, kind| all | kind)
}

fn user_namespace(linux: &Linux, path: Option<&PathBuf>) -> Result<UserNamespace, RuntimeError> {
    let map = IdMap::new("linux", linux.uid_mappings(), linux.gid_mappings());
    if let Some(path) = path {
        // Engines give maps here too, which say what is expected to be there; it is as its maker has mapped it.
        return Ok(UserNamespace::Joined { path: path.clone(), map: map.ok().flatten() });
    }
    let map = map?.ok_or_else(|| invalid("a new user namespace needs linux.uidMappings and gidMappings"))?;
    if outside(&map.users, 0).is_none() || outside(&map.groups, 0).is_none() {
        return Err(invalid("linux.uidMappings and gidMappings must map 0, the container's root, who sets it up"));
    }
    Ok(UserNamespace::New(map))
}

/// The lines of /proc/PID/timens_offsets (time_namespaces(7)).
fn time_offsets<'a>(offsets: impl Iterator<Item = (&'a String, &'a LinuxTimeOffset)>) -> Result<String, RuntimeError> {
    let offsets: HashMap<&str, &LinuxTimeOffset> = offsets.map(|(clock, offset)| (clock.as_str(), offset)).collect();
    if let Some(clock) = offsets.keys().find(|clock| !["monotonic", "boottime"].contains(clock)) {
        return Err(invalid(format!("linux.timeOffsets: no clock {clock:?} has an offset: monotonic and boottime do")));
    }
    let mut lines = String::new();
    for clock in ["monotonic", "boottime"] {
        let Some(offset) = offsets.get(clock) else { continue };
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds >= 1_000_000_000 {
            return Err(invalid(format!("linux.timeOffsets: {nanoseconds} nanoseconds are more than a second")));
        }
        lines += &format!("{clock} {seconds} {nanoseconds}\n");
    }
    Ok(lines)
}
