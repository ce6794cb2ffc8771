//! `events`: figures of a container, once or again and again, and when its memory has run out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use super::pause::living;
use super::state::Directory;
use crate::cgroup::{Amount, Cgroup, CgroupStats, CpusetStats, IoEntry, MemoryStats};
use crate::error::{Context, RuntimeError};

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// The container's id
    pub(super) id: String,
    /// Print the figures once, and end
    #[arg(long)]
    stats: bool,
    /// How often, as 500ms, 5s or 1m30s
    #[arg(long, value_parser = duration, default_value = "5s")]
    interval: Duration,
}

/// Prints a line of JSON for each event, until the container has ended.
pub(super) fn events(arguments: &EventsArguments, directory: &Directory) -> Result<(), RuntimeError> {
    let (record, cgroup) = living(directory)?;
    let stats = |cgroup: &Cgroup| print("stats", &record.id, Some(&data(&cgroup.stats())));
    if arguments.stats {
        return stats(&cgroup);
    }
    let Some(process) = record.process() else { return Ok(()) };
    let mut oom = cgroup.watch_oom()?;
    let mut next = Instant::now() + arguments.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::new(&process, PollFlags::IN), PollFd::from_borrowed_fd(oom_fd(&oom), oom.flags())];
        let ready = match rustix::event::poll(&mut polled, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            ready => ready.context(|| "wait for the container".to_owned())?,
        };
        let [ended, memory] = polled.map(|polled| !polled.revents().is_empty());
        // Before the end that it may have been.
        if memory && oom.happened()? {
            print("oom", &record.id, None)?;
        }
        if ended {
            return Ok(());
        }
        if ready == 0 {
            stats(&cgroup)?;
            next = Instant::now() + arguments.interval;
        }
    }
}

fn oom_fd(oom: &crate::cgroup::OomWatch) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(oom)
}

/// In the order in which runc has it, since scripts match the text.
fn line(kind: &str, id: &str, data: Option<&Value>) -> String {
    let data = data.map_or(String::new(), |data| format!(",\"data\":{data}"));
    format!("{{\"type\":{},\"id\":{}{data}}}", json!(kind), json!(id))
}

fn print(kind: &str, id: &str, data: Option<&Value>) -> Result<(), RuntimeError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line(kind, id, data))
        .and_then(|()| out.flush())
        .context(|| "write to standard output".to_owned())
}

/// The form that readers of `runc events` know: what is 0 is left out, but for limits and failures.
fn data(stats: &CgroupStats) -> Value {
    let cpu = &stats.cpu;
    let throttling = object([
        ("periods", count(cpu.periods)),
        ("throttledPeriods", count(cpu.throttled_periods)),
        ("throttledTime", count(cpu.throttled_ns)),
    ]);
    let list = |list: &[u64]| (!list.is_empty()).then(|| json!(list));
    let usage = object([
        ("total", count(cpu.total_ns)),
        ("percpu", list(&cpu.per_cpu_ns)),
        ("percpu_kernel", list(&cpu.per_cpu_kernel_ns)),
        ("percpu_user", list(&cpu.per_cpu_user_ns)),
        ("kernel", Some(json!(cpu.kernel_ns))),
        ("user", Some(json!(cpu.user_ns))),
    ]);
    let hugetlb: BTreeMap<&String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, amount)| {
            let fields = [
                ("usage", count(amount.usage)),
                ("max", count(amount.peak)),
                ("failcnt", Some(json!(amount.failures))),
            ];
            (size, object(fields))
        })
        .collect();
    json!({
        "cpu": {"usage": usage, "throttling": throttling},
        "cpuset": cpuset(&stats.cpuset),
        "memory": memory(&stats.memory),
        "pids": object([("current", count(stats.pids.current)), ("limit", stats.pids.limit.map(|limit| json!(limit)))]),
        "blkio": object([
            ("ioServiceBytesRecursive", entries(&stats.io.service_bytes)),
            ("ioServicedRecursive", entries(&stats.io.serviced)),
            ("ioQueueRecursive", entries(&stats.io.queued)),
            ("ioServiceTimeRecursive", entries(&stats.io.service_time)),
            ("ioWaitTimeRecursive", entries(&stats.io.wait_time)),
            ("ioMergedRecursive", entries(&stats.io.merged)),
            ("ioTimeRecursive", entries(&stats.io.time)),
            ("sectorsRecursive", entries(&stats.io.sectors)),
        ]),
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn cpuset(cpuset: &CpusetStats) -> Value {
    let list = |list: &[u32]| (!list.is_empty()).then(|| json!(list));
    let mut all = object([("cpus", list(&cpuset.cpus)), ("mems", list(&cpuset.mems))]);
    for (name, value) in &cpuset.flags {
        all[*name] = json!(value);
    }
    all
}

fn memory(memory: &MemoryStats) -> Value {
    let amount = |amount: &Amount| {
        object([
            ("limit", Some(json!(amount.limit))),
            ("usage", count(amount.usage)),
            ("max", count(amount.peak)),
            ("failcnt", Some(json!(amount.failures))),
        ])
    };
    object([
        ("cache", count(memory.cache_bytes)),
        ("usage", Some(amount(&memory.usage))),
        ("swap", Some(amount(&memory.with_swap))),
        ("kernel", Some(amount(&memory.kernel))),
        ("kernelTCP", Some(amount(&memory.kernel_tcp))),
        ("raw", (!memory.raw.is_empty()).then(|| json!(memory.raw))),
    ])
}

fn entries(list: &[IoEntry]) -> Option<Value> {
    let entry = |entry: &IoEntry| {
        let operation = (!entry.operation.is_empty()).then(|| json!(entry.operation));
        object([
            ("major", count(entry.major)),
            ("minor", count(entry.minor)),
            ("op", operation),
            ("value", count(entry.value)),
        ])
    };
    (!list.is_empty()).then(|| list.iter().map(entry).collect())
}

fn count(number: u64) -> Option<Value> {
    (number != 0).then(|| json!(number))
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// `1m30s`, `1.5s`, `500ms`: numbers with units, as Go writes durations.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 500ms or 1m30s, above 0");
    let (mut total_s, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit_s = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        total_s += number.parse::<f64>().map_err(|_| wrong())? * unit_s;
        rest = after;
    }
    Duration::try_from_secs_f64(total_s).ok().filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ms) in [("5s", 5_000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1_500), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "0s", "-1s", "1x", "1s2", "..s", "1e99h", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_begins_with_its_kind() {
        assert_eq!(line("oom", "a.b", None), r#"{"type":"oom","id":"a.b"}"#);
        assert_eq!(line("stats", "c", Some(&json!({"cpu": 1}))), r#"{"type":"stats","id":"c","data":{"cpu":1}}"#);
    }

    #[test]
    fn nothing_used_is_little_said() {
        let data = data(&CgroupStats::default());
        assert_eq!(data["cpu"], json!({"usage": {"kernel": 0, "user": 0}, "throttling": {}}));
        assert_eq!(data["memory"]["usage"], json!({"limit": 0, "failcnt": 0}));
        assert_eq!((&data["pids"], &data["blkio"]), (&json!({}), &json!({})));
    }
}
