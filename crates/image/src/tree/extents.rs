//! What a tree holds on the disk that another one does not: files of both may share blocks (ioctl_ficlone(2)).
//!
//! Where the blocks of a file are, the file system says (ioctl_fiemap(2), fiemap.rst of the kernel's documentation). Those
//! that it does not say so of are counted as the file's own. Of compressed ones it says their length unpacked.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::ioctl::{Updater, ioctl, opcode};

use super::size::{blocks, walk};

/// How many extents are asked for at a time.
const AT_ONCE: usize = 128;
const LAST: u32 = 0x1;
/// FIEMAP_EXTENT_UNKNOWN, _DELALLOC, _DATA_INLINE and _DATA_TAIL: there is no block that is this one's alone to name.
const NOWHERE: u32 = 0x2 | 0x4 | 0x200 | 0x400;

/// `struct fiemap_extent` of linux/fiemap.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap`, without the extents at its end: its size is in the number of the call.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
}

#[repr(C)]
struct Map {
    head: Head,
    extents: [Extent; AT_ONCE],
}

/// FS_IOC_FIEMAP.
const FIEMAP: u32 = opcode::read_write::<Head>(b'f', 11);

/// Bytes on the disk of everything in one directory that the other has not. Nothing of either is followed; what changes
/// meanwhile is counted as it is met.
pub fn bytes_beside(directory: &Path, other: &Path) -> u64 {
    let others = Held::by(other);
    let mut both = Held::by(directory);
    let own_bytes = both.elsewhere_bytes;
    both.blocks.extend_from_slice(&others.blocks);
    own_bytes + length(both.blocks).saturating_sub(length(others.blocks))
}

/// Bytes of the disk in these stretches, which may lie over each other.
fn length(mut stretches: Vec<(u64, u64)>) -> u64 {
    stretches.sort_unstable();
    let (mut bytes, mut end) = (0, 0);
    for (from, to) in stretches {
        bytes += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    bytes
}

#[derive(Default)]
struct Held {
    /// Of files: from, to.
    blocks: Vec<(u64, u64)>,
    /// Of directories and the like, and of files of which nobody says where they are.
    elsewhere_bytes: u64,
    /// Files with several names that have been met.
    seen: BTreeSet<(u64, u64)>,
}

impl Held {
    fn by(directory: &Path) -> Self {
        let mut held = Self::default();
        walk(directory, &mut |here| held.meet(here));
        held
    }

    /// Those in one directory; gives the directories in it.
    fn meet(&mut self, here: BorrowedFd<'_>) -> Vec<CString> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(here).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    directories.push(name.to_owned());
                    self.elsewhere_bytes += blocks(&stat);
                }
                _ if stat.st_nlink > 1 && !self.seen.insert((stat.st_dev, stat.st_ino)) => {}
                FileType::RegularFile => self.map(here, name, &stat),
                _ => self.elsewhere_bytes += blocks(&stat),
            }
        }
        directories
    }

    fn map(&mut self, here: BorrowedFd<'_>, name: &CStr, stat: &Stat) {
        let before = self.blocks.len();
        if self.try_map(here, name).is_err() {
            self.blocks.truncate(before);
            self.elsewhere_bytes += blocks(stat);
        }
    }

    fn try_map(&mut self, here: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        let Some(file) = open(here, name)? else { return Ok(()) };
        let mut start = 0;
        loop {
            let head = Head { start, length: u64::MAX - start, room: AT_ONCE as u32, ..Head::default() };
            let mut map = Map { head, extents: [Extent::default(); AT_ONCE] };
            // SAFETY: the call reads the head, and writes it and as many extents behind it as the head has room for
            // (ioctl_fiemap(2)): that is what `Map` is.
            unsafe { ioctl(&file, Updater::<FIEMAP, Map>::new(&mut map))? };
            let mapped = &map.extents[..AT_ONCE.min(map.head.mapped as usize)];
            for extent in mapped {
                match extent.flags & NOWHERE {
                    0 => self.blocks.push((extent.physical, extent.physical.saturating_add(extent.length))),
                    _ => self.elsewhere_bytes += extent.length,
                }
            }
            match mapped.last() {
                Some(last) if last.flags & LAST == 0 && last.length > 0 => start = last.logical + last.length,
                _ => return Ok(()),
            }
        }
    }
}

/// A regular file, whatever has taken its place meanwhile: it is looked at before it is opened.
fn open(here: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    let found = rustix::fs::openat(here, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    let opened =
        File::open(itself).map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO));
    opened.map(|file| Some(file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_counted_once() {
        for (stretches, want) in [
            (&[][..], 0),
            (&[(5, 10)], 5),
            (&[(5, 10), (0, 5), (20, 21)], 11),
            (&[(5, 10), (5, 10), (6, 12), (0, 100)], 100),
            (&[(3, 1)], 0),
        ] {
            assert_eq!(length(stretches.to_vec()), want, "{stretches:?}");
        }
    }

    #[test]
    fn files_that_share_nothing_are_each_their_own() {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (root.path().join("one"), root.path().join("other"));
        for directory in [&one, &other] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join("file"), [7; 300_000]).unwrap();
            std::fs::hard_link(directory.join("file"), directory.join("again")).unwrap();
            std::fs::File::create(directory.join("sparse")).unwrap().set_len(1 << 30).unwrap();
            std::os::unix::fs::symlink("/", directory.join("root")).unwrap();
        }
        let pipe = rustix::fs::mknodat(rustix::fs::CWD, one.join("pipe"), FileType::Fifo, Mode::RUSR, 0);
        pipe.unwrap();
        let bytes = bytes_beside(&one, &other);
        assert!((300_000..400_000).contains(&bytes), "{bytes}");
        assert_eq!(bytes_beside(&root.path().join("nowhere"), &other), 0);
    }
}
