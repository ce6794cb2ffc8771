//! Block devices (cgroup-v1/blkio-controller.rst; cgroup-v2.rst, "IO"; block/bfq-iosched.rst).

use oci_spec::runtime::LinuxBlockIo;

use super::{IfAbsent, Settings, invalid};
use crate::error::RuntimeError;

pub(super) fn limits(settings: &mut Settings<'_>, io: &LinuxBlockIo) -> Result<(), RuntimeError> {
    let unified = settings.is_unified("io");
    let controller = if unified { "io" } else { "blkio" };
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        check_weight(weight)?;
        let setting = settings.set(controller, "blkio.weight", "io.bfq.weight", weight.to_string())?;
        // CFQ, which went with Linux 5.0, and BFQ have files of their own; without either, version 2 has io.cost.
        setting.if_absent = match unified {
            true => IfAbsent::Write("io.weight".into(), format!("default {}", weight_of_blkio(weight))),
            false => IfAbsent::Write("blkio.bfq.weight".into(), weight.to_string()),
        };
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        check_weight(weight)?;
        settings.set(controller, "blkio.leaf_weight", "", weight.to_string())?;
    }
    for of in io.weight_device().iter().flatten() {
        let device = format!("{}:{}", of.major(), of.minor());
        let (weight, leaf) = (of.weight().filter(|weight| *weight != 0), of.leaf_weight().filter(|leaf| *leaf != 0));
        if weight.is_none() && leaf.is_none() {
            return Err(invalid(format!("linux.resources.blockIO.weightDevice: {device}: no weight")));
        }
        if let Some(weight) = weight {
            check_weight(weight)?;
            let value = format!("{device} {weight}");
            let setting = settings.set(controller, "blkio.weight_device", "io.bfq.weight", value.clone())?;
            setting.if_absent = match unified {
                true => IfAbsent::Write("io.weight".into(), format!("{device} {}", weight_of_blkio(weight))),
                false => IfAbsent::Write("blkio.bfq.weight_device".into(), value),
            };
        }
        if let Some(leaf) = leaf {
            check_weight(leaf)?;
            settings.set(controller, "blkio.leaf_weight_device", "", format!("{device} {leaf}"))?;
        }
    }
    let throttles = [
        (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device", "rbps"),
        (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device", "wbps"),
        (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device", "riops"),
        (io.throttle_write_iops_device(), "blkio.throttle.write_iops_device", "wiops"),
    ];
    for (devices, old, new) in throttles {
        for device in devices.iter().flatten() {
            let (device, rate) = (format!("{}:{}", device.major(), device.minor()), device.rate());
            let value = match (unified, rate) {
                // Version 1 calls no limit 0.
                (true, 0) => format!("{device} {new}=max"),
                (true, rate) => format!("{device} {new}={rate}"),
                (false, rate) => format!("{device} {rate}"),
            };
            settings.set(controller, old, "io.max", value)?;
        }
    }
    Ok(())
}

fn check_weight(weight: u16) -> Result<(), RuntimeError> {
    match weight {
        10..=1000 => Ok(()),
        _ => Err(invalid(format!("linux.resources.blockIO: weight {weight} is not between 10 and 1000"))),
    }
}

/// From 10..=1000 to io.weight's 1..=10000, straight between the ends.
pub(crate) fn weight_of_blkio(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}
