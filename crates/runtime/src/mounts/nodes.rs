//! Device nodes for a container with a user namespace: the kernel lets nobody in there make one (mknod(2)), so that the
//! parent makes them, with the owners and modes that the spec gives them (config-linux.md, "Devices"), and the child binds
//! them to their places.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;

use super::{clone_tree, new_mount};
use crate::error::{Context, RuntimeError};
use crate::overlay::with_own_mounts;
use crate::plan::{Device, IdMap, Plan, UserNamespace, outside};

/// For each device of the plan its node, a detached mount; `None` for those of which the host's own is bound: the default
/// ones, and those whose owner nobody in the namespace is. Empty where nothing is to be made.
pub(super) fn make(plan: &Plan) -> Result<Vec<Option<OwnedFd>>, RuntimeError> {
    let Some(map) = plan.user_namespace.as_ref().and_then(UserNamespace::map) else { return Ok(Vec::new()) };
    let owners: Vec<Option<(Uid, Gid)>> = plan.devices.iter().map(|device| owner(device, map)).collect();
    if !plan.furnish_dev || owners.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    // What is cloned has to be in one's own mount namespace (open_tree(2)).
    with_own_mounts(|| {
        let holder = new_mount("tmpfs", "tmpfs", &[("mode".to_owned(), Some("700".to_owned()))], 0)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&holder, "", CWD, "/", flags).context(|| "mount a tmpfs for devices".to_owned())?;
        // This thread's alone: what has mounts of its own has a umask of its own (CLONE_NEWNS of unshare(2)).
        rustix::process::umask(Mode::empty());
        let made = plan.devices.iter().zip(owners).enumerate().map(|(number, (device, owner))| match owner {
            Some(owner) => make_node(&holder, &number.to_string(), device, owner),
            None => Ok(None),
        });
        made.collect()
    })
}

/// On the host, of a device that is to be made.
fn owner(device: &Device, map: &IdMap) -> Option<(Uid, Gid)> {
    if !device.asked || FileType::from_raw_mode(device.mode) == FileType::Fifo {
        return None;
    }
    Some((Uid::from_raw(outside(&map.users, device.uid)?), Gid::from_raw(outside(&map.groups, device.gid)?)))
}

fn make_node(
    holder: &OwnedFd,
    name: &str,
    device: &Device,
    (user, group): (Uid, Gid),
) -> Result<Option<OwnedFd>, RuntimeError> {
    let context = || format!("make device {}", device.path.display());
    let (kind, mode) = (FileType::from_raw_mode(device.mode), Mode::from_raw_mode(device.mode & 0o7777));
    match rustix::fs::mknodat(holder, name, kind, mode, rustix::fs::makedev(device.major, device.minor)) {
        // We are in a container ourselves.
        Err(Errno::PERM) => return Ok(None),
        made => made.context(context)?,
    }
    rustix::fs::chownat(holder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).context(context)?;
    clone_tree(holder, name.as_ref(), false).map(Some).context(context)
}
