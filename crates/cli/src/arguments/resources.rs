//! Limits, of `run`, `create` and `update`.

use clap::{Arg, ArgMatches, value_parser};
use serde_json::{Map, Value, json};

use super::flags::{invalid, is_on, list, switch, text, texts, value};
use super::{devices, sizes};
use crate::failure::Failure;

/// What a new container can be given besides [`shared_flags`].
pub fn flags() -> Vec<Arg> {
    let mut flags = shared_flags();
    flags.extend([
        list("blkio-weight-device", None, "Block IO weight (relative device weight)"),
        list("device-read-bps", None, "Limit read rate (bytes per second) from a device"),
        list("device-read-iops", None, "Limit read rate (IO per second) from a device"),
        list("device-write-bps", None, "Limit write rate (bytes per second) to a device"),
        list("device-write-iops", None, "Limit write rate (IO per second) to a device"),
        value("cgroup-parent", None, "string", "Optional parent cgroup for the container"),
        integer("memory-swappiness", None, "Tune container memory swappiness (0 to 100)"),
        switch("oom-kill-disable", None, "Disable OOM Killer"),
        integer("oom-score-adj", None, "Tune host's OOM preferences (-1000 to 1000)"),
        list("ulimit", None, "Ulimit options"),
    ]);
    flags.extend(devices::flags());
    flags
}

/// What can be changed later, too.
pub fn shared_flags() -> Vec<Arg> {
    vec![
        integer("blkio-weight", None, "Block IO (relative weight), between 10 and 1000, or 0 to disable"),
        integer("cpu-period", None, "Limit CPU CFS (Completely Fair Scheduler) period"),
        integer("cpu-quota", None, "Limit CPU CFS (Completely Fair Scheduler) quota"),
        integer("cpu-shares", 'c', "CPU shares (relative weight)"),
        value("cpus", None, "decimal", "Number of CPUs"),
        value("cpuset-cpus", None, "string", "CPUs in which to allow execution (0-3, 0,1)"),
        value("cpuset-mems", None, "string", "MEMs in which to allow execution (0-3, 0,1)"),
        value("memory", 'm', "bytes", "Memory limit"),
        value("memory-reservation", None, "bytes", "Memory soft limit"),
        value("memory-swap", None, "bytes", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
        integer("pids-limit", None, "Tune container pids limit (set -1 for unlimited)"),
    ]
}

fn integer(name: &'static str, short: impl Into<Option<char>>, help: &'static str) -> Arg {
    value(name, short, "int", help).value_parser(value_parser!(i64))
}

/// Puts a new container's limits into `HostConfig`.
pub fn apply(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<(), Failure> {
    apply_shared(matches, host)?;
    for (flag, key) in [("memory-swappiness", "MemorySwappiness"), ("oom-score-adj", "OomScoreAdj")] {
        if let Some(number) = matches.get_one::<i64>(flag) {
            host.insert(key.to_owned(), json!(number));
        }
    }
    if let Some(parent) = text(matches, "cgroup-parent").filter(|parent| !parent.is_empty()) {
        host.insert("CgroupParent".to_owned(), json!(parent));
    }
    if is_on(matches, "oom-kill-disable") {
        host.insert("OomKillDisable".to_owned(), json!(true));
    }
    let mut each = |flag: &'static str, key: &str, parse: &dyn Fn(&str) -> Result<Value, String>| {
        let values = texts(matches, flag);
        let parsed: Result<Vec<Value>, Failure> =
            values.iter().map(|value| parse(value).map_err(|why| invalid(value, flag, why))).collect();
        if !values.is_empty() {
            host.insert(key.to_owned(), parsed?.into());
        }
        Ok::<(), Failure>(())
    };
    each("blkio-weight-device", "BlkioWeightDevice", &weight_device)?;
    each("device-read-bps", "BlkioDeviceReadBps", &bytes_of_device)?;
    each("device-write-bps", "BlkioDeviceWriteBps", &bytes_of_device)?;
    each("device-read-iops", "BlkioDeviceReadIOps", &operations_of_device)?;
    each("device-write-iops", "BlkioDeviceWriteIOps", &operations_of_device)?;
    each("ulimit", "Ulimits", &ulimit)?;
    devices::apply(matches, host)
}

/// Puts the limits that `update` knows too into `HostConfig`, or its body.
pub fn apply_shared(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<(), Failure> {
    let numbers = [
        ("blkio-weight", "BlkioWeight"),
        ("cpu-period", "CpuPeriod"),
        ("cpu-quota", "CpuQuota"),
        ("cpu-shares", "CpuShares"),
        ("pids-limit", "PidsLimit"),
    ];
    for (flag, key) in numbers {
        if let Some(number) = matches.get_one::<i64>(flag) {
            host.insert(key.to_owned(), json!(number));
        }
    }
    for (flag, key) in [("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems")] {
        if let Some(list) = text(matches, flag) {
            host.insert(key.to_owned(), json!(list));
        }
    }
    if let Some(cpus) = text(matches, "cpus") {
        host.insert("NanoCpus".to_owned(), json!(nano_cpus(cpus).map_err(|why| invalid(cpus, "cpus", why))?));
    }
    let sizes = [("memory", "Memory"), ("memory-reservation", "MemoryReservation"), ("memory-swap", "MemorySwap")];
    for (flag, key) in sizes {
        let Some(given) = text(matches, flag) else { continue };
        let bytes = match given {
            "-1" if flag == "memory-swap" => -1,
            _ => sizes::parse(given).map_err(|why| invalid(given, flag, why))?,
        };
        host.insert(key.to_owned(), json!(bytes));
    }
    Ok(())
}

/// Billionths of a processor: `1.5`.
fn nano_cpus(text: &str) -> Result<i64, String> {
    let bad = || "failed to parse as a rational number".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !is_number(whole) || !is_number(part) {
        return Err(bad());
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let part: i64 = format!("{part:0<9}").parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(part)).ok_or_else(bad)
}

/// `/dev/sda` and what follows the colon.
fn device(text: &str) -> Result<(&str, &str), String> {
    let (path, rest) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, rest))
}

fn weight_device(text: &str) -> Result<Value, String> {
    let (path, weight) = device(text)?;
    match weight.parse::<u16>() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => Ok(json!({ "Path": path, "Weight": weight })),
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

fn bytes_of_device(text: &str) -> Result<Value, String> {
    let (path, rate) = device(text)?;
    let rate = sizes::parse(rate).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(json!({ "Path": path, "Rate": rate }))
}

fn operations_of_device(text: &str) -> Result<Value, String> {
    let (path, rate) = device(text)?;
    let rate: u64 = rate.parse().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })?;
    Ok(json!({ "Path": path, "Rate": rate }))
}

/// `nofile=1024:2048`, `core=-1`.
pub fn ulimit(text: &str) -> Result<Value, String> {
    let bad = || format!("invalid ulimit argument: {text}");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        text => text.parse::<i64>().map_err(|_| bad()),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(json!({ "Name": name, "Soft": soft, "Hard": hard }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Value, String> {
        let command = clap::Command::new("x").args(flags()).args_override_self(true);
        let matches = command.try_get_matches_from(format!("x {line}").split_whitespace()).unwrap();
        let mut host = Map::new();
        apply(&matches, &mut host).map_err(|failure| failure.message)?;
        Ok(Value::Object(host))
    }

    #[test]
    fn limits_become_the_apis() {
        for (line, body) in [
            ("", json!({})),
            ("-m 64m --memory-swap -1", json!({"Memory": 64 << 20, "MemorySwap": -1})),
            (
                "--memory-reservation 32MB --memory-swappiness 0",
                json!({
                    "MemoryReservation": 32 << 20, "MemorySwappiness": 0,
                }),
            ),
            ("--cpus 1.5 -c 5", json!({"NanoCpus": 1_500_000_000, "CpuShares": 5})),
            ("--cgroup-parent /team", json!({"CgroupParent": "/team"})),
            ("--cpus .25", json!({"NanoCpus": 250_000_000})),
            ("--cpu-quota -1 --cpu-period 1000", json!({"CpuQuota": -1, "CpuPeriod": 1000})),
            ("--cpuset-cpus 0-1 --cpuset-mems 0", json!({"CpusetCpus": "0-1", "CpusetMems": "0"})),
            ("--pids-limit -1 --oom-score-adj -5", json!({"PidsLimit": -1, "OomScoreAdj": -5})),
            ("--oom-kill-disable --blkio-weight 20", json!({"OomKillDisable": true, "BlkioWeight": 20})),
            (
                "--ulimit nofile=5:6 --ulimit core=-1",
                json!({"Ulimits": [
                    {"Name": "nofile", "Soft": 5, "Hard": 6}, {"Name": "core", "Soft": -1, "Hard": -1},
                ]}),
            ),
            (
                "--device-read-bps /dev/sda:1mb --device-write-iops /dev/sdb:7",
                json!({
                    "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1 << 20}],
                    "BlkioDeviceWriteIOps": [{"Path": "/dev/sdb", "Rate": 7}],
                }),
            ),
            (
                "--blkio-weight-device /dev/sda:200",
                json!({
                    "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 200}],
                }),
            ),
        ] {
            assert_eq!(asked(line), Ok(body), "{line}");
        }
        for (line, words) in [
            ("--cpus x", "failed to parse as a rational number"),
            ("--cpus .", "failed to parse as a rational number"),
            ("--cpus 99999999999", "failed to parse"),
            ("--cpus 0.0000000001", "value is too precise"),
            ("--memory -1", "invalid size"),
            ("--ulimit nofile", "invalid ulimit argument: nofile"),
            ("--ulimit nofile=x", "invalid ulimit argument: nofile=x"),
            ("--ulimit nofile=2:1", "soft limit must be less than or equal to hard limit: 2 > 1"),
            ("--device-read-bps sda:1", "bad format for device path"),
            ("--device-read-bps /dev/sda", "bad format: /dev/sda"),
            ("--device-read-iops /dev/sda:1m", "Number must be a positive"),
            ("--blkio-weight-device /dev/sda:9", "invalid weight for device"),
        ] {
            let message = asked(line).unwrap_err();
            assert!(message.contains(words), "{line}: {message}");
        }
    }
}
