//! The safe extractor: one layer's tar stream into one directory, as an overlay's lower directory.
//!
//! The archive is hostile. Every path is resolved beneath the layer's root (openat2(2), RESOLVE_IN_ROOT and
//! RESOLVE_NO_MAGICLINKS), the last component is never followed, names with `..` are refused, absolute ones
//! are taken as relative. Whiteouts (OCI image-spec, layer.md, "Whiteouts") become the overlay's own marks in the
//! layer itself; a layer is therefore independent of those below it and is stored once for all images.

mod inherited;
pub(crate) mod times;

use std::cell::RefCell;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use self::times::DirectoryTimes;
use crate::names::{normalize, shown};
use crate::recording::{Kept, Recording, Tap};
use crate::tarball::{Entry, TarReader};
use crate::tree;

/// What one layer may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries, and directories that only their names imply.
    pub(crate) entries: u64,
    /// Bytes of files, without the holes of sparse ones.
    pub(crate) content_bytes: u64,
    /// Bytes of holes. They take nothing of the disk until somebody copies such a file as if it were whole.
    pub(crate) hole_bytes: u64,
}

/// What was extracted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Bytes of files, the holes of sparse ones included.
    pub(crate) content_bytes: u64,
    /// And directories that none of them names.
    pub(crate) entries: u64,
    /// The layer hides all layers below it. The kernel does not heed the mark on the root of a lower directory, so
    /// whoever stacks layers has to.
    pub(crate) opaque_root: bool,
}

/// Why a layer could not be extracted. Names are as in the archive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtractError {
    #[error("entry {entry:?} is refused: {why}")]
    Refused { entry: String, why: &'static str },
    #[error("cannot {attempted} entry {entry:?}")]
    Write { entry: String, attempted: &'static str, source: Errno },
    #[error("{0}")]
    Limit(String),
    #[error("the layer cannot be read: {0}")]
    Read(std::io::Error),
    #[error("what is needed to save the layer again cannot be kept: {0}")]
    Record(std::io::Error),
}

/// Extracts a stream below `root`, an empty directory; what `recording` says is recorded of it.
pub(crate) fn extract<'r>(
    source: impl Read,
    root: BorrowedFd<'r>,
    recording: Recording<'r>,
    limits: Limits,
) -> Result<(Extracted, Kept), ExtractError> {
    let recording = RefCell::new(recording);
    let extracted = extract_recorded(source, root, &recording, limits);
    if let Some(error) = recording.borrow_mut().failure() {
        return Err(ExtractError::Record(error));
    }
    Ok((extracted?, recording.into_inner().finish().map_err(ExtractError::Record)?))
}

/// The same where there are no layers: their marks are refused, and nothing is recorded.
pub(crate) fn extract_plain(
    source: impl Read,
    root: BorrowedFd<'_>,
    limits: Limits,
) -> Result<Extracted, ExtractError> {
    let recording = RefCell::new(Recording::new(root, None).map_err(ExtractError::Record)?);
    extract_entries(source, root, &recording, limits, false)
}

fn extract_recorded(
    source: impl Read,
    root: BorrowedFd<'_>,
    recording: &RefCell<Recording<'_>>,
    limits: Limits,
) -> Result<Extracted, ExtractError> {
    extract_entries(source, root, recording, limits, true)
}

fn extract_entries(
    source: impl Read,
    root: BorrowedFd<'_>,
    recording: &RefCell<Recording<'_>>,
    limits: Limits,
    has_marks: bool,
) -> Result<Extracted, ExtractError> {
    let mut reader = TarReader::new(Tap { source, recording });
    let mut extractor = Extractor {
        root,
        recording,
        parent: None,
        times: DirectoryTimes::default(),
        done: Extracted::default(),
        hole_bytes: 0,
        limits,
        has_marks,
        inherits: false,
        buffer: vec![0; 128 * 1024],
    };
    while let Some(entry) = reader.next_entry().map_err(ExtractError::Read)? {
        extractor.count()?;
        extractor.entry(&entry, &mut reader)?;
    }
    reader.drain().map_err(ExtractError::Read)?;
    extractor.finish()
}

/// The layer has more entries than this, or implies more directories.
struct TooMany(u64);

/// Why there is no directory for an entry.
enum NoParent {
    Errno(Errno),
    TooMany(TooMany),
}

impl From<Errno> for NoParent {
    fn from(error: Errno) -> Self {
        Self::Errno(error)
    }
}

impl From<TooMany> for NoParent {
    fn from(error: TooMany) -> Self {
        Self::TooMany(error)
    }
}

impl From<TooMany> for ExtractError {
    fn from(TooMany(limit): TooMany) -> Self {
        Self::Limit(format!("the layer has more than {limit} entries, counting directories that none names"))
    }
}

struct Extractor<'a, 'r> {
    root: BorrowedFd<'a>,
    recording: &'a RefCell<Recording<'r>>,
    /// The directory of the entry before: archives come sorted, so it is mostly that of the next one too.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    times: DirectoryTimes,
    done: Extracted,
    hole_bytes: u64,
    limits: Limits,
    /// It is a layer: some names say what is not there.
    has_marks: bool,
    /// What is made may inherit access control lists that its entry has not.
    inherits: bool,
    buffer: Vec<u8>,
}

impl Extractor<'_, '_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), ExtractError> {
        let shown = || shown(&entry.path);
        let refuse = |why| ExtractError::Refused { entry: shown(), why };
        let failed = |attempted| move |source| ExtractError::Write { entry: shown(), attempted, source };
        let path = normalize(&entry.path).map_err(refuse)?;
        if path.is_empty() {
            // `./`: the root of the layer itself.
            if entry.kind != EntryType::Directory {
                return Err(refuse("only a directory can be the root"));
            }
            self.dress(self.root, entry).map_err(failed("set the attributes of"))?;
            return self.remember(self.root, path, entry.mtime).map_err(failed("set the time of"));
        }
        let (parent_path, name) = tree::split(&path);
        if parent_path.starts_with(b".wh.") || parent_path.windows(5).any(|five| five == b"/.wh.") {
            return Err(refuse("a whiteout holds nothing"));
        }
        let parent = self.parent(parent_path).map_err(|error| match error {
            NoParent::Errno(Errno::NOTDIR | Errno::LOOP) => refuse("what its path goes through is no directory"),
            NoParent::Errno(source) => failed("make the directory of")(source),
            NoParent::TooMany(error) => error.into(),
        })?;
        let parent = parent.as_fd();
        if !self.has_marks && (name.starts_with(b".wh.") || entry.kind == EntryType::Char && entry.device == (0, 0)) {
            return Err(refuse("it is a mark of a layer, and this is none"));
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(parent, parent_path, hidden, entry);
        }
        match entry.kind {
            EntryType::Directory => self.directory(parent, &path, name, entry).map_err(failed("make directory")),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(parent, &path, name, entry, reader)
            }
            EntryType::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > tree::PATH_LIMIT {
                    return Err(refuse("its target is empty, too long or holds a NUL"));
                }
                self.replace(parent, name, |name| rustix::fs::symlinkat(entry.link.as_slice(), parent, name))
                    .and_then(|()| dress_special(parent, name, entry, self.inherits))
                    .map_err(failed("make link"))
            }
            EntryType::Link => self.hard_link(parent, name, entry),
            EntryType::Char if entry.device == (0, 0) => self.whiteout(parent, parent_path, name, entry),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let kind = match entry.kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                self.replace(parent, name, |name| rustix::fs::mknodat(parent, name, kind, Mode::RUSR, device))
                    .and_then(|()| dress_special(parent, name, entry, self.inherits))
                    .map_err(failed("make device"))
            }
            _ => Err(refuse("dozen does not know its type")),
        }
    }

    /// Opens the directory an entry belongs in; what is missing of it is made, root's and 0755.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, NoParent> {
        if let Some((cached, directory)) = &self.parent
            && cached == path
        {
            return Ok(directory.clone());
        }
        self.times.settle()?;
        let directory = match tree::open_in_root(self.root, path, tree::DIRECTORY) {
            Ok(directory) => Rc::new(directory),
            // Something is missing, or a whiteout of this same layer stands where a directory has to be.
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path)?,
            Err(error) => return Err(error.into()),
        };
        self.times.enter(&directory)?;
        self.parent = Some((path.to_vec(), directory.clone()));
        Ok(directory)
    }

    /// Makes what is missing on a path, from one directory to the next: a name of four kilobytes can have two thousand.
    /// They count as if the archive had named them.
    fn make_parents(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, NoParent> {
        let mut here = Rc::new(tree::open_in_root(self.root, b"", tree::DIRECTORY)?);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let name = tree::split(&path[..end]).1;
            let next = match tree::open_no_links(here.as_fd(), name, tree::DIRECTORY) {
                Err(Errno::NOENT) => self.make_parent(&here, name, false)?,
                Err(Errno::NOTDIR | Errno::LOOP) => match tree::stat(here.as_fd(), name)? {
                    Some(stat) if tree::is_whiteout(&stat) => self.make_parent(&here, name, true)?,
                    // By the whole path: where a link leads depends on where it stands. The kernel follows forty of
                    // them on one path (path_resolution(7)).
                    Some(stat) if tree::file_type(&stat) == FileType::Symlink => {
                        let found = tree::open_in_root(self.root, &path[..end], tree::DIRECTORY);
                        found.map_err(|error| if error == Errno::NOENT { Errno::NOTDIR } else { error })?
                    }
                    _ => return Err(Errno::NOTDIR.into()),
                },
                next => next?,
            };
            here = Rc::new(next);
        }
        Ok(here)
    }

    /// Makes one directory that no entry has named; one in the place of a whiteout hides what is below it.
    fn make_parent(&mut self, above: &Rc<OwnedFd>, name: &[u8], is_hidden: bool) -> Result<OwnedFd, NoParent> {
        self.count()?;
        self.times.enter(above)?;
        if is_hidden {
            rustix::fs::unlinkat(above, name, AtFlags::empty())?;
        }
        rustix::fs::mkdirat(above, name, Mode::RWXU)?;
        let made = tree::open_no_links(above.as_fd(), name, tree::DIRECTORY)?;
        if self.inherits {
            inherited::take_from(&made)?;
        }
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
        if is_hidden {
            rustix::fs::fsetxattr(&made, tree::OPAQUE, b"y", XattrFlags::empty())?;
        }
        self.times.settle()?;
        Ok(made)
    }

    /// One more thing is made.
    fn count(&mut self) -> Result<(), TooMany> {
        self.done.entries += 1;
        if self.done.entries > self.limits.entries { Err(TooMany(self.limits.entries)) } else { Ok(()) }
    }

    fn make_opaque(&self, above: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let directory = tree::open_no_links(above, name, tree::DIRECTORY)?;
        rustix::fs::fsetxattr(&directory, tree::OPAQUE, b"y", XattrFlags::empty())
    }

    /// Makes something at `name` that is no directory, in place of what stands there.
    fn replace<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        make: impl Fn(&[u8]) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make(name) {
            Err(Errno::EXIST) => {
                self.remove(parent, name)?;
                make(name)
            }
            result => result,
        }
    }

    /// What was opened by way of it may now be elsewhere, so the remembered directory is forgotten.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        self.parent = None;
        // Nothing lies in a whiteout, and no path leads through one.
        if !tree::stat(parent, name)?.is_some_and(|stat| tree::is_whiteout(&stat)) {
            let kept = self.recording.borrow_mut().keep_blob();
            kept.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        Ok(tree::remove(parent, name)?)
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Errno> {
        if let Err(error) = rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            if error != Errno::EXIST {
                return Err(error);
            }
            let standing = tree::stat(parent, name)?.ok_or(Errno::STALE)?;
            // A directory is merged with the one that stands; anything else gives way, and a whiteout leaves its mark.
            if tree::file_type(&standing) != FileType::Directory {
                self.remove(parent, name)?;
                rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                if tree::is_whiteout(&standing) {
                    self.make_opaque(parent, name)?;
                }
            }
        }
        let directory = tree::open_no_links(parent, name, tree::DIRECTORY)?;
        self.dress(directory.as_fd(), entry)?;
        self.remember(directory.as_fd(), path.to_vec(), entry.mtime)
    }

    /// A directory's time, for when nothing is made in it any more.
    fn remember(&mut self, directory: BorrowedFd<'_>, path: Vec<u8>, mtime: (i64, u32)) -> Result<(), Errno> {
        if self.times.remember(directory, path, mtime, self.root)? {
            // What is opened from now on is entered.
            self.parent = None;
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), ExtractError> {
        let failed = |attempted| move |source| ExtractError::Write { entry: shown(&entry.path), attempted, source };
        let size = entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.real_size);
        let data = entry.sparse.as_ref().map_or(size, |sparse| sparse.pieces.iter().map(|(_, length)| length).sum());
        self.done.content_bytes = self.done.content_bytes.saturating_add(size);
        self.hole_bytes = self.hole_bytes.saturating_add(size - data);
        let limits = self.limits;
        if self.done.content_bytes.saturating_sub(self.hole_bytes) > limits.content_bytes {
            return Err(ExtractError::Limit(format!(
                "the layer's files are larger than {} bytes, far more than its archive explains",
                limits.content_bytes
            )));
        }
        if self.hole_bytes > limits.hole_bytes {
            return Err(ExtractError::Limit(format!(
                "the layer's files have holes of more than {} bytes",
                limits.hole_bytes
            )));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self
            .replace(parent, name, |name| rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(failed("make file"))?;
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.pieces);
        for (offset, length) in pieces {
            let (mut offset, end) = (*offset, offset + length);
            self.recording.borrow_mut().content(path, offset, *length).map_err(ExtractError::Record)?;
            while offset < end {
                let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(self.buffer.len());
                let read = reader.read_data(&mut self.buffer[..want]).map_err(ExtractError::Read)?;
                let mut rest = &self.buffer[..read];
                while !rest.is_empty() {
                    let written = rustix::io::pwrite(&file, rest, offset).map_err(failed("write file"))?;
                    rest = &rest[written..];
                    offset += written as u64;
                }
            }
        }
        if entry.sparse.is_some() {
            rustix::fs::ftruncate(&file, size).map_err(failed("write file"))?;
        }
        self.dress(file.as_fd(), entry)
            .and_then(|()| rustix::fs::futimens(&file, &tree::times(entry.mtime)))
            .map_err(failed("set the attributes of"))
    }

    /// Owner before mode: chown(2) takes setuid bits and capabilities away.
    fn dress(&mut self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
        if self.inherits {
            inherited::take_from(fd)?;
        }
        rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| tree::is_portable_xattr(name)) {
            tree::set_xattr(fd, name, value)?;
        }
        self.inherits |= inherited::begins_with(entry);
        Ok(())
    }

    fn hard_link(&mut self, parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let refuse = |why| ExtractError::Refused { entry: shown(&entry.path), why };
        let failed = |source| ExtractError::Write { entry: shown(&entry.path), attempted: "make hard link", source };
        let target = normalize(&entry.link).map_err(|_| refuse("its target leads out of the layer"))?;
        let (target_parent, target_name) = tree::split(&target);
        let missing = "the target of the hard link is not in this layer";
        let target_parent = match tree::open_in_root(self.root, target_parent, tree::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(refuse(missing)),
            result => result.map_err(failed)?,
        };
        let stat = tree::stat(target_parent.as_fd(), target_name).map_err(failed)?;
        let stat = stat.filter(|stat| !tree::is_whiteout(stat)).ok_or_else(|| refuse(missing))?;
        if tree::file_type(&stat) == FileType::Directory {
            return Err(refuse("a directory cannot have a hard link"));
        }
        if let Some(standing) = tree::stat(parent, name).map_err(failed)?
            && (standing.st_dev, standing.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        self.replace(parent, name, |name| {
            rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })
        .map_err(|error| if error == Errno::NOENT { refuse(missing) } else { failed(error) })
    }

    /// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all that they have in this directory.
    fn whiteout(
        &mut self,
        parent: BorrowedFd<'_>,
        parent_path: &[u8],
        hidden: &[u8],
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let failed = |source| ExtractError::Write { entry: shown(&entry.path), attempted: "make whiteout", source };
        if hidden == b".wh..opq" {
            self.done.opaque_root |= parent_path.is_empty();
            return rustix::fs::fsetxattr(parent, tree::OPAQUE, b"y", XattrFlags::empty()).map_err(failed);
        }
        // Other names of this kind are notes of AUFS to itself.
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(ExtractError::Refused { entry: shown(&entry.path), why: "it hides nothing that has a name" });
        }
        // What this layer itself brings stays: whiteouts are about the layers below it. Anything but a directory
        // hides them by being there.
        match tree::stat(parent, hidden).map_err(failed)? {
            Some(standing) if tree::file_type(&standing) == FileType::Directory => {
                self.make_opaque(parent, hidden).map_err(failed)
            }
            Some(_) => Ok(()),
            None => rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(failed),
        }
    }

    fn finish(mut self) -> Result<Extracted, ExtractError> {
        let failed = |source| ExtractError::Write { entry: "./".into(), attempted: "set the times below", source };
        self.times.finish(self.root).map_err(failed)?;
        Ok(self.done)
    }
}

/// Links, devices and pipes are dressed by name: nobody else writes in this tree, and the name is our own work.
fn dress_special(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry, inherits: bool) -> Result<(), Errno> {
    if inherits && entry.kind != EntryType::Symlink {
        inherited::take_from_special(parent, name)?;
    }
    let (owner, group) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(parent, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind != EntryType::Symlink {
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    for (key, value) in entry.xattrs.iter().filter(|(key, _)| tree::is_portable_xattr(key)) {
        tree::set_xattr_of_special(parent, name, key, value)?;
    }
    rustix::fs::utimensat(parent, name, &tree::times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
pub(crate) mod tests;
