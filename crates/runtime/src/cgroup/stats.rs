//! What a cgroup has used (cgroup-v1's cpuacct.rst, memory.rst, pids.rst, blkio-controller.rst, hugetlb.rst;
//! cgroup-v2.rst).

mod cpuset;
mod io;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::cpuset::CpusetStats;
pub use self::io::{IoEntry, IoStats};
use super::{Cgroup, Hierarchy};

/// Figures of a cgroup and those below it. What this machine does not count is 0 or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// Time on processors.
    pub cpu: CpuStats,
    /// Which processors.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub io: IoStats,
    /// Huge pages, by their size as the kernel writes it: `2MB`.
    pub hugetlb: BTreeMap<String, Amount>,
}

/// Time on processors. Version 2 counts microseconds, here as nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// All of it.
    pub total_ns: u64,
    /// In programs.
    pub user_ns: u64,
    /// In the kernel.
    pub kernel_ns: u64,
    /// By processor, version 1 only.
    pub per_cpu_ns: Vec<u64>,
    /// By processor, in programs; version 1 only.
    pub per_cpu_user_ns: Vec<u64>,
    /// By processor, in the kernel; version 1 only.
    pub per_cpu_kernel_ns: Vec<u64>,
    /// Periods in which a quota was in force.
    pub periods: u64,
    /// Those in which it was used up.
    pub throttled_periods: u64,
    /// How long the cgroup was stopped for it.
    pub throttled_ns: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Of it, the page cache.
    pub cache_bytes: u64,
    /// Memory.
    pub usage: Amount,
    /// Memory and swap together, as version 1 counts; version 2's are added up.
    pub with_swap: Amount,
    /// The kernel's own, version 1 only.
    pub kernel: Amount,
    /// The kernel's buffers of TCP, version 1 only.
    pub kernel_tcp: Amount,
    /// How often the kernel has killed for want of memory.
    pub oom_kills: u64,
    /// memory.stat, as it is.
    pub raw: BTreeMap<String, u64>,
}

/// Of something that is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Now.
    pub usage: u64,
    /// The most so far; 0 where it is not counted.
    pub peak: u64,
    /// The limit; [`u64::MAX`] without one.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
}

/// A control file's text: the controller, the name.
type Read<'a> = &'a dyn Fn(&str, &str) -> Option<String>;

impl Cgroup {
    /// What it has used so far. A cgroup that is gone has used nothing.
    pub fn stats(&self) -> CgroupStats {
        let unified = |controller: &str| self.layout.controller(controller).is_none_or(Hierarchy::is_unified);
        collect(&unified, &|controller, file| {
            // Some counters of version 2 are there without their controller.
            self.read(controller, file).or_else(|| {
                let unified = self.layout.unified().filter(|_| self.layout.is_unified())?;
                std::fs::read_to_string(unified.directory(&self.name).join(file)).ok()
            })
        })
    }
}

/// From control files to figures. `unified`: whether a controller is version 2's.
fn collect(unified: &dyn Fn(&str) -> bool, read: Read<'_>) -> CgroupStats {
    let number = |controller: &str, file: &str| read(controller, file).and_then(|text| amount(&text));
    let pids = PidsStats {
        current: number("pids", "pids.current").unwrap_or(0),
        limit: number("pids", "pids.max").filter(|limit| *limit != u64::MAX),
    };
    CgroupStats {
        cpu: if unified("cpu") { cpu_of_version_2(read) } else { cpu_of_version_1(read) },
        cpuset: if unified("cpuset") { cpuset::of_version_2(read) } else { cpuset::of_version_1(read) },
        memory: if unified("memory") { memory_of_version_2(read) } else { memory_of_version_1(read) },
        pids,
        io: if unified("blkio") { io::of_version_2(read) } else { io::of_version_1(read) },
        hugetlb: hugetlb(unified("hugetlb"), read),
    }
}

fn cpu_of_version_1(read: Read<'_>) -> CpuStats {
    let throttling = pairs(&read("cpu", "cpu.stat").unwrap_or_default());
    // Its numbers are of 1/100 s on every architecture that Linux runs containers on (USER_HZ).
    const TICK_NS: u64 = 10_000_000;
    let ticks = pairs(&read("cpuacct", "cpuacct.stat").unwrap_or_default());
    let ns = |file: &str| read("cpuacct", file).and_then(|text| amount(&text));
    // `cpu user system`, a line for each processor.
    let all = read("cpuacct", "cpuacct.usage_all").unwrap_or_default();
    let column = |index: usize| -> Vec<u64> {
        all.lines().skip(1).filter_map(|line| line.split_whitespace().nth(index)?.parse().ok()).collect()
    };
    let per_cpu = read("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
    let of = |name: &str| throttling.get(name).copied().unwrap_or(0);
    let ticks_of = |name: &str| ticks.get(name).copied().unwrap_or(0).saturating_mul(TICK_NS);
    CpuStats {
        total_ns: ns("cpuacct.usage").unwrap_or(0),
        user_ns: ns("cpuacct.usage_user").unwrap_or_else(|| ticks_of("user")),
        kernel_ns: ns("cpuacct.usage_sys").unwrap_or_else(|| ticks_of("system")),
        per_cpu_ns: per_cpu.split_whitespace().filter_map(|text| text.parse().ok()).collect(),
        per_cpu_user_ns: column(1),
        per_cpu_kernel_ns: column(2),
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_ns: of("throttled_time"),
    }
}

fn cpu_of_version_2(read: Read<'_>) -> CpuStats {
    let values = pairs(&read("cpu", "cpu.stat").unwrap_or_default());
    let of = |name: &str| values.get(name).copied().unwrap_or(0);
    let us = |name: &str| of(name).saturating_mul(1_000);
    CpuStats {
        total_ns: us("usage_usec"),
        user_ns: us("user_usec"),
        kernel_ns: us("system_usec"),
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_ns: us("throttled_usec"),
        ..CpuStats::default()
    }
}

fn memory_of_version_1(read: Read<'_>) -> MemoryStats {
    let raw = pairs(&read("memory", "memory.stat").unwrap_or_default());
    let of = |prefix: &str| {
        let number = |what: &str| read("memory", &format!("memory.{prefix}{what}")).and_then(|text| amount(&text));
        Amount {
            usage: number("usage_in_bytes").unwrap_or(0),
            peak: number("max_usage_in_bytes").unwrap_or(0),
            limit: number("limit_in_bytes").unwrap_or(0),
            failures: number("failcnt").unwrap_or(0),
        }
    };
    let oom = pairs(&read("memory", "memory.oom_control").unwrap_or_default());
    MemoryStats {
        cache_bytes: raw.get("cache").copied().unwrap_or(0),
        usage: of(""),
        with_swap: of("memsw."),
        kernel: of("kmem."),
        kernel_tcp: of("kmem.tcp."),
        oom_kills: oom.get("oom_kill").copied().unwrap_or(0),
        raw,
    }
}

fn memory_of_version_2(read: Read<'_>) -> MemoryStats {
    let raw = pairs(&read("memory", "memory.stat").unwrap_or_default());
    let number = |file: &str| read("memory", file).and_then(|text| amount(&text));
    let events = pairs(&read("memory", "memory.events").unwrap_or_default());
    let event = |name: &str| events.get(name).copied().unwrap_or(0);
    let usage = Amount {
        usage: number("memory.current").unwrap_or(0),
        peak: number("memory.peak").unwrap_or(0),
        limit: number("memory.max").unwrap_or(0),
        failures: event("max"),
    };
    // A kernel without accounting of swap has neither file.
    let with_swap = number("memory.swap.current").map_or_else(Amount::default, |swap| Amount {
        usage: usage.usage.saturating_add(swap),
        limit: usage.limit.saturating_add(number("memory.swap.max").unwrap_or(u64::MAX)),
        ..Amount::default()
    });
    MemoryStats {
        cache_bytes: raw.get("file").copied().unwrap_or(0),
        usage,
        with_swap,
        oom_kills: event("oom_kill"),
        raw,
        ..MemoryStats::default()
    }
}

/// Every size that this machine has (/sys/kernel/mm/hugepages/hugepages-2048kB).
fn hugetlb(unified: bool, read: Read<'_>) -> BTreeMap<String, Amount> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| huge_page_size(entry.file_name().to_str()?));
    let of = |size: String| {
        let number = |file: String| read("hugetlb", &file).and_then(|text| amount(&text));
        let amount = match unified {
            true => Amount {
                usage: number(format!("hugetlb.{size}.current"))?,
                peak: 0,
                limit: number(format!("hugetlb.{size}.max")).unwrap_or(0),
                failures: pairs(&read("hugetlb", &format!("hugetlb.{size}.events"))?).get("max").copied().unwrap_or(0),
            },
            false => Amount {
                usage: number(format!("hugetlb.{size}.usage_in_bytes"))?,
                peak: number(format!("hugetlb.{size}.max_usage_in_bytes")).unwrap_or(0),
                limit: number(format!("hugetlb.{size}.limit_in_bytes")).unwrap_or(0),
                failures: number(format!("hugetlb.{size}.failcnt")).unwrap_or(0),
            },
        };
        Some((size, amount))
    };
    sizes.filter_map(of).collect()
}

/// `hugepages-2048kB` as control files call it: `2MB` (mem_fmt() in mm/hugetlb_cgroup.c).
fn huge_page_size(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        1_048_576.. => format!("{}GB", kilobytes >> 20),
        1_024.. => format!("{}MB", kilobytes >> 10),
        _ => format!("{kilobytes}KB"),
    })
}

/// A number, or `max`.
fn amount(text: &str) -> Option<u64> {
    if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
}

/// Lines of a name and a number.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}
