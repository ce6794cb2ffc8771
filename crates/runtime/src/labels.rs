//! Labels by which security modules of the kernel judge a process: an AppArmor profile, a SELinux context.
//!
//! They are written to the process's own attributes, and hold from its next execve(2) on. Written while the host's
//! procfs is still seen, and to nothing else: what stands in its place would take the label and leave the process
//! without (CVE-2019-16884, CVE-2025-52881).

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, RuntimeError};
use crate::mounts::is_procfs;
use crate::plan::ProcessPlan;

/// Labels the calling process, and all that it clones.
pub(crate) fn apply(plan: &ProcessPlan) -> Result<(), RuntimeError> {
    if let Some(profile) = &plan.apparmor_profile {
        apply_apparmor(profile)?;
    }
    if let Some(label) = &plan.selinux_label {
        if !has_selinux() {
            return Err(RuntimeError::Invalid(format!(
                "process.selinuxLabel: {label:?} was asked for, and SELinux is not enabled here"
            )));
        }
        write("attr/exec", label.as_bytes()).context(|| format!("set the SELinux label {label:?}"))?;
    }
    Ok(())
}

/// Documentation/admin-guide/LSM/apparmor.rst; aa_change_onexec(2).
fn apply_apparmor(profile: &str) -> Result<(), RuntimeError> {
    if !std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y')) {
        return match profile {
            // As it is.
            "unconfined" => Ok(()),
            // runc's words.
            _ => Err(RuntimeError::Invalid(format!(
                "apparmor: config provided but apparmor not supported (profile {profile:?})"
            ))),
        };
    }
    let command = format!("exec {profile}");
    // By its own name since Linux 5.8: the other may be another module's.
    let written = match write("attr/apparmor/exec", command.as_bytes()) {
        Err(Errno::NOENT) if !exists("attr/apparmor/exec") => write("attr/exec", command.as_bytes()),
        written => written,
    };
    let applied = || format!("apply AppArmor profile {profile:?}");
    match written {
        Err(Errno::NOENT) => Err(RuntimeError::Invalid(format!("{}: no such profile is loaded", applied()))),
        written => written.context(applied),
    }
}

/// The file system by which it is spoken to (linux/magic.h, SELINUX_MAGIC) is there only if it is in force.
fn has_selinux() -> bool {
    const SELINUX_MAGIC: u32 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|status| status.f_type as u32 == SELINUX_MAGIC)
}

fn exists(name: &str) -> bool {
    open(name, OFlags::PATH).is_ok()
}

fn write(name: &str, text: &[u8]) -> Result<(), Errno> {
    rustix::io::write(open(name, OFlags::WRONLY)?, text).map(drop)
}

/// A file of the process's own in procfs: nothing may be mounted over any part of its name.
fn open(name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if !is_procfs(&proc) {
        return Err(Errno::NODEV);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&proc, format!("self/{name}"), flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_in_procfs_only() {
        assert!(exists("attr/current") && !exists("attr/nothing"));
        // Leads out of /proc/self, or by a magic link.
        assert_eq!(open("../../etc/passwd", OFlags::PATH).unwrap_err(), Errno::XDEV);
        assert_eq!(open("root", OFlags::PATH).unwrap_err(), Errno::LOOP);
    }
}
