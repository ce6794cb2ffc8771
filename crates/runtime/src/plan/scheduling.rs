//! When and where a process runs: scheduler, processors, priority at the disk, memory nodes (runtime-spec, config.md,
//! "process.scheduler", "ioPriority", "execCPUAffinity"; config-linux.md, "Personality", "Memory policy").

use oci_spec::runtime::{
    IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, Process, Scheduler,
};

use super::{invalid, not_built};
use crate::Spec;
use crate::error::RuntimeError;

/// What is asked for; nothing of it costs anything where it is not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheduling {
    pub(crate) scheduler: Option<SchedulerAttributes>,
    /// ioprio_set(2): class and level.
    pub(crate) io_priority: Option<u32>,
    /// Processors of who brings a further process in, until it is in the container's cgroup.
    pub(crate) initial_affinity: Option<Set>,
    /// Processors of a further process from then on.
    pub(crate) final_affinity: Option<Set>,
    /// personality(2).
    pub(crate) personality: Option<u32>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
}

/// `struct sched_attr` of sched_setattr(2), with the two fields for utilisation, of which the specification has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct SchedulerAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
    utilisation: [u32; 2],
}

/// set_mempolicy(2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    /// MPOL_*, with MPOL_F_*.
    pub(crate) mode: u32,
    pub(crate) nodes: Set,
}

/// A set of numbers, as the kernel takes them: one bit for each, 64 to a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set(pub(crate) Vec<u64>);

impl Scheduling {
    pub(crate) fn new(spec: &Spec, process: &Process) -> Result<Self, RuntimeError> {
        let mut wanted = Self {
            scheduler: process.scheduler().as_ref().map(SchedulerAttributes::new).transpose()?,
            ..Self::default()
        };
        if let Some(priority) = process.io_priority() {
            let class = match priority.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            let level = u32::try_from(priority.priority()).ok().filter(|level| *level < 8);
            let level = level.ok_or_else(|| invalid("process.ioPriority: the priority must be 0 to 7"))?;
            wanted.io_priority = Some(class << 13 | level);
        }
        if let Some(affinity) = process.exec_cpu_affinity() {
            let set = |name: &str, list: &Option<String>| {
                let list = list.as_ref().filter(|list| !list.is_empty());
                list.map(|list| Set::parse(&format!("execCPUAffinity.{name}"), list)).transpose()
            };
            wanted.initial_affinity = set("initial", affinity.initial())?;
            wanted.final_affinity = set("final", affinity.cpu_affinity_final())?;
        }
        let Some(linux) = spec.linux() else { return Ok(wanted) };
        if let Some(personality) = linux.personality() {
            if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
                // The specification has a place for them, and none that it knows.
                return not_built("linux.personality.flags");
            }
            wanted.personality = Some(match personality.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            });
        }
        if let Some(policy) = linux.memory_policy() {
            let mode = match policy.mode() {
                MemoryPolicyModeType::MpolDefault => 0,
                MemoryPolicyModeType::MpolPreferred => 1,
                MemoryPolicyModeType::MpolBind => 2,
                MemoryPolicyModeType::MpolInterleave => 3,
                MemoryPolicyModeType::MpolLocal => 4,
                MemoryPolicyModeType::MpolPreferredMany => 5,
                MemoryPolicyModeType::MpolWeightedInterleave => 6,
            };
            let flag = |flag: &MemoryPolicyFlagType| match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            };
            let flags = policy.flags().iter().flatten().map(flag).fold(0, |all, one| all | one);
            let nodes = policy.nodes().as_ref().filter(|nodes| !nodes.is_empty());
            let nodes = nodes.map_or(Ok(Set::default()), |nodes| Set::parse("memoryPolicy.nodes", nodes))?;
            wanted.memory_policy = Some(MemoryPolicy { mode: mode | flags, nodes });
        }
        Ok(wanted)
    }
}

impl SchedulerAttributes {
    fn new(scheduler: &Scheduler) -> Result<Self, RuntimeError> {
        use LinuxSchedulerPolicy as Policy;
        let policy = *scheduler.policy();
        let nice = scheduler.nice().unwrap_or(0);
        if !(-20..=19).contains(&nice) {
            return Err(invalid(format!("process.scheduler: nice must be -20 to 19, not {nice}")));
        }
        let priority = scheduler.priority().unwrap_or(0);
        if priority != 0 && !matches!(policy, Policy::SchedFifo | Policy::SchedRr) {
            return Err(invalid("process.scheduler: a priority is for SCHED_FIFO and SCHED_RR only"));
        }
        let priority = u32::try_from(priority)
            .map_err(|_| invalid(format!("process.scheduler: the priority cannot be {priority}")))?;
        let times = [*scheduler.runtime(), *scheduler.deadline(), *scheduler.period()];
        if times.iter().flatten().any(|time| *time != 0) && policy != Policy::SchedDeadline {
            return Err(invalid("process.scheduler: runtime, deadline and period are for SCHED_DEADLINE only"));
        }
        let [runtime_ns, deadline_ns, period_ns] = times.map(Option::unwrap_or_default);
        // SCHED_FLAG_* of linux/sched.h.
        let flag = |flag: &LinuxSchedulerFlag| match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
        Ok(Self {
            size: size_of::<Self>() as u32,
            policy: match policy {
                Policy::SchedOther => 0,
                Policy::SchedFifo => 1,
                Policy::SchedRr => 2,
                Policy::SchedBatch => 3,
                Policy::SchedIso => 4, // Reserved, and refused by every kernel so far.
                Policy::SchedIdle => 5,
                Policy::SchedDeadline => 6,
            },
            flags: scheduler.flags().iter().flatten().map(flag).fold(0, |all, one| all | one),
            nice,
            priority,
            runtime_ns,
            deadline_ns,
            period_ns,
            utilisation: [0; 2],
        })
    }
}

impl Set {
    /// Numbers and ranges of them, parted by commas: `0-3,7` (cpuset(7), "List format").
    fn parse(what: &str, list: &str) -> Result<Self, RuntimeError> {
        /// More than any kernel is built for (NR_CPUS), and little enough to be kept.
        const MOST: u32 = 8192;
        let bad = || invalid(format!("{what}: {list:?} is no list of numbers below {MOST}"));
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < MOST).ok_or_else(bad);
        let mut words = Vec::new();
        for part in list.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(bad());
            }
            for number in first..=last {
                let word = number as usize / 64;
                if words.len() <= word {
                    words.resize(word + 1, 0);
                }
                words[word] |= 1 << (number % 64);
            }
        }
        Ok(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decide(process: Value, linux: Value) -> Result<Scheduling, RuntimeError> {
        let mut whole = json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}});
        whole.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        let spec: Spec =
            serde_json::from_value(json!({"ociVersion": "1.2.0", "process": whole, "linux": linux})).unwrap();
        Scheduling::new(&spec, spec.process().as_ref().unwrap())
    }

    #[test]
    fn nothing_is_asked_for_by_default() {
        assert_eq!(decide(json!({}), json!({})).unwrap(), Scheduling::default());
    }

    #[test]
    fn what_is_asked_for_becomes_the_kernels_numbers() {
        let wanted = decide(
            json!({
                "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3,
                    "flags": ["SCHED_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"]},
                "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7},
                "execCPUAffinity": {"initial": "0-2,64", "final": "1"},
            }),
            json!({
                "personality": {"domain": "LINUX32"},
                "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
            }),
        )
        .unwrap();
        let scheduler = SchedulerAttributes {
            size: 56,
            policy: 6,
            flags: 3,
            runtime_ns: 1,
            deadline_ns: 2,
            period_ns: 3,
            ..SchedulerAttributes::default()
        };
        assert_eq!(
            wanted,
            Scheduling {
                scheduler: Some(scheduler),
                io_priority: Some(3 << 13 | 7),
                initial_affinity: Some(Set(vec![7, 1])),
                final_affinity: Some(Set(vec![2])),
                personality: Some(8),
                memory_policy: Some(MemoryPolicy { mode: 2 | 1 << 15, nodes: Set(vec![3]) }),
            }
        );
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let refused = |process: Value, linux: Value, words: &str| {
            let error = decide(process, linux).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let scheduler = |scheduler: Value| json!({ "scheduler": scheduler });
        refused(scheduler(json!({"policy": "SCHED_OTHER", "nice": 20})), json!({}), "-20 to 19");
        refused(scheduler(json!({"policy": "SCHED_OTHER", "priority": 1})), json!({}), "SCHED_FIFO and SCHED_RR only");
        refused(scheduler(json!({"policy": "SCHED_FIFO", "priority": -1})), json!({}), "cannot be -1");
        refused(scheduler(json!({"policy": "SCHED_RR", "period": 1})), json!({}), "SCHED_DEADLINE only");
        refused(json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}), json!({}), "0 to 7");
        refused(json!({"execCPUAffinity": {"final": "3-1"}}), json!({}), "execCPUAffinity.final");
        refused(json!({"execCPUAffinity": {"initial": "99999"}}), json!({}), "execCPUAffinity.initial");
        refused(json!({}), json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "x"}}), "memoryPolicy.nodes");
        refused(json!({}), json!({"personality": {"domain": "LINUX", "flags": ["x"]}}), "personality.flags");
    }
}
