//! Memory and swap (cgroup-v1/memory.rst; cgroup-v2.rst, "Memory").

use oci_spec::runtime::LinuxMemory;

use super::{IfAbsent, Present, Settings, invalid};
use crate::error::RuntimeError;

const NONE: i64 = -1;

pub(super) fn limits(
    settings: &mut Settings<'_>,
    memory: &LinuxMemory,
    present: Present<'_>,
) -> Result<(), RuntimeError> {
    let unified = settings.is_unified("memory");
    if let Some(hierarchical) = memory.use_hierarchy() {
        if !unified {
            // Before all else: what is charged follows it.
            settings.set("memory", "memory.use_hierarchy", "", i32::from(hierarchical).to_string())?;
        } else if !hierarchical {
            return Err(without_counterpart("memory.useHierarchy = false"));
        }
    }
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    if let Some(limit) = limit {
        let setting =
            settings.set("memory", "memory.limit_in_bytes", "memory.max", amount("limit", limit, unified)?)?;
        // Version 1 wants it never above the limit of memory and swap, which may be about to change.
        setting.once_more = !unified;
    }
    match (limit, swap) {
        // Memory without a limit, and nothing said of swap: there is none for both.
        (Some(..0), None) => unlimited_swap(settings, unified)?,
        (_, Some(..0)) => unlimited_swap(settings, unified)?,
        (_, Some(swap)) => {
            let value = match unified {
                true => swap_alone(limit.or_else(|| limit_of(present)), swap)?,
                false => swap,
            };
            let setting =
                settings.set("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", value.to_string())?;
            if value == 0 && unified {
                // A kernel without accounting of swap: with no more than none there is nothing to count.
                setting.if_absent = IfAbsent::Pass;
            }
        }
        (_, None) => {}
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        let value = amount("reservation", reservation, unified)?;
        settings.set("memory", "memory.soft_limit_in_bytes", "memory.low", value)?;
    }
    // Deprecated by the specification; what a kernel still makes of it is its own affair.
    if let Some(kernel) = memory.kernel().filter(|kernel| *kernel != 0) {
        let value = amount("kernel", kernel, false)?;
        if !(unified && kernel < 0) {
            settings.set("memory", "memory.kmem.limit_in_bytes", "", value)?;
        }
    }
    if let Some(kernel) = memory.kernel_tcp().filter(|kernel| *kernel != 0) {
        let value = amount("kernelTCP", kernel, false)?;
        if !(unified && kernel < 0) {
            settings.set("memory", "memory.kmem.tcp.limit_in_bytes", "", value)?;
        }
    }
    if let Some(swappiness) = memory.swappiness() {
        if unified {
            return Err(without_counterpart("memory.swappiness"));
        }
        if swappiness > 100 {
            return Err(invalid(format!("linux.resources.memory.swappiness: {swappiness} is not between 0 and 100")));
        }
        settings.set("memory", "memory.swappiness", "", swappiness.to_string())?;
    }
    match memory.disable_oom_killer() {
        Some(true) if unified => return Err(without_counterpart("memory.disableOOMKiller")),
        // It is what a new cgroup has.
        Some(false) if unified || present("memory", "memory.oom_control").is_none() => {}
        Some(disabled) => {
            settings.set("memory", "memory.oom_control", "", i32::from(disabled).to_string())?;
        }
        None => {}
    }
    Ok(())
}

fn unlimited_swap(settings: &mut Settings<'_>, unified: bool) -> Result<(), RuntimeError> {
    let value = amount("swap", NONE, unified)?;
    settings.set("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", value)?.if_absent = IfAbsent::Pass;
    Ok(())
}

/// -1 is no limit, which version 2 calls `max`.
fn amount(what: &str, bytes: i64, unified: bool) -> Result<String, RuntimeError> {
    match bytes {
        NONE if unified => Ok("max".to_owned()),
        ..NONE => Err(invalid(format!("linux.resources.memory.{what}: {bytes} is neither an amount nor -1"))),
        _ => Ok(bytes.to_string()),
    }
}

/// The specification counts memory and swap together, version 2 swap alone.
pub(crate) fn swap_alone(limit: Option<i64>, swap: i64) -> Result<i64, RuntimeError> {
    match limit {
        // No limit to take away.
        Some(..0) => Ok(swap),
        Some(limit) if swap >= limit => Ok(swap - limit),
        // Docker's words.
        Some(_) => Err(invalid("Minimum memoryswap limit should be larger than memory limit")),
        None => Err(invalid("unable to set swap limit without memory limit")),
    }
}

/// The limit that is in force.
fn limit_of(present: Present<'_>) -> Option<i64> {
    let text = present("memory", "memory.max")?;
    if text.trim() == "max" { Some(NONE) } else { text.trim().parse().ok() }
}

fn without_counterpart(what: &str) -> RuntimeError {
    invalid(format!("version 2 of cgroups has nothing like linux.resources.{what}"))
}
