//! How much of the host a container may use, and which of its devices.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup_parent::CgroupParent;

/// Limits of a container and its devices. What is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceSpec {
    /// Time on processors, and which.
    pub cpu: CpuSpec,
    /// Memory and swap.
    pub memory: MemorySpec,
    /// Processes and threads together. At least 1.
    pub pids_max: Option<u64>,
    /// Block devices.
    pub block_io: BlockIoSpec,
    /// Limits of setrlimit(2) of every process; none is named twice.
    pub ulimits: Vec<Ulimit>,
    /// How readily the kernel kills it for want of memory: -1000 to 1000 (proc_pid_oom_score_adj(5)).
    pub oom_score_adjustment: i32,
    /// The host's devices.
    pub devices: DeviceSpec,
    /// Where its cgroup lies, whose limits hold for all who are in there; `None`: in the engine's own.
    pub cgroup_parent: Option<CgroupParent>,
}

/// Time on processors, and which of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuSpec {
    /// Billionths of a processor's time. Excludes period and quota.
    pub nano_cpus: Option<u64>,
    /// Weight against other containers, 2 to 262144; by default everyone has 1024.
    pub shares: Option<u64>,
    /// Length of the periods that the quota is given in, in microseconds.
    pub period_us: Option<u64>,
    /// Time in each period, in microseconds; -1: no limit.
    pub quota_us: Option<i64>,
    /// Processors, as cpuset(7) lists them: `0-3,5`. Empty: all.
    pub cpus: String,
    /// Memory nodes, in the same form. Empty: all.
    pub memory_nodes: String,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemorySpec {
    /// The most it may have.
    pub limit_bytes: Option<u64>,
    /// The most that it may have of memory and swap together; -1: no limit.
    pub with_swap_bytes: Option<i64>,
    /// What it is left where memory is short.
    pub reservation_bytes: Option<u64>,
    /// How readily its pages are swapped, 0 to 100 (version 1 of cgroups only).
    pub swappiness: Option<u8>,
    /// The kernel does not kill for want of memory: who wants more waits (version 1 of cgroups only).
    pub oom_kill_disabled: bool,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIoSpec {
    /// Weight against other containers, 10 to 1000.
    pub weight: Option<u16>,
    /// The same for single devices.
    pub device_weights: Vec<BlockDeviceRate>,
    /// Bytes read in a second.
    pub read_bps: Vec<BlockDeviceRate>,
    /// Bytes written in a second.
    pub write_bps: Vec<BlockDeviceRate>,
    /// Reads in a second.
    pub read_iops: Vec<BlockDeviceRate>,
    /// Writes in a second.
    pub write_iops: Vec<BlockDeviceRate>,
}

/// A block device's rate, or weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDeviceRate {
    /// Its node on the host; its numbers are looked up at each start.
    pub path: PathBuf,
    /// Bytes or operations in a second; or a weight, 10 to 1000.
    pub rate: u64,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in `nofile`: RLIMIT_NOFILE in lower case.
    pub name: String,
    /// What is in force; -1: no limit.
    pub soft: i64,
    /// How far a process may raise it; -1: no limit.
    pub hard: i64,
}

impl Ulimit {
    /// Every one of the kernel's.
    pub const NAMES: [&'static str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
}

/// Devices that a container has beside those of every container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceSpec {
    /// Nodes of the host, or directories of them.
    pub mappings: Vec<DeviceMapping>,
    /// Further rules of what may be used, each as written: `c 42:* rmw` (cgroup-v1/devices.rst).
    pub rules: Vec<DeviceRule>,
    /// Devices that a specification of the host's describes (the Container Device Interface), or a kind of them.
    pub requests: Vec<DeviceRequest>,
}

/// A device of the host's in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// On the host: a node, a link to one, or a directory of them.
    pub host_path: PathBuf,
    /// Inside.
    pub path: PathBuf,
    /// Of `r`, `w` and `m`, each at most once.
    pub access: String,
}

/// Devices that may be used if a node of theirs is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m`, each at most once.
    pub access: String,
}

/// What `--gpus` and `--device vendor/class=name` ask for, as Docker's API has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `cdi`, `nvidia`, or empty: whoever has the capabilities.
    pub driver: String,
    /// How many; -1: all; 0: those of `ids`.
    pub count: i64,
    /// Which.
    pub ids: Vec<String>,
    /// Any of these sets has to be had as a whole: `[["gpu"]]`.
    pub capabilities: Vec<Vec<String>>,
    /// The driver's own.
    pub options: std::collections::BTreeMap<String, String>,
}
