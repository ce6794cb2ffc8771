//! `load`: an archive of images, read once, front to back ([`intake`]); then what it names is put in place.

mod blobs;
mod intake;
mod progress;

use std::collections::BTreeSet;
use std::io::Read;

use dozen_model::json::memory_of;
use dozen_model::{Digest, ImageId, Reference};

pub(crate) use self::blobs::{Job, check_digest, unpack_all};
use self::intake::Intake;
pub use self::progress::{Progress, ProgressEvent};
use crate::ImageError;
use crate::budget::Budget;
use crate::digesting::image_id;
use crate::failpoint::failpoint;
use crate::image::{CONFIGS_MEMORY_LIMIT, parse_config};
use crate::install::{Carried, CarriedTarget, NewImage, Staged};
use crate::manifest::{Held, PlannedTarget, plan};
use crate::pins::Pin;
use crate::platform::Platform;
use crate::store::ImageStore;
use crate::target::Target;

/// One image that `load` brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names that it got.
    pub references: Vec<Reference>,
}

impl ImageStore {
    /// Reads images from a docker-archive, an OCI layout or a directory of skopeo's in a tar stream, plain or compressed with gzip or zstd.
    ///
    /// All digests are verified, but those of layers that are there already: these are read over, or may be missing in the
    /// archive. Either all images of the archive are there afterwards, or nothing is.
    pub fn load(&self, archive: impl Read, progress: &dyn Progress) -> Result<Vec<Loaded>, ImageError> {
        self.load_for(archive, None, progress)
    }

    /// The same with only one platform of those that an image is for; without, the whole index is kept, and the image is
    /// the one that runs here best.
    pub fn load_for(
        &self,
        archive: impl Read,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, ImageError> {
        let inner = &self.0;
        let scratch = inner.scratch()?;
        let mut intake = Intake::new(inner, &scratch, progress);
        intake.read(archive)?;
        failpoint("image.spooled");
        let mut pins: Vec<Pin> = Vec::new();
        let mut staged: Vec<Staged> = Vec::new();
        let mut jobs: Vec<Job> = Vec::new();
        let mut seen: BTreeSet<Digest> = BTreeSet::new();
        let mut images: Vec<NewImage> = Vec::new();
        let mut memory_bytes = 0;
        let mut targets: Vec<(ImageId, PlannedTarget)> = Vec::new();
        for image in plan(&intake.files, platform)? {
            let config = image.config.read_document(&format!("the configuration {}", image.config.digest))?;
            let id = image_id(&config);
            memory_bytes += memory_of(&config);
            if memory_bytes > CONFIGS_MEMORY_LIMIT {
                return Err(ImageError::Archive(format!(
                    "the configurations of its images would take more than {CONFIGS_MEMORY_LIMIT} bytes of memory"
                )));
            }
            let (_, _, diff_ids) =
                parse_config(&config).map_err(|what| ImageError::Archive(format!("image {id}: {what}")))?;
            if diff_ids.len() != image.layers.len() {
                return Err(ImageError::Archive(format!(
                    "image {id} has {} layers by its configuration and {} by its manifest",
                    diff_ids.len(),
                    image.layers.len()
                )));
            }
            for (diff_id, (name, file)) in diff_ids.iter().zip(&image.layers) {
                if !seen.insert(diff_id.clone()) {
                    continue;
                }
                if let Some(pin) = inner.pin(diff_id) {
                    pins.push(pin);
                    if file.is_none() || !inner.is_damaged(diff_id) {
                        progress.report(ProgressEvent::Exists { layer: diff_id });
                        continue;
                    }
                }
                let Some(file) = file else {
                    return Err(ImageError::Layer {
                        layer: name.clone(),
                        what: "it is missing in the archive, which may be cut short".into(),
                    });
                };
                match &file.held {
                    Held::Known => check_digest(name, diff_id, &file.digest)?,
                    Held::Unpacked(number) => {
                        let unpacked = intake.unpacked[*number].take().transpose();
                        let unpacked = unpacked.map_err(|error| ImageError::layer(name, error))?;
                        check_digest(name, diff_id, &file.digest)?;
                        staged.extend(unpacked.map(Staged::plain));
                    }
                    Held::File(path) => jobs.push(Job {
                        number: intake.unpacked.len() + jobs.len(),
                        name: name.clone(),
                        path: path.clone(),
                        size: file.size,
                        digest: file.digest.clone(),
                        expected: diff_id.clone(),
                    }),
                }
            }
            targets.extend(image.targets.into_iter().map(|target| (id.clone(), target)));
            images.push(NewImage { id, config, diff_ids, parent: None, references: image.references });
        }
        let budget = Budget::of(intake.archive_bytes);
        staged.extend(unpack_all(&scratch, &jobs, &intake.pool, &budget, progress)?);
        let carried = carry(targets, &mut intake, &mut staged)?;
        inner.install_with(&scratch, staged, &images, &carried)?;
        drop((pins, carried));
        Ok(images.into_iter().map(|image| Loaded { id: image.id, references: image.references }).collect())
    }
}

fn carry(
    planned: Vec<(ImageId, PlannedTarget)>,
    intake: &mut Intake<'_>,
    staged: &mut Vec<Staged>,
) -> Result<Carried, ImageError> {
    let mut carried = Carried::default();
    let of = |new: &Staged| [new.row.blob.clone(), new.row.diff_id.clone()];
    let mut contents: BTreeSet<Digest> = staged.iter().flat_map(of).collect();
    for (image, target) in planned {
        // Layers that the archive has not: another of the store's may be one of them by its contents only.
        let absent = target.missing.iter().filter(|digest| !contents.contains(*digest));
        let held = absent.map(|digest| match intake.pin(digest) {
            Some(pin) => Some(Ok(pin)),
            None => intake.has_blob(digest).then(|| Err(digest.clone())),
        });
        let Some(held) = held.collect::<Option<Vec<_>>>() else { continue };
        let mut borrowed = Vec::new();
        held.into_iter().for_each(|held| match held {
            Ok(pin) => carried.pins.push(pin),
            Err(blob) => borrowed.push(blob),
        });
        for (digest, file) in &target.blobs {
            match &file.held {
                Held::File(_) if digest == image.digest() => {}
                Held::File(path) => drop(carried.files.insert(digest.clone(), (path.clone(), file.size))),
                // Some other platform's layer; one of this image's is taken already.
                Held::Unpacked(_) if contents.contains(digest) => {}
                Held::Unpacked(number) => {
                    let unpacked = intake.unpacked[*number].take().transpose();
                    let unpacked = unpacked.map_err(|error| ImageError::layer(digest.as_str(), error))?;
                    let new = unpacked.map(Staged::plain);
                    contents.extend(new.iter().flat_map(of));
                    staged.extend(new);
                }
                // Pinned since it was read over.
                Held::Known => {}
            }
        }
        carried.targets.push(CarriedTarget { target: Target::new(&target, &image), names: target.names, borrowed });
    }
    Ok(carried)
}
