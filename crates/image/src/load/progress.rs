//! How far a load is, told while it goes on.

use dozen_model::Digest;

/// Is told how far an operation is. Called often, from other threads too; it must be quick and must not block.
pub trait Progress: Send + Sync {
    /// Something moved on.
    fn report(&self, event: ProgressEvent<'_>);
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressEvent<'a> {
    /// Reading the archive, before its layers are known.
    Reading {
        /// Bytes of its files so far.
        bytes: u64,
    },
    /// Unpacking a layer.
    Unpacking {
        /// Digest of the plain layer.
        layer: &'a Digest,
        /// Plain bytes so far.
        bytes: u64,
        /// Bytes of its blob, compressed as it is.
        blob_bytes: u64,
    },
    /// A layer was there already.
    Exists {
        /// Digest of the plain layer.
        layer: &'a Digest,
    },
}

/// Nobody is watching.
impl Progress for () {
    fn report(&self, _: ProgressEvent<'_>) {}
}
