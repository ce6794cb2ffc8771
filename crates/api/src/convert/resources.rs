//! Limits: Docker's fields, its rules for them and its words (docs.docker.com, "Resource constraints").
//!
//! What this kernel cannot limit is dropped with a warning where Docker does so, and an error where Docker fails.

use dozen_engine::{HostResources, ResourceChange, parse_cpu_list};
use dozen_model::{BlockDeviceRate, BlockIoSpec, CgroupParent, CpuSpec, MemorySpec, ResourceSpec, Ulimit};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fields::Field::{Acts, Ignored, Refused, RefusedUnless, Within};
use super::fields::{Fields, RESTART_POLICY};
use crate::error::ApiError;

/// Less than this does not start a process.
const MEMORY_MIN_BYTES: i64 = 6 << 20;

/// The body of `POST /containers/{id}/update`. Docker passes over what cannot be changed; here it is refused by name.
pub(crate) const UPDATE: Fields = &[
    ("CpuShares", Acts),
    ("Memory", Acts),
    ("NanoCpus", Acts),
    ("CgroupParent", Refused),
    ("BlkioWeight", Acts),
    ("BlkioWeightDevice", Refused),
    ("BlkioDeviceReadBps", Refused),
    ("BlkioDeviceWriteBps", Refused),
    ("BlkioDeviceReadIOps", Refused),
    ("BlkioDeviceWriteIOps", Refused),
    ("CpuPeriod", Acts),
    ("CpuQuota", Acts),
    ("CpuRealtimePeriod", Refused),
    ("CpuRealtimeRuntime", Refused),
    ("CpusetCpus", Acts),
    ("CpusetMems", Acts),
    ("Devices", Refused),
    ("DeviceCgroupRules", Refused),
    ("DeviceRequests", Refused),
    ("KernelMemory", Refused),
    ("KernelMemoryTCP", Refused),
    ("MemoryReservation", Acts),
    ("MemorySwap", Acts),
    ("MemorySwappiness", RefusedUnless(&["-1"])),
    ("OomKillDisable", Refused),
    ("Init", Ignored), // of the container, not of its limits: clients send the whole structure
    ("PidsLimit", Acts),
    ("Ulimits", Refused),
    ("CpuCount", Refused),
    ("CpuPercent", Refused),
    ("IOMaximumIOps", Refused),
    ("IOMaximumBandwidth", Refused),
    ("RestartPolicy", Within(RESTART_POLICY)),
    ("LogConfig", Acts), // our own: options of the log, an empty value takes one away
];

/// A device's path and weight, in a list of them.
pub(crate) const WEIGHT_DEVICE: Fields = &[("Path", Acts), ("Weight", Acts)];
/// A device's path and rate.
pub(crate) const THROTTLE_DEVICE: Fields = &[("Path", Acts), ("Rate", Acts)];
/// A limit of setrlimit(2).
pub(crate) const ULIMIT: Fields = &[("Name", Acts), ("Soft", Acts), ("Hard", Acts)];

/// Docker's `Resources`, as create and update have them. 0, and what is empty, asks for nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Resources {
    pub(crate) cpu_shares: i64,
    pub(crate) memory: i64,
    pub(crate) nano_cpus: i64,
    pub(crate) blkio_weight: u16,
    pub(crate) blkio_weight_device: Vec<WeightDevice>,
    pub(crate) blkio_device_read_bps: Vec<ThrottleDevice>,
    pub(crate) blkio_device_write_bps: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub(crate) blkio_device_read_iops: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub(crate) blkio_device_write_iops: Vec<ThrottleDevice>,
    pub(crate) cpu_period: i64,
    pub(crate) cpu_quota: i64,
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    pub(crate) memory_reservation: i64,
    pub(crate) memory_swap: i64,
    pub(crate) memory_swappiness: Option<i64>,
    pub(crate) oom_kill_disable: bool,
    pub(crate) oom_score_adj: i64,
    pub(crate) cgroup_parent: String,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) ulimits: Vec<RequestedUlimit>,
    #[serde(flatten)]
    pub(crate) devices: super::devices::Devices,
}

/// The body of `POST /containers/{id}/update`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct UpdateRequest {
    #[serde(flatten)]
    pub(crate) resources: Resources,
    /// Without a name: as it is.
    pub(crate) restart_policy: super::restart::Requested,
    /// Without options: as it is.
    pub(crate) log_config: super::request::LogConfig,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct WeightDevice {
    path: String,
    weight: u16,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ThrottleDevice {
    path: String,
    rate: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RequestedUlimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

/// A new container's limits.
pub(crate) fn spec(
    asked: &Resources,
    host: &HostResources,
    warnings: &mut Vec<String>,
) -> Result<ResourceSpec, ApiError> {
    let mut asked = asked.clone();
    if asked.memory > 0 && asked.memory_swap == 0 {
        asked.memory_swap = asked.memory.saturating_mul(2);
    }
    verify(&mut asked, host, false, warnings)?;
    if !(-1000..=1000).contains(&asked.oom_score_adj) {
        return Err(ApiError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            asked.oom_score_adj
        )));
    }
    let rates = |list: &[ThrottleDevice]| list.iter().map(rate).collect();
    Ok(ResourceSpec {
        cpu: CpuSpec {
            nano_cpus: positive(asked.nano_cpus),
            shares: positive(asked.cpu_shares),
            period_us: positive(asked.cpu_period),
            quota_us: quota(asked.cpu_quota),
            cpus: asked.cpuset_cpus.clone(),
            memory_nodes: asked.cpuset_mems.clone(),
        },
        memory: MemorySpec {
            limit_bytes: positive(asked.memory),
            with_swap_bytes: (asked.memory_swap != 0).then_some(asked.memory_swap),
            reservation_bytes: positive(asked.memory_reservation),
            swappiness: asked.memory_swappiness.and_then(|swappiness| u8::try_from(swappiness).ok()),
            oom_kill_disabled: asked.oom_kill_disable,
        },
        pids_max: asked.pids_limit.and_then(positive),
        block_io: BlockIoSpec {
            weight: (asked.blkio_weight != 0).then_some(asked.blkio_weight),
            device_weights: asked.blkio_weight_device.iter().map(weight).collect::<Result<_, _>>()?,
            read_bps: rates(&asked.blkio_device_read_bps),
            write_bps: rates(&asked.blkio_device_write_bps),
            read_iops: rates(&asked.blkio_device_read_iops),
            write_iops: rates(&asked.blkio_device_write_iops),
        },
        ulimits: ulimits(&asked.ulimits)?,
        oom_score_adjustment: i32::try_from(asked.oom_score_adj).unwrap_or_default(),
        devices: super::devices::spec(&asked.devices)?,
        cgroup_parent: cgroup_parent(&asked.cgroup_parent)?,
    })
}

/// In which cgroup the container's own lies; empty: the engine's.
pub(crate) fn cgroup_parent(asked: &str) -> Result<Option<CgroupParent>, ApiError> {
    match asked {
        "" => Ok(None),
        text => Ok(Some(text.parse()?)),
    }
}

/// New limits for a container.
pub(crate) fn change(
    asked: &Resources,
    host: &HostResources,
    warnings: &mut Vec<String>,
) -> Result<ResourceChange, ApiError> {
    let mut asked = asked.clone();
    verify(&mut asked, host, true, warnings)?;
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(ResourceChange {
        nano_cpus: positive(asked.nano_cpus),
        shares: positive(asked.cpu_shares),
        period_us: positive(asked.cpu_period),
        quota_us: quota(asked.cpu_quota),
        cpus: given(&asked.cpuset_cpus),
        memory_nodes: given(&asked.cpuset_mems),
        limit_bytes: positive(asked.memory),
        with_swap_bytes: (asked.memory_swap != 0).then_some(asked.memory_swap),
        reservation_bytes: positive(asked.memory_reservation),
        pids_max: asked.pids_limit.map(positive),
        block_io_weight: (asked.blkio_weight != 0).then_some(asked.blkio_weight),
    })
}

/// Holds the limits against each other and the host. What the kernel lacks is dropped, with a warning.
fn verify(
    asked: &mut Resources,
    host: &HostResources,
    is_update: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    memory(asked, host, is_update, warnings)?;
    if asked.pids_limit.is_some_and(|limit| limit > 0) && !host.pids {
        asked.pids_limit = None;
        warnings.push(lacks("PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."));
    }
    cpu(asked, host, warnings)?;
    block_io(asked, host, warnings)
}

fn lacks(what: &str) -> String {
    format!("Your kernel does not support {what}")
}

fn memory(
    asked: &mut Resources,
    host: &HostResources,
    is_update: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let refuse = |message: &str| Err(ApiError::invalid(message));
    if asked.memory != 0 && asked.memory < MEMORY_MIN_BYTES {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if asked.memory_swap < -1 {
        return Err(ApiError::invalid(format!("invalid MemorySwap {}: want -1, 0 or bytes", asked.memory_swap)));
    }
    if asked.memory > 0 && !host.memory {
        warnings.push(lacks("memory limit capabilities or the cgroup is not mounted. Limitation discarded."));
        (asked.memory, asked.memory_swap) = (0, -1);
    }
    if asked.memory > 0 && asked.memory_swap != -1 && !host.swap {
        warnings.push(lacks("swap limit capabilities or the cgroup is not mounted. Memory limited without swap."));
        asked.memory_swap = -1;
    }
    if asked.memory > 0 && asked.memory_swap > 0 && asked.memory_swap < asked.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if asked.memory == 0 && asked.memory_swap > 0 && !is_update {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    // -1: the kernel's own.
    asked.memory_swappiness = asked.memory_swappiness.filter(|swappiness| *swappiness != -1);
    if asked.memory_swappiness.is_some() && !host.swappiness {
        warnings
            .push(lacks("memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."));
        asked.memory_swappiness = None;
    }
    if let Some(swappiness) = asked.memory_swappiness.filter(|swappiness| !(0..=100).contains(swappiness)) {
        return Err(ApiError::invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    if asked.memory_reservation > 0 && !host.reservation {
        warnings.push(lacks("memory soft limit capabilities or the cgroup is not mounted. Limitation discarded."));
        asked.memory_reservation = 0;
    }
    if asked.memory_reservation != 0 && asked.memory_reservation < MEMORY_MIN_BYTES {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if asked.memory > 0 && asked.memory < asked.memory_reservation {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if asked.oom_kill_disable && !host.oom_kill_disable {
        warnings.push(lacks("OomKillDisable. OomKillDisable discarded."));
        asked.oom_kill_disable = false;
    }
    if asked.oom_kill_disable && asked.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources."
                .to_owned(),
        );
    }
    Ok(())
}

fn cpu(asked: &mut Resources, host: &HostResources, warnings: &mut Vec<String>) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::invalid(message));
    if asked.nano_cpus > 0 && asked.cpu_period > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set.".into());
    }
    if asked.nano_cpus > 0 && asked.cpu_quota > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set.".into());
    }
    if asked.nano_cpus > 0 && !host.cpu_quota {
        return refuse(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted"
                .into(),
        );
    }
    let most = i64::try_from(host.processors).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if asked.nano_cpus < 0 || asked.nano_cpus > most {
        let count = host.processors;
        return refuse(format!("Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"));
    }
    // Less than a millisecond of a period is no quota for the kernel (scheduler/sched-bwc.rst).
    if (1..10_000_000).contains(&asked.nano_cpus) {
        let count = host.processors;
        return refuse(format!("Range of CPUs is from 0.01 to {count}.00, and this is less"));
    }
    if asked.cpu_shares < 0 {
        return refuse(format!("invalid CPU shares ({}): value must be a positive integer", asked.cpu_shares));
    }
    if asked.cpu_shares > 0 && !host.cpu_shares {
        warnings.push(lacks("CPU shares or the cgroup is not mounted. Shares discarded."));
        asked.cpu_shares = 0;
    }
    if (asked.cpu_period != 0 || asked.cpu_quota != 0) && !host.cpu_quota {
        warnings.push(lacks("CPU CFS scheduler. CPU period/quota discarded."));
        (asked.cpu_period, asked.cpu_quota) = (0, 0);
    }
    if asked.cpu_period != 0 && !(1_000..=1_000_000).contains(&asked.cpu_period) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)".into());
    }
    if (1..1_000).contains(&asked.cpu_quota) {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
    }
    let binds = !asked.cpuset_cpus.is_empty() || !asked.cpuset_mems.is_empty();
    if binds && !host.cpuset {
        warnings.push(lacks("cpuset or the cgroup is not mounted. Cpuset discarded."));
        asked.cpuset_cpus.clear();
        asked.cpuset_mems.clear();
    }
    available(&asked.cpuset_cpus, &host.cpus, "cpuset cpus", "CPUs")?;
    available(&asked.cpuset_mems, &host.memory_nodes, "cpuset mems", "memory nodes")
}

fn available(asked: &str, there: &str, what: &str, plural: &str) -> Result<(), ApiError> {
    let wanted = parse_cpu_list(asked)
        .ok_or_else(|| ApiError::invalid(format!("Invalid value {asked} for {what}, want a list such as 0-2,7")))?;
    if parse_cpu_list(there).is_none_or(|there| wanted.is_subset(&there)) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("Requested {plural} are not available - requested {asked}, available: {there}")))
}

fn block_io(asked: &mut Resources, host: &HostResources, warnings: &mut Vec<String>) -> Result<(), ApiError> {
    if asked.blkio_weight > 0 && !host.block_io_weight {
        warnings.push(lacks("Block I/O weight or the cgroup is not mounted. Weight discarded."));
        asked.blkio_weight = 0;
    }
    if asked.blkio_weight > 0 && !(10..=1000).contains(&asked.blkio_weight) {
        return Err(ApiError::invalid("Range of blkio weight is from 10 to 1000"));
    }
    if !asked.blkio_weight_device.is_empty() && !host.block_io_weight {
        warnings.push(lacks("Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."));
        asked.blkio_weight_device.clear();
    }
    let lists = [
        (&mut asked.blkio_device_read_bps, "BPS Block I/O read limit", "Block I/O BPS read limit"),
        (&mut asked.blkio_device_write_bps, "BPS Block I/O write limit", "Block I/O BPS write limit"),
        (&mut asked.blkio_device_read_iops, "IOPS Block read limit", "Block I/O IOPS read limit"),
        (&mut asked.blkio_device_write_iops, "IOPS Block write limit", "Block I/O IOPS write limit"),
    ];
    for (list, what, short) in lists {
        if !list.is_empty() && !host.block_io {
            warnings.push(lacks(&format!("{what} or the cgroup is not mounted. {short} discarded.")));
            list.clear();
        }
        if let Some(device) = list.iter().find(|device| device.path.is_empty() || device.path.contains('\0')) {
            return Err(ApiError::invalid(format!("invalid device path {:?}", device.path)));
        }
    }
    Ok(())
}

fn rate(device: &ThrottleDevice) -> BlockDeviceRate {
    BlockDeviceRate { path: device.path.as_str().into(), rate: device.rate }
}

fn weight(device: &WeightDevice) -> Result<BlockDeviceRate, ApiError> {
    if !(10..=1000).contains(&device.weight) || device.path.is_empty() || device.path.contains('\0') {
        return Err(ApiError::invalid(format!(
            "invalid weight {} for device {:?}: the range is from 10 to 1000",
            device.weight, device.path
        )));
    }
    Ok(BlockDeviceRate { path: device.path.as_str().into(), rate: u64::from(device.weight) })
}

/// Of two with one name the later counts, as with Docker's command line.
pub(crate) fn ulimits(asked: &[RequestedUlimit]) -> Result<Vec<Ulimit>, ApiError> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for RequestedUlimit { name, soft, hard } in asked {
        let (name, soft, hard) = (name.as_str(), *soft, *hard);
        if !Ulimit::NAMES.contains(&name) {
            return Err(ApiError::invalid(format!("invalid ulimit type: {name}")));
        }
        if soft < -1 || hard < -1 {
            return Err(ApiError::invalid(format!("invalid ulimit {name}: want -1, which is unlimited, or a number")));
        }
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(ApiError::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        limits.retain(|known| known.name != name);
        limits.push(Ulimit { name: name.to_owned(), soft, hard });
    }
    Ok(limits)
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

/// Any negative quota is none.
fn quota(quota: i64) -> Option<i64> {
    (quota != 0).then_some(quota.max(-1))
}

/// Puts what was asked for into an inspect's HostConfig, in place of what stands there for nothing.
pub(crate) fn show(spec: &ResourceSpec, host_config: &mut Value) {
    let Value::Object(shown) = host_config else { return };
    let mut put = |key: &str, value: Value| shown.insert(key.to_owned(), value);
    let ResourceSpec { cpu, memory, block_io, .. } = spec;
    put("OomScoreAdj", json!(spec.oom_score_adjustment));
    put("CgroupParent", json!(spec.cgroup_parent.as_ref().map_or(String::new(), ToString::to_string)));
    put("NanoCpus", json!(cpu.nano_cpus.unwrap_or(0)));
    put("CpuShares", json!(cpu.shares.unwrap_or(0)));
    put("CpuPeriod", json!(cpu.period_us.unwrap_or(0)));
    put("CpuQuota", json!(cpu.quota_us.unwrap_or(0)));
    put("CpusetCpus", json!(cpu.cpus));
    put("CpusetMems", json!(cpu.memory_nodes));
    put("Memory", json!(memory.limit_bytes.unwrap_or(0)));
    put("MemorySwap", json!(memory.with_swap_bytes.unwrap_or(0)));
    put("MemoryReservation", json!(memory.reservation_bytes.unwrap_or(0)));
    put("MemorySwappiness", json!(memory.swappiness));
    put("OomKillDisable", json!(memory.oom_kill_disabled));
    put("PidsLimit", json!(spec.pids_max));
    put("BlkioWeight", json!(block_io.weight.unwrap_or(0)));
    let rates = |list: &[BlockDeviceRate], of: &str| -> Value {
        list.iter()
            .map(|device| {
                Value::Object(Map::from_iter([
                    ("Path".to_owned(), json!(device.path)),
                    (of.to_owned(), json!(device.rate)),
                ]))
            })
            .collect()
    };
    put("BlkioWeightDevice", rates(&block_io.device_weights, "Weight"));
    put("BlkioDeviceReadBps", rates(&block_io.read_bps, "Rate"));
    put("BlkioDeviceWriteBps", rates(&block_io.write_bps, "Rate"));
    put("BlkioDeviceReadIOps", rates(&block_io.read_iops, "Rate"));
    put("BlkioDeviceWriteIOps", rates(&block_io.write_iops, "Rate"));
    let ulimit = |limit: &Ulimit| json!({ "Name": limit.name, "Hard": limit.hard, "Soft": limit.soft });
    put("Ulimits", spec.ulimits.iter().map(ulimit).collect());
    super::devices::show(&spec.devices, shown);
}

#[cfg(test)]
mod tests;
