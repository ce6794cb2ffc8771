//! From a tar stream into a living tree.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use dozen_model::IdRange;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, StatxFlags, Uid};
use rustix::io::Errno;
use tar::EntryType;

use super::ids::Ids;
use super::{LiveError, LivePath};
use crate::compression::decompress;
use crate::extract::times::DirectoryTimes;
use crate::names::{normalize, shown};
use crate::tarball::{Entry, TarReader};
use crate::tree;

/// Whose what is made becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// As the archive says.
    OfEntries,
    /// This user's and group's.
    Fixed(u32, u32),
    /// Whoever unpacks.
    Caller,
}

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub struct CopyIn {
    /// A directory is not replaced by something else, nor the other way round.
    pub keep_kinds: bool,
    /// Whose it becomes.
    pub owner: Owner,
    /// The first part of each name, and what it is to be called: `.` and `/` stand for no part at all.
    pub renamed: Option<(Vec<u8>, Vec<u8>)>,
    /// The tree is a container's with these users of its own, and who unpacks is not in its user namespace: owners are as
    /// the container has them.
    pub ids: Option<IdRange>,
}

/// Unpacks an archive, which may be compressed by gzip or zstd, in a directory of the tree. Directories are merged with
/// those that stand, anything else is replaced.
pub fn copy_in(
    root: BorrowedFd<'_>,
    directory: &LivePath,
    options: &CopyIn,
    source: impl Read,
) -> Result<(), LiveError> {
    let target = tree::open_in_root(root, &directory.path, OFlags::PATH | OFlags::DIRECTORY);
    let target = target.map_err(|error| match error {
        Errno::NOTDIR => LiveError::NotADirectory,
        error => LiveError::path(&directory.path, error),
    })?;
    let failed = |error| LiveError::system("look at", &directory.path, error);
    if rustix::fs::fstatvfs(&target).map_err(failed)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let mount_of = |fd: BorrowedFd<'_>| {
            rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id)
        };
        let is_root = mount_of(target.as_fd()).map_err(failed)? == mount_of(root).map_err(failed)?;
        return Err(LiveError::ReadOnly { is_root });
    }
    drop(target);
    let (_, source) = decompress(source).map_err(LiveError::Archive)?;
    let mut reader = TarReader::new(source);
    let mut unpacker = Unpacker {
        root,
        // Links are resolved now, so that each entry's path is shorter to look up; it is looked up as any other.
        directory: super::path::resolved(root, &directory.path).map_err(failed)?,
        options,
        parent: None,
        times: DirectoryTimes::default(),
        buffer: vec![0; 128 * 1024],
    };
    while let Some(entry) = reader.next_entry().map_err(LiveError::Archive)? {
        unpacker.entry(&entry, &mut reader)?;
    }
    let failed = |error| LiveError::system("set the times below", &unpacker.directory, error);
    unpacker.times.finish(root).map_err(failed)
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    directory: Vec<u8>,
    options: &'a CopyIn,
    /// The directory of the entry before: archives come sorted, so it is mostly that of the next one too.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    times: DirectoryTimes,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), LiveError> {
        let refuse = |why| LiveError::Refused { entry: shown(&entry.path), why };
        let name = self.renamed(normalize(&entry.path).map_err(refuse)?);
        if name.is_empty() {
            // `./`: the directory that is there already, which keeps what it is.
            return match entry.kind {
                EntryType::Directory => Ok(()),
                _ => Err(refuse("it has no name")),
            };
        }
        if !self.is_known(entry) {
            return Err(refuse("it names a user or a group that is not in the container's user namespace"));
        }
        let path = tree::join(&self.directory, &name);
        let (above, last) = tree::split(&path);
        let parent = self.parent(above)?;
        let parent = parent.as_fd();
        let place = name_of(&path);
        let failed = |attempted| {
            let place = &place;
            move |error| LiveError::system(attempted, place, error)
        };
        let is_directory = entry.kind == EntryType::Directory;
        let mut standing = tree::stat(parent, last).map_err(failed("look at"))?.map(|stat| tree::file_type(&stat));
        if let Some(kind) = standing
            && (kind == FileType::Directory) != is_directory
            && self.options.keep_kinds
        {
            return Err(self.overwrite(&path, is_directory));
        }
        if standing.is_some_and(|kind| !(is_directory && kind == FileType::Directory)) && entry.kind != EntryType::Link
        {
            self.remove(parent, last).map_err(failed("replace"))?;
            standing = None;
        }
        match entry.kind {
            EntryType::Directory => {
                if standing.is_none() {
                    rustix::fs::mkdirat(parent, last, Mode::RWXU).map_err(failed("make directory"))?;
                }
                let made = tree::open_no_links(parent, last, tree::DIRECTORY).map_err(failed("make directory"))?;
                self.dress(made.as_fd(), entry).map_err(failed("set the attributes of"))?;
                if self
                    .times
                    .remember(made.as_fd(), path.clone(), entry.mtime, self.root)
                    .map_err(failed("set the time of"))?
                {
                    self.parent = None;
                }
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(parent, last, &path, entry, reader)
            }
            EntryType::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > tree::PATH_LIMIT {
                    return Err(refuse("its target is empty, too long or holds a NUL"));
                }
                rustix::fs::symlinkat(entry.link.as_slice(), parent, last).map_err(failed("make link"))?;
                self.dress_special(parent, last, FileType::Symlink, entry).map_err(failed("set the attributes of"))
            }
            EntryType::Link => self.hard_link(parent, last, &path, entry),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let kind = match entry.kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                rustix::fs::mknodat(parent, last, kind, Mode::RUSR, device).map_err(failed("make device"))?;
                self.dress_special(parent, last, kind, entry).map_err(failed("set the attributes of"))
            }
            _ => Err(refuse("dozen does not know its type")),
        }
    }

    fn renamed(&self, name: Vec<u8>) -> Vec<u8> {
        let Some((from, to)) = &self.options.renamed else { return name };
        if matches!(from.as_slice(), b"." | b"/") {
            return if name.is_empty() { to.clone() } else { tree::join(to, &name) };
        }
        match name.strip_prefix(from.as_slice()) {
            Some(b"") => to.clone(),
            Some(rest) if rest.starts_with(b"/") => [to, rest].concat(),
            _ => name,
        }
    }

    fn overwrite(&self, path: &[u8], is_directory: bool) -> LiveError {
        let words = ["directory", "non-directory"];
        let (standing, coming) = if is_directory { (words[1], words[0]) } else { (words[0], words[1]) };
        let shown = |path: &[u8]| format!("/{}", shown(path));
        LiveError::Overwrite { standing, path: shown(path), coming, directory: shown(&self.directory) }
    }

    /// Opens the directory an entry belongs in; what is missing of it is made, 0755.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, LiveError> {
        if let Some((cached, directory)) = &self.parent
            && cached == path
        {
            return Ok(directory.clone());
        }
        let failed = |error| match error {
            // EEXIST: a link that leads to nothing.
            Errno::NOTDIR | Errno::LOOP | Errno::EXIST => {
                LiveError::Refused { entry: name_of_text(path), why: "what its path goes through is no directory" }
            }
            error => LiveError::system("make the directory", &name_of(path), error),
        };
        self.times.settle().map_err(failed)?;
        let directory = match tree::open_in_root(self.root, path, tree::DIRECTORY) {
            Err(Errno::NOENT) => self.make_parents(path).map_err(failed)?,
            directory => directory.map_err(failed)?,
        };
        let directory = Rc::new(directory);
        self.times.enter(&directory).map_err(failed)?;
        self.parent = Some((path.to_vec(), directory.clone()));
        Ok(directory)
    }

    /// Each by its whole path: where a link leads depends on where it stands.
    fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut here = tree::open_in_root(self.root, b"", tree::DIRECTORY)?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            here = match tree::open_in_root(self.root, &path[..end], tree::DIRECTORY) {
                Err(Errno::NOENT) => {
                    let name = tree::split(&path[..end]).1;
                    rustix::fs::mkdirat(&here, name, Mode::RWXU)?;
                    let made = tree::open_no_links(here.as_fd(), name, tree::DIRECTORY)?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                    if let Owner::Fixed(uid, gid) = self.options.owner
                        && let Some((uid, gid)) = self.outside(uid, gid)
                    {
                        rustix::fs::fchown(&made, Some(uid), Some(gid))?;
                    }
                    made
                }
                next => next?,
            };
        }
        Ok(here)
    }

    /// What was opened by way of it may now be elsewhere, so the remembered directory is forgotten.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        self.parent = None;
        Ok(tree::remove(parent, name)?)
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), LiveError> {
        let failed = |attempted| move |error| LiveError::system(attempted, &name_of(path), error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("make file"))?;
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.pieces);
        for (offset, length) in pieces {
            let (mut offset, end) = (*offset, offset + length);
            while offset < end {
                let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(self.buffer.len());
                let read = reader.read_data(&mut self.buffer[..want]).map_err(LiveError::Archive)?;
                let mut rest = &self.buffer[..read];
                while !rest.is_empty() {
                    let written = rustix::io::pwrite(&file, rest, offset).map_err(failed("write file"))?;
                    rest = &rest[written..];
                    offset += written as u64;
                }
            }
        }
        if let Some(sparse) = &entry.sparse {
            rustix::fs::ftruncate(&file, sparse.real_size).map_err(failed("write file"))?;
        }
        self.dress(file.as_fd(), entry)
            .and_then(|()| rustix::fs::futimens(&file, &tree::times(entry.mtime)))
            .map_err(failed("set the attributes of"))
    }

    /// Whoever is named by an entry, and in whose name it is made, is somebody in the container.
    fn is_known(&self, entry: &Entry) -> bool {
        let ids = Ids(self.options.ids);
        let attributes = entry.xattrs.iter().filter(|(name, _)| tree::is_portable_xattr(name));
        (self.options.owner == Owner::Caller || self.owner(entry).is_some())
            && attributes.into_iter().all(|(name, value)| ids.attribute_outside(name, value).is_some())
    }

    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        match self.options.owner {
            Owner::OfEntries => self.outside(entry.uid, entry.gid),
            Owner::Fixed(uid, gid) => self.outside(uid, gid),
            Owner::Caller => None,
        }
    }

    fn outside(&self, uid: u32, gid: u32) -> Option<(Uid, Gid)> {
        let ids = Ids(self.options.ids);
        Some((Uid::from_raw(ids.outside(uid)?), Gid::from_raw(ids.outside(gid)?)))
    }

    /// Owner before mode: chown(2) takes setuid bits and capabilities away.
    fn dress(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner(entry) {
            rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| tree::is_portable_xattr(name)) {
            let Some(value) = Ids(self.options.ids).attribute_outside(name, value) else { continue };
            match tree::set_xattr(fd, name, &value) {
                // Who is nobody special may not give a program capabilities.
                Err(Errno::PERM) if self.options.owner == Owner::Caller => {}
                set => set?,
            }
        }
        Ok(())
    }

    /// Links, devices and pipes, by a descriptor, after a look at whether it is what was made: anyone in the tree may
    /// have put something else there.
    fn dress_special(&self, parent: BorrowedFd<'_>, name: &[u8], kind: FileType, entry: &Entry) -> Result<(), Errno> {
        let made = tree::open_no_links(parent, name, OFlags::PATH)?;
        let found = rustix::fs::fstat(&made)?;
        if tree::file_type(&found) != kind || found.st_nlink != 1 {
            return Err(Errno::STALE);
        }
        if let Some((uid, gid)) = self.owner(entry) {
            rustix::fs::chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        if kind != FileType::Symlink {
            // By the descriptor's own link, which names the inode: fchmodat2(2) is younger than the kernels we run on.
            let itself = format!("/proc/self/fd/{}", made.as_raw_fd());
            rustix::fs::chmod(itself, Mode::from_raw_mode(entry.mode))?;
        }
        rustix::fs::utimensat(&made, c"", &tree::times(entry.mtime), AtFlags::EMPTY_PATH)
    }

    fn hard_link(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), LiveError> {
        let refuse = |why| LiveError::Refused { entry: shown(&entry.path), why };
        let failed = |error| LiveError::system("make hard link", &name_of(path), error);
        let target = normalize(&entry.link).map_err(|_| refuse("its target leads out of the archive"))?;
        let target = tree::join(&self.directory, &self.renamed(target));
        let (target_parent, target_name) = tree::split(&target);
        let missing = "the target of the hard link is not there";
        let target_parent = match tree::open_in_root(self.root, target_parent, tree::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(refuse(missing)),
            opened => opened.map_err(failed)?,
        };
        let stat = tree::stat(target_parent.as_fd(), target_name).map_err(failed)?.ok_or_else(|| refuse(missing))?;
        if tree::file_type(&stat) == FileType::Directory {
            return Err(refuse("a directory cannot have a hard link"));
        }
        if let Some(standing) = tree::stat(parent, name).map_err(failed)? {
            if (standing.st_dev, standing.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            self.remove(parent, name).map_err(failed)?;
        }
        rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty()).map_err(failed)
    }
}

fn name_of(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

fn name_of_text(path: &[u8]) -> String {
    shown(&name_of(path))
}
