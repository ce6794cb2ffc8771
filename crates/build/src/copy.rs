//! COPY and ADD: which files are taken ([`select`], which looks at the sources alone), and what they become in the
//! layer ([`Selection::into_entries`], which looks at the image below too).
//!
//! The rules are BuildKit's (docs.docker.com/reference/dockerfile, "COPY" and "ADD"; where that leaves something open, as
//! BuildKit's copies come out). What of them is not to be expected: a source that is a directory stands for its contents,
//! and its own owner and mode are not taken; a directory that the destination has keeps its own only if it is the
//! destination itself; a pattern that matches nothing copies nothing, without an error.

mod archive;
mod glob;
mod layer;
mod mode;
pub mod owner;
mod place;
mod select;

use std::fs::File;
use std::io;

use dozen_model::{Classified, Digest, ErrorKind};

use crate::context::ContextError;
use crate::operation::Copy;
use crate::tree::{Node, Tree, TreeError};

pub use layer::Entries;
pub(crate) use select::clean;
pub use select::{Selection, select};

/// Where the sources of a [`Copy`] are.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// What paths are looked up in: the context, a stage's root, an image's.
    pub origin: &'a dyn Tree,
    /// What was fetched for each URL and repository among the sources, in their order.
    pub fetched: &'a [Fetched<'a>],
}

/// Something that was fetched.
#[derive(Clone, Copy)]
pub struct Fetched<'a> {
    /// What it is in.
    pub tree: &'a dyn Tree,
    /// A file's path in it, whose last component is its name; a directory's stands for all that is in it, and an empty one
    /// for all that is in the tree.
    pub path: &'a [u8],
}

/// What the files are put on.
#[derive(Clone, Copy)]
pub struct Placing<'a> {
    /// The image so far: its root, an [empty tree](crate::tree::PlainTree::empty) if there is none. Not looked at with
    /// `--link`.
    pub destination: &'a dyn Tree,
    /// `--chown`, in numbers ([`owner::resolve`]).
    pub owner: Option<(u32, u32)>,
    /// Of directories that are made, and of files that have no time of their own.
    pub made_at: (i64, u32),
    /// A file for what archives hold: empty, open for reading and writing. Asked for if an archive is unpacked.
    pub spool: &'a dyn Fn() -> io::Result<File>,
}

/// Files that come into an image.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The layer's, parents first, no path twice. None: nothing changes.
    pub entries: Vec<Entry>,
    /// See [`Selection::digest`].
    pub digest: Digest,
}

/// One entry of a layer.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the root and clean; empty for the root itself, which has an entry only if an empty layer's root would
    /// change it.
    pub path: Vec<u8>,
    /// What it is, with the owner and the mode that it shall have.
    pub node: Node,
    /// The file is there under this path of an earlier entry: this is another name of it, and has no data.
    pub hard_link: Option<Vec<u8>>,
}

/// Both at once.
pub fn plan(operation: &Copy, sources: &Sources<'_>, placing: &Placing<'_>) -> Result<Copied, CopyError> {
    let selection = select(operation, sources)?;
    let digest = selection.digest().clone();
    let entries = selection.into_entries(placing, sources.origin)?.collect::<Result<_, _>>()?;
    Ok(Copied { entries, digest })
}

/// What a layer holds that makes a directory, and those above it as far as they are missing, for this owner; what they are
/// made in comes along as it is. The path is the root's own, and goes through no link.
pub fn directories(
    destination: &dyn Tree,
    path: &[u8],
    owner: (u32, u32),
    made_at: (i64, u32),
) -> Result<Vec<Entry>, CopyError> {
    let mut layer = layer::Layer::new(destination, Some(owner), made_at);
    layer.make_directories(path)?;
    layer.finish().collect()
}

/// Why files cannot be copied. Paths are those of the tree that they are in.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source is not there. BuildKit's words.
    #[error("failed to compute cache key: {0:?}: not found")]
    NotFound(String),
    /// A source, or what is left out, is no pattern.
    #[error("invalid pattern {pattern:?}: syntax error in pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// A directory comes where something else stands. BuildKit's words.
    #[error("cannot copy to non-directory: {0}")]
    ToNonDirectory(String),
    /// A file comes where a directory stands. BuildKit's words.
    #[error("cannot replace to directory {0} with file")]
    ToDirectory(String),
    /// Something that is no directory stands where one has to be.
    #[error("mkdir {0}: not a directory")]
    NoDirectory(String),
    /// Several files would become one. Docker's words.
    #[error(
        "When using {instruction} with more than one source file, the destination must be a directory and end with a /"
    )]
    SeveralSources {
        /// `COPY` or `ADD`.
        instruction: &'static str,
    },
    /// It cannot be in a layer.
    #[error("{path} cannot be copied: {why}")]
    Refused {
        /// Where it would be.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// An archive cannot be unpacked.
    #[error("cannot unpack {path}: {source}")]
    Archive {
        /// The archive.
        path: String,
        /// Why.
        #[source]
        source: ContextError,
    },
    /// There is no place for what an archive holds.
    #[error("cannot keep what an archive holds")]
    Spool(#[source] io::Error),
}

impl Classified for CopyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Tree(TreeError::Read { .. }) => ErrorKind::Internal,
            Self::Spool(source) => crate::context::kind_of(source),
            Self::Archive { source, .. } => source.kind(),
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(_) => {
                Some("look whether it is there, below the context, and whether .dockerignore leaves it out".into())
            }
            Self::ToNonDirectory(_) => Some(
                "the image has a file or a link there; where it is a link, give the directory that it leads to as the \
                 destination"
                    .into(),
            ),
            Self::SeveralSources { .. } => Some("put a slash at the end of the destination".into()),
            Self::Archive { source, .. } => source.hint(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::compressed;
