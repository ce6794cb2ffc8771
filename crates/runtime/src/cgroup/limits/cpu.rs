//! Time on processors, and which of them (cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst, scheduler/sched-rt-group.rst;
//! cgroup-v2.rst, "CPU").

use oci_spec::runtime::LinuxCpu;

use super::{Present, Settings, invalid};
use crate::error::RuntimeError;

const DEFAULT_PERIOD_US: u64 = 100_000;

pub(super) fn limits(settings: &mut Settings<'_>, cpu: &LinuxCpu, present: Present<'_>) -> Result<(), RuntimeError> {
    let unified = settings.is_unified("cpu");
    // Before the shares: an idle cgroup refuses any. 0 is what a new one has.
    if let Some(idle) = cpu.idle()
        && (idle != 0 || present("cpu", "cpu.idle").is_some())
    {
        settings.set("cpu", "cpu.idle", "cpu.idle", idle.to_string())?;
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        let value = if unified { weight_of_shares(shares) } else { shares };
        settings.set("cpu", "cpu.shares", "cpu.weight", value.to_string())?;
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let burst = cpu.burst();
    if let (Some(burst), Some(quota)) = (burst, quota.and_then(|quota| u64::try_from(quota).ok()))
        && burst > quota
    {
        return Err(invalid(format!("linux.resources.cpu.burst: {burst} is more than the quota, {quota}")));
    }
    // Quota, period and burst bound each other: which order is right depends on what was there.
    let burst = burst.filter(|burst| *burst != 0 || present("cpu", burst_file(unified)).is_some());
    if let Some(burst) = burst {
        settings.set("cpu", burst_file(false), burst_file(true), burst.to_string())?.once_more = true;
    }
    if unified && (quota.is_some() || period.is_some()) {
        let now = present("cpu", "cpu.max");
        let mut now = now.iter().flat_map(|text| text.split_whitespace());
        let (old_quota, old_period) = (now.next().unwrap_or("max"), now.next().and_then(|text| text.parse().ok()));
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            Some(_) => "max".to_owned(),
            None => old_quota.to_owned(),
        };
        let period = period.or(old_period).unwrap_or(DEFAULT_PERIOD_US);
        settings.set("cpu", "", "cpu.max", format!("{quota} {period}"))?.once_more = true;
    } else if !unified {
        if let Some(period) = period {
            settings.set("cpu", "cpu.cfs_period_us", "", period.to_string())?.once_more = true;
        }
        if let Some(quota) = quota {
            settings.set("cpu", "cpu.cfs_quota_us", "", quota.to_string())?.once_more = true;
        }
    }
    for (value, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            settings.set("cpuset", file, file, value.clone())?;
        }
    }
    Ok(())
}

/// Version 1 only; version 2 leaves realtime processes to the whole machine's limit.
pub(super) fn realtime(settings: &mut Settings<'_>, cpu: &LinuxCpu) -> Result<(), RuntimeError> {
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        settings.set("cpu", "cpu.rt_period_us", "", period.to_string())?.once_more = true;
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        settings.set("cpu", "cpu.rt_runtime_us", "", runtime.to_string())?;
    }
    Ok(())
}

fn burst_file(unified: bool) -> &'static str {
    if unified { "cpu.max.burst" } else { "cpu.cfs_burst_us" }
}

/// From 2..=262144 with a default of 1024 to 1..=10000 with a default of 100, straight between the ends, as runtimes
/// and systemd's users know it.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}
