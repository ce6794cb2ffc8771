//! Which values of the kernel a container may set for itself.

use super::invalid;
use crate::error::RuntimeError;

/// Below /proc/sys. Only what belongs to a namespace of the container's own; the rest would be the host's.
pub(super) fn sysctl_path(name: &str, namespaces: u64) -> Result<String, RuntimeError> {
    // Both `net.ipv4.x` and `net/ipv4/x`; in the second a dot is part of a name.
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !path.split('/').all(plain) || path.contains('\0') {
        return Err(invalid(format!("invalid sysctl {name:?}")));
    }
    // As with runc and crun: the spec has a field for it.
    if path == "kernel/hostname" {
        return Err(invalid(format!("sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field")));
    }
    const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let own = |flag: libc::c_int| namespaces & flag as u64 != 0;
    let kernel = path.strip_prefix("kernel/");
    let allowed = if path.starts_with("net/") {
        own(libc::CLONE_NEWNET)
    } else if path.starts_with("fs/mqueue/") || kernel.is_some_and(|name| IPC.contains(&name)) {
        own(libc::CLONE_NEWIPC)
    } else {
        kernel == Some("domainname") && own(libc::CLONE_NEWUTS)
    };
    if !allowed {
        return Err(invalid(format!("sysctl {name:?} is not in a separate kernel namespace")));
    }
    Ok(path)
}
