//! A container's cgroup, given to the container (config-linux.md, "Cgroup ownership").

use std::fs;
use std::io;
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::plan::{MountKind, Plan};

/// What the kernel means to be handed over; it lists them in `DELEGATABLE` (cgroups(7), "Cgroup delegation").
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
const DELEGATABLE: &str = "/sys/kernel/cgroup/delegate";

/// Only version 2 is safe to give away, only where the container sees no more than its own, and may write to it.
pub(crate) fn is_wanted(plan: &Plan, unified: bool) -> bool {
    let writable = |set: u64| set & libc::MOUNT_ATTR_RDONLY == 0;
    unified
        && plan.new_cgroup_namespace
        && plan.mounts.iter().any(|mount| mount.kind == MountKind::Cgroup && writable(mount.set))
}

/// The cgroup's directory and the files that govern what is below it belong to this user of the host.
pub(crate) fn delegate(plan: &Plan, cgroup: &Cgroup, user: u32) -> Result<(), RuntimeError> {
    if user == 0 || !is_wanted(plan, cgroup.layout().is_unified()) {
        return Ok(());
    }
    let Some(unified) = cgroup.layout().unified() else { return Ok(()) };
    let files = fs::read_to_string(DELEGATABLE).unwrap_or_else(|_| FILES.join("\n"));
    give(&unified.directory(cgroup.name()), &files, user)
}

fn give(directory: &Path, files: &str, user: u32) -> Result<(), RuntimeError> {
    let chown = |path: &Path| match std::os::unix::fs::chown(path, Some(user), None) {
        // The kernel lists files that this cgroup need not have.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.context(|| format!("give {} to user {user}", path.display())),
    };
    chown(directory)?;
    files.lines().filter(|file| !file.contains('/')).try_for_each(|file| chown(&directory.join(file)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_cgroup_is_given_with_its_files() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["cgroup.procs", "cgroup.threads", "memory.max"] {
            fs::write(directory.path().join(file), "").unwrap();
        }
        give(directory.path(), "cgroup.procs\nno.such\ncgroup.threads\n../outside", 4321).unwrap();
        let owner = |name: &str| fs::metadata(directory.path().join(name)).unwrap().uid();
        assert_eq!([".", "cgroup.procs", "cgroup.threads", "memory.max"].map(owner), [4321, 4321, 4321, 0]);
    }
}
