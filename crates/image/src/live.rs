//! Copying into and out of a tree that lives: a container's root as the container sees it, with what is mounted in it, or
//! a directory of the host's. For `cp`.
//!
//! Whoever lives in the tree may swap any name for another at any moment, so everything is found by descriptor, as if
//! the tree's root were `/` (openat2(2), RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS): links are followed where Docker
//! follows them, and none leads out. What is written is made anew under its name and never opened through an old one; what
//! is read is looked at before it is opened, so that no pipe is waited for and no device is touched.

mod copy_in;
mod copy_out;
mod ids;
mod path;

use std::io;

use dozen_model::{Classified, ErrorKind};
use rustix::io::Errno;

pub use copy_in::{CopyIn, Owner, copy_in};
pub use copy_out::copy_out;
pub use path::{LivePath, PathStat, path_stat};

/// Why something was not copied. Paths are those of the tree, names those of the archive.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The path that was asked for is not there.
    #[error("no such file or directory: {0}")]
    NoSuchPath(String),
    /// It goes through something that is no directory, or leads in circles.
    #[error("{path}: {why}")]
    NotReachable {
        /// The path.
        path: String,
        /// The kernel's reason, in words.
        why: &'static str,
    },
    /// What an archive is to be unpacked in is something else.
    #[error("extraction point is not a directory")]
    NotADirectory,
    /// Nothing can be written there. Docker's words.
    #[error("{} is marked read-only", if *.is_root { "container rootfs" } else { "mounted volume" })]
    ReadOnly {
        /// It is the root itself and not something mounted in it.
        is_root: bool,
    },
    /// A directory stands where something else is to be, or the other way round. Docker's words.
    #[error("cannot overwrite {standing} {path:?} with {coming} {directory:?}")]
    Overwrite {
        /// What is there.
        standing: &'static str,
        /// Where.
        path: String,
        /// What the archive has.
        coming: &'static str,
        /// What the archive is unpacked in.
        directory: String,
    },
    /// The archive has something in it that cannot be meant.
    #[error("entry {entry:?} is refused: {why}")]
    Refused {
        /// Its name in the archive.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system says no.
    #[error("cannot {attempted} {path:?}")]
    System {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The archive that comes in is none, or ends early.
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    /// Nobody takes the archive that goes out.
    #[error("the archive cannot be written")]
    Out(#[source] io::Error),
}

impl LiveError {
    fn system(attempted: &'static str, path: &[u8], source: Errno) -> Self {
        Self::System { attempted, path: crate::names::shown(path), source: source.into() }
    }

    /// A path that was asked for cannot be opened.
    fn path(path: &[u8], error: Errno) -> Self {
        let path_shown = format!("/{}", crate::names::shown(path));
        match error {
            Errno::NOENT => Self::NoSuchPath(path_shown),
            Errno::NOTDIR => Self::NotReachable { path: path_shown, why: "not a directory" },
            Errno::LOOP => Self::NotReachable { path: path_shown, why: "too many levels of symbolic links" },
            Errno::NAMETOOLONG => Self::NotReachable { path: path_shown, why: "file name too long" },
            error => Self::system("open", path, error),
        }
    }
}

impl Classified for LiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchPath(_) => ErrorKind::NotFound,
            Self::NotReachable { .. } | Self::NotADirectory | Self::Overwrite { .. } | Self::Refused { .. } => {
                ErrorKind::Invalid
            }
            Self::ReadOnly { .. } => ErrorKind::Forbidden,
            Self::Archive(error) if error.kind() == io::ErrorKind::Unsupported => ErrorKind::NotBuilt,
            Self::Archive(_) => ErrorKind::Invalid,
            Self::System { source, .. } => match source.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOSPC | Errno::DQUOT) => ErrorKind::Exhausted,
                // A mount that stands in the way, or one that takes nothing.
                Some(Errno::BUSY | Errno::ROFS | Errno::PERM | Errno::ACCESS) => ErrorKind::Forbidden,
                _ => ErrorKind::Internal,
            },
            Self::Out(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::System { source, .. } if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                Some("something is mounted there; write to it in place, with dozen exec".into())
            }
            Self::System { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space on its file system".into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
