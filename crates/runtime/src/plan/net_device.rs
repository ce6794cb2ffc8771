//! Network devices of the host's that go to the container (config-linux.md, "Network Devices").

use std::collections::HashMap;

use oci_spec::runtime::LinuxNetDevice;

use super::invalid;
use crate::error::RuntimeError;

/// One that is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetDevice {
    /// On the host.
    pub(crate) name: String,
    /// In the container.
    pub(crate) new_name: String,
}

/// In the order of their names. `has_own_network`: there is another network to move them to.
pub(super) fn net_devices(
    asked: Option<&HashMap<String, LinuxNetDevice>>,
    has_own_network: bool,
) -> Result<Vec<NetDevice>, RuntimeError> {
    let mut devices = Vec::new();
    for (name, device) in asked.into_iter().flatten() {
        let new_name = device.name().as_ref().filter(|name| !name.is_empty()).unwrap_or(name);
        for name in [name, new_name] {
            check_name(name)?;
        }
        devices.push(NetDevice { name: name.clone(), new_name: new_name.clone() });
    }
    if !devices.is_empty() && !has_own_network {
        return Err(invalid("linux.netDevices need a network namespace of the container's own"));
    }
    devices.sort_by(|one, other| one.new_name.cmp(&other.new_name));
    if devices.is_sorted_by(|one, other| one.new_name != other.new_name) {
        devices.sort_by(|one, other| one.name.cmp(&other.name));
        return Ok(devices);
    }
    Err(invalid("linux.netDevices: two devices get the same name"))
}

/// As the kernel has it (dev_valid_name() in net/core/dev.c); `%` would be a pattern.
fn check_name(name: &str) -> Result<(), RuntimeError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || !name.bytes().all(plain) {
        return Err(invalid(format!("linux.netDevices: {name:?} is no name of a network device")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        let check = |json: &str, own| {
            let asked: HashMap<String, LinuxNetDevice> = serde_json::from_str(json).unwrap();
            let devices = net_devices(Some(&asked), own).map_err(|error| error.to_string())?;
            Ok(devices.into_iter().map(|device| format!("{}={}", device.name, device.new_name)).collect())
        };
        let refused = |json: &str, own| check(json, own).unwrap_err();
        let names: Result<Vec<String>, String> =
            check(r#"{"eth1": {"name": "a"}, "eth0": {}, "eth2": {"name": ""}}"#, true);
        assert_eq!(names.unwrap(), ["eth0=eth0", "eth1=a", "eth2=eth2"]);
        assert_eq!(check("{}", false), Ok(vec![]));
        assert!(refused(r#"{"eth0": {}}"#, false).contains("of the container's own"));
        assert!(refused(r#"{"eth0": {}, "eth1": {"name": "eth0"}}"#, true).contains("the same name"));
        for name in ["", "a/b", "eth%d", "a b", "sixteen-letters-", ".."] {
            assert!(refused(&format!(r#"{{"{name}": {{}}}}"#), true).contains("no name"), "{name}");
        }
    }
}
