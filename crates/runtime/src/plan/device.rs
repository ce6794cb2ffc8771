//! Device nodes: what every container has, and what its spec asks for.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::process::check_id;
use super::{clean, invalid};
use crate::error::RuntimeError;

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO, and permission bits.
    pub(crate) mode: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// A spec names it: its owner and mode are meant.
    pub(crate) asked: bool,
}

/// What every container has, by the specification (config-linux.md, "Default Devices"): path, major, minor.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The default ones, and over them those that a spec asks for.
pub(super) fn devices(asked: &[LinuxDevice]) -> Result<Vec<Device>, RuntimeError> {
    let mut devices: Vec<Device> = DEFAULT_DEVICES
        .into_iter()
        .map(|(path, major, minor)| Device {
            path: path.into(),
            mode: libc::S_IFCHR | 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
            asked: false,
        })
        .collect();
    for device in asked {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(invalid(format!("{}: a device is b, c, u or p", device.path().display())));
            }
        };
        let path = clean(device.path())?;
        let number = |number: i64| {
            u32::try_from(number).map_err(|_| invalid(format!("{}: a device number is not negative", path.display())))
        };
        let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        check_id(&format!("{}: uid", path.display()), uid)?;
        check_id(&format!("{}: gid", path.display()), gid)?;
        let device = Device {
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
            major: number(device.major())?,
            minor: number(device.minor())?,
            uid,
            gid,
            asked: true,
            path,
        };
        devices.retain(|known| known.path != device.path);
        devices.push(device);
    }
    Ok(devices)
}
