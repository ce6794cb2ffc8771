//! Our own binary, where no container can write to it (CVE-2019-5736).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;

use crate::error::{Context, RuntimeError};
use crate::sys::{self, MountAttributes};

/// What marks a mount of ours: hardly anyone asks for a mount on which links are not followed, and on one with a single
/// file it changes nothing (mount_setattr(2), Linux 5.14; linux/mount.h and linux/statfs.h).
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;
const ST_NOSYMFOLLOW: u64 = 0x2000;

/// The running binary on a detached, read-only mount of its own: to be executed from this descriptor.
///
/// A process so started shows it as /proc/PID/exe, and whoever opens that for writing meets a read-only
/// mount. Nobody can make it writable again: the mount is in no mount namespace, not even in one of its own as
/// open_tree(2) leaves it, and mount_setattr(2), with any capability, changes only those that are in one. Nothing is
/// copied: the pages stay shared. In a process that was itself started so, this is that mount.
pub fn own_binary() -> Result<OwnedFd, RuntimeError> {
    let open = || rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let running = open().context(|| "open /proc/self/exe".to_owned())?;
    if is_own_mount(&running)? {
        return Ok(running);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let binary = rustix::mount::open_tree(rustix::fs::CWD, "/proc/self/exe", flags)
        .context(|| "clone the mount of /proc/self/exe".to_owned())?;
    let set = libc::MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSYMFOLLOW;
    let attributes = MountAttributes { set, ..MountAttributes::default() };
    sys::mount_setattr(&binary, false, attributes).context(|| "make our own binary's mount read-only".to_owned())?;
    // Opened anew, the file keeps its mount; with the descriptor of open_tree(2) the mount's own namespace goes.
    rustix::fs::open(format!("/proc/self/fd/{}", binary.as_raw_fd()), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open our own binary on its mount".to_owned())
}

/// Whether this process runs from such a mount already.
pub(crate) fn is_protected() -> Result<bool, RuntimeError> {
    let running = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open /proc/self/exe".to_owned())?;
    is_own_mount(&running)
}

/// Whether a file is on a mount that [`own_binary`] has made. That it is read-only is not enough: one of the host's is
/// made writable for every update, and whoever has kept the program open from inside writes to it then.
fn is_own_mount(file: &OwnedFd) -> Result<bool, RuntimeError> {
    let status = rustix::fs::fstatvfs(file).context(|| "examine the mount of /proc/self/exe".to_owned())?;
    let mark = StatVfsMountFlags::RDONLY | StatVfsMountFlags::from_bits_retain(ST_NOSYMFOLLOW);
    Ok(status.f_flag.contains(mark))
}
