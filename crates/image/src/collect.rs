//! What goes with the last name: layers that nothing needs, targets that nothing leads to, and the blobs that only they, or an
//! artifact, needed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use dozen_ledger::{Durability, LedgerError};
use dozen_model::{Digest, ImageId, error_chain};

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::schema::{self, LayerRow};
use crate::state::State;
use crate::store::Inner;
use crate::target::Target;

impl Inner {
    /// Deletes every layer that neither an image nor a target nor a build's step needs and nothing pins, and first the targets that have
    /// gone. The change lock is held.
    pub(crate) fn collect_layers(&self) -> Result<Vec<Digest>, ImageError> {
        self.collect_targets()?;
        let dead: Vec<Arc<LayerRow>> = {
            // Pins before state, here as in `pin`.
            let pins = self.lock_pins();
            let state = self.read_state();
            let needed = state.layers_of_images();
            let by_steps: BTreeSet<_> = state.steps.values().filter_map(|step| step.diff_id.as_ref()).collect();
            let is_dead = |layer: &&Arc<LayerRow>| {
                !needed.contains(&layer.diff_id)
                    && !by_steps.contains(&layer.diff_id)
                    && !pins.contains_key(&layer.diff_id)
            };
            let dead: Vec<_> = state.layers.values().filter(is_dead).cloned().collect();
            drop(state);
            // Gone from memory before the pins are let go: nobody can begin to rely on them.
            let mut state = self.write_state();
            dead.iter().for_each(|layer| drop(state.layers.remove(&layer.diff_id)));
            dead
        };
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        let digests: Vec<_> = dead.iter().map(|layer| layer.diff_id.clone()).collect();
        let rows = digests.clone();
        let deleted = self.ledger.write_essential(Durability::Power, move |connection| {
            rows.iter().try_for_each(|diff_id| schema::delete_layer(connection, diff_id))
        });
        if let Err(error) = deleted {
            let mut state = self.write_state();
            state.layers.extend(dead.into_iter().map(|layer| (layer.diff_id.clone(), layer)));
            return Err(LedgerError::into(error));
        }
        failpoint("image.collect.rows");
        // The rows are gone: a file that resists is reported and collected at the next start.
        for layer in &dead {
            self.discard(&self.layers.join(&layer.directory));
            match layer.recipe_size_bytes {
                Some(_) => self.delete_file(&self.content_path(layer)),
                None => self.delete_content(&layer.blob),
            }
        }
        failpoint("image.collect.files");
        Ok(digests)
    }

    /// The same behind what is done and cannot be taken back: what fails is for the next removal, or the next start.
    pub(crate) fn sweep_layers(&self) -> Vec<Digest> {
        self.collect_layers().unwrap_or_else(|error| {
            tracing::error!(error = error_chain(&error), "cannot delete layers that no image needs any more");
            Vec::new()
        })
    }

    /// Deletes targets that nothing leads to, and blobs that neither a target nor an artifact needs, and nobody
    /// reads. The change lock is held.
    pub(crate) fn collect_targets(&self) -> Result<(), ImageError> {
        let (targets, blobs) = {
            let pins = self.lock_pins();
            let mut state = self.write_state();
            let State { references, reference_targets, .. } = &mut *state;
            reference_targets.retain(|reference, _| references.contains_key(reference));
            let dead = state.dead_targets();
            let is_dead = |target: &&Arc<Target>| dead.contains(&target.digest);
            let by_targets = state.targets.values().filter(|target| !is_dead(target)).flat_map(|target| &target.blobs);
            let by_artifacts = state.artifacts.values().flat_map(|artifact| &artifact.blobs);
            let needed: HashSet<&Digest> = by_targets.chain(by_artifacts).chain(pins.keys()).collect();
            let blobs = state.blobs.keys().filter(|digest| !needed.contains(digest)).cloned().collect::<Vec<_>>();
            (dead, blobs)
        };
        if targets.is_empty() && blobs.is_empty() {
            return Ok(());
        }
        let rows = (targets.clone(), blobs.clone());
        self.ledger.write_essential(Durability::Power, move |connection| {
            rows.0.iter().try_for_each(|digest| schema::delete_target(connection, digest))?;
            rows.1.iter().try_for_each(|digest| schema::delete_blob(connection, digest))?;
            Ok::<_, LedgerError>(())
        })?;
        failpoint("image.targets.rows");
        {
            let mut state = self.write_state();
            targets.iter().for_each(|digest| drop(state.targets.remove(digest)));
            state.blobs.retain(|digest, _| !blobs.contains(digest));
        }
        blobs.iter().for_each(|digest| self.delete_content(digest));
        failpoint("image.targets.files");
        Ok(())
    }

    /// Deletes the file of a digest below `content/`, unless it is something else's too. Whose it was has lost its row.
    pub(crate) fn delete_content(&self, digest: &Digest) {
        if !self.read_state().owns_content(digest) {
            self.delete_file(&self.blob_path(digest));
        }
    }
}

impl State {
    /// Whether a file of this name below `content/` belongs to a blob, an image, or a layer.
    pub(crate) fn owns_content(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest) || self.is_of_image(digest)
    }

    /// Whether it belongs to an image or a layer.
    pub(crate) fn is_of_image(&self, digest: &Digest) -> bool {
        let id = ImageId::new(digest.clone());
        self.images.contains_key(&id)
            || self.removed.contains_key(&id)
            || self.unreadable.contains_key(&id)
            || self.layers.values().any(|row| row.recipe_size_bytes.is_none() && row.blob == *digest)
    }

    /// Digests that targets lead to.
    pub(crate) fn needed_by_targets(&self) -> HashSet<&Digest> {
        self.targets.values().flat_map(|target| &target.blobs).collect()
    }

    fn dead_targets(&self) -> Vec<Digest> {
        let named: HashSet<&Digest> = self.reference_targets.values().collect();
        let is_alive = |target: &Target| match self.images.get(&target.image) {
            Some(image) => {
                named.contains(&target.digest) || (image.references.is_empty() && image.repo_digests.is_empty())
            }
            // Whoever heals the image gets them back.
            None => self.unreadable.get(&target.image).is_some_and(|image| !image.removed),
        };
        self.targets.values().filter(|target| !is_alive(target)).map(|target| target.digest.clone()).collect()
    }
}
