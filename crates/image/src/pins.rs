//! Layers, and blobs of artifacts, that an operation relies on before an image of its own does, or still reads: they are not
//! collected meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use dozen_model::Digest;

use crate::store::Inner;

/// See [`Inner::pin`].
pub(crate) struct Pin {
    inner: Arc<Inner>,
    pub(crate) digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.inner.lock_pins();
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

impl Pin {
    /// One that was counted already.
    pub(crate) fn counted(inner: &Arc<Inner>, digest: &Digest) -> Self {
        Self { inner: inner.clone(), digest: digest.clone() }
    }
}

impl Inner {
    /// Keeps a known layer from being collected; `None` if it is not known.
    pub(crate) fn pin(self: &Arc<Self>, diff_id: &Digest) -> Option<Pin> {
        let mut pins = self.lock_pins();
        if !self.read_state().layers.contains_key(diff_id) {
            return None;
        }
        *pins.entry(diff_id.clone()).or_default() += 1;
        Some(Pin { inner: self.clone(), digest: diff_id.clone() })
    }

    /// The same for the layer of a blob, plain or compressed, by the digest of the blob.
    pub(crate) fn pin_content(self: &Arc<Self>, blob: &Digest) -> Option<Pin> {
        let of_blob = self.read_state().layers.values().find(|row| row.blob == *blob).map(|row| row.diff_id.clone());
        self.pin(blob).or_else(|| self.pin(&of_blob?))
    }

    pub(crate) fn lock_pins(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
