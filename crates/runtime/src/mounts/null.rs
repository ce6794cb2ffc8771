//! The null device: what hides files, and what a process has for a stream that nobody wants.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use super::RootTree;
use crate::error::{Context, RuntimeError};
use crate::sys;

impl RootTree {
    /// The container's /dev/null, which must be it: an image or a neighbour on a volume may have put a link there
    /// (CVE-2025-31133).
    pub(super) fn null_device(&self, flags: OFlags) -> Result<OwnedFd, RuntimeError> {
        // Whatever else stands there, opening it waits for nobody and takes no terminal.
        let harmless = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = if flags.contains(OFlags::PATH) { flags | OFlags::NOFOLLOW } else { flags | harmless };
        let null = self.open(Path::new("/dev/null"), flags).context(|| "open /dev/null in the root".to_owned())?;
        match is_null_device(&null) {
            true => Ok(null),
            false => Err(RuntimeError::Invalid("/dev/null in the root is not the null device".to_owned())),
        }
    }

    /// Standard streams that are a null device are from now on the container's own: mode and owner of the host's are not
    /// for root inside to change, which no device rule and no system call filter would keep it from.
    pub(crate) fn take_null_streams(&self) -> Result<(), RuntimeError> {
        for number in 0..3 {
            // SAFETY: 0 to 2 are open: they are set up first of all.
            let stream = unsafe { BorrowedFd::borrow_raw(number) };
            if !is_null_device(stream) {
                continue;
            }
            let access = rustix::fs::fcntl_getfl(stream).context(|| "examine a standard stream".to_owned())?;
            let own = self.null_device(access & OFlags::RWMODE)?;
            rustix::fs::fcntl_setfl(&own, OFlags::empty()).context(|| "set up a standard stream".to_owned())?;
            sys::duplicate_onto(own.as_raw_fd(), number).context(|| "set up the standard streams".to_owned())?;
        }
        Ok(())
    }
}

/// Whether it is the null device (devices.txt of the kernel: character device 1:3), wherever it lies.
pub(crate) fn is_null_device(file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|status| {
        FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
            && status.st_rdev == rustix::fs::makedev(1, 3)
    })
}
