//! A directory tree by descriptors: every path is resolved beneath its root by openat2(2), never by the process's
//! own idea of `/`, and what is hostile in it stays in it.

mod climber;
mod extents;
mod removal;
mod size;

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::{Errno, Result};

pub use extents::bytes_beside;
pub(crate) use removal::remove;
pub use removal::{NotRemoved, remove_tree};
pub use size::{disk_bytes, written_bytes};

/// The overlay file system's mark of a directory that hides those below it
/// (kernel: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
pub(crate) const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// The longest path that the kernel takes, without its NUL (path_resolution(7)).
pub const PATH_LIMIT: usize = 4095;

/// How a directory is opened.
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory of the host's.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
}

/// Opens `path` below `root` as if `root` were `/`: symbolic links are followed, none leads out.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    open(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `root`, refusing every symbolic link on the way.
pub fn open_no_links(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    open(root, path, flags | OFlags::NOFOLLOW, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename anywhere on the machine raced with the look-up (openat2(2), ERRORS).
            Err(Errno::AGAIN | Errno::INTR) => continue,
            result => return result,
        }
    }
}

/// What stands at `name`, a link not followed.
pub fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// An overlay's whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// The names in a directory, sorted by their bytes.
pub fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// A path below a root that shares its beginning with those of its siblings: a million names in one directory are
/// remembered as names, however long the path to it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    above: Rc<[u8]>,
    name: Box<[u8]>,
}

impl Place {
    pub(crate) fn new(above: &Rc<[u8]>, name: Vec<u8>) -> Self {
        Self { above: above.clone(), name: name.into() }
    }

    pub(crate) fn path(&self) -> Vec<u8> {
        join(&self.above, &self.name)
    }
}

/// Parent and last component of a relative path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A path to something that cannot be opened (a link, a device): for the calls that take only paths. Its last
/// component is not followed by the `l…xattr` calls, and the directory before it is ours.
pub(crate) fn proc_path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat()
}

/// Attributes that an image may carry. `trusted.` would steer our own overlays, `security.` beside capabilities
/// belongs to the host's policy, and `user.overlay.` is `trusted.overlay.` by another name.
pub fn is_portable_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// Sets an attribute; a file system that cannot keep it is passed over, as Docker does.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    tolerate_unsupported(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))
}

/// The same of what cannot be opened.
pub fn set_xattr_of_special(directory: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> Result<()> {
    // user.* is not for links and devices (xattr(7)): EPERM says so.
    match rustix::fs::lsetxattr(proc_path(directory, name), key, value, XattrFlags::empty()) {
        Err(Errno::PERM) => Ok(()),
        result => tolerate_unsupported(result),
    }
}

fn tolerate_unsupported(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// What a link says. One in whose place something else has come is not there any more.
pub fn read_link(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>> {
    match rustix::fs::readlinkat(directory, name, Vec::new()) {
        // readlink(2): it is no link.
        Err(Errno::INVAL) => Err(Errno::NOENT),
        text => text.map(CString::into_bytes),
    }
}

/// Names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All attributes of what stands at `name`, a link not followed, sorted.
pub fn xattrs(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs> {
    let path = proc_path(directory, name);
    xattrs_by(
        |buffer| rustix::fs::llistxattr(path.as_slice(), buffer),
        |key, buffer| rustix::fs::lgetxattr(path.as_slice(), key, buffer),
    )
}

/// The same of what a path leads to, such as a descriptor's own link in /proc.
pub(crate) fn xattrs_at(path: &[u8]) -> Result<Xattrs> {
    xattrs_by(|buffer| rustix::fs::listxattr(path, buffer), |key, buffer| rustix::fs::getxattr(path, key, buffer))
}

fn xattrs_by(
    list: impl FnMut(&mut [u8]) -> Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize>,
) -> Result<Xattrs> {
    let list = match grow(list) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        list => list?,
    };
    let mut found = Vec::new();
    for key in list.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        match grow(|buffer| get(key, buffer)) {
            Ok(value) => found.push((key.to_vec(), value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Calls with a small buffer first, then with the largest that the kernel ever fills (XATTR_SIZE_MAX, 64 KiB).
fn grow(mut call: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    for size in [256, 65_536] {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Err(Errno::RANGE) => continue,
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// What was a link when it was looked at may be anything when it is read.
    #[test]
    fn a_link_that_is_none_any_more_is_gone() {
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("there", place.path().join("link")).unwrap();
        std::fs::write(place.path().join("file"), "").unwrap();
        let root = open_root(place.path()).unwrap();
        assert_eq!(read_link(root.as_fd(), b"link").unwrap(), b"there");
        for name in [&b"file"[..], b"nothing"] {
            assert_eq!(read_link(root.as_fd(), name).unwrap_err(), Errno::NOENT);
        }
    }
}
