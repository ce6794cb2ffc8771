//! `load`: an archive of images, read once, front to back ([`intake`]); then what it names is put in place.

mod intake;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dozen_ledger::{Durability, LedgerError};
use dozen_model::{Digest, ImageId, Reference};

use self::intake::Intake;
use crate::ImageError;
use crate::budget::Budget;
use crate::chunks::Pool;
use crate::compression::Compression;
use crate::document::memory_of;
use crate::failpoint::failpoint;
use crate::image::{Image, parse_config};
use crate::manifest::{Held, PlannedTarget, plan};
use crate::platform::Platform;
use crate::recording::Kept;
use crate::schema::{self, ImageRow, LayerRow};
use crate::store::{ImageStore, Inner, Pin, Scratch};
use crate::target::Target;
use crate::unpack::{Place, Unpacked, unpack};

/// What the configurations of one archive may take of memory, read: they stay there for as long as their images do.
const CONFIGS_MEMORY_LIMIT: usize = 12 * 1024 * 1024;

/// One image that `load` brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names that it got.
    pub references: Vec<Reference>,
}

/// Is told how far an operation is. Called often, from other threads too; it must be quick and must not block.
pub trait Progress: Send + Sync {
    /// Something moved on.
    fn report(&self, event: ProgressEvent<'_>);
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressEvent<'a> {
    /// Reading the archive, before its layers are known.
    Reading {
        /// Bytes of its files so far.
        bytes: u64,
    },
    /// Unpacking a layer.
    Unpacking {
        /// Digest of the plain layer.
        layer: &'a Digest,
        /// Plain bytes so far.
        bytes: u64,
        /// Bytes of its blob, compressed as it is.
        blob_bytes: u64,
    },
    /// A layer was there already.
    Exists {
        /// Digest of the plain layer.
        layer: &'a Digest,
    },
}

/// Nobody is watching.
impl Progress for () {
    fn report(&self, _: ProgressEvent<'_>) {}
}

/// A layer that is unpacked in a scratch directory and waits to be put in place.
pub(crate) struct Staged {
    /// Its row; the directory's name is still empty.
    pub(crate) row: LayerRow,
    pub(crate) directory: PathBuf,
    /// What is kept beside it: its recipe or its blob.
    pub(crate) kept: PathBuf,
}

/// An image that waits for its row.
pub(crate) struct NewImage {
    pub(crate) id: ImageId,
    pub(crate) config: Vec<u8>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) parent: Option<ImageId>,
    pub(crate) references: Vec<Reference>,
}

impl ImageStore {
    /// Reads images from a docker-archive or an OCI layout in a tar stream, plain or compressed with gzip or zstd.
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
        let mut images: Vec<NewImage> = Vec::new();
        let mut memory_bytes = 0;
        let mut targets: Vec<(ImageId, PlannedTarget)> = Vec::new();
        for image in plan(&intake.files, platform)? {
            let id = ImageId::new(image.config.digest.clone());
            let config = image.config.read_document(&format!("the configuration of image {id}"))?;
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
                if staged.iter().any(|layer| layer.row.diff_id == *diff_id)
                    || jobs.iter().any(|job| job.expected == *diff_id)
                {
                    continue;
                }
                if let Some(pin) = inner.pin(diff_id) {
                    progress.report(ProgressEvent::Exists { layer: diff_id });
                    pins.push(pin);
                    continue;
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

/// What of OCI layouts is kept beside images and layers.
#[derive(Default)]
pub(crate) struct Carried {
    targets: Vec<(Target, Vec<Reference>)>,
    /// Files in the scratch directory that may have to be kept: digest, path, size. A layer that is kept anyway needs none.
    files: BTreeMap<Digest, (PathBuf, u64)>,
    _pins: Vec<Pin>,
}

fn carry(
    planned: Vec<(ImageId, PlannedTarget)>,
    intake: &mut Intake<'_>,
    staged: &mut Vec<Staged>,
) -> Result<Carried, ImageError> {
    let mut carried = Carried::default();
    for (image, target) in planned {
        // Layers that the archive has not: another of the store's may be one of them by its contents only.
        let is_staged = |digest: &Digest| staged.iter().any(|new| [&new.row.blob, &new.row.diff_id].contains(&digest));
        let pins = target.missing.iter().filter(|digest| !is_staged(digest)).map(|digest| intake.pin(digest));
        let Some(pins) = pins.collect::<Option<Vec<_>>>() else { continue };
        carried._pins.extend(pins);
        for (digest, file) in &target.blobs {
            match &file.held {
                Held::File(_) if digest == image.digest() => {}
                Held::File(path) => drop(carried.files.insert(digest.clone(), (path.clone(), file.size))),
                // Some other platform's layer; one of this image's is taken already.
                Held::Unpacked(number) => {
                    let unpacked = intake.unpacked[*number].take().transpose();
                    let unpacked = unpacked.map_err(|error| ImageError::layer(digest.as_str(), error))?;
                    staged.extend(unpacked.map(Staged::plain));
                }
                // Pinned since it was read over.
                Held::Known => {}
            }
        }
        carried.targets.push((Target::new(&target, &image), target.names));
    }
    Ok(carried)
}

/// A blob that lies on the disk and is to be unpacked.
pub(crate) struct Job {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) expected: Digest,
}

/// Unpacks blobs, two at a time: decompression is the longest part of it, and one thread's. But one of zstd's, which is
/// quick, and may take 32 MiB of memory.
pub(crate) fn unpack_all(
    scratch: &Scratch,
    jobs: &[Job],
    pool: &Pool,
    budget: &Budget,
    progress: &dyn Progress,
) -> Result<Vec<Staged>, ImageError> {
    let (next, zstd) = (AtomicUsize::new(0), Mutex::new(()));
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return done };
            let staged = job.stage(scratch, &zstd, (pool, budget), progress);
            if staged.is_err() {
                next.store(jobs.len(), Ordering::Relaxed);
            }
            done.push((at, staged));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let second = (jobs.len() > 1).then(|| scope.spawn(work));
        let mut done = work();
        done.extend(second.into_iter().flat_map(|second| second.join().expect("an unpacking does not panic")));
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, staged)| staged).collect()
}

impl Job {
    fn stage(
        &self,
        scratch: &Scratch,
        zstd: &Mutex<()>,
        (pool, budget): (&Pool, &Budget),
        progress: &dyn Progress,
    ) -> Result<Staged, ImageError> {
        let place = Place::new(&scratch.0, self.number)?;
        let blob = File::open(&self.path).map_err(ImageError::io("open", self.path.display()))?;
        let mut magic = [0; 4];
        let length = blob.read_at(&mut magic, 0).map_err(ImageError::io("read", self.path.display()))?;
        let is_zstd = matches!(Compression::of(&magic[..length]), Ok(Compression::Zstd));
        let _alone = is_zstd.then(|| zstd.lock().unwrap_or_else(PoisonError::into_inner));
        let watch = |bytes| {
            progress.report(ProgressEvent::Unpacking { layer: &self.expected, bytes, blob_bytes: self.size });
        };
        let unpacked = unpack(blob, self.size, place, pool, budget, watch)?;
        let (compression, unpacked) = unpacked.map_err(|error| ImageError::layer(&self.name, error))?;
        check_digest(&self.name, &self.expected, &unpacked.diff_id)?;
        Ok(Staged::new(unpacked, compression, self.digest.clone(), self.size, self.path.clone()))
    }
}

impl Carried {
    /// What of these a name leads to, or else one that leads to its image.
    fn target(&self, name: &Reference, image: &ImageId) -> Option<&Digest> {
        let of_image = || self.targets.iter().filter(|(target, _)| target.image == *image);
        let named = of_image().find(|(_, names)| names.contains(name));
        named.or_else(|| of_image().next()).map(|(target, _)| &target.digest)
    }
}

fn check_digest(name: &str, expected: &Digest, found: &Digest) -> Result<(), ImageError> {
    if expected == found {
        return Ok(());
    }
    Err(ImageError::Layer {
        layer: name.to_owned(),
        what: format!("the configuration wants {expected}, but its bytes have the digest {found}"),
    })
}

impl Staged {
    /// A layer that was unpacked as a plain stream.
    pub(crate) fn plain(unpacked: Unpacked) -> Self {
        let (blob, size) = (unpacked.diff_id.clone(), unpacked.tar_size_bytes);
        let kept = unpacked.kept_path().map(Path::to_owned).unwrap_or_default();
        Self::new(unpacked, Compression::None, blob, size, kept)
    }

    fn new(unpacked: Unpacked, compression: Compression, blob: Digest, blob_size_bytes: u64, kept: PathBuf) -> Self {
        let row = LayerRow {
            diff_id: unpacked.diff_id,
            directory: String::new(),
            blob,
            media_type: compression.layer_media_type().to_owned(),
            blob_size_bytes,
            tar_size_bytes: unpacked.tar_size_bytes,
            content_bytes: unpacked.extracted.content_bytes,
            opaque_root: unpacked.extracted.opaque_root,
            recipe_size_bytes: match unpacked.kept {
                Kept::Recipe { size_bytes } => Some(size_bytes),
                Kept::Blob | Kept::Nothing => None,
            },
        };
        Self { row, directory: unpacked.directory, kept }
    }
}

impl Inner {
    /// Puts layers and configurations in place, then writes their rows. All or nothing.
    pub(crate) fn install(
        &self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
    ) -> Result<(), ImageError> {
        self.install_with(scratch, staged, images, &Carried::default())
    }

    fn install_with(
        &self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
        carried: &Carried,
    ) -> Result<(), ImageError> {
        failpoint("image.unpacked");
        let _change = self.lock_change();
        let mut placed = Vec::new();
        let installed = self.place_and_write(scratch, staged, images, carried, &mut placed);
        if installed.is_err() {
            placed.iter().for_each(|path| self.delete_file(path));
        }
        installed
    }

    fn place_and_write(
        &self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
        carried: &Carried,
        placed: &mut Vec<PathBuf>,
    ) -> Result<(), ImageError> {
        let mut rows = Vec::new();
        for Staged { mut row, directory, kept } in staged {
            // Another load was faster; ours goes with the scratch directory.
            if self.read_state().layers.contains_key(&row.diff_id) {
                continue;
            }
            row.directory = self.place_layer(&directory)?;
            placed.push(self.layer_path(&row.directory));
            failpoint("image.layer_placed");
            // What is there already is something else's, too, and the same.
            let target = self.content_path(&row);
            let is_new = !target.exists();
            rename(&kept, &target)?;
            failpoint(if row.recipe_size_bytes.is_some() { "image.recipe_placed" } else { "image.blob_placed" });
            placed.extend(is_new.then_some(target));
            rows.push(row);
        }
        for (number, image) in images.iter().enumerate() {
            let known = {
                let state = self.read_state();
                state.images.contains_key(&image.id) || state.removed.contains_key(&image.id)
            };
            if known {
                continue;
            }
            let path = scratch.0.join(format!("c{number}"));
            std::fs::write(&path, &image.config).map_err(ImageError::io("write", path.display()))?;
            let target = self.blob_path(image.id.digest());
            let is_new = !target.exists();
            rename(&path, &target)?;
            failpoint("image.configuration_placed");
            placed.extend(is_new.then_some(target));
        }
        let mut blobs = Vec::new();
        for (digest, (path, size_bytes)) in &carried.files {
            let is_kept = {
                let state = self.read_state();
                let has = |row: &LayerRow| row.blob == *digest || row.diff_id == *digest;
                state.blobs.contains_key(digest)
                    || state.layers.contains_key(digest)
                    || state.layers.values().any(|row| has(row))
                    || rows.iter().any(has)
            };
            if is_kept {
                continue;
            }
            let target = self.blob_path(digest);
            let is_new = !target.exists();
            rename(path, &target)?;
            failpoint("image.carried_placed");
            placed.extend(is_new.then_some(target));
            blobs.push((digest.clone(), *size_bytes));
        }
        let mut parsed = Vec::new();
        for image in images {
            let bad = |what| ImageError::Archive(format!("image {}: {what}", image.id));
            parsed.push(Image::new(image.id.clone(), &image.config, 0, image.parent.clone()).map_err(bad)?);
        }
        self.sync()?;
        failpoint("image.synced");
        self.write_rows(rows.clone(), blobs.clone(), images, carried)?;
        failpoint("image.rows");
        let mut state = self.write_state();
        state.layers.extend(rows.into_iter().map(|row| (row.diff_id.clone(), row.into())));
        state.blobs.extend(blobs);
        for (target, _) in &carried.targets {
            let mut target = target.clone();
            if let Some(known) = state.targets.get(&target.digest) {
                target.blobs.extend(known.blobs.iter().cloned());
            }
            state.targets.insert(target.digest.clone(), target.into());
        }
        for (mut new, image) in parsed.into_iter().zip(images) {
            new.size_bytes = state.size_of(&new.diff_ids);
            if let Some(known) = state.removed.remove(&image.id) {
                state.images.insert(image.id.clone(), known);
            }
            state.images.entry(image.id.clone()).or_insert_with(|| new.into());
            for reference in &image.references {
                state.point(reference, &image.id, carried.target(reference, &image.id).cloned());
            }
        }
        state.name_images();
        Ok(())
    }

    fn write_rows(
        &self,
        layers: Vec<LayerRow>,
        blobs: Vec<(Digest, u64)>,
        images: &[NewImage],
        carried: &Carried,
    ) -> Result<(), ImageError> {
        let images: Vec<_> = images
            .iter()
            .map(|image| {
                let row = ImageRow { id: image.id.clone(), parent: image.parent.clone(), removed: false };
                let names = image.references.iter();
                let names = names.map(|name| (name.clone(), carried.target(name, &image.id).cloned()));
                (row, image.diff_ids.clone(), names.collect::<Vec<_>>())
            })
            .collect();
        let targets: Vec<_> = carried.targets.iter().map(|(target, _)| target.clone()).collect();
        Ok(self.ledger.write(Durability::Power, move |connection| {
            layers.iter().try_for_each(|layer| schema::insert_layer(connection, layer))?;
            blobs.iter().try_for_each(|(digest, size)| schema::insert_blob(connection, digest, *size))?;
            images.iter().try_for_each(|(row, diff_ids, _)| schema::insert_image(connection, row, diff_ids))?;
            targets.iter().try_for_each(|target| schema::insert_target(connection, target))?;
            for (row, _, names) in &images {
                let mut names = names.iter();
                names.try_for_each(|(name, to)| schema::set_reference(connection, name, &row.id, to.as_ref()))?;
            }
            Ok::<_, LedgerError>(())
        })?)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), ImageError> {
    std::fs::rename(from, to).map_err(ImageError::io("rename to", to.display()))
}
