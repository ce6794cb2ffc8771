//! From a spec to plain data. Pure: what cannot be right, and what is not built, is refused here by name, before
//! anything is made.

mod device;
mod hooks;
mod ids;
mod mount;
mod namespaces;
mod net_device;
mod owner;
mod process;
mod scheduling;
mod sysctl;

use std::path::{Component, Path, PathBuf};

use dozen_model::UserSpec;

pub(crate) use self::device::Device;
pub(crate) use self::hooks::{Hook, Hooks};
pub(crate) use self::ids::{IdMap, IdRange, map_text, outside, read_map};
pub use self::mount::check_place;
pub use self::mount::{FROM_NAMESPACE, OWNER};
pub(crate) use self::mount::{MountKind, PlannedMount, Written, leads_into_proc, mount_options};
pub(crate) use self::namespaces::{UserNamespace, rare_namespaces};
pub(crate) use self::net_device::NetDevice;
pub(crate) use self::owner::Owner;
pub(crate) use self::process::{Limit, ProcessPlan, Who};
pub(crate) use self::scheduling::{SchedulerAttributes, Scheduling, Set};

use self::device::devices;
use self::sysctl::sysctl_path;
use crate::Spec;
use crate::error::RuntimeError;

/// A container as it will be built.
#[derive(Debug)]
pub(crate) struct Plan {
    /// CLONE_NEW* for clone3(2).
    pub(crate) new_namespaces: u64,
    /// A cgroup namespace, which is made once the process is in its cgroup.
    pub(crate) new_cgroup_namespace: bool,
    /// `None`: the ids are the host's.
    pub(crate) user_namespace: Option<UserNamespace>,
    /// A new time namespace, with the lines for its timens_offsets.
    pub(crate) time_offsets: Option<String>,
    /// Namespaces to join by path, with their CLONE_NEW*; all but [`Plan::joined_mounts`].
    pub(crate) join: Vec<(PathBuf, libc::c_int)>,
    /// A mount namespace to join by path, once the root stands in a new one.
    pub(crate) joined_mounts: Option<PathBuf>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    /// In the spec's order.
    pub(crate) mounts: Vec<PlannedMount>,
    pub(crate) read_only_root: bool,
    /// The host's mounts go on to reach the container's root (`shared`, `slave`), or nobody may bind it
    /// (`unbindable`): MS_*, else 0.
    pub(crate) root_propagation: u64,
    pub(crate) masked_paths: Vec<PathBuf>,
    pub(crate) readonly_paths: Vec<PathBuf>,
    /// Empty if /dev is the host's or the image's own affair.
    pub(crate) devices: Vec<Device>,
    /// /dev is ours to furnish: nodes, links, console.
    pub(crate) furnish_dev: bool,
    /// The host's that are moved to its network.
    pub(crate) net_devices: Vec<NetDevice>,
    /// Paths below /proc/sys, and values.
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) process: ProcessPlan,
    pub(crate) hooks: Hooks,
}

fn not_built<T>(what: impl Into<String>) -> Result<T, RuntimeError> {
    Err(RuntimeError::NotBuilt(what.into()))
}

fn invalid(text: impl Into<String>) -> RuntimeError {
    RuntimeError::Invalid(text.into())
}

impl Plan {
    /// Decides. `own_network`: the caller brings a network namespace.
    pub(crate) fn new(
        spec: &Spec,
        bundle: &Path,
        user: Option<&UserSpec>,
        own_network: bool,
    ) -> Result<Self, RuntimeError> {
        let linux = spec.linux().as_ref().ok_or_else(|| invalid("the spec has no linux section"))?;
        let process = spec.process().as_ref().ok_or_else(|| invalid("the spec has no process"))?;
        refuse_what_is_not_built(spec)?;
        let mut plan = Self {
            new_namespaces: 0,
            new_cgroup_namespace: false,
            user_namespace: None,
            time_offsets: None,
            join: Vec::new(),
            joined_mounts: None,
            hostname: host_name("hostname", spec.hostname())?,
            domainname: host_name("domainname", spec.domainname())?,
            mounts: Vec::new(),
            read_only_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
            root_propagation: match linux.rootfs_propagation().as_deref() {
                None | Some("" | "private" | "rprivate") => 0,
                Some("slave" | "rslave") => libc::MS_SLAVE,
                Some("shared" | "rshared") => libc::MS_SHARED,
                Some("unbindable" | "runbindable") => libc::MS_UNBINDABLE,
                Some(other) => return Err(invalid(format!("rootfsPropagation={other} is not supported"))),
            },
            masked_paths: inside(linux.masked_paths().as_deref())?,
            readonly_paths: inside(linux.readonly_paths().as_deref())?,
            devices: Vec::new(),
            furnish_dev: true,
            net_devices: Vec::new(),
            sysctls: Vec::new(),
            process: ProcessPlan::new(spec, process, user)?,
            hooks: Hooks::new(spec)?,
        };
        plan.namespaces(spec, own_network)?;
        for mount in spec.mounts().iter().flatten() {
            let mut planned = PlannedMount::new(mount, bundle, plan.user_namespace.as_ref())?;
            if let Some(label) = linux.mount_label() {
                planned.label(label);
            }
            planned.find_reconfigured(&mut plan.mounts)?;
            plan.mounts.push(planned);
        }
        plan.check_joined_mounts()?;
        plan.furnish_dev = !plan
            .mounts
            .iter()
            .any(|mount| mount.target == Path::new("/dev") && matches!(mount.kind, MountKind::Bind { .. }));
        if plan.furnish_dev {
            plan.devices = devices(linux.devices().as_deref().unwrap_or_default())?;
        }
        // A network namespace that the caller brings or that is joined counts as the container's own; that it is not
        // the host's is found out when it is joined.
        let joined = plan.join.iter().fold(0, |all, (_, kind)| all | *kind as u64 & libc::CLONE_NEWNET as u64);
        let brought = if own_network { libc::CLONE_NEWNET as u64 } else { 0 };
        let networks = plan.new_namespaces | joined | brought;
        plan.net_devices =
            net_device::net_devices(linux.net_devices().as_ref(), networks & libc::CLONE_NEWNET as u64 != 0)?;
        for (name, value) in linux.sysctl().iter().flatten() {
            plan.sysctls.push((sysctl_path(name, networks)?, value.clone()));
        }
        plan.sysctls.sort();
        Ok(plan)
    }
}

/// The kernel takes any bytes for a name, a null byte among them.
fn host_name(what: &str, name: &Option<String>) -> Result<Option<String>, RuntimeError> {
    match name {
        Some(name) if name.contains('\0') => Err(invalid(format!("{what}: {name:?} contains a null byte"))),
        name => Ok(name.clone()),
    }
}

fn refuse_what_is_not_built(spec: &Spec) -> Result<(), RuntimeError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for (given, what) in [(linux.intel_rdt().is_some(), "linux.intelRdt")] {
        if given {
            return not_built(what);
        }
    }
    Ok(())
}

fn inside(paths: Option<&[String]>) -> Result<Vec<PathBuf>, RuntimeError> {
    paths.unwrap_or_default().iter().map(|path| clean(Path::new(path))).collect()
}

/// An absolute path without `.` and `..`, as a cleaned name: what is a link is found out in the container's root.
pub(crate) fn clean(path: &Path) -> Result<PathBuf, RuntimeError> {
    if !path.is_absolute() {
        return Err(invalid(format!("{} is not an absolute path", path.display())));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(invalid(format!("{path:?} contains a null byte")));
    }
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => cleaned.push(part),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests;
