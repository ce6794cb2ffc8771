//! Access control lists that no archive names: what is made in a directory gets them of the directory's default list (acl(5),
//! "Object creation and default ACLs").

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::tarball::Entry;
use crate::tree;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Whether what is made below has a list to inherit from now on.
pub(super) fn begins_with(entry: &Entry) -> bool {
    entry.xattrs.iter().any(|(name, _)| name == DEFAULT.as_bytes())
}

/// Takes them from something that was just made.
pub(super) fn take_from(made: impl AsFd) -> Result<(), Errno> {
    [ACCESS, DEFAULT].into_iter().try_for_each(|list| is_gone(rustix::fs::fremovexattr(&made, list)))
}

/// The same, by its name: of a device or a pipe, which has no default list.
pub(super) fn take_from_special(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    is_gone(rustix::fs::lremovexattr(tree::proc_path(parent, name), ACCESS))
}

fn is_gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        removed => removed,
    }
}
