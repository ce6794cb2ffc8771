//! The kernel's network settings. /proc/sys/net shows those of the reading thread's own network namespace.

use std::fs;
use std::io;

use dozen_model::InterfaceSysctl;

use crate::error::NetworkError;

/// Reads a setting such as `ipv4/ip_forward`; `None` when this kernel has none of that name.
pub(crate) fn read(name: &str) -> Result<Option<String>, NetworkError> {
    match fs::read_to_string(path(name)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failure("read", name, source)),
    }
}

/// Sets it; false when this kernel has none of that name.
pub(crate) fn write(name: &str, value: &str) -> Result<bool, NetworkError> {
    // Not fs::write: O_CREAT and O_TRUNC mean nothing here, and would turn "no such setting" into EACCES.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path(name))
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failure("set", name, source)),
    }
}

/// Sets it unless it has this value already; true when that changed something.
///
/// Reading first lets an engine run where /proc/sys is read-only but somebody has prepared it.
pub(crate) fn ensure(name: &str, value: &str) -> Result<bool, NetworkError> {
    match read(name)? {
        Some(present) if present == value => Ok(false),
        Some(_) => write(name, value),
        None => Ok(false),
    }
}

/// Sets one of a container's interface, as somebody has asked for it, unless it has this value already.
pub(crate) fn set_for_interface(sysctl: &InterfaceSysctl, interface: &str) -> Result<(), NetworkError> {
    let (name, value) = (sysctl.path(interface), sysctl.value());
    match read(&name) {
        Ok(None) => return Err(NetworkError::NoSuchSetting { path: name }),
        Ok(Some(present)) if present == value => return Ok(()),
        // Some cannot be read before they are written: stable_secret.
        Ok(Some(_)) | Err(_) => {}
    }
    match write(&name, value) {
        Ok(true) => Ok(()),
        Ok(false) => Err(NetworkError::NoSuchSetting { path: name }),
        Err(NetworkError::Setting { source, .. }) => {
            Err(NetworkError::InterfaceSetting { path: name, value: value.to_owned(), source })
        }
        Err(error) => Err(error),
    }
}

/// Whether it is there and says 1.
pub(crate) fn is_one(name: &str) -> bool {
    read(name).ok().flatten().as_deref() == Some("1")
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

fn failure(action: &'static str, name: &str, source: io::Error) -> NetworkError {
    NetworkError::Setting { action, name: format!("net/{name}"), source }
}
