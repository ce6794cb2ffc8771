//! From a spec to plain data. Pure: what cannot be right, and what is not built, is refused here by name, before
//! anything is made.

mod mount;

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use dozen_model::UserSpec;
use oci_spec::runtime::{LinuxDeviceType, LinuxNamespaceType, PosixRlimitType, Process};

pub use self::mount::check_place;
pub(crate) use self::mount::{MountKind, PlannedMount, leads_into_proc};

use crate::Spec;
use crate::capability::CapabilitySets;
use crate::error::RuntimeError;
use crate::seccomp::{self, Filter};
use crate::user::Identity;

/// A container as it will be built.
#[derive(Debug)]
pub(crate) struct Plan {
    /// CLONE_NEW* for clone3(2).
    pub(crate) new_namespaces: u64,
    /// A cgroup namespace, which is made once the process is in its cgroup.
    pub(crate) new_cgroup_namespace: bool,
    /// Namespaces to join by path, with their CLONE_NEW*.
    pub(crate) join: Vec<(PathBuf, libc::c_int)>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    /// In the spec's order.
    pub(crate) mounts: Vec<PlannedMount>,
    pub(crate) read_only_root: bool,
    /// The host's mounts go on to reach the container's root (`shared`, `slave`): MS_*, else 0.
    pub(crate) root_propagation: u64,
    pub(crate) masked_paths: Vec<PathBuf>,
    pub(crate) readonly_paths: Vec<PathBuf>,
    /// Empty if /dev is the host's or the image's own affair.
    pub(crate) devices: Vec<Device>,
    /// /dev is ours to furnish: nodes, links, console.
    pub(crate) furnish_dev: bool,
    /// Paths below /proc/sys, and values.
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) process: ProcessPlan,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO, and permission bits.
    pub(crate) mode: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A process as it will be: the container's first, or a further one.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<String>,
    /// Absolute.
    pub(crate) working_directory: PathBuf,
    pub(crate) user: Who,
    pub(crate) umask: u32,
    pub(crate) capabilities: CapabilitySets,
    pub(crate) limits: Vec<Limit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adjustment: Option<i32>,
    pub(crate) filter: Option<Filter>,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    /// As the spec has it: `RLIMIT_NOFILE`.
    pub(crate) name: String,
    pub(crate) resource: libc::__rlimit_resource_t,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Whom a process runs as.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// Numbers, as the spec has them; the home is looked up if it is needed.
    Numbers(Identity),
    /// As the container's own files say.
    Named(UserSpec),
}

/// What every container has, by the specification (config-linux.md, "Default Devices"): path, major, minor.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

fn invalid(text: impl Into<String>) -> RuntimeError {
    RuntimeError::Invalid(text.into())
}

fn not_built<T>(what: impl Into<String>) -> Result<T, RuntimeError> {
    Err(RuntimeError::NotBuilt(what.into()))
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
            join: Vec::new(),
            hostname: host_name("hostname", spec.hostname())?,
            domainname: host_name("domainname", spec.domainname())?,
            mounts: Vec::new(),
            read_only_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
            root_propagation: match linux.rootfs_propagation().as_deref() {
                None | Some("" | "private" | "rprivate") => 0,
                Some("slave" | "rslave") => libc::MS_SLAVE,
                Some("shared" | "rshared") => libc::MS_SHARED,
                Some(other) => return not_built(format!("rootfsPropagation {other:?}")),
            },
            masked_paths: inside(linux.masked_paths().as_deref())?,
            readonly_paths: inside(linux.readonly_paths().as_deref())?,
            devices: Vec::new(),
            furnish_dev: true,
            sysctls: Vec::new(),
            process: ProcessPlan::new(spec, process, user)?,
        };
        plan.namespaces(spec, own_network)?;
        for mount in spec.mounts().iter().flatten() {
            plan.mounts.push(PlannedMount::new(mount, bundle)?);
        }
        let below_proc = |mount: &PlannedMount| mount.target.starts_with("/proc") && mount.target != Path::new("/proc");
        if plan.joins_pid_namespace() && plan.mounts.iter().any(below_proc) {
            return not_built("a mount below /proc of a container that joins a pid namespace");
        }
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
        for (name, value) in linux.sysctl().iter().flatten() {
            plan.sysctls.push((sysctl_path(name, plan.new_namespaces | joined | brought)?, value.clone()));
        }
        plan.sysctls.sort();
        Ok(plan)
    }

    /// Others are in its pid namespace, and may look at what comes into it.
    pub(crate) fn joins_pid_namespace(&self) -> bool {
        self.join.iter().any(|(_, kind)| *kind == libc::CLONE_NEWPID)
    }

    fn namespaces(&mut self, spec: &Spec, own_network: bool) -> Result<(), RuntimeError> {
        let mut seen = Vec::new();
        for namespace in spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten()) {
            let kind = namespace.typ();
            if seen.contains(&kind) {
                return Err(invalid(format!("namespace {kind} is given twice")));
            }
            seen.push(kind);
            let flag = match kind {
                LinuxNamespaceType::User | LinuxNamespaceType::Time => return not_built(format!("a {kind} namespace")),
                LinuxNamespaceType::Network if own_network => continue,
                LinuxNamespaceType::Cgroup if namespace.path().is_none() => {
                    self.new_cgroup_namespace = true;
                    continue;
                }
                other => other as libc::c_int,
            };
            match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                None => self.new_namespaces |= flag as u64,
                Some(_) if kind == LinuxNamespaceType::Mount => return not_built("joining a mount namespace"),
                Some(path) => self.join.push((path.clone(), flag)),
            }
        }
        if self.new_namespaces & libc::CLONE_NEWNS as u64 == 0 {
            return not_built("a container without a mount namespace of its own");
        }
        let own_uts = self.new_namespaces & libc::CLONE_NEWUTS as u64 != 0;
        if !own_uts && (self.hostname.is_some() || self.domainname.is_some()) {
            return Err(invalid("unable to set hostname without a private UTS namespace"));
        }
        Ok(())
    }
}

impl ProcessPlan {
    /// Decides about one process of a container with this spec.
    pub(crate) fn new(spec: &Spec, process: &Process, user: Option<&UserSpec>) -> Result<Self, RuntimeError> {
        let arguments = process.args().as_deref().unwrap_or_default();
        if arguments.is_empty() {
            return Err(invalid("args must not be empty"));
        }
        if !process.cwd().is_absolute() {
            return Err(invalid(format!("Cwd must be an absolute path: {:?}", process.cwd())));
        }
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if given(process.apparmor_profile()) {
            return not_built("process.apparmorProfile");
        }
        if given(process.selinux_label()) {
            return not_built("process.selinuxLabel");
        }
        if process.scheduler().is_some() || process.io_priority().is_some() || process.exec_cpu_affinity().is_some() {
            return not_built("process.scheduler, ioPriority and execCPUAffinity");
        }
        let who = match user {
            Some(user) => Who::Named(user.clone()),
            None => {
                let (uid, gid) = (process.user().uid(), process.user().gid());
                let groups = process.user().additional_gids().clone().unwrap_or_default();
                Who::Numbers(Identity { uid, gid, groups, home: String::new() })
            }
        };
        let mut limits = Vec::new();
        for limit in process.rlimits().iter().flatten() {
            if limit.soft() > limit.hard() {
                return Err(invalid(format!("rlimit {}: the soft limit is above the hard one", limit.typ())));
            }
            let (name, resource) = (limit.typ().to_string(), resource(limit.typ()));
            limits.push(Limit { name, resource, soft: limit.soft(), hard: limit.hard() });
        }
        let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        Ok(Self {
            arguments: arguments.iter().map(|argument| c_string("args", argument)).collect::<Result<_, _>>()?,
            environment: process.env().clone().unwrap_or_default(),
            working_directory: clean(process.cwd())?,
            user: who,
            umask: process.user().umask().unwrap_or(0o022),
            capabilities: CapabilitySets::from_spec(process.capabilities().as_ref()),
            limits,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adjustment: process.oom_score_adj(),
            filter: filter.map(seccomp::compile).transpose()?,
        })
    }

    /// The environment for execve(2), with HOME if it has none.
    pub(crate) fn environment_with_home(&self, home: &str) -> Result<Vec<CString>, RuntimeError> {
        let has_home = self.environment.iter().any(|entry| entry.starts_with("HOME="));
        let extra = (!has_home).then(|| format!("HOME={home}"));
        self.environment.iter().chain(&extra).map(|entry| c_string("env", entry)).collect()
    }
}

/// The kernel takes any bytes for a name, a null byte among them.
fn host_name(what: &str, name: &Option<String>) -> Result<Option<String>, RuntimeError> {
    match name {
        Some(name) if name.contains('\0') => Err(invalid(format!("{what}: {name:?} contains a null byte"))),
        name => Ok(name.clone()),
    }
}

/// A string without a null byte.
pub(crate) fn c_string(what: &str, text: &str) -> Result<CString, RuntimeError> {
    CString::new(text).map_err(|_| invalid(format!("process.{what}: {text:?} contains a null byte")))
}

fn refuse_what_is_not_built(spec: &Spec) -> Result<(), RuntimeError> {
    if let Some(hooks) = spec.hooks() {
        let lists = [
            hooks.prestart(),
            hooks.create_runtime(),
            hooks.create_container(),
            hooks.start_container(),
            hooks.poststart(),
            hooks.poststop(),
        ];
        if lists.into_iter().flatten().any(|list| !list.is_empty()) {
            return not_built("hooks");
        }
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    let not_empty = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if not_empty(linux.uid_mappings()) || not_empty(linux.gid_mappings()) {
        return not_built("linux.uidMappings and gidMappings");
    }
    for (given, what) in [
        (linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()), "linux.mountLabel"),
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (linux.personality().is_some(), "linux.personality"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (linux.time_offsets().is_some(), "linux.timeOffsets"),
        (linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()), "linux.netDevices"),
        (linux.seccomp().as_ref().is_some_and(|seccomp| seccomp.listener_path().is_some()), "seccomp.listenerPath"),
    ] {
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

fn devices(asked: &[oci_spec::runtime::LinuxDevice]) -> Result<Vec<Device>, RuntimeError> {
    let mut devices: Vec<Device> = DEFAULT_DEVICES
        .into_iter()
        .map(|(path, major, minor)| Device {
            path: path.into(),
            mode: libc::S_IFCHR | 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
        })
        .collect();
    for device in asked {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(invalid(format!("{}: a device is b, c, u or p", device.path().display())));
            }
        };
        let path = clean(device.path())?;
        let number = |number: i64| {
            u32::try_from(number).map_err(|_| invalid(format!("{}: a device number is not negative", path.display())))
        };
        let device = Device {
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
            major: number(device.major())?,
            minor: number(device.minor())?,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            path,
        };
        devices.retain(|known| known.path != device.path);
        devices.push(device);
    }
    Ok(devices)
}

/// Below /proc/sys. Only what belongs to a namespace of the container's own; the rest would be the host's.
fn sysctl_path(name: &str, namespaces: u64) -> Result<String, RuntimeError> {
    // Both `net.ipv4.x` and `net/ipv4/x`; in the second a dot is part of a name.
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !path.split('/').all(plain) || path.contains('\0') {
        return Err(invalid(format!("invalid sysctl {name:?}")));
    }
    const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let own = |flag: libc::c_int| namespaces & flag as u64 != 0;
    let kernel = path.strip_prefix("kernel/");
    let allowed = if path.starts_with("net/") {
        own(libc::CLONE_NEWNET)
    } else if path.starts_with("fs/mqueue/") || kernel.is_some_and(|name| IPC.contains(&name)) {
        own(libc::CLONE_NEWIPC)
    } else {
        kernel.is_some_and(|name| ["hostname", "domainname"].contains(&name)) && own(libc::CLONE_NEWUTS)
    };
    if !allowed {
        return Err(invalid(format!("sysctl {name:?} is not in a separate kernel namespace")));
    }
    Ok(path)
}

fn resource(kind: PosixRlimitType) -> libc::__rlimit_resource_t {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

#[cfg(test)]
mod tests;
