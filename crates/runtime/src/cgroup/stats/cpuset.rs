//! Which processors and memory nodes.

use std::collections::BTreeMap;

use super::Read;

/// Where those in a cgroup may run, and whose memory they get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpusetStats {
    /// Processors, by number.
    pub cpus: Vec<u32>,
    /// Memory nodes, by number.
    pub mems: Vec<u32>,
    /// Version 1's switches and measures (cgroup-v1/cpusets.rst), by the name of their file without `cpuset.`.
    pub flags: BTreeMap<&'static str, i64>,
}

const FLAGS: [&str; 9] = [
    "cpu_exclusive",
    "mem_exclusive",
    "mem_hardwall",
    "memory_migrate",
    "memory_pressure",
    "memory_spread_page",
    "memory_spread_slab",
    "sched_load_balance",
    "sched_relax_domain_level",
];

pub(super) fn of_version_1(read: Read<'_>) -> CpusetStats {
    let list = |file: &str| read("cpuset", file).map(|text| numbers(&text)).unwrap_or_default();
    let flag = |name: &&'static str| Some((*name, read("cpuset", &format!("cpuset.{name}"))?.trim().parse().ok()?));
    let flags = FLAGS.iter().filter_map(flag).collect();
    CpusetStats { cpus: list("cpuset.cpus"), mems: list("cpuset.mems"), flags }
}

/// What is in force: a list of its own a cgroup need not have.
pub(super) fn of_version_2(read: Read<'_>) -> CpusetStats {
    let list = |file: &str| read("cpuset", file).map(|text| numbers(&text)).unwrap_or_default();
    CpusetStats { cpus: list("cpuset.cpus.effective"), mems: list("cpuset.mems.effective"), flags: BTreeMap::new() }
}

/// `0-2,7`, as the kernel writes it: in order, and no more than it has processors.
fn numbers(list: &str) -> Vec<u32> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}
