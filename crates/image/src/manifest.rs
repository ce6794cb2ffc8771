//! What an archive says it holds: `manifest.json` of docker-archive, `index.json` of an OCI layout, or a packed
//! directory of skopeo's.
//!
//! Pure: files are looked up through [`Files`]. Every digest that a descriptor names is compared with that of the bytes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use dozen_model::json::memory_of;
use dozen_model::{Digest, ImageId, Reference};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ImageError;
use crate::digesting::image_id;
use crate::image::parse_config;
use crate::platform::Platform;

mod directory;
mod layout;
mod reach;
mod shipment;
mod summary;

pub(crate) use layout::{Selected, no_such_platform, select};
pub(crate) use reach::{Reached, ReachedLayer, arrived, reach};
pub(crate) use shipment::Shipment;
pub(crate) use summary::summaries;
pub use summary::{ManifestKind, ManifestSummary};

/// Bytes of one JSON document: manifests and configurations of real images stay below a tenth of it.
const DOCUMENT_LIMIT: u64 = 4 * 1024 * 1024;
/// An overlay takes 500 lower directories (kernel: fs/overlayfs, OVL_MAX_STACK).
pub(crate) const LAYERS_LIMIT: usize = 500;
const IMAGES_LIMIT: usize = 1000;
/// Bytes of all configurations of one archive: they are parsed, and kept in memory for as long as their images are there.
const CONFIGS_LIMIT: u64 = 16 * 1024 * 1024;
/// What a manifest or an index may take of memory, read.
const DOCUMENT_MEMORY_LIMIT: usize = 32 * 1024 * 1024;
/// Layers of all images of one archive together, however often each is named.
const ALL_LAYERS_LIMIT: usize = 50_000;
/// Names of all images of one archive together.
const NAMES_LIMIT: usize = 10_000;

/// A file of the archive.
#[derive(Debug, Clone)]
pub(crate) struct Spooled {
    pub(crate) held: Held,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// Where a file of an archive is.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// Set aside on disk.
    File(PathBuf),
    /// It is a plain tar stream, and was unpacked as it came: the how-manieth of those.
    Unpacked(usize),
    /// The store has the layer of this digest, and nothing was set aside.
    Known,
}

/// The archive's files by normalized name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) files: HashMap<Vec<u8>, Spooled>,
    /// Links, with the name that they lead to.
    pub(crate) links: HashMap<Vec<u8>, Vec<u8>>,
}

impl Spooled {
    /// The bytes of one JSON document, whose name is for the error.
    pub(crate) fn read_document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        if self.size > DOCUMENT_LIMIT {
            return Err(ImageError::Archive(format!("{name} is larger than {DOCUMENT_LIMIT} bytes")));
        }
        let Held::File(path) = &self.held else {
            return Err(ImageError::Archive(format!("{name} is a layer, where a document has to be")));
        };
        std::fs::read(path).map_err(ImageError::io("read", path.display()))
    }

    /// Of the image whose configuration this is. Only one that has its name by another digest is read for it.
    pub(crate) fn image_id(&self) -> Result<ImageId, ImageError> {
        match self.digest.algorithm() {
            "sha256" => Ok(ImageId::new(self.digest.clone())),
            _ => Ok(image_id(&self.read_document("a configuration")?)),
        }
    }
}

/// One image that the archive holds.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Its digest is the image's id.
    pub(crate) config: Spooled,
    /// Lowest first: how the archive calls it, and the file unless it is missing.
    pub(crate) layers: Vec<(String, Option<Spooled>)>,
    pub(crate) references: Vec<Reference>,
    /// What of an OCI layout leads to it.
    pub(crate) targets: Vec<PlannedTarget>,
}

/// What a name in an OCI layout leads to: an index or a manifest, to be given back as it came.
#[derive(Debug)]
pub(crate) struct PlannedTarget {
    pub(crate) digest: Digest,
    /// The descriptor in `index.json`, without names.
    pub(crate) descriptor: Value,
    /// The manifest of the image itself.
    pub(crate) manifest: Digest,
    pub(crate) names: Vec<Reference>,
    /// All that it leads to, itself included, as far as the archive has it.
    pub(crate) blobs: BTreeMap<Digest, Spooled>,
    /// What of the image itself the archive has not.
    pub(crate) missing: Vec<Digest>,
    /// Descriptors of artifacts in `index.json` that are about something in it ("subject"); their blobs are among its own.
    pub(crate) referrers: Vec<Value>,
}

/// Finds the images in an archive: of an image for many platforms that which runs here best, or the one that is wanted.
pub(crate) fn plan(files: &Files, wanted: Option<&Platform>) -> Result<Vec<Planned>, ImageError> {
    let has_layout = files.get("index.json").is_some() && files.get("oci-layout").is_some();
    let planned = if directory::is_one(files) {
        directory::images(files, wanted)?
    } else if files.get("manifest.json").is_some() && (wanted.is_none() || !has_layout) {
        let mut planned = docker_archive(files)?;
        if let Some(wanted) = wanted {
            planned.retain(|image| platform(&image.config).is_some_and(|platform| wanted.names(&platform)));
            if planned.is_empty() {
                return Err(no_such_platform("the archive", wanted));
            }
        }
        // Newer archives are both at once.
        if has_layout {
            for image in layout::images(files, None)? {
                merge(&mut planned, image);
            }
        }
        planned
    } else if files.get("index.json").is_some() {
        layout::images(files, wanted)?
    } else if files.is_of_old_docker() {
        return Err(ImageError::Archive(
            "it is of the first format, of Docker before 1.10, which is not built: \
             load it with a Docker that reads it, and save it again"
                .into(),
        ));
    } else {
        return Err(ImageError::Archive(
            "it holds neither manifest.json (docker save) nor index.json (OCI layout): \
             it is no image archive, or cut short"
                .into(),
        ));
    };
    if planned.is_empty() {
        return Err(ImageError::Archive("it holds no image".into()));
    }
    if planned.iter().map(|image| image.config.size).sum::<u64>() > CONFIGS_LIMIT {
        return Err(ImageError::Archive(format!(
            "the configurations of its images are larger than {CONFIGS_LIMIT} bytes together"
        )));
    }
    Ok(planned)
}

/// One image with several tags has an entry for each in some archives.
fn merge(planned: &mut Vec<Planned>, image: Planned) {
    let Some(known) = planned.iter_mut().find(|known| known.config.digest == image.config.digest) else {
        planned.push(image);
        return;
    };
    for reference in image.references {
        if !known.references.contains(&reference) {
            known.references.push(reference);
        }
    }
    for target in image.targets {
        match known.targets.iter_mut().find(|other| other.digest == target.digest) {
            Some(other) => other.names.extend(target.names),
            None => known.targets.push(target),
        }
    }
}

/// What a configuration says that it is for.
fn platform(config: &Spooled) -> Option<Platform> {
    let bytes = config.read_document("a configuration").ok()?;
    let (_, raw, _) = parse_config(&bytes).ok()?;
    Some(Platform::of_config(&raw))
}

fn check_layers(config: &Spooled, layers: usize) -> Result<(), ImageError> {
    if layers > LAYERS_LIMIT {
        return Err(ImageError::Archive(format!(
            "image {} has {layers} layers, and the kernel stacks {LAYERS_LIMIT} at the most",
            config.digest
        )));
    }
    Ok(())
}

fn check_together(layers: usize, names: usize) -> Result<(), ImageError> {
    for (count, what, limit) in [(layers, "layers", ALL_LAYERS_LIMIT), (names, "names", NAMES_LIMIT)] {
        if count > limit {
            return Err(ImageError::Archive(format!("its images have more than {limit} {what} together")));
        }
    }
    Ok(())
}

impl Files {
    /// Images are directories by their ids, each with `json`, `layer.tar` and `VERSION`, and no document names them in
    /// order (moby, image/spec/v1.md).
    fn is_of_old_docker(&self) -> bool {
        self.files.keys().any(|name| {
            let id = name.strip_suffix(b"/VERSION").filter(|id| id.len() == 64);
            id.is_some_and(|id| self.files.contains_key(&[id, b"/json"].concat()))
        })
    }

    fn get(&self, name: &str) -> Option<&Spooled> {
        let mut name = crate::names::normalize(name.as_bytes()).ok()?;
        // Old archives link a layer that several images have; a chain of such links is short.
        for _ in 0..8 {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    fn find(&self, name: &str) -> Result<&Spooled, ImageError> {
        self.get(name).ok_or_else(|| ImageError::Archive(format!("{name} is missing: it may be cut short")))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, ImageError> {
        let bytes = self.find(name)?.read_document(name)?;
        if memory_of(&bytes) > DOCUMENT_MEMORY_LIMIT {
            return Err(ImageError::Archive(format!(
                "{name} would take more than {DOCUMENT_MEMORY_LIMIT} bytes of memory"
            )));
        }
        serde_json::from_slice(&bytes).map_err(|error| ImageError::Archive(format!("{name} is malformed: {error}")))
    }

    /// The file of a descriptor's digest, which is verified.
    fn blob(&self, digest: &Digest) -> Result<Option<&Spooled>, ImageError> {
        let file = self.get(&blob_name(digest));
        match file {
            Some(file) if file.digest != *digest => {
                Err(ImageError::Archive(format!("blob {digest} is damaged: its bytes have the digest {}", file.digest)))
            }
            file => Ok(file),
        }
    }
}

pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// An entry of docker-archive's manifest.json (moby's image spec v1.2, "Combined Image JSON + Filesystem Changeset").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn docker_archive(files: &Files) -> Result<Vec<Planned>, ImageError> {
    let images: Vec<DockerImage> = files.json("manifest.json")?;
    if images.len() > IMAGES_LIMIT {
        return Err(ImageError::Archive(format!("manifest.json names more than {IMAGES_LIMIT} images")));
    }
    check_together(
        images.iter().flat_map(|image| &image.layers).map(Vec::len).sum(),
        images.iter().flat_map(|image| &image.repo_tags).map(Vec::len).sum(),
    )?;
    let mut planned = Vec::new();
    for image in &images {
        merge(&mut planned, docker_image(files, image)?);
    }
    Ok(planned)
}

fn docker_image(files: &Files, image: &DockerImage) -> Result<Planned, ImageError> {
    let config = files.find(&image.config)?.clone();
    named_digest(&image.config, ".json", &config.digest)?;
    check_layers(&config, image.layers.as_ref().map_or(0, Vec::len))?;
    let mut layers = Vec::new();
    for name in image.layers.iter().flatten() {
        let file = files.get(name);
        if let Some(file) = file {
            named_digest(name, ".tar", &file.digest)?;
        }
        layers.push((name.clone(), file.cloned()));
    }
    let references = image.repo_tags.iter().flatten().map(|tag| reference(tag)).collect::<Result<_, _>>()?;
    Ok(Planned { config, layers, references, targets: Vec::new() })
}

/// A configuration's file, and every file below `blobs/`, is named by its digest, which must be true. (`HEX.tar` at the
/// top, as skopeo writes it, is named by the digest of the plain layer, which is verified when it is unpacked.)
fn named_digest(name: &str, suffix: &str, digest: &Digest) -> Result<(), ImageError> {
    let claimed = match name.strip_prefix("blobs/") {
        Some(blob) => Some(blob.replacen('/', ":", 1)),
        None if suffix == ".json" => name.strip_suffix(suffix).map(|hex| format!("sha256:{hex}")),
        None => None,
    };
    match claimed.and_then(|claimed| claimed.parse::<Digest>().ok()) {
        Some(claimed) if claimed != *digest => {
            Err(ImageError::Archive(format!("{name} is damaged: its bytes have the digest {digest}")))
        }
        _ => Ok(()),
    }
}

/// A tag of an archive; an image's name must be whole there.
fn reference(text: &str) -> Result<Reference, ImageError> {
    let reference: Reference =
        text.parse().map_err(|error| ImageError::Archive(format!("it names an image wrongly: {error}")))?;
    if reference.digest().is_some() {
        return Err(ImageError::Archive(format!("it names an image by a digest, where a tag has to be: {text:?}")));
    }
    Ok(reference)
}
