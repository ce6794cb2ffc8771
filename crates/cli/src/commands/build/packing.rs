//! A directory as the archive that a build begins from: what `.dockerignore` leaves, sorted by name, as it is read.
//!
//! Owners are not sent (all is root's), nor attributes but what a program may do; links go as links and are not followed,
//! and a file with several names goes once.
//! A file has four system calls of its own, and one more that may be executed, and none of its data is copied but into the
//! piece that is sent.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dozen_dockerfile::ignore::IgnoreFile;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::tar::{self, Entry};
use crate::failure::Failure;

/// Each level holds a descriptor, of which a process has 1024 unless it says more (getrlimit(2)).
const DEPTH_LIMIT: usize = 500;
const BUFFER_BYTES: usize = 128 << 10;
/// A name that is in no file system longer (NAME_MAX), some 60 of the longest at a time.
const LISTING_BYTES: usize = 16 << 10;

/// Why a context is not whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// The words for the user.
    #[error("{0}")]
    Context(Failure),
    /// Whoever takes the archive takes no more of it.
    #[error("{0}")]
    Out(#[from] std::io::Error),
}

/// Writes the archive.
pub(super) fn pack(directory: &Path, ignore: &IgnoreFile, out: impl Write) -> Result<(), PackError> {
    let opened = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut packer = Packer {
        root: directory,
        ignore,
        has_rules: !ignore.is_empty(),
        out,
        path: Vec::new(),
        pending: Vec::new(),
        header: Vec::new(),
        sent: HashMap::new(),
        buffer: vec![0; BUFFER_BYTES],
        listing: Vec::with_capacity(LISTING_BYTES),
    };
    let opened = opened.map_err(|error| packer.unreadable(error))?;
    packer.all(opened)?;
    Ok(packer.out.write_all(&[0; 2 * tar::BLOCK])?)
}

/// The archive of nothing.
pub(super) fn empty(mut out: impl Write) -> std::io::Result<()> {
    out.write_all(&[0; 2 * tar::BLOCK])
}

/// A directory that is gone through.
struct Level {
    directory: OwnedFd,
    names: std::vec::IntoIter<(CString, FileType)>,
    /// How much of the path, and of the headers that wait, stands above what is in it.
    path_length: usize,
    pending: usize,
}

struct Packer<'a, W> {
    root: &'a Path,
    ignore: &'a IgnoreFile,
    has_rules: bool,
    out: W,
    /// Where we are, below the root.
    path: Vec<u8>,
    /// Headers of directories that are left out themselves: they are sent with the first thing below them that is not.
    pending: Vec<Vec<u8>>,
    header: Vec<u8>,
    /// Files with several names, by device and inode: the path of the first.
    sent: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    listing: Vec<u8>,
}

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl<W: Write> Packer<'_, W> {
    fn all(&mut self, root: OwnedFd) -> Result<(), PackError> {
        let mut levels = vec![self.level(root, 0)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path_length);
            let Some((name, kind)) = level.names.next() else {
                self.pending.truncate(level.pending);
                levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            let below = self.child(level.directory.as_fd(), &name, kind)?;
            if levels.len() > DEPTH_LIMIT && below.is_some() {
                return Err(self.failed(format!("directories are nested more than {DEPTH_LIMIT} deep")));
            }
            levels.extend(below);
        }
        Ok(())
    }

    fn level(&mut self, directory: OwnedFd, pending: usize) -> Result<Level, PackError> {
        let names = self.names(directory.as_fd()).map_err(|error| self.unreadable(error))?.into_iter();
        Ok(Level { directory, names, path_length: self.path.len(), pending })
    }

    fn names(&mut self, directory: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, Errno> {
        let mut names = Vec::new();
        let mut listing = RawDir::new(directory, self.listing.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(names)
    }

    /// Sends an entry; the level to go into, if it is a directory.
    fn child(&mut self, above: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<Option<Level>, PackError> {
        let is_out = self.has_rules && self.ignore.leaves_out(&String::from_utf8_lossy(&self.path));
        if is_out && !matches!(kind, FileType::Directory | FileType::Unknown) {
            return Ok(None);
        }
        if kind == FileType::RegularFile {
            return self.file(above, name).map(|()| None);
        }
        let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|error| self.unreadable(error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.directory(above, name, &stat, is_out),
            _ if is_out => {}
            FileType::RegularFile => self.file(above, name)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(above, name, Vec::new());
                let link = link.map_err(|error| self.unreadable(error))?;
                self.entry(b'2', &stat, link.to_bytes())?;
            }
            FileType::Fifo => self.entry(b'6', &stat, b"")?,
            FileType::CharacterDevice => self.entry(b'3', &stat, b"")?,
            FileType::BlockDevice => self.entry(b'4', &stat, b"")?,
            // A socket is nothing without who listens.
            _ => {}
        }
        Ok(None)
    }

    fn directory(
        &mut self,
        above: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        is_out: bool,
    ) -> Result<Option<Level>, PackError> {
        if is_out && !self.ignore.may_see_below(&String::from_utf8_lossy(&self.path)) {
            return Ok(None);
        }
        let named = [&self.path[..], b"/"].concat();
        let entry = Entry { name: &named, kind: b'5', ..of(stat) };
        let pending = self.pending.len();
        if is_out {
            let mut header = Vec::new();
            tar::write_header(&entry, &mut header);
            self.pending.push(header);
        } else {
            self.write_header(&entry)?;
        }
        let opened = rustix::fs::openat(above, name, OPEN | OFlags::DIRECTORY, Mode::empty());
        let opened = opened.map_err(|error| self.unreadable(error))?;
        self.level(opened, pending).map(Some)
    }

    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), PackError> {
        // What a pipe has become meanwhile must not be waited for.
        let file = rustix::fs::openat(directory, name, OPEN | OFlags::NONBLOCK, Mode::empty());
        let file = file.map_err(|error| self.unreadable(error))?;
        let stat = rustix::fs::fstat(&file).map_err(|error| self.unreadable(error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.changed("is no file any more"));
        }
        if stat.st_nlink > 1 {
            let earlier = self.sent.get(&(stat.st_dev, stat.st_ino)).cloned();
            if let Some(earlier) = earlier {
                return self.entry(b'1', &stat, &earlier);
            }
            self.sent.insert((stat.st_dev, stat.st_ino), self.path.clone());
        }
        let mut capability = [0; 64];
        let length = match stat.st_mode & 0o111 {
            // What nobody may execute gives nobody a right.
            0 => 0,
            // Where there are no such attributes, there is none.
            _ => rustix::fs::fgetxattr(&file, c"security.capability", &mut capability[..]).unwrap_or(0),
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let path = std::mem::take(&mut self.path);
        let written =
            self.write_header(&Entry { name: &path, kind: b'0', size, capability: &capability[..length], ..of(&stat) });
        self.path = path;
        written?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = match rustix::io::read(&file, &mut self.buffer[..want]) {
                Ok(0) => return Err(self.changed("has become shorter while it was read")),
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(self.unreadable(error)),
            };
            self.out.write_all(&self.buffer[..read])?;
            left -= read as u64;
        }
        Ok(self.out.write_all(&[0; tar::BLOCK][..tar::padding(size)])?)
    }

    fn entry(&mut self, kind: u8, stat: &Stat, link: &[u8]) -> Result<(), PackError> {
        let path = std::mem::take(&mut self.path);
        let device = match kind {
            b'3' | b'4' => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            _ => (0, 0),
        };
        let written = self.write_header(&Entry { name: &path, kind, link, device, ..of(stat) });
        self.path = path;
        written
    }

    fn write_header(&mut self, entry: &Entry<'_>) -> Result<(), PackError> {
        for header in self.pending.iter_mut().filter(|header| !header.is_empty()) {
            self.out.write_all(header)?;
            header.clear();
        }
        self.header.clear();
        tar::write_header(entry, &mut self.header);
        Ok(self.out.write_all(&self.header)?)
    }

    fn shown(&self) -> String {
        self.root.join(std::ffi::OsStr::from_bytes(&self.path)).display().to_string()
    }

    /// Docker's words, where it has some.
    fn unreadable(&self, error: Errno) -> PackError {
        match error {
            Errno::ACCESS | Errno::PERM => {
                let words = format!("ERROR: error checking context: no permission to read from '{}'", self.shown());
                PackError::Context(
                    Failure::new(words).with_hint("what the build does not need can be named in .dockerignore"),
                )
            }
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR => self.changed("went away while the context was read"),
            error => self.failed(format!("{}: {}", self.shown(), std::io::Error::from(error))),
        }
    }

    fn changed(&self, how: &str) -> PackError {
        PackError::Context(
            Failure::new(format!("ERROR: failed to read the build context: {} {how}", self.shown()))
                .with_hint("leave the directory alone until it is sent, or name what changes in .dockerignore"),
        )
    }

    fn failed(&self, why: String) -> PackError {
        PackError::Context(Failure::new(format!("ERROR: failed to read the build context: {why}")))
    }
}

fn of(stat: &Stat) -> Entry<'static> {
    Entry { mode: stat.st_mode & 0o7777, mtime_s: stat.st_mtime, ..Entry::default() }
}

#[cfg(test)]
mod tests;
