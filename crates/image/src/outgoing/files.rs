//! Blobs that lie below `content/` as they are, in the order in which they are wanted.

use std::sync::Arc;

use super::{Content, OutgoingBlob, OutgoingBlobs};
use crate::artifact::Lease;
use crate::places::LayerBlob;
use crate::store::Inner;

impl OutgoingBlobs {
    /// Each has a row of its own that says so, and is there as long as the lease.
    pub(crate) fn of_files(inner: &Arc<Inner>, blobs: Vec<LayerBlob>, lease: Lease) -> Self {
        let stored = |blob: LayerBlob| OutgoingBlob {
            id: blob.digest.clone(),
            diff_id: None,
            stored_bytes: blob.size_bytes,
            content: Content::File(inner.blob_path(&blob.digest)),
            blob: Some(blob),
        };
        let layers = blobs.into_iter().map(stored).collect();
        Self { inner: inner.clone(), layers, configurations: Vec::new(), _pins: Vec::new(), _lease: Some(lease) }
    }
}
