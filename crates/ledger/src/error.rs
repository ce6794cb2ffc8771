//! What can go wrong with the ledger.

use std::path::PathBuf;

use dozen_model::{Classified, ErrorKind};

/// A failure of the ledger's, or of a statement that was sent to it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened or prepared.
    #[error("cannot open the ledger {path}")]
    Open {
        /// The file.
        path: PathBuf,
        #[source]
        #[allow(missing_docs)]
        source: rusqlite::Error,
    },
    /// A younger dozen wrote this file.
    #[error("the ledger {path} has schema {found}, this dozen knows up to {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// A statement failed.
    #[error("the ledger refused a statement")]
    Statement(#[source] rusqlite::Error),
    /// The disk is full, or cannot be written.
    #[error("the ledger cannot be written")]
    Disk(#[source] rusqlite::Error),
    /// Even the space that was kept in reserve is used up, or it is kept for what has to be written.
    #[error("no space left on device: the disk is full")]
    Full,
    /// The writer thread is gone: the engine is going down.
    #[error("the ledger is closed")]
    Closed,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DiskFull, ReadOnly, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull | ReadOnly | SystemIoFailure) => Self::Disk(error),
            _ => Self::Statement(error),
        }
    }
}

impl Classified for LedgerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk(_) | Self::Full => ErrorKind::Exhausted,
            Self::Open { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
                ErrorKind::Exhausted
            }
            Self::Closed => ErrorKind::Unavailable,
            Self::Open { .. } | Self::Newer { .. } | Self::Statement(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Newer { .. } => {
                Some("run the dozen that wrote it, or a newer one; going back is not supported".into())
            }
            Self::Disk(_) => Some("free some space on the file system of the data root, or remount it writable".into()),
            Self::Full => {
                Some("free some space on the file system of the data root: dozen rm, dozen rmi, dozen volume rm".into())
            }
            _ => None,
        }
    }
}
