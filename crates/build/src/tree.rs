//! A tree of files that are copied from: a build's context, or a root of a stage or an image.
//!
//! Paths are relative to the tree's root, clean, and go through no link before their last component; the root's is
//! empty. [`resolve`] makes such a path of any.

mod content;
mod live;
mod plain;
mod resolve;

use dozen_model::Digest;

pub use content::{Content, ContentReader};
pub use live::LiveTree;
pub use plain::PlainTree;
pub(crate) use resolve::{LINKS, components};
pub use resolve::{Resolved, resolve};

/// What can be copied from, and looked at as a destination.
pub trait Tree: Send + Sync {
    /// What stands at a path, at the price of a look.
    fn kind(&self, path: &[u8]) -> Result<Option<Kind>, TreeError>;

    /// All of what stands at a path. The contents of a file may be read for it, for their digest.
    fn node(&self, path: &[u8]) -> Result<Option<Node>, TreeError>;

    /// The names in a directory, sorted by their bytes; what is no directory has none.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError>;

    /// Nodes need not be remembered: they cost no more than a look, are the same each time, and are many.
    fn has_nodes_at_hand(&self) -> bool {
        false
    }
}

/// What stands at a path, not looked through if it is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link, and where to.
    Link(Vec<u8>),
    /// A pipe or a device.
    Special,
}

/// A tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The system says no.
    #[error("cannot read {path}")]
    Read {
        /// From the tree's root.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Links lead in circles.
    #[error("{0}: too many levels of symbolic links")]
    Circle(String),
}

impl TreeError {
    pub(crate) fn read<E: Into<std::io::Error>>(path: &[u8]) -> impl FnOnce(E) -> Self {
        let path = shown(path);
        move |source| Self::Read { path, source: source.into() }
    }
}

/// What stands at a path, with all that an archive says of it.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// The twelve bits of the permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes that travel, by name.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a file with more than one name: what all its names have in common, and nothing else of the tree.
    pub identity: Option<(u64, u64)>,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Of its contents, by sha256.
        digest: Digest,
        /// Its contents.
        content: Content,
    },
    /// A symbolic link, and where to.
    Link(Vec<u8>),
    /// A named pipe.
    Pipe,
    /// A character device, by major and minor number.
    CharacterDevice(u32, u32),
    /// A block device, by major and minor number.
    BlockDevice(u32, u32),
}

impl Node {
    /// A directory of root's, open to all.
    pub fn directory(mtime: (i64, u32)) -> Self {
        let kind = NodeKind::Directory;
        Self { kind, mode: 0o755, uid: 0, gid: 0, mtime, attributes: Vec::new(), identity: None }
    }

    /// A file of root's that everyone may read.
    pub fn text(text: &[u8], mtime: (i64, u32)) -> Self {
        let kind = NodeKind::file(text);
        Self { kind, mode: 0o644, ..Self::directory(mtime) }
    }

    /// In short.
    pub fn short(&self) -> Kind {
        match &self.kind {
            NodeKind::Directory => Kind::Directory,
            NodeKind::File { .. } => Kind::File,
            NodeKind::Link(target) => Kind::Link(target.clone()),
            NodeKind::Pipe | NodeKind::CharacterDevice(..) | NodeKind::BlockDevice(..) => Kind::Special,
        }
    }
}

impl NodeKind {
    /// A file that holds these bytes.
    pub fn file(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        let digest = Digest::from_sha256(sha2::Sha256::digest(bytes).into());
        Self::File { size: bytes.len() as u64, digest, content: Content::of_bytes(bytes) }
    }
}

/// Above and last component of a clean path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub(crate) fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    match (above, name) {
        (b"", _) => name.to_vec(),
        (_, b"") => above.to_vec(),
        _ => [above, b"/", name].concat(),
    }
}

/// The paths above a clean one, the root first, itself not among them.
pub(crate) fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
    (!path.is_empty()).then_some(&path[..0]).into_iter().chain(slashes)
}

/// A path for a message, from the tree's root.
pub(crate) fn shown(path: &[u8]) -> String {
    format!("/{}", dozen_image::archive::shown(path))
}
