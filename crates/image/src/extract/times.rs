//! The times of directories, which change whenever something is made in them.
//!
//! They are set at the end. A layer of a million directories with long names would be gigabytes to remember, though: what
//! is remembered is bounded, and when it is full it is set early. From then on every directory that is entered gets its
//! time back when it is left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{OFlags, Timespec, Timestamps, futimens};
use rustix::io::Errno;

use crate::tree;

/// Bytes to remember. Real layers stay below it: two hundred thousand directories are about that.
const LIMIT_BYTES: usize = 16 << 20;
/// One directory, beside its path.
const EACH_BYTES: usize = 64;

#[derive(Default)]
pub(crate) struct DirectoryTimes {
    /// Paths and times to be set, in the archive's order: the last of a path counts.
    waiting: Vec<(Vec<u8>, (i64, u32))>,
    waiting_bytes: usize,
    /// What was waiting has been set.
    is_full: bool,
    /// The directory that was entered, and the time that it had.
    entered: Option<(Rc<OwnedFd>, Timestamps)>,
}

impl DirectoryTimes {
    /// The time of a directory that stands at a path. True if times are kept by entering and leaving from now on.
    pub(crate) fn remember(
        &mut self,
        directory: BorrowedFd<'_>,
        path: Vec<u8>,
        mtime: (i64, u32),
        root: BorrowedFd<'_>,
    ) -> Result<bool, Errno> {
        if self.is_full {
            // It may be the one that was entered, which then keeps the new time.
            self.settle()?;
            futimens(directory, &tree::times(mtime))?;
            return Ok(true);
        }
        self.waiting_bytes += path.len() + EACH_BYTES;
        self.waiting.push((path, mtime));
        if self.waiting_bytes < LIMIT_BYTES {
            return Ok(false);
        }
        self.set_waiting(root)?;
        self.is_full = true;
        Ok(true)
    }

    /// Something may be made in this directory until [`Self::settle`].
    pub(crate) fn enter(&mut self, directory: &Rc<OwnedFd>) -> Result<(), Errno> {
        if self.is_full {
            let stat = rustix::fs::fstat(directory)?;
            let mtime = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
            self.entered = Some((directory.clone(), Timestamps { last_access: mtime, last_modification: mtime }));
        }
        Ok(())
    }

    /// Gives the directory that was entered its time back.
    pub(crate) fn settle(&mut self) -> Result<(), Errno> {
        match self.entered.take() {
            Some((directory, times)) => futimens(directory, &times),
            None => Ok(()),
        }
    }

    pub(crate) fn finish(&mut self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        self.settle()?;
        self.set_waiting(root)
    }

    fn set_waiting(&mut self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        for (path, mtime) in &std::mem::take(&mut self.waiting) {
            // Where none opens, a later entry has taken its place.
            if let Ok(directory) = tree::open_in_root(root, path, tree::DIRECTORY | OFlags::NOFOLLOW) {
                futimens(directory.as_fd(), &tree::times(*mtime))?;
            }
        }
        Ok(())
    }
}
