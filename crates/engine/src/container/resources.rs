//! From the limits that were asked for to the runtime's. Pure, but for the numbers of block devices, which the caller
//! looks up, and for [`check`], which holds the limits of processes against our own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dozen_model::{BlockDeviceRate, CpuSpec, ResourceSpec, Ulimit};
use dozen_runtime::Spec;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxPidsBuilder, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder, PosixRlimit, PosixRlimitBuilder,
};

use crate::EngineError;
use crate::container::devices;
use crate::host_resources::HostResources;

/// The period of `--cpus`, and the kernel's own (scheduler/sched-bwc.rst).
const PERIOD_US: u64 = 100_000;
/// What every cgroup has unless told otherwise (cgroup-v1/cpu, "cpu.shares").
const SHARES: u64 = 1024;
const UNLIMITED: i64 = -1;

/// A block device's major and minor number.
pub(crate) type Numbers<'a> = &'a dyn Fn(&Path) -> Result<(i64, i64), EngineError>;

/// Puts everything that is limited into a specification. `cdi_directories`: as the settings have them.
pub(crate) fn apply(spec: &mut Spec, asked: &ResourceSpec, cdi_directories: &[PathBuf]) -> Result<(), EngineError> {
    check(asked)?;
    if let Some(process) = spec.process_mut() {
        if !asked.ulimits.is_empty() {
            process.set_rlimits(Some(asked.ulimits.iter().map(rlimit).collect()));
        }
        if asked.oom_score_adjustment != 0 {
            process.set_oom_score_adj(Some(asked.oom_score_adjustment));
        }
    }
    devices::apply(spec, &asked.devices, cdi_directories)?;
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut resources = linux.resources().clone().unwrap_or_default();
    let limits = limits(asked, &block_device)?;
    resources.set_cpu(limits.cpu().clone());
    resources.set_memory(*limits.memory());
    resources.set_pids(*limits.pids());
    resources.set_block_io(limits.block_io().clone());
    linux.set_resources(Some(resources));
    Ok(())
}

/// A new container's limits.
pub(crate) fn limits(asked: &ResourceSpec, numbers: Numbers<'_>) -> Result<LinuxResources, EngineError> {
    let mut resources = LinuxResources::default();
    let mut cpu = LinuxCpu::default();
    if let Some((quota, period)) = quota(&asked.cpu) {
        cpu.set_quota(quota).set_period(period);
    }
    cpu.set_shares(asked.cpu.shares);
    cpu.set_cpus(given(&asked.cpu.cpus)).set_mems(given(&asked.cpu.memory_nodes));
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(asked.memory.limit_bytes.map(amount)).set_swap(asked.memory.with_swap_bytes);
    memory.set_reservation(asked.memory.reservation_bytes.map(amount));
    memory.set_swappiness(asked.memory.swappiness.map(u64::from));
    memory.set_disable_oom_killer(asked.memory.oom_kill_disabled.then_some(true));
    if memory != LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }
    resources.set_pids(asked.pids_max.map(|most| pids(amount(most))));
    resources.set_block_io(block_io(asked, numbers)?);
    Ok(resources)
}

/// What has to be written to a cgroup that is in use so that it has the limits after a change in place of those before;
/// what is limited no more gets what a new cgroup has. The way back is the same with both exchanged.
pub(crate) fn difference(before: &ResourceSpec, after: &ResourceSpec, host: &HostResources) -> LinuxResources {
    let mut resources = LinuxResources::default();
    let mut cpu = LinuxCpu::default();
    if quota(&before.cpu) != quota(&after.cpu) {
        let (quota, period) = quota(&after.cpu).unwrap_or_default();
        cpu.set_quota(Some(quota.unwrap_or(UNLIMITED))).set_period(Some(period.unwrap_or(PERIOD_US)));
    }
    if before.cpu.shares != after.cpu.shares {
        cpu.set_shares(Some(after.cpu.shares.unwrap_or(SHARES)));
    }
    if before.cpu.cpus != after.cpu.cpus {
        cpu.set_cpus(given(&after.cpu.cpus).or_else(|| given(&host.cpus)));
    }
    if before.cpu.memory_nodes != after.cpu.memory_nodes {
        cpu.set_mems(given(&after.cpu.memory_nodes).or_else(|| given(&host.memory_nodes)));
    }
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    let mut memory = LinuxMemory::default();
    let (old, new) = (&before.memory, &after.memory);
    // Version 2 counts swap alone: a new limit of memory is a new limit of swap.
    if (old.limit_bytes, old.with_swap_bytes) != (new.limit_bytes, new.with_swap_bytes) {
        memory.set_limit(Some(new.limit_bytes.map_or(UNLIMITED, amount)));
        memory.set_swap(Some(new.with_swap_bytes.unwrap_or(UNLIMITED)));
    }
    if old.reservation_bytes != new.reservation_bytes {
        match new.reservation_bytes {
            Some(bytes) => drop(memory.set_reservation(Some(amount(bytes)))),
            None if host.swappiness => drop(memory.set_reservation(Some(UNLIMITED))),
            // For version 2 "no limit" would be protection without limit.
            None => drop(resources.set_unified(Some(HashMap::from([("memory.low".to_owned(), "0".to_owned())])))),
        }
    }
    if memory != LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }
    if before.pids_max != after.pids_max {
        resources.set_pids(Some(pids(after.pids_max.map_or(UNLIMITED, amount))));
    }
    // Written last of all: where something is refused it has not been changed, and need not be changed back.
    if before.block_io.weight != after.block_io.weight
        && let Some(weight) = after.block_io.weight
    {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(weight));
        resources.set_block_io(Some(io));
    }
    resources
}

/// Refuses limits of processes that nobody here may set.
///
/// # Errors
/// Raising a hard limit needs CAP_SYS_RESOURCE (setrlimit(2)); no process has more descriptors than `fs.nr_open`.
pub(crate) fn check(asked: &ResourceSpec) -> Result<(), EngineError> {
    if asked.ulimits.is_empty() {
        return Ok(());
    }
    let may_raise = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    let own = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let descriptors = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    asked
        .ulimits
        .iter()
        .try_for_each(|limit| check_ulimit(limit, may_raise, hard_limit(&own, &limit.name), descriptors))
}

fn check_ulimit(limit: &Ulimit, may_raise: bool, own: Option<u64>, nr_open: Option<u64>) -> Result<(), EngineError> {
    let (name, hard) = (&limit.name, rlimit_value(limit.hard));
    let refuse = |most: u64, why: &str, hint: String| {
        let wanted = if hard == u64::MAX { "unlimited".to_owned() } else { hard.to_string() };
        let message = format!("invalid ulimit {name}: the hard limit {wanted} is above {why}, {most}");
        Err(EngineError::Invalid { message, hint: Some(hint) })
    };
    if let Some(most) = nr_open.filter(|most| name == "nofile" && hard > *most) {
        return refuse(most, "fs.nr_open", format!("raise that first: sysctl fs.nr_open={hard}"));
    }
    match own {
        Some(most) if hard > most && !may_raise => {
            let hint = "start the engine with a higher limit, or with CAP_SYS_RESOURCE";
            refuse(most, "the engine's own, and it has no CAP_SYS_RESOURCE", hint.to_owned())
        }
        _ => Ok(()),
    }
}

/// Our own hard limit, of proc_pid_limits(5). `None`: not found.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let title = match name {
        "as" => "Max address space",
        "core" => "Max core file size",
        "cpu" => "Max cpu time",
        "data" => "Max data size",
        "fsize" => "Max file size",
        "locks" => "Max file locks",
        "memlock" => "Max locked memory",
        "msgqueue" => "Max msgqueue size",
        "nice" => "Max nice priority",
        "nofile" => "Max open files",
        "nproc" => "Max processes",
        "rss" => "Max resident set",
        "rtprio" => "Max realtime priority",
        "rttime" => "Max realtime timeout",
        "sigpending" => "Max pending signals",
        "stack" => "Max stack size",
        _ => return None,
    };
    let line = limits.lines().find_map(|line| line.strip_prefix(title))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn rlimit(limit: &Ulimit) -> PosixRlimit {
    let kind = serde_json::Value::String(format!("RLIMIT_{}", limit.name.to_ascii_uppercase()));
    let kind: oci_spec::runtime::PosixRlimitType =
        serde_json::from_value(kind).expect("the model's names are the kernel's");
    let built = PosixRlimitBuilder::default().typ(kind).soft(rlimit_value(limit.soft)).hard(rlimit_value(limit.hard));
    built.build().expect("every field of a limit is given")
}

/// RLIM_INFINITY is the largest number.
fn rlimit_value(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Quota and period in microseconds, each as far as it is asked for.
fn quota(cpu: &CpuSpec) -> Option<(Option<i64>, Option<u64>)> {
    match cpu.nano_cpus {
        Some(nano) => {
            let quota = u128::from(nano) * u128::from(PERIOD_US) / 1_000_000_000;
            Some((Some(i64::try_from(quota).unwrap_or(i64::MAX)), Some(PERIOD_US)))
        }
        None if cpu.quota_us.is_none() && cpu.period_us.is_none() => None,
        None => Some((cpu.quota_us, cpu.period_us)),
    }
}

fn block_io(asked: &ResourceSpec, numbers: Numbers<'_>) -> Result<Option<LinuxBlockIo>, EngineError> {
    let asked = &asked.block_io;
    let mut io = LinuxBlockIo::default();
    io.set_weight(asked.weight);
    let weight = |of: &BlockDeviceRate| -> Result<LinuxWeightDevice, EngineError> {
        let (major, minor) = numbers(&of.path)?;
        let weight = u16::try_from(of.rate).unwrap_or(u16::MAX);
        let built = LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build();
        Ok(built.expect("every field has a default"))
    };
    let rate = |of: &BlockDeviceRate| -> Result<LinuxThrottleDevice, EngineError> {
        let (major, minor) = numbers(&of.path)?;
        let built = LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(of.rate).build();
        Ok(built.expect("every field has a default"))
    };
    let rates = |list: &[BlockDeviceRate]| -> Result<Option<Vec<LinuxThrottleDevice>>, EngineError> {
        if list.is_empty() { Ok(None) } else { list.iter().map(rate).collect::<Result<_, _>>().map(Some) }
    };
    if !asked.device_weights.is_empty() {
        io.set_weight_device(Some(asked.device_weights.iter().map(weight).collect::<Result<_, _>>()?));
    }
    io.set_throttle_read_bps_device(rates(&asked.read_bps)?);
    io.set_throttle_write_bps_device(rates(&asked.write_bps)?);
    io.set_throttle_read_iops_device(rates(&asked.read_iops)?);
    io.set_throttle_write_iops_device(rates(&asked.write_iops)?);
    Ok((io != LinuxBlockIo::default()).then_some(io))
}

/// Of a block device's node on the host.
fn block_device(path: &Path) -> Result<(i64, i64), EngineError> {
    let hint = || Some("lsblk -p lists them".to_owned());
    // Not in the kernel's words: clients take those for a program that is missing.
    let status = rustix::fs::stat(path).map_err(|_| EngineError::Invalid {
        message: format!("the host has no block device {}", path.display()),
        hint: hint(),
    })?;
    if rustix::fs::FileType::from_raw_mode(status.st_mode) != rustix::fs::FileType::BlockDevice {
        let message = format!("{} is no block device", path.display());
        return Err(EngineError::Invalid { message, hint: hint() });
    }
    Ok((i64::from(rustix::fs::major(status.st_rdev)), i64::from(rustix::fs::minor(status.st_rdev))))
}

fn pids(limit: i64) -> LinuxPids {
    LinuxPidsBuilder::default().limit(limit).build().expect("the limit is given")
}

fn amount(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
