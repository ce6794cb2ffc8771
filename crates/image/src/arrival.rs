//! An image on its way from a registry: its documents first, each of which says what is needed next, then the layers that
//! are not here, several at once, each verified, decompressed and unpacked as it comes. Nothing of it is to be seen before
//! all of it is here.
//!
//! Whoever fetches is asked for what is needed and hands it over; this knows nothing of registries, and believes nothing:
//! documents and layers have the digests that name them, or are refused. The bounds are those of archives; of layers by
//! zstd, each that comes at the same time may take 32 MiB of memory.

mod layer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dozen_model::{Digest, ImageId, Reference};
use serde_json::{Value, json};

use crate::ImageError;
use crate::chunks::Pool;
use crate::digesting::{digest_like, image_id};
use crate::image::parse_config;
use crate::install::{Carried, CarriedTarget, NewImage, Staged};
use crate::load::Loaded;
use crate::manifest::{
    Files, Held, LAYERS_LIMIT, PlannedTarget, Reached, ReachedLayer, Spooled, arrived, blob_name, reach,
};
use crate::pins::Pin;
use crate::platform::Platform;
use crate::scratch::Scratch;
use crate::store::{ImageStore, Inner};
use crate::target::Target;

pub use self::layer::LayersBudget;

/// Bytes that a document may have.
pub const DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;

/// See the module. What came goes with it, unless it was installed.
pub struct Arrival {
    inner: Arc<Inner>,
    scratch: Scratch,
    /// The manifest or index that was asked for.
    root: Digest,
    platform: Option<Platform>,
    files: Mutex<Files>,
    /// The media types of documents, as the registry gave them.
    media_types: Mutex<BTreeMap<Digest, String>>,
    pool: Pool,
    staged: Mutex<Vec<Staged>>,
    /// Layers that are here already stay while this lives.
    pins: Mutex<Vec<Pin>>,
    next: AtomicUsize,
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival").field("root", &self.root).finish_non_exhaustive()
    }
}

/// What is needed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// A manifest or an index, which has so many bytes if that is said.
    #[expect(missing_docs, reason = "plain")]
    Manifest { digest: Digest, size_bytes: Option<u64> },
    /// The image's configuration.
    #[expect(missing_docs, reason = "plain")]
    Configuration { digest: Digest, size_bytes: u64 },
    /// All of its layers, lowest first.
    Layers(Vec<NeededLayer>),
}

/// A layer of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededLayer {
    /// Of the blob, compressed as it is.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size_bytes: u64,
    /// Of the plain tar stream.
    pub diff_id: Digest,
    /// Where it is to be had if registries may not pass it on (OCI image-spec, descriptor.md, "urls").
    pub urls: Vec<String>,
    /// It is here already, or comes as an earlier one of this image.
    pub is_here: bool,
}

/// What stays of an image's documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// What was asked for: of an index that, which may then be passed on as it came.
    AsAsked,
    /// The image's own manifest alone.
    Manifest,
}

impl ImageStore {
    /// Begins with what a registry has by this digest, for the platform that is wanted, or else that runs here best. Blocks.
    pub fn arrival(&self, root: Digest, platform: Option<Platform>) -> Result<Arrival, ImageError> {
        Ok(Arrival {
            inner: self.0.clone(),
            scratch: self.0.scratch()?,
            root,
            platform,
            files: Mutex::default(),
            media_types: Mutex::default(),
            pool: Pool::default(),
            staged: Mutex::default(),
            pins: Mutex::default(),
            next: AtomicUsize::new(0),
        })
    }

    /// The image of a name, if the name leads to what a registry has by this digest, and to the platform that is wanted.
    pub fn is_current(&self, name: &Reference, by_digest: &Reference, platform: Option<&Platform>) -> Option<ImageId> {
        let state = self.0.read_state();
        let id = state.references.get(name).filter(|id| state.references.get(by_digest) == Some(id))?;
        let image = state.images.get(id)?;
        let is_wanted = platform.is_none_or(|wanted| wanted.names(&Platform::of_config(&image.raw)));
        let is_sound = !image.diff_ids.iter().any(|diff_id| state.is_damaged(diff_id));
        (is_wanted && is_sound).then(|| id.clone())
    }
}

impl Arrival {
    /// Takes a document, which is what it says if it has this digest. Blocks.
    pub fn document(&self, digest: &Digest, media_type: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let found = digest_like(digest, bytes);
        if found != *digest {
            return Err(ImageError::Pull(format!("{digest} is damaged: its bytes have the digest {found}")));
        }
        let path = self.scratch.0.join(format!("d{}", self.number()));
        std::fs::write(&path, bytes).map_err(ImageError::io("write", path.display()))?;
        let spooled = Spooled { held: Held::File(path), size: bytes.len() as u64, digest: found };
        lock(&self.files).files.insert(blob_name(digest).into_bytes(), spooled);
        lock(&self.media_types).insert(digest.clone(), media_type.to_owned());
        Ok(())
    }

    /// What is needed next. Once that are layers, it is nothing but them. Blocks.
    pub fn needed(&self) -> Result<Needed, ImageError> {
        let files = lock(&self.files);
        let reached = reach(&files, &self.root, self.platform.as_ref()).map_err(pulling)?;
        let (config, layers) = match reached {
            Reached::Manifest { digest, size_bytes } => return Ok(Needed::Manifest { digest, size_bytes }),
            Reached::Configuration { digest, size_bytes } => return Ok(Needed::Configuration { digest, size_bytes }),
            Reached::All { config, layers } => (config, layers),
        };
        drop(files);
        let diff_ids = self.diff_ids(&config)?;
        if diff_ids.len() != layers.len() {
            return Err(ImageError::Pull(format!(
                "image {} has {} layers by its configuration and {} by its manifest",
                config.digest,
                diff_ids.len(),
                layers.len()
            )));
        }
        let mut seen = BTreeSet::new();
        let layers = layers.into_iter().zip(diff_ids).map(|(ReachedLayer { digest, size_bytes, urls }, diff_id)| {
            let mut is_here = !seen.insert(diff_id.clone());
            if !is_here
                && !self.inner.is_damaged(&diff_id)
                && let Some(pin) = self.inner.pin(&diff_id)
            {
                lock(&self.pins).push(pin);
                is_here = true;
            }
            NeededLayer { digest, size_bytes, diff_id, urls, is_here }
        });
        Ok(Needed::Layers(layers.collect()))
    }

    /// Puts the image in place, with these names, once all its layers have come. Blocks.
    pub fn install(&self, names: &[Reference], kept: Kept) -> Result<Loaded, ImageError> {
        let mut files = lock(&self.files).clone();
        let staged = std::mem::take(&mut *lock(&self.staged));
        // Layers have blobs, too, whether these lie in a file or can be made again.
        let blobs = staged.iter().map(|new| (new.row.blob.clone(), new.row.blob_size_bytes));
        let mut blobs: BTreeMap<Digest, u64> = blobs.collect();
        if let Reached::All { layers, .. } = reach(&files, &self.root, self.platform.as_ref()).map_err(pulling)? {
            for ReachedLayer { digest, size_bytes, .. } in layers {
                if !blobs.contains_key(&digest)
                    && let Some(pin) = self.inner.pin_content(&digest)
                {
                    lock(&self.pins).push(pin);
                    blobs.insert(digest, size_bytes);
                }
            }
        }
        for (digest, size) in blobs {
            let spooled = Spooled { held: Held::Known, size, digest: digest.clone() };
            files.files.entry(blob_name(&digest).into_bytes()).or_insert(spooled);
        }
        let descriptor = self.descriptor(&files);
        let planned = arrived(&files, descriptor, self.platform.as_ref(), kept).map_err(pulling)?;
        let config = planned.config.read_document("the configuration").map_err(pulling)?;
        let id = image_id(&config);
        let diff_ids = self.diff_ids(&planned.config)?;
        let carried = carry(planned.target, &id, names);
        let image = NewImage { id: id.clone(), config, diff_ids, parent: None, references: names.to_vec() };
        self.inner.install_with(&self.scratch, staged, &[image], &carried)?;
        Ok(Loaded { id, references: names.to_vec() })
    }

    fn descriptor(&self, files: &Files) -> Value {
        let size = files.files.get(blob_name(&self.root).as_bytes()).map_or(0, |root| root.size);
        let media_type = lock(&self.media_types).get(&self.root).cloned().unwrap_or_default();
        json!({ "mediaType": media_type, "digest": self.root, "size": size })
    }

    fn diff_ids(&self, config: &Spooled) -> Result<Vec<Digest>, ImageError> {
        let bytes = config.read_document("the configuration").map_err(pulling)?;
        let (_, _, diff_ids) =
            parse_config(&bytes).map_err(|what| ImageError::Pull(format!("image {}: {what}", config.digest)))?;
        if diff_ids.len() > LAYERS_LIMIT {
            let (image, count) = (&config.digest, diff_ids.len());
            return Err(ImageError::Pull(format!(
                "image {image} has {count} layers, and the kernel stacks {LAYERS_LIMIT} at the most"
            )));
        }
        Ok(diff_ids)
    }

    fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// What is kept beside the image: documents, and which layers belong to them. Without one of its layers' blobs, which may
/// be here compressed otherwise, nothing of it is: it could not be given back.
fn carry(target: PlannedTarget, id: &ImageId, names: &[Reference]) -> Carried {
    let mut carried = Carried::default();
    if !target.missing.is_empty() {
        return carried;
    }
    for (digest, file) in &target.blobs {
        if let (Held::File(path), false) = (&file.held, digest == id.digest()) {
            carried.files.insert(digest.clone(), (path.clone(), file.size));
        }
    }
    let target = Target::new(&target, id);
    carried.targets.push(CarriedTarget { target, names: names.to_vec(), borrowed: Vec::new() });
    carried
}

/// It is no archive that is wrong.
fn pulling(error: ImageError) -> ImageError {
    match error {
        ImageError::Archive(what) => ImageError::Pull(what),
        error => error,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
