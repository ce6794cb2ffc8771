//! An image on its way to a registry. What came in an OCI layout or from a registry goes as it came: manifests and blobs to
//! the byte, layers that are not kept as they were being made again. Of any other image the layers are compressed unless they
//! are kept compressed, and a manifest is made (`packing`).
//!
//! Whatever is read is compared with its digest, and the last piece is not given before that: a damaged store sends nothing
//! that somebody could take for whole.

mod bytes;
mod files;
mod packing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_ledger::Durability;
use dozen_model::{Digest, ImageId, Reference};
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub use self::packing::{LayerForm, Packing};
use crate::ImageError;
use crate::arrival::DOCUMENT_BYTES;
use crate::artifact::Lease;
use crate::compression::Compression;
use crate::digesting::digest_like;
use crate::failpoint::failpoint;
use crate::find::Stored;
use crate::image::Image;
use crate::manifest::{Shipment, select};
use crate::pins::Pin;
use crate::places::LayerBlob;
use crate::platform::Platform;
use crate::save::{CONFIG, MANIFEST, bytes as to_bytes};
use crate::schema::{self, LayerRow};
use crate::state::State;
use crate::store::{ImageStore, Inner};
use crate::target::Target;

/// What of an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingPart {
    /// What its name leads to, an index with all its platforms.
    All,
    /// The image for one platform, by its own manifest.
    Platform(Platform),
    /// The image that is unpacked here, by its own manifest.
    Own,
}

/// How an image goes whose layers are to be compressed in a way that was asked for: by a manifest of its own, whatever it came
/// with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompression {
    /// The way.
    pub form: LayerForm,
    /// Layers that are kept so are compressed once more: at another level.
    pub is_forced: bool,
}

/// See the module. What it needs stays while it lives.
pub struct Outgoing {
    image: ImageId,
    /// The target, if it is one that goes.
    target: Option<Digest>,
    manifests: Manifests,
    blobs: Arc<OutgoingBlobs>,
    absent: Vec<Digest>,
}

/// Blobs, by themselves: of an image, or of whatever else somebody makes a manifest for. They stay while this lives.
pub struct OutgoingBlobs {
    inner: Arc<Inner>,
    layers: Vec<OutgoingBlob>,
    configurations: Vec<OutgoingBlob>,
    _pins: Vec<Pin>,
    _lease: Option<Lease>,
}

enum Manifests {
    /// As they came.
    Kept(Vec<OutgoingManifest>),
    /// One is made when it is known what the layers are: of the configuration with so many bytes.
    Made { diff_ids: Arc<[Digest]>, config_bytes: u64 },
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct OutgoingManifest {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// A layer or a configuration.
#[derive(Debug, Clone)]
pub struct OutgoingBlob {
    /// What it is shown by: of a layer that is unpacked here the digest of its plain stream.
    pub id: Digest,
    /// Of the plain stream of a layer that is here.
    pub diff_id: Option<Digest>,
    /// What it is where it goes. `None`: it is to be packed first.
    pub blob: Option<LayerBlob>,
    /// Of what it is read from: of what is to be packed, of the plain stream.
    pub stored_bytes: u64,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    /// A document: the image may be removed meanwhile.
    Bytes(Arc<[u8]>),
    /// A file that holds it as it is.
    File(PathBuf),
    /// The plain stream of a layer.
    Plain(Arc<LayerRow>),
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("image", &self.image).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OutgoingBlobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingBlobs").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Prepares what a name leads to, or a part of it. Blocks.
    pub fn outgoing(
        &self,
        name: &Reference,
        part: &OutgoingPart,
        recompression: Option<Recompression>,
    ) -> Result<Outgoing, ImageError> {
        let inner = &self.0;
        let (image, target, pins) = {
            let state = inner.read_state();
            let missing = || ImageError::NoSuchImage(name.familiar());
            let id = state.references.get(name).ok_or_else(missing)?;
            let image = state.images.get(id).cloned().ok_or_else(|| state.missing(id))?;
            let target = state.target(Some(name), id).cloned();
            drop(state);
            let mut pins = Vec::new();
            for diff_id in image.diff_ids.iter() {
                pins.push(inner.pin(diff_id).ok_or_else(missing)?);
            }
            for digest in target.iter().flat_map(|target| &target.blobs) {
                pins.extend(inner.pin_content(digest));
            }
            (image, target, pins)
        };
        let state = inner.read_state();
        let outgoing = |target, manifests, layers: Vec<OutgoingBlob>, configurations, absent| Outgoing {
            image: image.id.clone(),
            target,
            manifests,
            blobs: Arc::new(OutgoingBlobs { inner: inner.clone(), layers, configurations, _pins: pins, _lease: None }),
            absent,
        };
        let is_as_wanted = |target: &Target| match recompression {
            None => Ok(true),
            Some(wanted) => is_compressed_so(inner, &state, target, &image, name, part, wanted),
        };
        match target {
            Some(target) if is_as_wanted(&target)? => {
                let Kept { digest, manifests, layers, configurations, absent } =
                    kept(inner, &state, &target, name, part)?;
                Ok(outgoing(digest, Manifests::Kept(manifests), layers, configurations, absent))
            }
            _ => {
                let (layers, configuration) = made(inner, &state, &image, name, part, recompression)?;
                let (diff_ids, config_bytes) = (image.diff_ids.clone(), configuration.stored_bytes);
                let manifests = Manifests::Made { diff_ids, config_bytes };
                Ok(outgoing(None, manifests, layers, vec![configuration], Vec::new()))
            }
        }
    }

    /// Prepares a layer by itself, for who makes the manifest; `None`: it is not here. It goes as it is kept if that is
    /// compressed, or is compressed, as with an image.
    pub fn outgoing_layer(&self, diff_id: &Digest, recompression: Option<Recompression>) -> Option<OutgoingBlobs> {
        let inner = &self.0;
        let pin = inner.pin(diff_id)?;
        let row = inner.read_state().layers.get(diff_id).cloned()?;
        let layers = vec![layer_of(inner, &row, recompression)];
        Some(OutgoingBlobs { inner: inner.clone(), layers, configurations: Vec::new(), _pins: vec![pin], _lease: None })
    }

    /// Prepares a document that is in no store, of this media type.
    pub fn outgoing_document(&self, media_type: &str, bytes: Vec<u8>) -> OutgoingBlobs {
        let digest = Digest::from_sha256(Sha256::digest(&bytes).into());
        let configurations = vec![of_document(digest, media_type, bytes)];
        OutgoingBlobs { inner: self.0.clone(), layers: Vec::new(), configurations, _pins: Vec::new(), _lease: None }
    }

    /// An image has this name, by the digest of its manifest: it is in a registry so. Blocks.
    pub fn add_repo_digest(&self, outgoing: &Outgoing, name: &Reference) -> Result<(), ImageError> {
        let _change = self.0.lock_change();
        let (id, reference) = (outgoing.image.clone(), name.clone());
        let target = {
            let state = self.0.read_state();
            // It may have been removed meanwhile.
            if !state.images.contains_key(&id) || state.references.get(name) == Some(&id) {
                return Ok(());
            }
            outgoing.target.clone().filter(|target| state.targets.contains_key(target))
        };
        failpoint("image.tag.before");
        let (row, of, to) = (reference.clone(), id.clone(), target.clone());
        self.0
            .ledger
            .write(Durability::Power, move |connection| schema::set_reference(connection, &row, &of, to.as_ref()))?;
        failpoint("image.tag.after");
        let mut state = self.0.write_state();
        state.point(&reference, &id, target);
        state.name_images();
        Ok(())
    }
}

fn no_such_platform(name: &Reference, wanted: &Platform) -> ImageError {
    let name = name.familiar();
    ImageError::NoSuchPlatform(format!(
        "image with reference {name} was found but does not provide the specified platform ({wanted})"
    ))
}

/// A small file, compared with its digest.
pub(crate) fn document(path: &Path, digest: &Digest) -> Result<Vec<u8>, ImageError> {
    let bytes = std::fs::read(path).map_err(ImageError::io("read", path.display()))?;
    match digest_like(digest, &bytes) == *digest {
        true => Ok(bytes),
        false => Err(ImageError::Damaged { path: path.to_owned(), expected: digest.to_string() }),
    }
}

struct Kept {
    digest: Option<Digest>,
    manifests: Vec<OutgoingManifest>,
    layers: Vec<OutgoingBlob>,
    configurations: Vec<OutgoingBlob>,
    absent: Vec<Digest>,
}

/// What of a target goes, as it came.
fn kept(
    inner: &Inner,
    state: &State,
    target: &Target,
    name: &Reference,
    part: &OutgoingPart,
) -> Result<Kept, ImageError> {
    let files = state.files_of(inner, target);
    let said = |descriptor: &serde_json::Value| descriptor["mediaType"].as_str().unwrap_or_default().to_owned();
    let (root, media_type) = match part {
        OutgoingPart::All => (target.digest.clone(), said(&target.descriptor)),
        OutgoingPart::Own | OutgoingPart::Platform(_) => {
            let selected = match part {
                OutgoingPart::Platform(wanted) => {
                    select(&files, &target.digest, Some(wanted)).map_err(|error| match error {
                        ImageError::NoSuchPlatform(_) => no_such_platform(name, wanted),
                        error => error,
                    })?
                }
                _ => select(&files, &target.manifest, None)?,
            };
            let descriptor = &selected.descriptor;
            let digest = descriptor["digest"].as_str().and_then(|digest| digest.parse().ok());
            (digest.unwrap_or_else(|| target.manifest.clone()), said(descriptor))
        }
    };
    let shipment = Shipment::of(&files, &root, &media_type)?;
    let find = state.by_digest(inner);
    let by_blob: BTreeMap<&Digest, &Arc<LayerRow>> = state.layers.values().map(|row| (&row.blob, row)).collect();
    let gone = |digest: &Digest| ImageError::Absent(format!("{digest} is not here any more"));
    let mut manifests = Vec::new();
    for (digest, media_type) in shipment.documents {
        let Some(Stored::File(path)) = find(&digest) else { return Err(gone(&digest)) };
        let bytes = document(&path, &digest)?;
        manifests.push(OutgoingManifest { digest, media_type, bytes });
    }
    let (mut layers, mut configurations) = (Vec::new(), Vec::new());
    for part in shipment.parts {
        let content = match find(&part.digest).ok_or_else(|| gone(&part.digest))? {
            Stored::File(path) if part.is_configuration && part.size_bytes <= DOCUMENT_BYTES => {
                Content::Bytes(document(&path, &part.digest)?.into())
            }
            Stored::File(path) => Content::File(path),
            Stored::Layer(row) => Content::Plain(row),
        };
        let diff_id = match &content {
            Content::Plain(row) => Some(row.diff_id.clone()),
            Content::Bytes(_) => None,
            Content::File(_) => by_blob.get(&part.digest).map(|row| row.diff_id.clone()),
        };
        let media_type = diff_id.as_ref().and_then(|diff_id| state.layers.get(diff_id));
        let media_type = media_type.map(|row| row.media_type.clone()).unwrap_or_default();
        let blob = LayerBlob { digest: part.digest.clone(), size_bytes: part.size_bytes, media_type };
        let id = diff_id.clone().unwrap_or(part.digest);
        let blob = OutgoingBlob { id, diff_id, blob: Some(blob), stored_bytes: part.size_bytes, content };
        if part.is_configuration { configurations.push(blob) } else { layers.push(blob) }
    }
    let digest = (root == target.digest).then(|| target.digest.clone());
    Ok(Kept { digest, manifests, layers, configurations, absent: shipment.absent })
}

/// Whether what a target names is compressed as it is wanted, so that it goes as it came. What is not can be compressed anew
/// if it is one image, the one that is unpacked here.
fn is_compressed_so(
    inner: &Inner,
    state: &State,
    target: &Target,
    image: &Image,
    name: &Reference,
    part: &OutgoingPart,
    wanted: Recompression,
) -> Result<bool, ImageError> {
    let is_so = |blob: &OutgoingBlob| {
        blob.blob.as_ref().is_some_and(|blob| blob.media_type == wanted.form.media_type()) && blob.diff_id.is_some()
    };
    if !wanted.is_forced && kept(inner, state, target, name, part)?.layers.iter().all(is_so) {
        return Ok(true);
    }
    let is_index = target.digest != target.manifest;
    let familiar = name.familiar();
    match part {
        OutgoingPart::Platform(platform) if !platform.names(&Platform::of_config(&image.raw)) => {
            Err(ImageError::NotBuilt(format!(
                "the layers of {familiar} for {platform} are not unpacked here: compressing them anew is not built yet"
            )))
        }
        OutgoingPart::All if is_index => Err(ImageError::NotBuilt(format!(
            "{familiar} is an index, whose layers go as it names them: compressing them anew is not built yet; name one \
             of its images with --platform"
        ))),
        _ => Ok(false),
    }
}

/// The layers, each once, lowest first, and the configuration of an image that has no manifest, or gets another one.
fn made(
    inner: &Inner,
    state: &State,
    image: &Image,
    name: &Reference,
    part: &OutgoingPart,
    recompression: Option<Recompression>,
) -> Result<(Vec<OutgoingBlob>, OutgoingBlob), ImageError> {
    if let OutgoingPart::Platform(wanted) = part
        && !wanted.names(&Platform::of_config(&image.raw))
    {
        return Err(no_such_platform(name, wanted));
    }
    let mut layers: Vec<OutgoingBlob> = Vec::new();
    for diff_id in image.diff_ids.iter() {
        if layers.iter().any(|known| known.id == *diff_id) {
            continue;
        }
        let row = state.layers.get(diff_id).ok_or_else(|| ImageError::NoSuchImage(name.familiar()))?;
        layers.push(layer_of(inner, row, recompression));
    }
    let digest = image.id.digest().clone();
    let bytes = document(&inner.blob_path(&digest), &digest)?;
    let configuration = of_document(digest, CONFIG, bytes);
    Ok((layers, configuration))
}

fn layer_of(inner: &Inner, row: &Arc<LayerRow>, recompression: Option<Recompression>) -> OutgoingBlob {
    let is_so = |wanted: Recompression| !wanted.is_forced && row.media_type == wanted.form.media_type();
    // A plain one is compressed, also if it is kept because its name is by another algorithm.
    let is_plain = row.blob == row.diff_id || row.media_type == Compression::None.layer_media_type();
    let is_kept = row.recipe_size_bytes.is_none() && !is_plain && recompression.is_none_or(is_so);
    let blob = is_kept.then(|| LayerBlob {
        digest: row.blob.clone(),
        size_bytes: row.blob_size_bytes,
        media_type: row.media_type.clone(),
    });
    let content = if is_kept { Content::File(inner.content_path(row)) } else { Content::Plain(row.clone()) };
    let stored_bytes = if is_kept { row.blob_size_bytes } else { row.tar_size_bytes };
    OutgoingBlob { id: row.diff_id.clone(), diff_id: Some(row.diff_id.clone()), blob, stored_bytes, content }
}

fn of_document(digest: Digest, media_type: &str, bytes: Vec<u8>) -> OutgoingBlob {
    let stored_bytes = bytes.len() as u64;
    let blob = LayerBlob { digest: digest.clone(), size_bytes: stored_bytes, media_type: media_type.to_owned() };
    OutgoingBlob { id: digest, diff_id: None, blob: Some(blob), stored_bytes, content: Content::Bytes(bytes.into()) }
}

impl Outgoing {
    /// The image itself.
    pub fn image(&self) -> &ImageId {
        &self.image
    }

    /// What is to be there before the manifests.
    pub fn blobs(&self) -> &Arc<OutgoingBlobs> {
        &self.blobs
    }

    /// Manifests of an index that are not here with all that they name: it can be sent if the registry has them.
    pub fn absent(&self) -> &[Digest] {
        &self.absent
    }

    /// The manifests, those that are named before those that name them. `sent`: what layers that were packed have become,
    /// by the digests of their plain streams.
    pub fn manifests(&self, sent: &BTreeMap<Digest, LayerBlob>) -> Vec<OutgoingManifest> {
        let (diff_ids, config_bytes) = match &self.manifests {
            Manifests::Kept(manifests) => return manifests.clone(),
            Manifests::Made { diff_ids, config_bytes } => (diff_ids, config_bytes),
        };
        let of = |diff_id: &Digest| {
            let known =
                self.blobs.layers.iter().find(|layer| layer.id == *diff_id).and_then(|layer| layer.blob.as_ref());
            let LayerBlob { digest, size_bytes, media_type } = known.or_else(|| sent.get(diff_id))?;
            Some(json!({ "mediaType": media_type, "digest": digest, "size": size_bytes }))
        };
        let layers: Vec<_> = diff_ids.iter().filter_map(of).collect();
        debug_assert_eq!(layers.len(), diff_ids.len(), "a layer was not sent");
        let config = json!({ "mediaType": CONFIG, "digest": self.image, "size": config_bytes });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let bytes = to_bytes(&manifest);
        let digest = Digest::from_sha256(Sha256::digest(&bytes).into());
        vec![OutgoingManifest { digest, media_type: MANIFEST.to_owned(), bytes }]
    }
}

impl OutgoingBlobs {
    /// Lowest first.
    pub fn layers(&self) -> &[OutgoingBlob] {
        &self.layers
    }

    /// What is no layer.
    pub fn configurations(&self) -> &[OutgoingBlob] {
        &self.configurations
    }
}
