//! What the store has in memory: the ledger's rows, and what is found in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dozen_model::{Digest, ImageId, Reference};

use crate::ImageError;
use crate::artifact::Artifact;
use crate::build_cache::StepRow;
use crate::image::Image;
use crate::schema::LayerRow;
use crate::target::Target;
use crate::unreadable::Unreadable;
use crate::uses::Uses;

/// The ledger's rows in memory.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<ImageId, Arc<Image>>,
    /// Removed, and not yet deleted because a container stands on their layers.
    pub(crate) removed: BTreeMap<ImageId, Arc<Image>>,
    pub(crate) unreadable: BTreeMap<ImageId, Unreadable>,
    /// What has turned out to be damaged since the store was opened: layers, and files below `content/`.
    pub(crate) damaged: BTreeSet<Digest>,
    pub(crate) references: BTreeMap<Reference, ImageId>,
    pub(crate) layers: HashMap<Digest, Arc<LayerRow>>,
    /// Files below `content/` that are neither a layer's nor an image's own, with their sizes.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    pub(crate) targets: BTreeMap<Digest, Arc<Target>>,
    pub(crate) reference_targets: BTreeMap<Reference, Digest>,
    pub(crate) artifacts: BTreeMap<Reference, Arc<Artifact>>,
    /// What builds have done before, by key.
    pub(crate) steps: HashMap<Digest, Arc<StepRow>>,
    /// When somebody last wanted an image.
    pub(crate) uses: Uses,
}

impl State {
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        self.find_readable(name).map_err(|error| match (&error, self.find_unreadable(name)) {
            (ImageError::NoSuchImage(_), Some(id)) => self.missing(id),
            _ => error,
        })
    }

    fn find_readable(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            if let Some(image) = self.references.get(reference).and_then(|id| self.images.get(id)) {
                return Ok(image.clone());
            }
            // `name:tag@digest` and `name@digest`: the digest decides, the repository has to be right.
            if let Some(digest) = reference.digest() {
                let same =
                    |known: &&Reference| (known.registry(), known.path()) == (reference.registry(), reference.path());
                let of_manifest =
                    self.references.iter().filter(|(known, _)| same(known)).find_map(|(known, id)| {
                        (known.digest() == Some(digest) || id.digest() == digest).then_some(id)
                    });
                if let Some(image) = of_manifest.and_then(|id| self.images.get(id)) {
                    return Ok(image.clone());
                }
            }
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_prefix = !digits.is_empty()
            && digits.len() <= 64
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if is_prefix {
            let mut found = self.images.values().filter(|image| image.id.digest().hex().starts_with(digits));
            match (found.next(), found.next()) {
                (Some(image), None) => return Ok(image.clone()),
                (Some(_), Some(_)) => return Err(ImageError::Ambiguous(name.to_owned())),
                _ => {}
            }
            if name.starts_with("sha256:") || digits.len() == 64 {
                return Err(ImageError::NoSuchImage(name.to_owned()));
            }
        }
        Err(ImageError::NoSuchImage(reference?.familiar()))
    }

    /// Gives a name to an image.
    pub(crate) fn point(&mut self, reference: &Reference, id: &ImageId, target: Option<Digest>) {
        self.references.insert(reference.clone(), id.clone());
        match target {
            Some(target) => self.reference_targets.insert(reference.clone(), target),
            None => self.reference_targets.remove(reference),
        };
    }

    /// Layers that images need, also those that are removed and in use, or cannot be read, and those that targets need.
    pub(crate) fn layers_of_images(&self) -> BTreeSet<&Digest> {
        let readable = self.images.values().chain(self.removed.values()).map(|image| &image.diff_ids);
        let of_images = readable.chain(self.unreadable.values().map(|image| &image.diff_ids));
        let by_targets = self.needed_by_targets();
        // Of another platform's layer that was unpacked to run the blob lies there by itself.
        let is_of_target = |digest: &Digest| by_targets.contains(digest) && !self.blobs.contains_key(digest);
        let of_targets = self.layers.values().filter(|layer| is_of_target(&layer.diff_id) || is_of_target(&layer.blob));
        let of_images = of_images.flat_map(|diff_ids| diff_ids.iter());
        of_images.chain(of_targets.map(|layer| &layer.diff_id)).collect()
    }

    /// Layers that go with the steps of builds that made them.
    pub(crate) fn layers_of_steps_alone(&self) -> BTreeSet<&Digest> {
        let of_images = self.layers_of_images();
        let of_steps = self.steps.values().filter_map(|step| step.diff_id.as_ref());
        of_steps.filter(|diff_id| !of_images.contains(diff_id)).collect()
    }

    pub(crate) fn size_of(&self, diff_ids: &[Digest]) -> u64 {
        diff_ids.iter().filter_map(|diff_id| self.layers.get(diff_id)).map(|layer| layer.content_bytes).sum()
    }

    /// Brings the names in the images up to date with the references.
    pub(crate) fn name_images(&mut self) {
        let mut names: BTreeMap<&ImageId, Vec<&Reference>> = BTreeMap::new();
        for (reference, id) in &self.references {
            names.entry(id).or_default().push(reference);
        }
        for (id, image) in &mut self.images {
            let split = |with_digest: bool| {
                let names = names.get(id).into_iter().flatten();
                names.filter(|name| name.digest().is_some() == with_digest).map(|name| Reference::clone(name)).collect()
            };
            let (references, repo_digests): (Vec<_>, Vec<_>) = (split(false), split(true));
            if image.references != references || image.repo_digests != repo_digests {
                *image = Arc::new(Image { references, repo_digests, ..Image::clone(image) });
            }
        }
    }
}
