//! What is read of an artifact stays until whoever reads has done, also if the artifact is removed meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use dozen_model::Digest;

use super::Artifact;
use crate::ImageError;
use crate::pins::Pin;
use crate::store::Inner;

/// See the module. What nobody needs any more goes with the last lease of it.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    digests: BTreeSet<Digest>,
    pins: Vec<Pin>,
}

impl Inner {
    /// The artifact of a name, and a lease of all that it needs.
    pub(super) fn lease_artifact(self: &Arc<Self>, name: &str) -> Result<(Artifact, Lease), ImageError> {
        // Pins before state, as whoever collects has them: it sees the pins, or we do not see the artifact.
        let mut pins = self.lock_pins();
        let artifact = Artifact::clone(&*self.read_state().find_artifact(name)?);
        let pin = |digest: &Digest| {
            *pins.entry(digest.clone()).or_default() += 1;
            Pin::counted(self, digest)
        };
        let held = artifact.blobs.iter().map(pin).collect();
        drop(pins);
        let digests = artifact.blobs.clone();
        Ok((artifact, Lease { inner: self.clone(), digests, pins: held }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pins.clear();
        let is_left_over = {
            let state = self.inner.read_state();
            let by_targets = state.needed_by_targets();
            let is_needed = |digest: &&Digest| {
                by_targets.contains(digest) || state.artifacts.values().any(|artifact| artifact.blobs.contains(*digest))
            };
            self.digests.iter().any(|digest| state.blobs.contains_key(digest) && !is_needed(&digest))
        };
        if is_left_over {
            let inner = self.inner.clone();
            // Whoever drops it may not wait for the disk. An engine that ends meanwhile leaves it to the next.
            std::thread::spawn(move || {
                let _change = inner.lock_change();
                inner.sweep_layers();
            });
        }
    }
}
