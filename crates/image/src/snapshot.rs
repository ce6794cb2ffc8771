//! A copy of a directory whose files share their blocks with the first's until one of the two is written
//! (ioctl_ficlone(2)): made in the time that their names take, for a volume's snapshots.
//!
//! All that there is goes along: owners, modes, attributes of every kind, links, holes, devices, sockets, times. Containers
//! may write meanwhile, and put anything in the place of anything: what is copied is what was opened, each file as it was at
//! one moment, and what goes away is left out. Flags of chattr(1) are not kept.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::ImageError;
use crate::copy_up::{Failure, Manner, copy_tree, is_linked};
use crate::tree::{self, Place};

/// Whether files in a directory can share blocks: XFS with `reflink`, btrfs, bcachefs and others can, ext4 cannot.
pub fn can_share_blocks(directory: &Path) -> Result<bool, ImageError> {
    let unnamed = || rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR);
    let attempt = || -> Result<(), Errno> {
        let (from, into) = (unnamed()?, unnamed()?);
        rustix::io::write(&from, &[1; 4096])?;
        rustix::fs::ioctl_ficlone(&into, &from)
    };
    match attempt() {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::XDEV | Errno::NOSYS | Errno::ISDIR) => Ok(false),
        Err(error) => Err(ImageError::io("share blocks in", directory.display())(error)),
    }
}

/// Makes an empty directory a copy of another. What fails leaves there what it leaves. Nothing is synced.
pub fn share_directory(from: &Path, into: &Path) -> Result<(), ImageError> {
    let open = |path: &Path| tree::open_root(path).map_err(ImageError::io("open", path.display()));
    let (source, target) = (open(from)?, open(into)?);
    let shared = copy_tree(source.as_fd(), target.as_fd(), Manner::Sharing);
    shared
        .map(drop)
        .map_err(|Failure { path, error }| ImageError::io("copy", from.join(OsStr::from_bytes(&path)).display())(error))
}

/// What stood there, or on the way to it, does not any more.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// A directory that was made for one that has gone.
pub(crate) fn discard(target: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    let (above, name) = tree::split(path);
    let above = tree::open_no_links(target, above, tree::DIRECTORY)?;
    tree::remove(above.as_fd(), name).map_err(|left| left.error)
}

/// One that is no directory. It is looked at once, by a descriptor that opens nothing, and never by its name again.
pub(crate) fn share_one(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &[u8],
    target: BorrowedFd<'_>,
    place: Place,
    links: &mut HashMap<(u64, u64), Place>,
) -> io::Result<()> {
    let found = match tree::open_no_links(from.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if is_gone(error) => return Ok(()),
        found => found?,
    };
    let stat = rustix::fs::fstat(&found)?;
    let kind = tree::file_type(&stat);
    if kind == FileType::Directory {
        // It was none a moment ago.
        return Ok(());
    }
    if stat.st_nlink > 1 && is_linked(to, name, &stat, target, place, links)? {
        return Ok(());
    }
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    let (owner, group) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if kind == FileType::RegularFile {
        let input = rustix::fs::open(&itself, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let output = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
        rustix::fs::ioctl_ficlone(&output, &input)?;
        rustix::fs::fchown(&output, owner, group)?;
        rustix::fs::fchmod(&output, mode)?;
        for (key, value) in tree::xattrs_at(itself.as_bytes())? {
            tree::set_xattr(output.as_fd(), &key, &value)?;
        }
        return Ok(rustix::fs::futimens(&output, &both_times(&stat))?);
    }
    if kind == FileType::Symlink {
        // readlinkat(2) of a link that is open: the empty path.
        let link = rustix::fs::readlinkat(&found, c"", Vec::new())?;
        rustix::fs::symlinkat(link.as_c_str(), to, name)?;
    } else {
        rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
    }
    // Nobody but us is in the copy: its names stay what they are.
    rustix::fs::chownat(to, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    // A link itself has attributes of the host's policy alone, which the copy gets by itself.
    if kind != FileType::Symlink {
        for (key, value) in tree::xattrs_at(itself.as_bytes())? {
            tree::set_xattr_of_special(to.as_fd(), name, &key, &value)?;
        }
    }
    Ok(rustix::fs::utimensat(to, name, &both_times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn both_times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where files cannot share blocks that is said; what they share is tested on file systems that can, end to end.
    #[test]
    fn a_file_system_either_shares_or_says_no() {
        let directory = tempfile::tempdir().unwrap();
        let (from, into) = (directory.path().join("from"), directory.path().join("into"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&into).unwrap();
        std::fs::write(from.join("file"), "content").unwrap();
        let can = can_share_blocks(&from).unwrap();
        let shared = share_directory(&from, &into);
        assert_eq!(can, shared.is_ok(), "{shared:?}");
        if can {
            assert_eq!(std::fs::read_to_string(into.join("file")).unwrap(), "content");
        }
        assert!(can_share_blocks(&directory.path().join("nowhere")).is_err());
    }
}
