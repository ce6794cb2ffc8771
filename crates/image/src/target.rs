//! Targets: what of an OCI layout a name leads to, an index or a manifest, kept as it came.
//!
//! An image's id is that of its configuration, whatever brought it in; a target says in which manifest it came, in which
//! index with which other platforms, and with which notes and artifacts about it. All of that is given back by `save` to
//! the byte. What a target leads to is either a layer that the store has anyway (its blob, or its plain stream), the
//! image's configuration, or a blob of its own.
//!
//! A target lives for as long as a name leads to it, or, if its image has no name at all, as long as that.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use dozen_ledger::{Durability, LedgerError};
use dozen_model::{Digest, ImageId, Reference};
use serde_json::Value;

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::manifest::{Files, Held, PlannedTarget, Spooled, blob_name};
use crate::schema::{self, LayerRow};
use crate::store::{Inner, State};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) digest: Digest,
    /// As an `index.json` has it, without names.
    pub(crate) descriptor: Value,
    /// The manifest of the image itself.
    pub(crate) manifest: Digest,
    pub(crate) image: ImageId,
    /// Of all that it leads to, itself included, as far as it is here.
    pub(crate) blobs: BTreeSet<Digest>,
    /// Descriptors of artifacts about something in it: a JSON array.
    pub(crate) referrers: Value,
}

/// Where the bytes of a digest are.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// A file that holds them as they are.
    File(PathBuf),
    /// The plain stream of a layer.
    Layer(Arc<LayerRow>),
}

impl Target {
    pub(crate) fn new(planned: &PlannedTarget, image: &ImageId) -> Self {
        Self {
            digest: planned.digest.clone(),
            descriptor: planned.descriptor.clone(),
            manifest: planned.manifest.clone(),
            image: image.clone(),
            blobs: planned.blobs.keys().chain(&planned.missing).cloned().collect(),
            referrers: Value::Array(planned.referrers.clone()),
        }
    }
}

impl State {
    /// The target of a name, or of an image that was named by its id.
    pub(crate) fn target(&self, reference: Option<&Reference>, image: &ImageId) -> Option<&Arc<Target>> {
        match reference {
            Some(reference) => self.targets.get(self.reference_targets.get(reference)?),
            None => self.targets.values().find(|target| target.image == *image),
        }
        .filter(|target| target.image == *image)
    }

    /// What is to be found by digests.
    pub(crate) fn by_digest(&self, inner: &Inner) -> impl Fn(&Digest) -> Option<Stored> {
        let kept = self.layers.values().filter(|row| row.recipe_size_bytes.is_none());
        let kept: BTreeMap<&Digest, &Arc<LayerRow>> = kept.map(|row| (&row.blob, row)).collect();
        move |digest| {
            let id = ImageId::new(digest.clone());
            if self.blobs.contains_key(digest)
                || kept.contains_key(digest)
                || self.images.contains_key(&id)
                || self.removed.contains_key(&id)
            {
                return Some(Stored::File(inner.blob_path(digest)));
            }
            self.layers.get(digest).cloned().map(Stored::Layer)
        }
    }

    /// What a target leads to, as if it were an archive.
    pub(crate) fn files_of(&self, inner: &Inner, target: &Target) -> Files {
        let find = self.by_digest(inner);
        let spooled = |digest: &Digest| {
            let (held, size) = match find(digest)? {
                Stored::File(path) => {
                    let size = std::fs::metadata(&path).ok()?.len();
                    (Held::File(path), size)
                }
                Stored::Layer(row) => (Held::Known, row.tar_size_bytes),
            };
            Some((blob_name(digest).into_bytes(), Spooled { held, size, digest: digest.clone() }))
        };
        Files { files: target.blobs.iter().filter_map(spooled).collect(), ..Files::default() }
    }

    /// Whether a file of this name below `content/` belongs to a blob, an image, or a layer.
    fn owns_content(&self, digest: &Digest) -> bool {
        let id = ImageId::new(digest.clone());
        self.blobs.contains_key(digest)
            || self.images.contains_key(&id)
            || self.removed.contains_key(&id)
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
            None => false,
        };
        self.targets.values().filter(|target| !is_alive(target)).map(|target| target.digest.clone()).collect()
    }
}

impl Inner {
    /// Deletes targets that nothing leads to, and blobs that no target needs. The change lock is held.
    pub(crate) fn collect_targets(&self) -> Result<(), ImageError> {
        let (targets, blobs) = {
            let mut state = self.write_state();
            let State { references, reference_targets, .. } = &mut *state;
            reference_targets.retain(|reference, _| references.contains_key(reference));
            let dead = state.dead_targets();
            let is_dead = |target: &&Arc<Target>| dead.contains(&target.digest);
            let needed: HashSet<&Digest> =
                state.targets.values().filter(|target| !is_dead(target)).flat_map(|target| &target.blobs).collect();
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
