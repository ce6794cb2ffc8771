//! One platform of those that an image is for: which image that is, and its layers unpacked when it is to run.

use std::sync::Arc;

use dozen_model::{ImageId, Reference};

use crate::ImageError;
use crate::budget::Budget;
use crate::chunks::Pool;
use crate::digesting::image_id;
use crate::image::{Image, parse_config};
use crate::install::NewImage;
use crate::load::{Job, unpack_all};
use crate::manifest::{Held, ManifestKind, ManifestSummary, Selected, no_such_platform, select, summaries};
use crate::platform::Platform;
use crate::state::State;
use crate::store::ImageStore;

impl ImageStore {
    /// The image of a name, for a platform. One that has not been unpacked yet is as its configuration says, with the
    /// bytes of its blobs for its size.
    pub fn find_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        match self.choose(name, platform)? {
            Choice::Known(image) => Ok(Image::clone(&image)),
            Choice::Other(selected) => {
                let config = selected.config.read_document("a configuration")?;
                let id = image_id(&config);
                let size = selected.layers.iter().filter_map(|(.., file)| Some(file.as_ref()?.size)).sum();
                Image::new(id, &config, size, None).map_err(ImageError::Archive)
            }
        }
    }

    /// The same for one that is going to run: its layers are unpacked.
    pub fn prepare_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let selected = match self.choose(name, platform)? {
            Choice::Known(image) => return Ok(Image::clone(&image)),
            Choice::Other(selected) => selected,
        };
        let inner = &self.0;
        let config = selected.config.read_document("a configuration")?;
        let id = image_id(&config);
        let (_, _, diff_ids) = parse_config(&config).map_err(ImageError::Archive)?;
        if diff_ids.len() != selected.layers.len() {
            return Err(ImageError::Archive(format!("image {id} has another number of layers than its manifest")));
        }
        let (mut pins, mut jobs): (Vec<_>, Vec<Job>) = (Vec::new(), Vec::new());
        for (diff_id, (digest, _, file)) in diff_ids.iter().zip(&selected.layers) {
            if let Some(pin) = inner.pin(diff_id) {
                pins.push(pin);
                continue;
            }
            match file.as_ref().map(|file| (&file.held, file.size)) {
                Some((Held::File(path), size)) if !jobs.iter().any(|job| job.expected == *diff_id) => jobs.push(Job {
                    number: jobs.len(),
                    name: digest.to_string(),
                    // Its place is where it lies already.
                    path: path.clone(),
                    size,
                    digest: digest.clone(),
                    expected: diff_id.clone(),
                }),
                Some((Held::File(_), _)) => {}
                _ => {
                    let what = "it was not in the archive that the image came in".into();
                    return Err(ImageError::Layer { layer: digest.to_string(), what });
                }
            }
        }
        let scratch = inner.scratch()?;
        let staged =
            unpack_all(&scratch, &jobs, &Pool::default(), &Budget::of(jobs.iter().map(|job| job.size).sum()), &())?;
        let image = NewImage { id: id.clone(), config, diff_ids, parent: None, references: Vec::new() };
        inner.install(&scratch, staged, &[image])?;
        self.find(&id.to_string())
    }

    /// Whether an image without a name is one platform's of a name that leads to several: no listing shows it.
    pub fn is_of_an_index(&self, image: &Image) -> bool {
        let is_nameless = image.references.is_empty() && image.repo_digests.is_empty();
        let state = self.0.read_state();
        is_nameless
            && state.targets.values().any(|target| target.image != image.id && target.blobs.contains(image.id.digest()))
    }

    /// The manifests that an image came with, of other platforms too; none if it came in an archive without any, or was
    /// made here.
    pub fn manifests(&self, image: &ImageId) -> Result<Vec<ManifestSummary>, ImageError> {
        let state: &State = &self.0.read_state();
        let mut found: Vec<ManifestSummary> = Vec::new();
        for target in state.targets.values().filter(|target| target.image == *image) {
            for summary in summaries(&state.files_of(&self.0, target), &target.descriptor)? {
                // Names may lead to an index and to a manifest in it.
                if !found.iter().any(|known| known.digest == summary.digest) {
                    found.push(summary);
                }
            }
        }
        for summary in &mut found {
            if let ManifestKind::Image { image: Some(image), unpacked_bytes, .. } = &mut summary.kind {
                *unpacked_bytes = state.images.get(image).map_or(0, |image| image.size_bytes);
            }
        }
        Ok(found)
    }

    fn choose(&self, name: &str, platform: Option<&Platform>) -> Result<Choice, ImageError> {
        let state: &State = &self.0.read_state();
        let image = state.find(name)?;
        let Some(wanted) = platform.filter(|wanted| !wanted.names(&Platform::of_config(&image.raw))) else {
            return Ok(Choice::Known(image));
        };
        let name = name.parse::<Reference>().ok().filter(|name| state.references.contains_key(name));
        let target = state.target(name.as_ref(), &image.id);
        let target = target.ok_or_else(|| no_such_platform(&format!("image {}", image.id.short()), wanted))?;
        let selected = select(&state.files_of(&self.0, target), &target.digest, platform)?;
        let known = state.images.get(&selected.config.image_id()?);
        Ok(known.map_or_else(|| Choice::Other(Box::new(selected)), |image| Choice::Known(image.clone())))
    }
}

enum Choice {
    Known(Arc<Image>),
    Other(Box<Selected>),
}
