//! What an archive says it holds: `manifest.json` of docker-archive, or `index.json` of an OCI layout.
//!
//! Pure: files are looked up through [`Files`]. Every digest that a descriptor names is compared with that of the bytes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use dozen_model::{Digest, Reference};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ImageError;
use crate::document::memory_of;

/// Bytes of one JSON document: manifests and configurations of real images stay below a tenth of it.
const DOCUMENT_LIMIT: u64 = 4 * 1024 * 1024;
/// An overlay takes 500 lower directories (kernel: fs/overlayfs, OVL_MAX_STACK).
const LAYERS_LIMIT: usize = 500;
/// An index may name indexes; real ones go two deep.
const INDEX_DEPTH_LIMIT: usize = 4;
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
#[derive(Debug, Default)]
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
}

/// One image that the archive holds.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Its digest is the image's id.
    pub(crate) config: Spooled,
    /// Lowest first: how the archive calls it, and the file unless it is missing.
    pub(crate) layers: Vec<(String, Option<Spooled>)>,
    pub(crate) references: Vec<Reference>,
}

/// Finds the images in an archive.
pub(crate) fn plan(files: &Files) -> Result<Vec<Planned>, ImageError> {
    let planned = if files.get("manifest.json").is_some() {
        docker_archive(files)?
    } else if files.get("index.json").is_some() {
        oci_layout(files)?
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
    match planned.iter_mut().find(|known| known.config.digest == image.config.digest) {
        Some(known) => known.references.extend(image.references),
        None => planned.push(image),
    }
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
    fn get(&self, name: &str) -> Option<&Spooled> {
        let mut name = crate::extract::normalize(name.as_bytes()).ok()?;
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
        if digest.algorithm() != "sha256" {
            return Err(ImageError::NotBuilt(format!("blobs by {} are not built yet: {digest}", digest.algorithm())));
        }
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
    Ok(Planned { config, layers, references })
}

/// A configuration's file, and every file below `blobs/`, is named by its digest, which must be true. (`HEX.tar` at the
/// top, as skopeo writes it, is named by the digest of the plain layer, which is verified when it is unpacked.)
fn named_digest(name: &str, suffix: &str, digest: &Digest) -> Result<(), ImageError> {
    let claimed = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => Some(hex),
        None if suffix == ".json" => name.strip_suffix(suffix),
        None => None,
    };
    match claimed.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()) {
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

/// OCI image-spec, descriptor.md.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index or a manifest: which of the two its members say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

fn oci_layout(files: &Files) -> Result<Vec<Planned>, ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = files.json("oci-layout")?;
    if !layout.image_layout_version.starts_with("1.") {
        return Err(ImageError::NotBuilt(format!("OCI layout {} is not built yet", layout.image_layout_version)));
    }
    let index: Document = files.json("index.json")?;
    let manifests = index.manifests.unwrap_or_default();
    if manifests.len() > IMAGES_LIMIT {
        return Err(ImageError::Archive(format!("index.json names more than {IMAGES_LIMIT} images")));
    }
    let mut planned: Vec<Planned> = Vec::new();
    let mut layers = 0;
    for descriptor in &manifests {
        let Some(mut image) = oci_image(files, descriptor, 0)? else { continue };
        layers += image.layers.len();
        check_together(layers, 0)?;
        image.references = annotated_name(descriptor)?.into_iter().collect();
        merge(&mut planned, image);
    }
    Ok(planned)
}

/// containerd's annotation is a whole reference; OCI's is one for some writers and for others a bare tag, which names
/// nothing by itself (OCI image-spec, annotations.md, "org.opencontainers.image.ref.name").
fn annotated_name(descriptor: &Descriptor) -> Result<Option<Reference>, ImageError> {
    let annotation = |key| descriptor.annotations.as_ref().and_then(|all| all.get(key));
    if let Some(name) = annotation("io.containerd.image.name") {
        return reference(name).map(Some);
    }
    match annotation("org.opencontainers.image.ref.name") {
        Some(name) if name.contains([':', '/']) => reference(name).map(Some),
        _ => Ok(None),
    }
}

/// The image that a descriptor leads to: this machine's of an index; `None` for what is no image (an attestation).
fn oci_image(files: &Files, descriptor: &Descriptor, depth: usize) -> Result<Option<Planned>, ImageError> {
    if depth > INDEX_DEPTH_LIMIT {
        return Err(ImageError::Archive(format!("indexes are nested deeper than {INDEX_DEPTH_LIMIT}")));
    }
    let missing = |digest: &Digest| ImageError::Archive(format!("blob {digest} is missing: it may be cut short"));
    files.blob(&descriptor.digest)?.ok_or_else(|| missing(&descriptor.digest))?;
    let document: Document = files.json(&blob_name(&descriptor.digest))?;
    if let Some(manifests) = document.manifests {
        let images: Vec<_> = manifests.iter().filter(|manifest| !is_attestation(manifest)).collect();
        let fits = |manifest: &&&Descriptor| manifest.platform.as_ref().is_some_and(is_ours);
        let chosen = images.iter().find(fits).or(if images.len() == 1 { images.first() } else { None });
        return match chosen {
            Some(manifest) => oci_image(files, manifest, depth + 1),
            None => Err(ImageError::Archive(format!(
                "it holds {} for other machines only: {}",
                descriptor.digest,
                images
                    .iter()
                    .filter_map(|m| m.platform.as_ref())
                    .map(|p| format!("{}/{}", p.os, p.architecture))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        };
    }
    if is_attestation(descriptor) {
        return Ok(None);
    }
    let Some(config) = document.config else {
        return Err(ImageError::Archive(format!("{} is neither a manifest nor an index", descriptor.digest)));
    };
    if !config.media_type.contains("image.config.v1") && !config.media_type.contains("container.image.v1") {
        return Err(ImageError::NotBuilt(format!(
            "{} holds {:?} and no image; other artifacts are not built yet",
            descriptor.digest, config.media_type
        )));
    }
    let config = files.blob(&config.digest)?.ok_or_else(|| missing(&config.digest))?.clone();
    let descriptors = document.layers.unwrap_or_default();
    check_layers(&config, descriptors.len())?;
    let mut layers = Vec::new();
    for layer in descriptors {
        if layer.media_type.contains("encrypted") {
            return Err(ImageError::NotBuilt(format!("layer {} is encrypted; that is not built yet", layer.digest)));
        }
        layers.push((layer.digest.to_string(), files.blob(&layer.digest)?.cloned()));
    }
    Ok(Some(Planned { config, layers, references: Vec::new() }))
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"))
}

fn is_ours(platform: &Platform) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    platform.os == "linux" && platform.architecture == architecture
}
