//! What a build is given to copy from: an archive, read once and not unpacked.
//!
//! The contents of all files go into one spool file, one behind the other, and their digests are calculated on the way;
//! what names there are is kept in memory (`index`). A context that is the same as before costs no file of its own.
//! The archive is hostile until proven, and bounded: 2,000,000 entries and directories that they imply, 256 MiB of names,
//! link targets and attributes, 4095 bytes for a path, 8 GiB of holes in sparse files, what is compressed may swell to
//! 1 GiB or 200 times its size. An entry that comes again replaces the one before, as tar does; what an archive says is
//! taken as if the context were `/`: links lead nowhere else, and names with `..` are refused.

mod compression;
mod index;
mod read;
mod spool;
mod unpack;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use dozen_dockerfile::ignore::IgnoreFile;
use dozen_model::{Classified, Digest, ErrorKind};

pub(crate) use self::read::is_archive;

use self::index::{Index, Number, What};
use crate::tree::{Content, Kind, Node, NodeKind, Tree, TreeError, resolve, shown};

/// A context: an index, and the spool that it leads into.
#[derive(Clone)]
pub struct Context {
    index: Arc<Index>,
    spool: Arc<File>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({} names)", self.count())
    }
}

/// Whose the files of an archive are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Root's: who sent them says nothing in an image.
    Root,
    /// As the archive says.
    Kept,
}

/// A context cannot be taken in, or something of it is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Something else was given.
    #[error("it is no tar archive, plain or compressed with gzip, bzip2, xz or zstd")]
    NotAnArchive,
    /// It is damaged, cut short, or past the bounds.
    #[error("the archive cannot be read: {0}")]
    Archive(String),
    /// One entry is not to be taken.
    #[error("entry {entry:?} of the archive is refused: {why}")]
    Refused {
        /// Its name in the archive.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Whoever sends the archive stopped.
    #[error("the archive cannot be received")]
    Receive(#[source] io::Error),
    /// There is no place for what it holds.
    #[error("what the archive holds cannot be kept")]
    Spool(#[source] io::Error),
    /// A file is larger than the reader takes.
    #[error("{path} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// What would have been taken.
        limit_bytes: u64,
    },
    /// A link leads in circles.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A part cannot be made into files.
    #[error("cannot make {path} of the build context")]
    Unpack {
        /// What is made.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Classified for ContextError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Spool(source) | Self::Unpack { source, .. } => kind_of(source),
            Self::Tree(TreeError::Read { .. }) => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        (self.kind() == ErrorKind::Exhausted).then(|| "free some space on the file system of the data root".into())
    }
}

/// What an error of the disk under the engine is.
pub(crate) fn kind_of(source: &io::Error) -> ErrorKind {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Exhausted
        }
        _ => ErrorKind::Internal,
    }
}

/// What became of a path that was made into files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpacked {
    /// A directory, with all that is in it.
    Directory,
    /// Something else.
    File,
}

impl Context {
    /// Reads an archive to its end: plain, or compressed with gzip, bzip2, xz or zstd. `spool` is an empty file, open for
    /// reading and writing, that nobody else writes to; it may have no name any more.
    pub fn read(archive: impl Read, spool: File) -> Result<Self, ContextError> {
        Self::read_with(archive, spool, Owners::Root)
    }

    /// Reads several archives into one context, each below a clean path of its own: what it is a part of comes before it.
    pub fn read_parts<R: Read>(
        parts: impl IntoIterator<Item = (Vec<u8>, R)>,
        spool: File,
    ) -> Result<Self, ContextError> {
        let (index, spool) = read::read_parts(parts, spool, Owners::Root, read::HOLES)?;
        Ok(Self { index: Arc::new(index), spool: Arc::new(spool) })
    }

    pub(crate) fn read_with(archive: impl Read, spool: File, owners: Owners) -> Result<Self, ContextError> {
        Self::read_within(archive, spool, owners, read::HOLES)
    }

    fn read_within(archive: impl Read, spool: File, owners: Owners, holes: u64) -> Result<Self, ContextError> {
        let (index, spool) = read::read(archive, spool, owners, holes)?;
        Ok(Self { index: Arc::new(index), spool: Arc::new(spool) })
    }

    /// The same with little patience for holes, which take as long to go through as if they were data.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn read_in_a_hurry(archive: impl Read, spool: File) -> Result<Self, ContextError> {
        Self::read_within(archive, spool, Owners::Kept, 8 << 20)
    }

    /// One without files.
    pub fn empty(spool: File) -> Self {
        Self { index: Arc::default(), spool: Arc::new(spool) }
    }

    /// What an ignore file leaves of it.
    pub fn ignoring(&self, ignore: &IgnoreFile) -> Self {
        Self { index: Arc::new(self.index.ignoring(ignore)), spool: self.spool.clone() }
    }

    /// What is in a directory, as a context of its own: links that lead out of it lead nowhere then. `None` if there is no
    /// such directory.
    pub fn below(&self, path: &str) -> Result<Option<Self>, ContextError> {
        let found = resolve(|path| self.kind(path), path.as_bytes(), true)?;
        let number = self.index.find(&found.path).filter(|_| found.kind == Some(Kind::Directory));
        Ok(number.map(|number| Self { index: Arc::new(self.index.below(number)), spool: self.spool.clone() }))
    }

    /// How many files, directories and others there are, the root not among them.
    pub fn count(&self) -> usize {
        self.index.count()
    }

    /// A file's contents, links followed; `None` if there is no file.
    pub fn file(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, ContextError> {
        let found = resolve(|path| self.kind(path), path.as_bytes(), true)?;
        let Some(Node { kind: NodeKind::File { size, content, .. }, .. }) = self.node(&found.path)? else {
            return Ok(None);
        };
        if size > limit_bytes {
            return Err(ContextError::TooLarge { path: shown(&found.path), limit_bytes });
        }
        let mut bytes = Vec::new();
        content.open().and_then(|mut content| content.read_to_end(&mut bytes)).map_err(ContextError::Spool)?;
        Ok(Some(bytes))
    }

    /// Makes what a path leads to as `name` in a directory: a file, or a directory with all that is in it. `None` and
    /// nothing made if nothing is there.
    pub fn unpack(&self, path: &str, into: BorrowedFd<'_>, name: &str) -> Result<Option<Unpacked>, ContextError> {
        let found = resolve(|path| self.kind(path), path.as_bytes(), true)?;
        match found.kind {
            None => Ok(None),
            Some(kind) => {
                unpack::unpack(self, &found.path, into, name.as_bytes())?;
                Ok(Some(if kind == Kind::Directory { Unpacked::Directory } else { Unpacked::File }))
            }
        }
    }

    /// A directory that no entry of the archive names.
    pub(crate) fn is_implied(&self, path: &[u8]) -> bool {
        self.index.find(path).is_some_and(|number| self.index.is_implied(number))
    }

    fn node_of(&self, number: Number) -> Node {
        let inode = self.index.inode(number);
        let kind = match &inode.what {
            What::Directory(_) => NodeKind::Directory,
            What::File { offset, size, digest } => NodeKind::File {
                size: *size,
                digest: Digest::from_sha256(*digest),
                content: Content::of_part(self.spool.clone(), *offset, *size),
            },
            What::Link(target) => NodeKind::Link(target.to_vec()),
            What::Pipe => NodeKind::Pipe,
            What::CharacterDevice(major, minor) => NodeKind::CharacterDevice(*major, *minor),
            What::BlockDevice(major, minor) => NodeKind::BlockDevice(*major, *minor),
        };
        let looks = &inode.looks;
        Node {
            kind,
            mode: looks.mode,
            uid: looks.uid,
            gid: looks.gid,
            mtime: looks.mtime,
            attributes: looks.attributes.as_deref().map_or_else(Vec::new, <[_]>::to_vec),
            identity: (inode.names > 1).then_some((0, u64::from(number))),
        }
    }
}

impl Tree for Context {
    fn kind(&self, path: &[u8]) -> Result<Option<Kind>, TreeError> {
        Ok(self.index.find(path).map(|number| match &self.index.inode(number).what {
            What::Directory(_) => Kind::Directory,
            What::File { .. } => Kind::File,
            What::Link(target) => Kind::Link(target.to_vec()),
            What::Pipe | What::CharacterDevice(..) | What::BlockDevice(..) => Kind::Special,
        }))
    }

    fn node(&self, path: &[u8]) -> Result<Option<Node>, TreeError> {
        Ok(self.index.find(path).map(|number| self.node_of(number)))
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
        Ok(self.index.find(path).map_or_else(Vec::new, |number| self.index.names(number)))
    }

    fn has_nodes_at_hand(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
