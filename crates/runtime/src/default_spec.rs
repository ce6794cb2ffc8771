//! Docker's defaults as an OCI spec: what a container gets that was asked for nothing special.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use dozen_model::{CapabilityChange, SeccompChoice};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDevice, LinuxDeviceBuilder,
    LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResourcesBuilder, Mount, MountBuilder, ProcessBuilder, RootBuilder, SpecBuilder,
};

use crate::error::{Context, RuntimeError};
use crate::{Spec, capability, seccomp};

/// What the defaults depend on.
#[derive(Debug)]
pub struct DefaultSpec<'a> {
    /// All capabilities and devices, no seccomp, nothing masked.
    pub privileged: bool,
    /// `--cap-add` and `--cap-drop`.
    pub capabilities: &'a CapabilityChange,
    /// Which system calls it may make.
    pub seccomp: &'a SeccompChoice,
    /// `systempaths=unconfined`.
    pub unmasked_system_paths: bool,
    /// No network namespace of its own.
    pub host_network: bool,
    /// Bytes of /dev/shm.
    pub shm_size_bytes: u64,
}

/// Docker's fourteen (docs.docker.com, "Runtime privilege and Linux capabilities").
const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What tells of the host, or lets at its hardware. Docker's, and what root of any container could write to beside:
/// /proc/dynamic_debug has the kernel fill the host's log (admin-guide/dynamic-debug-howto.rst).
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/dynamic_debug",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Devices that may be used: kind, major, minor, access (Documentation/admin-guide/devices.txt). Any may be made.
/// Not 5:1, which Docker has: a container's /dev/console is a terminal of its own, and 5:1 the machine's, where its
/// administrator logs in.
const DEVICES: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),    // null
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),    // zero
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),    // full
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),    // random
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),    // urandom
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),    // tty
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),    // ptmx
    (LinuxDeviceType::C, Some(136), None, "rwm"),     // pts
    (LinuxDeviceType::C, Some(10), Some(200), "rwm"), // tun; made only with NET_ADMIN
];

/// The spec; its process has no arguments yet.
pub fn docker(options: &DefaultSpec<'_>) -> Result<Spec, RuntimeError> {
    let held = capabilities(options.privileged, options.capabilities)?;
    let set: Capabilities = capability::names(held).map(capability_named).collect();
    let process = ProcessBuilder::default()
        .cwd("/")
        .args(Vec::<String>::new())
        .env(Vec::<String>::new())
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(set.clone())
                .effective(set.clone())
                .permitted(set)
                .inheritable(Capabilities::new())
                .ambient(Capabilities::new())
                .build()
                .expect("every set has a default"),
        )
        .rlimits(Vec::new())
        .no_new_privileges(false)
        .oom_score_adj(0)
        .build()
        .expect("every field of a process has a default");
    let bare = options.privileged || options.unmasked_system_paths;
    let mut namespaces =
        vec![LinuxNamespaceType::Mount, LinuxNamespaceType::Uts, LinuxNamespaceType::Pid, LinuxNamespaceType::Ipc];
    // Docker's default on version 1 is the host's cgroup namespace; ours is always private, so that no container sees
    // where it is.
    namespaces.push(LinuxNamespaceType::Cgroup);
    if !options.host_network {
        namespaces.push(LinuxNamespaceType::Network);
    }
    let namespace = |kind| LinuxNamespaceBuilder::default().typ(kind).build().expect("a namespace needs no path");
    let devices =
        if options.privileged { vec![device(true, (LinuxDeviceType::A, None, None, "rwm"))] } else { devices() };
    let resources = LinuxResourcesBuilder::default().devices(devices).build().expect("every limit has a default");
    let list = |paths: &[&str]| -> Vec<String> {
        if bare { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
    };
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces.into_iter().map(namespace).collect::<Vec<_>>())
        .resources(resources)
        .masked_paths(list(&MASKED_PATHS))
        .readonly_paths(list(&READONLY_PATHS))
        .build()
        .expect("every field of linux has a default");
    linux.set_seccomp(match (options.privileged, options.seccomp) {
        (_, SeccompChoice::Unconfined) | (true, SeccompChoice::Default) => None,
        (false, SeccompChoice::Default) => Some(seccomp::default_profile(held)),
        (_, SeccompChoice::Profile(json)) => Some(seccomp::resolve_profile(json, held)?),
    });
    if let Some(seccomp) = linux.seccomp() {
        seccomp::compile(seccomp)?;
    }
    if options.privileged {
        let mut devices = Vec::new();
        host_devices(Path::new("/dev"), &mut devices)?;
        linux.set_devices(Some(devices));
    }
    SpecBuilder::default()
        .version("1.0.2")
        .process(process)
        .root(RootBuilder::default().path("rootfs").readonly(false).build().expect("a root has its path"))
        .mounts(mounts(options))
        .linux(linux)
        .build()
        .map_err(|error| RuntimeError::Invalid(error.to_string()))
}

/// The default set with its changes, within what this process has itself.
fn capabilities(privileged: bool, change: &CapabilityChange) -> Result<u64, RuntimeError> {
    let known = |name: &String| {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        match bare {
            "ALL" => Ok(capability::ALL),
            _ => capability::bit(bare).ok_or_else(|| {
                RuntimeError::Invalid(format!("invalid capability: unknown capability: \"CAP_{bare}\""))
            }),
        }
    };
    let union =
        |names: &dozen_model::Capabilities| names.iter().map(known).try_fold(0, |all, one| one.map(|one| all | one));
    let (add, drop) = (union(&change.add)?, union(&change.drop)?);
    // What kernel or host does not have is not promised; the runtime leaves it out again at the start.
    if privileged {
        return Ok(capability::ALL);
    }
    let default = CAPABILITIES.iter().filter_map(|name| capability::bit(name)).fold(0, |all, one| all | one);
    // ALL on one side leaves the other side its exceptions.
    Ok(match (add == capability::ALL, drop == capability::ALL) {
        (true, false) => capability::ALL & !drop,
        (_, true) => add,
        (false, false) => default & !drop | add,
    })
}

fn capability_named(name: &str) -> Capability {
    name.parse().expect("the kernel's capabilities are oci-spec's capabilities")
}

fn devices() -> Vec<LinuxDeviceCgroup> {
    let nothing = device(false, (LinuxDeviceType::A, None, None, "rwm"));
    std::iter::once(nothing).chain(DEVICES.into_iter().map(|rule| device(true, rule))).collect()
}

/// Rules that forbid devices leave those that every container has (config-linux.md, "Default Devices"): podman relies on
/// it, and runc and crun add these to whatever is asked for. Those that are there are not added.
pub(crate) fn allow_default_devices(spec: &mut Spec) {
    const TUN: Option<i64> = Some(200);
    let rules = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()?.devices_mut().as_mut());
    let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return };
    let ours = DEVICES.into_iter().filter(|(_, _, minor, _)| *minor != TUN).map(|rule| device(true, rule));
    let missing: Vec<LinuxDeviceCgroup> = ours.filter(|rule| !rules.contains(rule)).collect();
    rules.extend(missing);
}

/// Every device of the host's, for a privileged container. Terminals and shared memory are the container's own.
fn host_devices(directory: &Path, devices: &mut Vec<LinuxDevice>) -> Result<(), RuntimeError> {
    const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".udev"];
    let entries = fs::read_dir(directory).context(|| format!("read {}", directory.display()))?;
    // One that is gone meanwhile is none.
    for entry in entries.flatten().filter(|entry| !OWN.iter().any(|own| entry.file_name() == *own)) {
        let path = entry.path();
        let Ok(status) = fs::symlink_metadata(&path) else { continue };
        let kind = match status.file_type() {
            kind if kind.is_dir() => {
                host_devices(&path, devices)?;
                continue;
            }
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_block_device() => LinuxDeviceType::B,
            _ => continue,
        };
        let (major, minor) = (rustix::fs::major(status.rdev()), rustix::fs::minor(status.rdev()));
        let device = LinuxDeviceBuilder::default()
            .path(path)
            .typ(kind)
            .major(i64::from(major))
            .minor(i64::from(minor))
            .file_mode(status.mode() & 0o7777)
            .uid(status.uid())
            .gid(status.gid())
            .build();
        devices.push(device.expect("every field of a device has a default"));
    }
    Ok(())
}

fn device(
    allow: bool,
    (kind, major, minor, access): (LinuxDeviceType, Option<i64>, Option<i64>, &str),
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(kind)
        .access(access)
        .build()
        .expect("every field of a device rule has a default");
    rule.set_major(major).set_minor(minor);
    rule
}

/// In the order in which they are mounted.
fn mounts(options: &DefaultSpec<'_>) -> Vec<Mount> {
    let access = if options.privileged { "rw" } else { "ro" };
    let shm_size = format!("size={}", options.shm_size_bytes);
    let entries: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &[access, "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ];
    let mount = |(target, kind, source, options): (&str, &str, &str, &[&str])| {
        MountBuilder::default()
            .destination(target)
            .typ(kind)
            .source(source)
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
            .expect("a mount has its destination")
    };
    entries.into_iter().map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], expected: &[&str]) {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let held = capabilities(false, &CapabilityChange { add: set(add), drop: set(drop) }).unwrap();
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        let mut names: Vec<&str> = capability::names(held).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        check(&[], &[], &CAPABILITIES);
        check(&["NET_ADMIN"], &["ALL"], &["NET_ADMIN"]);
        check(&[], &["ALL"], &[]);
        let all: Vec<&str> = capability::names(capability::ALL).collect();
        check(&["ALL"], &[], &all);
        let without: Vec<&str> = all.into_iter().filter(|name| *name != "SYS_ADMIN").collect();
        check(&["ALL"], &["SYS_ADMIN"], &without);
        assert!(
            capabilities(false, &CapabilityChange { add: ["NO".to_owned()].into(), ..Default::default() }).is_err()
        );
    }

    #[test]
    fn every_capability_has_its_name_in_the_spec() {
        for name in capability::names(capability::ALL) {
            assert_eq!(capability_named(name).to_string(), name);
        }
    }

    #[test]
    fn the_spec_survives_its_journey_as_json() {
        for privileged in [false, true] {
            let spec = docker(&DefaultSpec {
                privileged,
                capabilities: &CapabilityChange::default(),
                seccomp: &SeccompChoice::Default,
                unmasked_system_paths: false,
                host_network: false,
                shm_size_bytes: 64 << 20,
            })
            .unwrap();
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
            assert_eq!(spec.linux().as_ref().unwrap().seccomp().is_none(), privileged);
        }
    }
}
