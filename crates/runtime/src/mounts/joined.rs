//! A mount namespace that others have made, joined by path.
//!
//! It is entered as other runtimes do it: what it had in its root's place is unmounted, and who lives in it and had that
//! root is in the container's from then on (pivot_root(2)). The names of the root and of what is bound are the joined
//! namespace's. But nothing is built there, where others may change every name at any moment: the root is furnished in a
//! mount namespace of its own, as any other, and its mounts are cloned into the joined one when all is done. Until then
//! a failure leaves no trace there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};

use super::{RootTree, bind_failed, make_private, open_inside, propagation};
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint_of_child;
use crate::plan::Plan;
use crate::{namespace, sys};

/// Opens that which the plan joins. Whose root must not become a container's is not joined: our own, and that of the
/// first process that we see.
pub(crate) fn open(plan: &Plan) -> Result<Option<OwnedFd>, RuntimeError> {
    let Some(path) = &plan.joined_mounts else { return Ok(None) };
    let mounts = namespace::open(path, libc::CLONE_NEWNS)?;
    for process in ["self", "1"] {
        let is_host = match namespace::is_that_of(&mounts, &format!("/proc/{process}/ns/mnt")) {
            // Whose namespace we may not even look at, in a container of somebody's, we do not join either.
            Err(Errno::ACCESS | Errno::PERM) => false,
            answer => answer.context(|| format!("examine the mount namespace of process {process}"))?,
        };
        if is_host {
            return Err(RuntimeError::Invalid(format!(
                "join namespace {}: it is the host's mount namespace, whose root would become the container's",
                path.display()
            )));
        }
    }
    Ok(Some(mounts))
}

/// A detached copy of the container's root, whose name is looked up there, with what is mounted below it.
pub(super) fn clone_root(mounts: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, RuntimeError> {
    let tree = visit(mounts, |root| {
        clone_tree(root, path, true)
            .context(|| format!("clone, in the joined mount namespace, the mount of {}", path.display()))
    });
    make_private(tree?, path)
}

/// The same of what is bound.
pub(super) fn clone_source(
    mounts: BorrowedFd<'_>,
    path: &Path,
    part: Option<&Path>,
    recursive: bool,
) -> Result<OwnedFd, RuntimeError> {
    visit(mounts, |root| match part {
        Some(part) => {
            let source = open_inside(root, path, OFlags::PATH).map_err(|errno| bind_failed(path, errno))?;
            super::part::clone_part(source, path, part, recursive)
        }
        None => clone_tree(root, path, recursive).map_err(|errno| bind_failed(path, errno)),
    })
}

fn clone_tree(root: &OwnedFd, path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    super::clone_tree(open_inside(root, path, OFlags::PATH)?, "".as_ref(), recursive)
}

/// Where a link leads there, `None` if it is none.
pub(super) fn read_link(mounts: BorrowedFd<'_>, path: &Path) -> Result<Option<PathBuf>, RuntimeError> {
    use std::os::unix::ffi::OsStringExt;
    visit(mounts, |root| {
        let failed = |errno| bind_failed(path, errno);
        let file = open_inside(root, path, OFlags::PATH | OFlags::NOFOLLOW).map_err(failed)?;
        let status = rustix::fs::fstat(&file).map_err(failed)?;
        if !FileType::from_raw_mode(status.st_mode).is_symlink() {
            return Ok(None);
        }
        let target = rustix::fs::readlinkat(&file, "", Vec::new()).map_err(failed)?;
        Ok(Some(std::ffi::OsString::from_vec(target.into_bytes()).into()))
    })
}

/// A thread of its own goes there for this moment, and is given the root there. Links of procfs are not followed from it
/// (`open_inside`): they would lead to what this process has open.
fn visit<T: Send>(
    mounts: BorrowedFd<'_>,
    act: impl FnOnce(&OwnedFd) -> Result<T, RuntimeError> + Send,
) -> Result<T, RuntimeError> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // Who shares its root with other threads cannot change it (setns(2)).
            sys::unshare(libc::CLONE_FS).context(|| "unshare the root directory".to_owned())?;
            act(&enter(mounts)?)
        });
        worker.join().unwrap_or_else(|_| Err(RuntimeError::Invalid("the thread that visits mounts died".to_owned())))
    })
}

/// Moves the calling thread there; what is its root then.
fn enter(mounts: impl AsFd) -> Result<OwnedFd, RuntimeError> {
    sys::setns(mounts, libc::CLONE_NEWNS).context(|| "join the mount namespace".to_owned())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).context(|| "open the root of the mount namespace".to_owned())
}

impl RootTree {
    /// Makes a copy of the whole tree the root of a mount namespace that is joined, and of this process. It is not entered
    /// before all is furnished and masked.
    pub(crate) fn enter_joined(self, mounts: BorrowedFd<'_>) -> Result<Self, RuntimeError> {
        let root = super::clone_tree(&self.root, "".as_ref(), true).context(|| "clone the root's mounts".to_owned())?;
        drop(self);
        let old = enter(mounts)?;
        // What is mounted and unmounted here is so nowhere else.
        sys::mount_setattr(&old, true, propagation(libc::MS_SLAVE)).context(|| "make the mounts slaves".to_owned())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&root, "", CWD, "/", flags).context(|| "mount the container's root".to_owned())?;
        failpoint_of_child("child.joined");
        rustix::process::fchdir(&root).context(|| "enter the container's root".to_owned())?;
        let pivoted = sys::pivot_root_here();
        // The old root if it was left, else ours: one of them is to go.
        let unmounted = rustix::mount::unmount(".", UnmountFlags::DETACH);
        pivoted.context(|| "pivot_root in the joined mount namespace".to_owned())?;
        unmounted.context(|| "unmount the joined root".to_owned())?;
        rustix::process::chdir("/").context(|| "chdir to /".to_owned())?;
        Self::of_this_process()
    }
}
