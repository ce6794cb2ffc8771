//! What can go wrong with images.

use std::io;
use std::path::PathBuf;

use dozen_ledger::LedgerError;
use dozen_model::{Classified, Digest, ErrorKind, ImageId, ReferenceError};
use rustix::io::Errno;

use crate::extract::ExtractError;
use crate::pack::PackError;

/// A failure of the image store's. Nothing is left half made by any of them.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has this name. The words are Docker's.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// A prefix of more than one id.
    #[error("{0:?} is the beginning of more than one image id")]
    Ambiguous(String),
    /// An image is not there for a platform.
    #[error("{0}")]
    NoSuchPlatform(String),
    /// What was given is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A tag cannot be made with a digest. The words are Docker's.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    /// An image is in use, or others need it. The words are Docker's.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Something else was given.
    #[error("cannot load what was given: it is {}", if *.is_empty { "empty" } else { "no tar archive" })]
    NotAnArchive {
        /// There was not a byte of it.
        is_empty: bool,
    },
    /// An archive is damaged, cut short, or does not hold what it says.
    #[error("cannot load the archive: {}", shown(.0))]
    Archive(String),
    /// One layer of an archive is damaged or refused.
    #[error("cannot load layer {}: {}", shown(layer), shown(what))]
    Layer {
        /// How the archive calls it.
        layer: String,
        /// What is wrong with it.
        what: String,
    },
    /// What a registry gives is no image, or not the one that was asked for.
    #[error("cannot pull: {}", shown(.0))]
    Pull(String),
    /// Something of an image did not come with it, or has gone meanwhile.
    #[error("{0}")]
    Absent(String),
    /// What an image was asked of is something else: files under a name.
    #[error("{digest} is an artifact of type {} and no image", shown(artifact_type))]
    Artifact {
        /// Of its manifest.
        digest: Digest,
        /// What it says that it is.
        artifact_type: String,
    },
    /// No artifact has this name. The words are podman's.
    #[error("{0}: artifact does not exist")]
    NoSuchArtifact(String),
    /// A name that is taken. The words are podman's.
    #[error("{0}: artifact already exists")]
    ArtifactExists(String),
    /// A prefix of more than one digest.
    #[error("{0:?} is the beginning of more than one artifact's digest")]
    AmbiguousArtifact(String),
    /// A file of an artifact is not to be had by that name.
    #[error("{}", shown(.0))]
    ArtifactFile(String),
    /// A container's changes cannot be put in a layer.
    #[error("cannot commit: {0}")]
    Commit(String),
    /// What a container has cannot be put in an archive.
    #[error("cannot export: {0}")]
    Export(String),
    /// What was given cannot become an image.
    #[error("cannot import: {}", shown(.0))]
    Import(String),
    /// Known, and not there yet.
    #[error("{}", shown(.0))]
    NotBuilt(String),
    /// A stored layer is not what it was when it was stored.
    #[error("what is stored at {path} is damaged: it no longer gives the digest {expected}")]
    Damaged {
        /// Its directory, or the blob that is kept of it.
        path: PathBuf,
        /// The digest of the plain layer.
        expected: String,
    },
    /// An image is there, and what its configuration says is not to be had.
    #[error("image {image} cannot be read: {why}")]
    Unreadable {
        /// Its id.
        image: ImageId,
        /// What is wrong with its configuration.
        why: String,
    },
    /// The host refused.
    #[error("cannot {attempted} {object}")]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        object: String,
        #[source]
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ImageError {
    pub(crate) fn io<E: Into<io::Error>>(attempted: &'static str, object: impl ToString) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { attempted, object: object.to_string(), source: source.into() }
    }

    /// An error while reading the archive itself: its fault, unless the host's.
    pub(crate) fn reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Archive("it is cut short".into()),
            io::ErrorKind::InvalidData => Self::Archive(error.to_string()),
            io::ErrorKind::Unsupported => Self::NotBuilt(error.to_string()),
            _ => Self::Io { attempted: "read", object: "the archive".into(), source: error },
        }
    }

    pub(crate) fn layer(layer: &str, error: ExtractError) -> Self {
        let object = |entry: &str| format!("entry {entry:?} of layer {}", shown(layer));
        match error {
            ExtractError::Write { entry, attempted, source } if is_the_entrys_fault(source) => Self::Layer {
                layer: layer.into(),
                what: format!("cannot {attempted} entry {entry:?}: {}", io::Error::from(source)),
            },
            ExtractError::Write { entry, attempted, source } => {
                Self::Io { attempted, object: object(&entry), source: source.into() }
            }
            ExtractError::Read(error) if error.kind() == io::ErrorKind::Unsupported => {
                Self::NotBuilt(format!("layer {layer}: {error}"))
            }
            ExtractError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Layer { layer: layer.into(), what: "it is cut short".into() }
            }
            ExtractError::Read(error) if error.raw_os_error().is_some() || is_of_a_full_disk(error.kind()) => {
                Self::Io { attempted: "read", object: format!("layer {}", shown(layer)), source: error }
            }
            ExtractError::Record(source) => Self::Io {
                attempted: "keep what is needed to save again",
                object: format!("layer {}", shown(layer)),
                source,
            },
            error => Self::Layer { layer: layer.into(), what: error.to_string() },
        }
    }

    pub(crate) fn exporting(error: PackError) -> Self {
        match error {
            PackError::Read { path, source } => Self::Io { attempted: "read", object: path, source: source.into() },
            PackError::Write(source) => Self::Io { attempted: "write", object: "the archive".into(), source },
            error @ PackError::Refused { .. } => Self::Export(error.to_string()),
        }
    }

    pub(crate) fn packing(error: PackError) -> Self {
        match error {
            PackError::Read { path, source } => Self::Io { attempted: "read", object: path, source: source.into() },
            PackError::Write(source) => Self::Io { attempted: "write", object: "the new layer".into(), source },
            error @ PackError::Refused { .. } => Self::Commit(error.to_string()),
        }
    }
}

/// What comes is kept in a file while it is read, and what fails then comes in words of its own.
fn is_of_a_full_disk(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem)
}

/// What the kernel refuses because of what is asked, and not because of how the host is.
fn is_the_entrys_fault(error: Errno) -> bool {
    use Errno as E;
    [E::NAMETOOLONG, E::INVAL, E::RANGE, E::TOOBIG, E::LOOP, E::NOTDIR, E::ISDIR, E::MLINK, E::FBIG].contains(&error)
}

/// Words of an archive's as they may be said: one line without a terminal's commands, and not without end. What is left
/// out is in the middle: names come first, and what is wrong with them last.
fn shown(text: &str) -> String {
    const BEGINNING: usize = 500;
    const END: usize = 300;
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    let mut shown = String::new();
    let mut rest = text.chars();
    while shown.len() < BEGINNING {
        let Some(character) = rest.next() else { return shown };
        shown += &escaped(character);
    }
    let mut end = Vec::new();
    let mut length = 0;
    while length < END {
        let Some(character) = rest.next_back() else { break };
        end.push(escaped(character));
        length += end.last().map_or(0, String::len);
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    shown.extend(end.into_iter().rev());
    shown
}

impl Classified for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchImage(_) | Self::NoSuchPlatform(_) | Self::Absent(_) | Self::NoSuchArtifact(_) => {
                ErrorKind::NotFound
            }
            Self::Ambiguous(_)
            | Self::Reference(_)
            | Self::TagWithDigest
            | Self::NotAnArchive { .. }
            | Self::Archive(_)
            | Self::Layer { .. }
            | Self::Commit(_)
            | Self::Export(_)
            | Self::Import(_)
            | Self::Pull(_)
            | Self::Artifact { .. }
            | Self::AmbiguousArtifact(_)
            | Self::ArtifactFile(_) => ErrorKind::Invalid,
            Self::Conflict(_) | Self::ArtifactExists(_) => ErrorKind::Conflict,
            Self::NotBuilt(_) => ErrorKind::NotBuilt,
            Self::Damaged { .. } | Self::Unreadable { .. } => ErrorKind::Internal,
            Self::Io { source, .. } if is_of_a_full_disk(source.kind()) => ErrorKind::Exhausted,
            Self::Io { .. } => ErrorKind::Internal,
            Self::Ledger(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Ambiguous(_) => Some("give more digits of the id".into()),
            Self::AmbiguousArtifact(_) => Some("give more digits of the digest".into()),
            Self::NoSuchArtifact(_) => Some("artifacts and their names: dozen artifact ls; one in a registry comes with dozen artifact pull".into()),
            Self::ArtifactExists(_) => {
                Some("add the files to it with --append, or put them in its place with --replace".into())
            }
            Self::NotAnArchive { .. } => Some(
                "what `docker save` and `dozen save` write can be loaded, and an OCI layout in a tar archive; plain, or \
                 compressed with gzip or zstd"
                    .into(),
            ),
            Self::Archive(_) | Self::Layer { .. } => {
                Some("make the archive again with `docker save` or `dozen save`, or copy it again".into())
            }
            Self::Unreadable { .. } => Some(
                "load the image again, which heals it, or remove it; containers that stand on it can still be started"
                    .into(),
            ),
            Self::Damaged { .. } => Some(
                "load the archive that the image came in again: that mends it, and containers that stand on it go on"
                    .into(),
            ),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free some space on the file system of the data root: remove images that nobody needs".into())
                }
                io::ErrorKind::ReadOnlyFilesystem => Some("remount the file system of the data root writable".into()),
                _ => None,
            },
            Self::Ledger(error) => error.hint(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_while_a_layer_comes_is_not_the_layers_fault() {
        let error =
            |kind| ImageError::layer("sha256:0a", ExtractError::Read(io::Error::new(kind, "write /data/tmp/b2: why")));
        let full = error(io::ErrorKind::StorageFull);
        assert_eq!(full.kind(), ErrorKind::Exhausted);
        assert!(full.hint().unwrap().starts_with("free some space"), "{full}");
        assert_eq!(dozen_model::error_chain(&full), "cannot read layer sha256:0a: write /data/tmp/b2: why");
        assert_eq!(error(io::ErrorKind::InvalidData).kind(), ErrorKind::Invalid);
    }

    #[test]
    fn words_of_an_archive_are_one_short_line() {
        assert_eq!(shown("it is cut short"), "it is cut short");
        assert_eq!(shown("caf\u{e9}\u{1b}[2J\n\0"), "caf\u{e9}\\u{1b}[2J\\n\\u{0}");
        for length in [499, 500, 700, 800] {
            let text = "x".repeat(length);
            assert_eq!(shown(&text), text);
        }
        let long = shown(&format!("{} is missing", "\u{1b}".repeat(1 << 20)));
        assert!(long.starts_with("\\u{1b}") && long.contains('…') && long.ends_with("} is missing"), "{long}");
        assert!(long.len() < 900, "{}", long.len());
    }
}
