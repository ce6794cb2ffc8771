//! A small blob, which is in memory and has nobody who watches it go.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use dozen_model::Digest;
use tokio::sync::{mpsc, watch};

use crate::manifest::digest_of;
use crate::{BlobName, Found, RegistryError, UploadedBlob, Uploads};

impl Uploads {
    /// Sees to it that the registry has it; gives its digest, by SHA-256.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn small_blob(&self, bytes: Vec<u8>) -> Result<Digest, RegistryError> {
        let digest = digest_of(&bytes, "sha256");
        let Found::Nowhere(session) = self.find(&digest, &[]).await? else { return Ok(digest) };
        let bytes = Bytes::from(bytes);
        let (_, name) = watch::channel(Some(BlobName { digest: digest.clone(), size_bytes: bytes.len() as u64 }));
        let open = move |from: u64| {
            let (pieces, arriving) = mpsc::channel(1);
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            // There is room for one.
            _ = pieces.try_send(Ok(bytes.slice(from..)));
            arriving
        };
        let is_unreadable = Arc::new(AtomicBool::new(false));
        let blob = UploadedBlob { name, open: Arc::new(open), watch: Arc::new(|_| ()), is_unreadable };
        self.upload(&blob, session).await?;
        Ok(digest)
    }
}
