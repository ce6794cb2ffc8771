//! A container's statistics in Docker's shape: version 1's and version 2's of cgroups differ in it.

use dozen_engine::runtime::{CgroupStats, CpuStats, IoEntry};
use dozen_engine::{Snapshot, StatsSample};
use serde_json::{Map, Value, json};

use crate::time::NEVER;

/// One document. `before` is the sample that the client had before this one.
pub(crate) fn stats(
    snapshot: &Snapshot,
    before: Option<&StatsSample>,
    now: &StatsSample,
    unified: bool,
    memory_bytes: u64,
) -> Value {
    let mut shown = json!({
        "read": now.time.to_string(),
        "preread": before.map_or_else(|| NEVER.to_owned(), |before| before.time.to_string()),
        "pids_stats": pids(&now.cgroup),
        "blkio_stats": block_io(&now.cgroup, unified),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(now, unified),
        "precpu_stats": before.map_or_else(no_cpu, |before| cpu(before, unified)),
        "memory_stats": memory(&now.cgroup, unified, memory_bytes),
        "name": format!("/{}", snapshot.name),
        "id": snapshot.id.as_str(),
    });
    if !now.networks.is_empty() {
        shown["networks"] = networks(now);
    }
    shown
}

/// Of a container that does not run.
pub(crate) fn none(snapshot: &Snapshot) -> Value {
    json!({
        "read": NEVER,
        "preread": NEVER,
        "pids_stats": {},
        "blkio_stats": no_block_io(),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": no_cpu(),
        "precpu_stats": no_cpu(),
        "memory_stats": {},
        "name": format!("/{}", snapshot.name),
        "id": snapshot.id.as_str(),
    })
}

fn pids(cgroup: &CgroupStats) -> Value {
    let mut pids = json!({ "current": cgroup.pids.current });
    if let Some(limit) = cgroup.pids.limit {
        pids["limit"] = json!(limit);
    }
    pids
}

fn cpu(sample: &StatsSample, unified: bool) -> Value {
    let CpuStats { total_ns, user_ns, kernel_ns, per_cpu_ns, periods, throttled_periods, throttled_ns, .. } =
        &sample.cgroup.cpu;
    let mut usage = json!({
        "total_usage": total_ns, "usage_in_kernelmode": kernel_ns, "usage_in_usermode": user_ns,
    });
    if !unified {
        usage["percpu_usage"] = json!(per_cpu_ns);
    }
    json!({
        "cpu_usage": usage,
        "system_cpu_usage": sample.machine_cpu_ns,
        "online_cpus": sample.processors,
        "throttling_data": {
            "periods": periods, "throttled_periods": throttled_periods, "throttled_time": throttled_ns,
        },
    })
}

fn no_cpu() -> Value {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}

/// Without a limit, the machine's memory is one.
fn memory(cgroup: &CgroupStats, unified: bool, memory_bytes: u64) -> Value {
    let memory = &cgroup.memory;
    let limit = if memory.usage.limit == 0 { memory_bytes } else { memory.usage.limit.min(memory_bytes) };
    let stats: Map<String, Value> = memory.raw.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut shown = json!({ "usage": memory.usage.usage, "stats": stats, "limit": limit });
    if !unified {
        shown["max_usage"] = json!(memory.usage.peak);
    }
    if memory.usage.failures > 0 {
        shown["failcnt"] = json!(memory.usage.failures);
    }
    shown
}

fn block_io(cgroup: &CgroupStats, unified: bool) -> Value {
    let io = &cgroup.io;
    let entries = |list: &[IoEntry]| -> Value {
        // Version 2 counts less, and clients know it by that: there it is null.
        if list.is_empty() && unified {
            return Value::Null;
        }
        let entry = |entry: &IoEntry| {
            let operation = if unified { entry.operation.to_lowercase() } else { entry.operation.clone() };
            json!({ "major": entry.major, "minor": entry.minor, "op": operation, "value": entry.value })
        };
        list.iter().map(entry).collect()
    };
    json!({
        "io_service_bytes_recursive": entries(&io.service_bytes),
        "io_serviced_recursive": entries(if unified { &[] } else { &io.serviced }),
        "io_queue_recursive": entries(&io.queued),
        "io_service_time_recursive": entries(&io.service_time),
        "io_wait_time_recursive": entries(&io.wait_time),
        "io_merged_recursive": entries(&io.merged),
        "io_time_recursive": entries(&io.time),
        "sectors_recursive": entries(&io.sectors),
    })
}

fn no_block_io() -> Value {
    block_io(&CgroupStats::default(), true)
}

fn networks(sample: &StatsSample) -> Value {
    let interface = |(name, of): (&String, &dozen_engine::InterfaceStats)| {
        let shown = json!({
            "rx_bytes": of.rx_bytes, "rx_packets": of.rx_packets, "rx_errors": of.rx_errors,
            "rx_dropped": of.rx_dropped, "tx_bytes": of.tx_bytes, "tx_packets": of.tx_packets,
            "tx_errors": of.tx_errors, "tx_dropped": of.tx_dropped,
        });
        (name.clone(), shown)
    };
    sample.networks.iter().map(interface).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::inspect::tests::{running, snapshot};

    fn sample(total_ns: u64) -> StatsSample {
        let cpu = CpuStats { total_ns, user_ns: 3, kernel_ns: 4, per_cpu_ns: vec![5, 6], ..CpuStats::default() };
        let mut cgroup = CgroupStats { cpu, ..CgroupStats::default() };
        cgroup.memory.usage.usage = 100;
        cgroup.memory.usage.peak = 200;
        cgroup.memory.usage.limit = u64::MAX;
        cgroup.memory.raw = [("inactive_file".to_owned(), 9)].into();
        cgroup.pids.current = 2;
        cgroup.io.service_bytes = vec![IoEntry { major: 8, minor: 0, operation: "Read".into(), value: 7 }];
        let interface = dozen_engine::InterfaceStats { rx_bytes: 11, tx_packets: 12, ..Default::default() };
        StatsSample {
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            cgroup,
            machine_cpu_ns: 1000,
            processors: 2,
            networks: [("eth0".to_owned(), interface)].into(),
        }
    }

    #[test]
    fn both_versions_have_their_shapes() {
        let snapshot = snapshot(json!({ "Image": "x", "Cmd": ["c"] }), running());
        let (before, now) = (sample(50), sample(70));
        let shown = stats(&snapshot, Some(&before), &now, false, 4096);
        assert_eq!(shown["cpu_stats"]["cpu_usage"]["total_usage"], 70);
        assert_eq!(shown["precpu_stats"]["cpu_usage"]["total_usage"], 50);
        assert_eq!(shown["cpu_stats"]["cpu_usage"]["percpu_usage"], json!([5, 6]));
        assert_eq!(
            (&shown["cpu_stats"]["online_cpus"], &shown["cpu_stats"]["system_cpu_usage"]),
            (&json!(2), &json!(1000))
        );
        assert_eq!((&shown["memory_stats"]["limit"], &shown["memory_stats"]["max_usage"]), (&json!(4096), &json!(200)));
        assert_eq!(shown["blkio_stats"]["io_service_bytes_recursive"][0]["op"], "Read");
        assert_eq!(shown["blkio_stats"]["io_queue_recursive"], json!([]));
        assert_eq!(shown["networks"]["eth0"]["rx_bytes"], 11);
        assert_eq!(shown["pids_stats"], json!({"current": 2}));
        assert_eq!(shown["preread"], "2026-01-02T03:04:05Z");
        let shown = stats(&snapshot, None, &now, true, 4096);
        assert!(shown["cpu_stats"]["cpu_usage"].get("percpu_usage").is_none());
        assert!(shown["memory_stats"].get("max_usage").is_none());
        assert_eq!(shown["blkio_stats"]["io_service_bytes_recursive"][0]["op"], "read");
        assert_eq!(shown["blkio_stats"]["io_queue_recursive"], Value::Null);
        assert_eq!((&shown["preread"], &shown["precpu_stats"]["cpu_usage"]["total_usage"]), (&json!(NEVER), &json!(0)));
        assert_eq!(none(&snapshot)["memory_stats"], json!({}));
    }
}
