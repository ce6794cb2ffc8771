//! What goes with the last name: targets that nothing leads to, and the blobs that only they, or an artifact, needed.

use std::collections::HashSet;
use std::sync::Arc;

use dozen_ledger::{Durability, LedgerError};
use dozen_model::{Digest, ImageId};

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::schema;
use crate::store::{Inner, State};
use crate::target::Target;

impl Inner {
    /// Deletes targets that nothing leads to, and blobs that neither a target nor an artifact needs. The change lock is held.
    pub(crate) fn collect_targets(&self) -> Result<(), ImageError> {
        let (targets, blobs) = {
            let mut state = self.write_state();
            let State { references, reference_targets, .. } = &mut *state;
            reference_targets.retain(|reference, _| references.contains_key(reference));
            let dead = state.dead_targets();
            let is_dead = |target: &&Arc<Target>| dead.contains(&target.digest);
            let by_targets = state.targets.values().filter(|target| !is_dead(target)).flat_map(|target| &target.blobs);
            let by_artifacts = state.artifacts.values().flat_map(|artifact| &artifact.blobs);
            let needed: HashSet<&Digest> = by_targets.chain(by_artifacts).collect();
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
