//! A tree on the disk: a mounted root of a stage or of an image.
//!
//! Whoever made it may have put anything there, so every name is looked up below its root without a link being followed
//! (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS), and what is no regular file is never opened but as a place
//! (open(2), O_PATH): no pipe is waited for, no device is touched.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use dozen_image::beneath;
use dozen_model::Digest;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Content, Kind, Node, NodeKind, Tree, TreeError, resolve, split};

/// A tree on the disk, by a descriptor of its root. Nobody else may change it meanwhile, and nothing breaks if somebody
/// does.
#[derive(Debug)]
pub struct LiveTree {
    root: Arc<OwnedFd>,
    /// The directory that was looked into last, with its path: names are asked for in order.
    last: Mutex<Option<(Vec<u8>, Arc<OwnedFd>)>>,
}

/// The directory that something is in, its name there, and its state.
type Found<'p> = (Arc<OwnedFd>, &'p [u8], Stat);

impl LiveTree {
    /// The tree below an opened directory.
    pub fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), last: Mutex::new(None) }
    }

    /// What a file holds, links followed, and no more of it than this; `None` if there is no file. For /etc/passwd.
    pub fn beginning(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let found = resolve(|path| self.kind(path), path.as_bytes(), true)?;
        let read = || -> io::Result<Option<Vec<u8>>> {
            let Some((directory, name, stat)) = self.look(&found.path)? else { return Ok(None) };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            let file = regular(directory.as_fd(), name, (stat.st_dev, stat.st_ino))?;
            file.take(limit_bytes).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        read().map_err(TreeError::read(&found.path))
    }

    /// The directory, or `None` if there is none.
    fn directory(&self, path: &[u8]) -> Result<Option<Arc<OwnedFd>>, Errno> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, directory)) = last.as_ref().filter(|(last, _)| last == path) {
            return Ok(Some(directory.clone()));
        }
        match beneath::open_no_links(self.root.as_fd(), path, beneath::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
            directory => {
                let directory = Arc::new(directory?);
                *last = Some((path.to_vec(), directory.clone()));
                Ok(Some(directory))
            }
        }
    }

    /// What stands at a path.
    fn look<'p>(&self, path: &'p [u8]) -> Result<Option<Found<'p>>, Errno> {
        let (above, name) = split(path);
        let name = if path.is_empty() { b"." } else { name };
        let Some(directory) = self.directory(above)? else { return Ok(None) };
        match beneath::stat(directory.as_fd(), name) {
            Ok(stat) => Ok(stat.map(|stat| (directory, name, stat))),
            Err(Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn node_at(&self, path: &[u8]) -> io::Result<Option<Node>> {
        let Some((directory, name, stat)) = self.look(path)? else { return Ok(None) };
        let identity = (stat.st_dev, stat.st_ino);
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => NodeKind::Directory,
            FileType::Symlink => NodeKind::Link(beneath::read_link(directory.as_fd(), name)?),
            FileType::Fifo => NodeKind::Pipe,
            FileType::CharacterDevice => NodeKind::CharacterDevice(device.0, device.1),
            FileType::BlockDevice => NodeKind::BlockDevice(device.0, device.1),
            FileType::RegularFile => {
                let content = Content::of_live(self.root.clone(), path, identity);
                let (size, digest) = summed(regular(directory.as_fd(), name, identity)?)?;
                NodeKind::File { size, digest, content }
            }
            // A socket is nothing without the process behind it.
            _ => return Ok(None),
        };
        let mut attributes = beneath::xattrs(directory.as_fd(), name)?;
        attributes.retain(|(key, _)| beneath::is_portable_xattr(key));
        let has_names = matches!(kind, NodeKind::File { .. }) && stat.st_nlink > 1;
        Ok(Some(Node {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            attributes,
            identity: has_names.then_some(identity),
        }))
    }
}

impl Tree for LiveTree {
    fn kind(&self, path: &[u8]) -> Result<Option<Kind>, TreeError> {
        let kind = || -> Result<Option<Kind>, Errno> {
            let Some((directory, name, stat)) = self.look(path)? else { return Ok(None) };
            Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Some(Kind::Directory),
                FileType::RegularFile => Some(Kind::File),
                FileType::Symlink => Some(Kind::Link(beneath::read_link(directory.as_fd(), name)?)),
                _ => Some(Kind::Special),
            })
        };
        kind().map_err(TreeError::read(path))
    }

    fn node(&self, path: &[u8]) -> Result<Option<Node>, TreeError> {
        self.node_at(path).map_err(TreeError::read(path))
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
        let names = || {
            // The root may be a descriptor that only names a place: a detached mount's is (open(2), O_PATH).
            let directory = match path {
                b"" => Some(Arc::new(beneath::open_no_links(self.root.as_fd(), b".", beneath::DIRECTORY)?)),
                path => self.directory(path)?,
            };
            directory.map_or(Ok(Vec::new()), |directory| beneath::names(directory.as_fd()))
        };
        names().map_err(TreeError::read(path))
    }
}

/// Opens a file that was looked at before, to be read.
pub(super) fn open_file(root: &OwnedFd, path: &[u8], identity: (u64, u64)) -> io::Result<File> {
    let (above, name) = split(path);
    if above.is_empty() {
        return regular(root.as_fd(), name, identity);
    }
    regular(beneath::open_no_links(root.as_fd(), above, beneath::DIRECTORY)?.as_fd(), name, identity)
}

/// Opens a regular file, and only this one: first as a place, then what it is by the descriptor's own link.
fn regular(directory: BorrowedFd<'_>, name: &[u8], identity: (u64, u64)) -> io::Result<File> {
    let place = beneath::open_no_links(directory, name, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || (stat.st_dev, stat.st_ino) != identity {
        return Err(io::Error::other("something else has come in its place"));
    }
    let itself = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(rustix::fs::open(itself, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?.into())
}

/// Length and digest of what is read.
fn summed(mut file: File) -> io::Result<(u64, Digest)> {
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, Digest::from_sha256(sum.finalize().into()))),
            Ok(read) => {
                sum.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
