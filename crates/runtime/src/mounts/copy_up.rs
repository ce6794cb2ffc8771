//! `tmpcopyup`: a tmpfs that begins with what it hides (crun(1), "tmpcopyup mount options").

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, RuntimeError};

/// Copies what is in `from` into `to`: directories, files, links, and nodes, with owners, permissions, extended attributes and times. What is
/// copied is an image's: no link is followed, and a tree of any depth needs no stack. `keep_mode`: the permissions of `to`
/// itself stay.
pub(super) fn copy_up(from: &OwnedFd, to: &OwnedFd, keep_mode: bool) -> Result<(), RuntimeError> {
    let from = open_directory(from, c".").context(|| "open the directory to copy up".to_owned())?;
    let to = open_directory(to, c".").context(|| "open the tmpfs".to_owned())?;
    let mut status = rustix::fs::fstat(&from).context(|| "examine the directory to copy up".to_owned())?;
    if keep_mode {
        status.st_mode = rustix::fs::fstat(&to).context(|| "examine the tmpfs".to_owned())?.st_mode;
    }
    let mut open = vec![Level::new(from, to, status)?];
    while let Some(level) = open.last_mut() {
        let Some(entry) = level.entries.next() else {
            let done = open.pop().expect("there is a last level");
            // Last, since what is made in a directory changes its time.
            describe(&done.to, c"", &done.status)
                .and_then(|()| copy_attributes(&done.from, &done.to))
                .context(|| "copy up a directory".to_owned())?;
            continue;
        };
        let name = entry.context(|| "read a directory to copy up".to_owned())?.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let below = copy(level, &name).context(|| format!("copy up {}", name.to_string_lossy()))?;
        if let Some((from, to, status)) = below {
            open.push(Level::new(from, to, status)?);
        }
    }
    Ok(())
}

/// A directory that is being copied.
struct Level {
    entries: Dir,
    from: OwnedFd,
    to: OwnedFd,
    status: Stat,
}

impl Level {
    fn new(from: OwnedFd, to: OwnedFd, status: Stat) -> Result<Self, RuntimeError> {
        let entries = Dir::read_from(&from).context(|| "read a directory to copy up".to_owned())?;
        Ok(Self { entries, from, to, status })
    }
}

/// One entry; a directory comes back, to be copied next.
fn copy(level: &Level, name: &CString) -> Result<Option<(OwnedFd, OwnedFd, Stat)>, Errno> {
    let (from, to) = (&level.from, &level.to);
    let status = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(status.st_mode);
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            return Ok(Some((open_directory(from, name)?, open_directory(to, name)?, status)));
        }
        FileType::RegularFile => {
            let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            let mut target = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
            std::io::copy(&mut source, &mut target)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            // A change of owner takes capabilities away, too.
            describe(to, name, &status)?;
            copy_attributes(&source, &target)?;
            return Ok(None);
        }
        FileType::Symlink => {
            rustix::fs::symlinkat(rustix::fs::readlinkat(from, name, Vec::new())?, to, name)?;
        }
        kind => rustix::fs::mknodat(to, name, kind, mode, status.st_rdev)?,
    }
    describe(to, name, &status)?;
    Ok(None)
}

/// Owner, permissions and times, in this order: a change of owner takes away set-id bits.
fn describe(directory: impl AsFd, name: &std::ffi::CStr, status: &Stat) -> Result<(), Errno> {
    let at = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() } | AtFlags::SYMLINK_NOFOLLOW;
    let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
    rustix::fs::chownat(&directory, name, Some(uid), Some(gid), at)?;
    if name.is_empty() {
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(status.st_mode))?;
    } else if !FileType::from_raw_mode(status.st_mode).is_symlink() {
        rustix::fs::chmodat(&directory, name, Mode::from_raw_mode(status.st_mode), AtFlags::empty())?;
    }
    let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    };
    match name.is_empty() {
        true => rustix::fs::futimens(&directory, &times),
        false => rustix::fs::utimensat(&directory, name, &times, AtFlags::SYMLINK_NOFOLLOW),
    }
}

/// Extended attributes, a file's capabilities among them (xattr(7)), but for those that tmpfs has none of, and for SELinux's
/// label, which is the mount's affair.
fn copy_attributes(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let length = match rustix::fs::flistxattr_query(&from) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut names = vec![0; length];
    let length = rustix::fs::flistxattr(&from, &mut names[..])?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; rustix::fs::fgetxattr_query(&from, name)?];
        let length = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {}
            result => result?,
        }
    }
    Ok(())
}

fn open_directory(parent: impl AsFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
