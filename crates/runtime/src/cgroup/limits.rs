//! From a spec's resources to values in control files. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources};

use super::CgroupLayout;
use crate::error::RuntimeError;

/// A cgroup's directory, a control file in it, and what is written there.
pub(crate) type Setting = (PathBuf, String, String);

/// Everything but rules of devices, in order. A limit whose controller is not there is an error, not a silence.
pub(crate) fn decide(
    layout: &CgroupLayout,
    name: &Path,
    resources: &LinuxResources,
) -> Result<Vec<Setting>, RuntimeError> {
    let mut settings = Settings { layout, name, list: Vec::new() };
    if let Some(memory) = resources.memory() {
        memory_limits(&mut settings, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(&mut settings, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        // Only what is asked for has to be possible: no limit is what a new cgroup has.
        if pids.limit() > 0 || layout.controller("pids").is_some() {
            settings.set("pids", "pids.max", "pids.max", limit)?;
        }
    }
    if let Some(io) = resources.block_io() {
        block_limits(&mut settings, io)?;
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        let (old, new) =
            (format!("hugetlb.{}.limit_in_bytes", huge.page_size()), format!("hugetlb.{}.max", huge.page_size()));
        settings.set("hugetlb", &old, &new, huge.limit().to_string())?;
    }
    if resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()) {
        return Err(RuntimeError::NotBuilt("linux.resources.rdma".to_owned()));
    }
    if resources.network().as_ref().is_some_and(|network| {
        network.class_id().is_some_and(|class| class != 0)
            || network.priorities().as_ref().is_some_and(|list| !list.is_empty())
    }) {
        return Err(RuntimeError::NotBuilt("linux.resources.network".to_owned()));
    }
    for (file, value) in resources.unified().iter().flatten() {
        let unified = layout.unified().filter(|_| layout.is_unified()).ok_or_else(|| {
            RuntimeError::Invalid(format!(
                "linux.resources.unified: {file}: this machine's controllers are in version 1"
            ))
        })?;
        if file.contains('/') || !file.contains('.') {
            return Err(RuntimeError::Invalid(format!("linux.resources.unified: {file:?} names no control file")));
        }
        settings.list.push((unified.directory(name), file.clone(), value.clone()));
    }
    Ok(settings.list)
}

/// The same for version 1's devices, which [`decide`] leaves out.
pub(crate) fn decide_devices(
    layout: &CgroupLayout,
    name: &Path,
    resources: &LinuxResources,
) -> Result<Vec<Setting>, RuntimeError> {
    let mut settings = Settings { layout, name, list: Vec::new() };
    if layout.controller("devices").is_some() {
        for rule in resources.devices().iter().flatten() {
            let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
            settings.set("devices", file, "", device_rule(rule))?;
        }
    }
    Ok(settings.list)
}

struct Settings<'a> {
    layout: &'a CgroupLayout,
    name: &'a Path,
    list: Vec<Setting>,
}

impl Settings<'_> {
    /// One value, by the file's name in version 1 and in version 2.
    fn set(&mut self, controller: &str, version_1: &str, version_2: &str, value: String) -> Result<(), RuntimeError> {
        let hierarchy = self.layout.controller(controller).ok_or_else(|| {
            RuntimeError::Invalid(format!("this machine has no cgroup controller {controller:?}, which a limit needs"))
        })?;
        let file = if hierarchy.is_unified() { version_2 } else { version_1 };
        self.list.push((hierarchy.directory(self.name), file.to_owned(), value));
        Ok(())
    }

    fn is_unified(&self, controller: &str) -> bool {
        self.layout.controller(controller).is_some_and(super::Hierarchy::is_unified)
    }
}

/// -1 is no limit, which version 2 calls `max`.
fn amount(bytes: i64, unified: bool) -> String {
    if bytes < 0 && unified { "max".to_owned() } else { bytes.to_string() }
}

fn memory_limits(settings: &mut Settings<'_>, memory: &LinuxMemory) -> Result<(), RuntimeError> {
    let unified = settings.is_unified("memory");
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        settings.set("memory", "memory.limit_in_bytes", "memory.max", amount(limit, unified))?;
    }
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        // The spec counts memory and swap together, version 2 swap alone (OCI runtime-spec, config-linux.md, "Memory").
        let alone = match memory.limit() {
            Some(limit) if swap > 0 && limit > 0 => {
                swap.checked_sub(limit).filter(|swap| *swap >= 0).ok_or_else(|| {
                    RuntimeError::Invalid("Minimum memoryswap limit should be larger than memory limit".to_owned())
                })?
            }
            _ => swap,
        };
        let value = if unified { amount(alone, true) } else { swap.to_string() };
        settings.set("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", value)?;
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        settings.set("memory", "memory.soft_limit_in_bytes", "memory.low", amount(reservation, unified))?;
    }
    // Version 2 has neither of the two; Docker says so in a warning and goes on.
    if let Some(swappiness) = memory.swappiness().filter(|_| !unified) {
        settings.set("memory", "memory.swappiness", "", swappiness.to_string())?;
    }
    if memory.disable_oom_killer() == Some(true) && !unified {
        settings.set("memory", "memory.oom_control", "", "1".to_owned())?;
    }
    Ok(())
}

fn cpu_limits(settings: &mut Settings<'_>, cpu: &LinuxCpu) -> Result<(), RuntimeError> {
    let unified = settings.is_unified("cpu");
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        let value = if unified { weight_of_shares(shares) } else { shares };
        settings.set("cpu", "cpu.shares", "cpu.weight", value.to_string())?;
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if unified && (quota.is_some() || period.is_some()) {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        settings.set("cpu", "", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)))?;
    } else if !unified {
        if let Some(period) = period {
            settings.set("cpu", "cpu.cfs_period_us", "", period.to_string())?;
        }
        if let Some(quota) = quota {
            settings.set("cpu", "cpu.cfs_quota_us", "", quota.to_string())?;
        }
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        settings.set("cpu", "cpu.cfs_burst_us", "cpu.max.burst", burst.to_string())?;
    }
    if cpu.idle().is_some_and(|idle| idle != 0) {
        settings.set("cpu", "cpu.idle", "cpu.idle", "1".to_owned())?;
    }
    if cpu.realtime_period().is_some_and(|period| period != 0) || cpu.realtime_runtime().is_some_and(|time| time != 0) {
        return Err(RuntimeError::NotBuilt("linux.resources.cpu.realtimePeriod and realtimeRuntime".to_owned()));
    }
    for (value, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            settings.set("cpuset", file, file, value.clone())?;
        }
    }
    Ok(())
}

/// From 2..=262144 with a default of 1024 to 1..=10000 with a default of 100, straight between the ends, as runtimes
/// and systemd's users know it.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn block_limits(settings: &mut Settings<'_>, io: &LinuxBlockIo) -> Result<(), RuntimeError> {
    let unified = settings.is_unified("io");
    let controller = if unified { "io" } else { "blkio" };
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let value = if unified { format!("default {weight}") } else { weight.to_string() };
        settings.set(controller, "blkio.weight", "io.bfq.weight", value)?;
    }
    if io.weight_device().as_ref().is_some_and(|list| !list.is_empty())
        || io.leaf_weight().is_some_and(|leaf| leaf != 0)
    {
        return Err(RuntimeError::NotBuilt("linux.resources.blockIO.weightDevice and leafWeight".to_owned()));
    }
    let throttles = [
        (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device", "rbps"),
        (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device", "wbps"),
        (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device", "riops"),
        (io.throttle_write_iops_device(), "blkio.throttle.write_iops_device", "wiops"),
    ];
    for (devices, old, new) in throttles {
        for device in devices.iter().flatten() {
            let (device, rate) = (format!("{}:{}", device.major(), device.minor()), device.rate());
            let value = if unified { format!("{device} {new}={rate}") } else { format!("{device} {rate}") };
            settings.set(controller, old, "io.max", value)?;
        }
    }
    Ok(())
}

/// `c 1:3 rwm` (cgroup-v1/devices.rst). Just `a` stands for all of everything.
fn device_rule(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| number.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => "b",
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
        _ => return "a".to_owned(),
    };
    let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "1 1 0:1 / /c/cpu rw - cgroup c rw,cpu\n1 1 0:2 / /c/memory rw - cgroup c rw,memory\n\
        1 1 0:3 / /c/devices rw - cgroup c rw,devices\n1 1 0:4 / /c/pids rw - cgroup c rw,pids";

    #[track_caller]
    fn check(resources: &str, expected: &[&str]) {
        let resources: LinuxResources = serde_json::from_str(resources).unwrap();
        let (layout, name) = (CgroupLayout::parse(V1), Path::new("x"));
        let mut settings = decide_devices(&layout, name, &resources).unwrap();
        settings.extend(decide(&layout, name, &resources).unwrap());
        let line = |(directory, file, value): &Setting| format!("{}/{file} = {value}", directory.display());
        assert_eq!(settings.iter().map(line).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn limits_of_version_1() {
        check("{}", &[]);
        check(
            r#"{"memory": {"limit": 1048576, "swap": 2097152}}"#,
            &["/c/memory/x/memory.limit_in_bytes = 1048576", "/c/memory/x/memory.memsw.limit_in_bytes = 2097152"],
        );
        check(
            r#"{"cpu": {"shares": 512, "quota": 50000, "period": 100000}, "pids": {"limit": 5}}"#,
            &[
                "/c/cpu/x/cpu.shares = 512",
                "/c/cpu/x/cpu.cfs_period_us = 100000",
                "/c/cpu/x/cpu.cfs_quota_us = 50000",
                "/c/pids/x/pids.max = 5",
            ],
        );
        check(
            r#"{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "b", "access": "m"}]}"#,
            &[
                "/c/devices/x/devices.deny = a",
                "/c/devices/x/devices.allow = c 1:3 rw",
                "/c/devices/x/devices.allow = b *:* m",
            ],
        );
    }

    #[test]
    fn a_limit_without_its_controller_is_refused() {
        for bad in
            [r#"{"cpu": {"cpus": "0"}}"#, r#"{"unified": {"memory.max": "1"}}"#, r#"{"cpu": {"realtimePeriod": 1}}"#]
        {
            let resources: LinuxResources = serde_json::from_str(bad).unwrap();
            assert!(decide(&CgroupLayout::parse(V1), Path::new("x"), &resources).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
    }
}
