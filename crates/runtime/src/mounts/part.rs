//! A part of what is mounted, in place of all of it: a directory or file in a volume or an image.
//!
//! Both are hostile, and a volume changes while it is looked at. The part is looked up once, by openat2(2) as if the source
//! were `/` and without magic links, and what was found is cloned by its descriptor: who swaps a directory for a link before
//! that has the link lead to somewhere in the same source, and after it nothing is looked up any more.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};

use super::{bind_failed, clone_tree, open_inside};
use crate::error::{Context, RuntimeError};

/// A detached copy of the mount at `source`, from there on, or from its part on.
pub(super) fn clone_source(source: &Path, part: Option<&Path>, recursive: bool) -> Result<OwnedFd, RuntimeError> {
    let Some(part) = part else {
        return clone_tree(CWD, source.as_os_str(), recursive).map_err(|errno| bind_failed(source, errno));
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(source, flags, rustix::fs::Mode::empty());
    clone_part(root.map_err(|errno| bind_failed(source, errno))?, source, part, recursive)
}

/// The same of what is open already. `source` is for the errors.
pub(super) fn clone_part(
    root: impl AsFd,
    source: &Path,
    part: &Path,
    recursive: bool,
) -> Result<OwnedFd, RuntimeError> {
    let found = open_part(root, source, part)?;
    clone_tree(found, OsStr::new(""), recursive).map_err(|errno| bind_failed(&source.join(part), errno))
}

/// Of a new mount that nobody has attached. Older kernels than Linux 6.15 clone only what is attached somewhere: then it is
/// for a moment, at `place`, in a mount namespace that is ours alone.
pub(crate) fn part_of_detached(tree: OwnedFd, place: &Path, part: &Path) -> Result<OwnedFd, RuntimeError> {
    let failed = |errno| RuntimeError::system(format!("clone the mount of {}", part.display()), errno);
    match clone_tree(open_part(&tree, Path::new("the image"), part)?, OsStr::new(""), false) {
        Err(Errno::INVAL) => {}
        cloned => return cloned.map_err(failed),
    }
    rustix::mount::move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context(|| format!("mount it on {}", place.display()))?;
    let cloned = open_part(&tree, Path::new("the image"), part)
        .and_then(|found| clone_tree(found, OsStr::new(""), false).map_err(failed));
    let unmounted = rustix::mount::unmount(place, UnmountFlags::DETACH);
    unmounted.context(|| format!("unmount {}", place.display())).and(cloned)
}

fn open_part(root: impl AsFd, source: &Path, part: &Path) -> Result<OwnedFd, RuntimeError> {
    open_inside(root, part, OFlags::PATH).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => RuntimeError::Invalid(format!(
            "cannot access path {}: no such file or directory",
            source.join(part.strip_prefix("/").unwrap_or(part)).display()
        )),
        errno => RuntimeError::system(format!("open {} in {}", part.display(), source.display()), errno),
    })
}
