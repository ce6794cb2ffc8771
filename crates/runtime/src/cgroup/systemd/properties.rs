//! Limits as properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)). Pure.
//!
//! The control files are written by us as well, and exactly. But systemd writes them again when it likes, and must know
//! the same values; what it has no property for, it leaves alone in a scope that is delegated.

use super::message::Value;
use crate::cgroup::limits::{Setting, weight_of_blkio};
use crate::error::RuntimeError;

/// systemd's "no limit".
const INFINITY: u64 = u64::MAX;
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The properties for what is going to be written in control files.
pub(super) fn properties(settings: &[Setting], is_unified: bool) -> Result<Vec<(&'static str, Value)>, RuntimeError> {
    let mut properties = Vec::new();
    // Version 1 has them in two files.
    let (mut quota, mut period) = (None, None);
    let idle = settings.iter().find(|setting| setting.file == "cpu.idle").map(|setting| setting.value != "0");
    for setting in settings {
        let value = setting.value.trim();
        let number = || amount(value, &setting.file);
        match &*setting.file {
            "memory.max" => properties.push(("MemoryMax", Value::Number(number()?))),
            "memory.high" => properties.push(("MemoryHigh", Value::Number(number()?))),
            "memory.low" => properties.push(("MemoryLow", Value::Number(number()?))),
            "memory.min" => properties.push(("MemoryMin", Value::Number(number()?))),
            "memory.swap.max" => properties.push(("MemorySwapMax", Value::Number(number()?))),
            "memory.limit_in_bytes" => properties.push(("MemoryLimit", Value::Number(number()?))),
            "pids.max" => properties.push(("TasksMax", Value::Number(number()?))),
            // One that is idle has no weight, see `idle`.
            "cpu.weight" if idle == Some(true) => {}
            "cpu.weight" => properties.push(("CPUWeight", Value::Number(number()?))),
            "cpu.shares" => properties.push(("CPUShares", Value::Number(number()?))),
            "io.weight" | "io.bfq.weight" | "blkio.weight" => {
                // The weights of single devices stay as they are.
                let Ok(weight) = value.trim_start_matches("default ").parse::<u16>() else { continue };
                properties.push(match &*setting.file {
                    "io.weight" => ("IOWeight", Value::Number(weight.into())),
                    "io.bfq.weight" => ("IOWeight", Value::Number(weight_of_blkio(weight))),
                    _ => ("BlockIOWeight", Value::Number(weight.into())),
                });
            }
            "cpuset.cpus" => properties.push(("AllowedCPUs", Value::Bytes(bits(value)?))),
            "cpuset.mems" => properties.push(("AllowedMemoryNodes", Value::Bytes(bits(value)?))),
            "cpu.cfs_quota_us" => quota = Some(number()?),
            "cpu.cfs_period_us" => period = Some(number()?),
            "cpu.max" => {
                let mut fields = value.split_whitespace();
                quota = fields.next().map(|text| amount(text, &setting.file)).transpose()?;
                period = fields.next().map(|text| amount(text, &setting.file)).transpose()?;
            }
            _ => {}
        }
    }
    if quota.is_some() || period.is_some() {
        let period = period.filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD_US);
        properties.push(("CPUQuotaPeriodUSec", Value::Number(period)));
        properties.push(("CPUQuotaPerSecUSec", Value::Number(per_second(quota.unwrap_or(INFINITY), period))));
    }
    if idle == Some(false) && is_unified && !properties.iter().any(|(name, _)| *name == "CPUWeight") {
        properties.push(("CPUWeight", Value::Number(INFINITY)));
    }
    Ok(properties)
}

/// What says since systemd 252 that a cgroup of version 2 is idle. One before that leaves `cpu.idle` alone, and refuses it.
pub(super) fn idle(settings: &[Setting]) -> Option<(&'static str, Value)> {
    let is_idle = |setting: &Setting| setting.file == "cpu.idle" && setting.value != "0";
    settings.iter().any(is_idle).then_some(("CPUWeight", Value::Number(0)))
}

/// Microseconds in each second. systemd keeps it in percent: rounded up, so that it never allows less.
fn per_second(quota_us: u64, period_us: u64) -> u64 {
    if quota_us == INFINITY {
        return INFINITY;
    }
    let exact = u128::from(quota_us) * 1_000_000 / u128::from(period_us);
    u64::try_from(exact).map_or(INFINITY, |exact| exact.checked_next_multiple_of(10_000).unwrap_or(INFINITY))
}

fn amount(text: &str, file: &str) -> Result<u64, RuntimeError> {
    match text {
        "max" | "-1" => Ok(INFINITY),
        _ => text.parse().map_err(|_| RuntimeError::Invalid(format!("{file}: {text:?} is no amount"))),
    }
}

/// `0-2,7` as a set of bits, the lowest first.
fn bits(list: &str) -> Result<Vec<u8>, RuntimeError> {
    /// The kernel's own limit of processors is 8192 (CONFIG_NR_CPUS).
    const MOST: usize = 1 << 16;
    let wrong = || RuntimeError::Invalid(format!("{list:?} is no list such as 0-2,7"));
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MOST).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        bits.resize(bits.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|number| bits[number / 8] |= 1 << (number % 8));
    }
    if bits.is_empty() { Err(wrong()) } else { Ok(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits::IfAbsent;

    #[track_caller]
    fn check(files: &[(&'static str, &str)], expected: &[(&'static str, Value)]) {
        let setting = |(file, value): &(&'static str, &str)| Setting {
            directory: "/c".into(),
            file: (*file).into(),
            value: (*value).to_owned(),
            if_absent: IfAbsent::Fail,
            once_more: false,
        };
        let settings: Vec<Setting> = files.iter().map(setting).collect();
        assert_eq!(properties(&settings, true).unwrap(), expected);
        // What is idle is so in a property of its own.
        let is_idle = files.contains(&("cpu.idle", "1"));
        assert_eq!(idle(&settings), is_idle.then_some(("CPUWeight", Value::Number(0))));
    }

    #[test]
    fn files_become_properties() {
        check(&[], &[]);
        check(
            &[("memory.max", "1048576"), ("memory.swap.max", "max"), ("pids.max", "5"), ("io.max", "8:0 rbps=1")],
            &[
                ("MemoryMax", Value::Number(1_048_576)),
                ("MemorySwapMax", Value::Number(u64::MAX)),
                ("TasksMax", Value::Number(5)),
            ],
        );
        let quota = |period, quota| {
            [("CPUQuotaPeriodUSec", Value::Number(period)), ("CPUQuotaPerSecUSec", Value::Number(quota))]
        };
        check(&[("cpu.max", "50000 100000")], &quota(100_000, 500_000));
        check(&[("cpu.max", "max 100000")], &quota(100_000, u64::MAX));
        check(&[("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "12345")], &quota(50_000, 250_000));
        check(&[("cpu.cfs_quota_us", "-1")], &quota(100_000, u64::MAX));
        let weight = |name, weight| [(name, Value::Number(weight))];
        check(&[("io.bfq.weight", "1000"), ("io.bfq.weight", "8:0 500")], &weight("IOWeight", 10_000));
        check(&[("io.weight", "default 70"), ("io.weight", "8:0 500")], &weight("IOWeight", 70));
        check(&[("blkio.weight", "500")], &weight("BlockIOWeight", 500));
        check(&[("cpu.idle", "1"), ("cpu.weight", "50")], &[]);
        check(&[("cpu.idle", "0"), ("cpu.weight", "50")], &weight("CPUWeight", 50));
        check(&[("cpu.idle", "0")], &weight("CPUWeight", u64::MAX));
        check(&[("cpuset.cpus", "0-2,9")], &[("AllowedCPUs", Value::Bytes(vec![0b111, 0b10]))]);
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        for bad in ["", "a", "2-1", "0-", "99999999", "0-70000", "-1"] {
            assert!(bits(bad).is_err(), "{bad}");
        }
    }
}
