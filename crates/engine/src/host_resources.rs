//! What of a host can be limited, and how much of it there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dozen_runtime::CgroupLayout;

/// Facts about this host that limits are held against. What is false, the kernel lacks or does not hand on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "what each of them limits")]
pub struct HostResources {
    /// Processors that the engine may use itself.
    pub processors: u64,
    /// Processors and memory nodes that a container can be bound to, as cpuset(7) lists them; empty: not known.
    pub cpus: String,
    pub memory_nodes: String,
    pub memory: bool,
    pub swap: bool,
    pub reservation: bool,
    pub swappiness: bool,
    pub oom_kill_disable: bool,
    pub pids: bool,
    pub cpu_shares: bool,
    pub cpu_quota: bool,
    pub cpuset: bool,
    pub block_io: bool,
    pub block_io_weight: bool,
}

impl HostResources {
    /// This host's, looked up once.
    pub fn of_host() -> &'static Self {
        static HOST: OnceLock<HostResources> = OnceLock::new();
        HOST.get_or_init(Self::look_up)
    }

    fn look_up() -> Self {
        // The engine's own set of processors, and not its quota: that is not the containers'.
        let processors = rustix::thread::sched_getaffinity(None).map_or(1, |set| u64::from(set.count())).max(1);
        let Ok(layout) = CgroupLayout::of_host() else { return Self { processors, ..Self::default() } };
        let place = |controller: &str| layout.mount_of(controller);
        // Version 1 shows at its root what it can do; version 2 only below it, and then does all that the list names.
        let can = |controller: &str, file: &str| {
            place(controller).is_some_and(|(mount, unified)| unified || mount.join(file).exists())
        };
        let only_in_version_1 = |controller: &str, file: &str| {
            place(controller).is_some_and(|(mount, unified)| !unified && mount.join(file).exists())
        };
        let unified_memory = place("memory").filter(|(_, unified)| *unified);
        let io = if place("io").is_some() { "io" } else { "blkio" };
        let list = |file: &str, file_of_version_2: &str| {
            let (mount, unified) = place("cpuset")?;
            let text = std::fs::read_to_string(mount.join(if unified { file_of_version_2 } else { file })).ok()?;
            Some(text.trim().to_owned())
        };
        Self {
            processors,
            cpus: list("cpuset.cpus", "cpuset.cpus.effective").unwrap_or_default(),
            memory_nodes: list("cpuset.mems", "cpuset.mems.effective").unwrap_or_default(),
            memory: can("memory", "memory.limit_in_bytes"),
            swap: match unified_memory {
                Some((mount, _)) => counts_swap(mount),
                None => can("memory", "memory.memsw.limit_in_bytes"),
            },
            reservation: can("memory", "memory.soft_limit_in_bytes"),
            swappiness: only_in_version_1("memory", "memory.swappiness"),
            oom_kill_disable: only_in_version_1("memory", "memory.oom_control"),
            pids: place("pids").is_some(),
            cpu_shares: can("cpu", "cpu.shares"),
            cpu_quota: can("cpu", "cpu.cfs_quota_us"),
            cpuset: place("cpuset").is_some(),
            block_io: can(io, "blkio.throttle.read_bps_device"),
            // BFQ's file of weights is not at the root; its counters are (block/bfq-iosched.rst).
            block_io_weight: can(io, "blkio.weight") || can(io, "blkio.bfq.io_serviced"),
        }
    }
}

/// Version 2 has `memory.swap.max` in every cgroup but the root, if the kernel counts swap at all.
fn counts_swap(mount: &Path) -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).map(PathBuf::from).unwrap_or_default();
    own.as_os_str().is_empty() || mount.join(own).join("memory.swap.max").exists()
}

/// The numbers of a list such as `0-3,5` (cpuset(7), "List format"). `None`: it is none, or has a number above 8191.
pub fn parse_cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    const MOST: u32 = 8191;
    let mut numbers = BTreeSet::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten().filter(|number| *number <= MOST)
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        for (text, numbers) in
            [("", &[][..]), ("0", &[0]), ("0-2,5", &[0, 1, 2, 5]), ("3,3,1", &[1, 3]), ("8191", &[8191])]
        {
            assert_eq!(parse_cpu_list(text), Some(numbers.iter().copied().collect()), "{text}");
        }
        for bad in ["a", "-", "1-", "-1", "2-1", ",", "1,", "+1", "8192", "0-99999999999", " 1"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_host_has_processors() {
        let host = HostResources::of_host();
        assert!(host.processors >= 1);
        assert!(parse_cpu_list(&host.cpus).is_some() && parse_cpu_list(&host.memory_nodes).is_some());
    }
}
