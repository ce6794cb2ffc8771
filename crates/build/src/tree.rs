//! A tree of files that are copied from: a build's context, or a root of a stage or an image.

use dozen_model::Digest;

/// What stands at a path, not looked through if it is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<D> {
    /// What it is.
    pub kind: NodeKind<D>,
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
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind<D> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Of its contents, by sha256.
        digest: Digest,
        /// Where the contents are found.
        data: D,
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
