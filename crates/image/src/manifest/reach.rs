//! From a manifest or an index to an image, as far as the documents on the way are here: what is missing is named, so that it
//! can be fetched.

use std::collections::BTreeMap;

use dozen_model::Digest;
use serde_json::{Map, Value};

use super::layout::{
    BLOBS_LIMIT, DEPTH_LIMIT, Descriptor, Document, choose, collect, described, find, is_image_config, is_note,
};
use super::{Files, LAYERS_LIMIT, PlannedTarget, Spooled, blob_name};
use crate::ImageError;
use crate::arrival::Kept;
use crate::platform::Platform;

/// In an error.
const SHOWN_PLATFORMS: usize = 20;

/// How far one comes.
#[derive(Debug)]
pub(crate) enum Reached {
    /// To a manifest or index that is not here.
    Manifest { digest: Digest, size_bytes: Option<u64> },
    /// To a configuration that is not here.
    Configuration { digest: Digest, size_bytes: u64 },
    /// To the image: its configuration, and its layers' blobs, lowest first.
    All { config: Spooled, layers: Vec<ReachedLayer> },
}

/// A layer's blob, as a manifest has it.
#[derive(Debug)]
pub(crate) struct ReachedLayer {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    /// Where else it is to be had.
    pub(crate) urls: Vec<String>,
}

/// An image whose documents are all here.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) config: Spooled,
    pub(crate) target: PlannedTarget,
}

/// See [`Reached`].
pub(crate) fn reach(files: &Files, root: &Digest, wanted: Option<&Platform>) -> Result<Reached, ImageError> {
    let mut at = Descriptor::of(root);
    for _ in 0..=DEPTH_LIMIT {
        if files.blob(&at.digest)?.is_none() {
            return Ok(Reached::Manifest { digest: at.digest, size_bytes: at.size });
        }
        let document: Document = files.json(&blob_name(&at.digest))?;
        let Some(manifests) = document.manifests else { return reach_config(files, &at, document, wanted) };
        let chosen = choose(files, &manifests, &at.digest, wanted).map_err(|_| no_match(&manifests, wanted))?;
        // The only one that there is may be for another machine.
        let is_foreign = chosen.platform.as_ref().is_some_and(|platform| Platform::host().rank(platform).is_none());
        if wanted.is_none() && is_foreign {
            return Err(no_match(&manifests, wanted));
        }
        at = chosen.clone();
    }
    Err(ImageError::Archive(format!("indexes are nested deeper than {DEPTH_LIMIT}")))
}

/// Docker's words, and what there is.
fn no_match(manifests: &[Descriptor], wanted: Option<&Platform>) -> ImageError {
    let wanted = wanted.cloned().unwrap_or_else(Platform::host);
    let mut others: Vec<String> =
        manifests.iter().filter(|it| !is_note(it)).filter_map(|it| Some(it.platform.as_ref()?.to_string())).collect();
    others.truncate(SHOWN_PLATFORMS);
    let others = if others.is_empty() { "none that is named".to_owned() } else { others.join(", ") };
    ImageError::NoSuchPlatform(format!(
        "no matching manifest for {wanted} in the manifest list entries: there are {others}"
    ))
}

fn reach_config(
    files: &Files,
    manifest: &Descriptor,
    document: Document,
    wanted: Option<&Platform>,
) -> Result<Reached, ImageError> {
    let digest = &manifest.digest;
    let config = match document.config {
        Some(config) if is_image_config(&config.media_type) => config,
        other => {
            let said = document.artifact_type.filter(|said| !said.is_empty());
            let artifact_type = said.or(other.map(|config| config.media_type)).unwrap_or_default();
            return Err(ImageError::Artifact { digest: digest.clone(), artifact_type });
        }
    };
    let layers = document.layers.unwrap_or_default();
    if layers.len() > LAYERS_LIMIT {
        let count = layers.len();
        return Err(ImageError::Archive(format!(
            "{digest} has {count} layers, and the kernel stacks {LAYERS_LIMIT} at the most"
        )));
    }
    let missing_size =
        |of: &Descriptor| ImageError::Archive(format!("{digest} does not say how large {} is", of.digest));
    if files.blob(&config.digest)?.is_none() {
        let size_bytes = config.size.ok_or_else(|| missing_size(&config))?;
        return Ok(Reached::Configuration { digest: config.digest, size_bytes });
    }
    let reached = layers.into_iter().map(|layer| {
        let size_bytes = layer.size.ok_or_else(|| missing_size(&layer))?;
        Ok(ReachedLayer { digest: layer.digest, size_bytes, urls: layer.urls.unwrap_or_default() })
    });
    let layers = reached.collect::<Result<_, ImageError>>()?;
    // With all that an image has to be.
    let found = find(files, manifest, wanted, 0)?;
    let found = found.ok_or_else(|| ImageError::Archive(format!("{digest} is no image")))?;
    Ok(Reached::All { config: found.config, layers })
}

/// What is to be kept of an image that has come. Where a platform was wanted, that is its own manifest alone, which then
/// stands for itself.
pub(crate) fn arrived(
    files: &Files,
    root: Value,
    wanted: Option<&Platform>,
    kept: Kept,
) -> Result<Arrived, ImageError> {
    let malformed = |error| ImageError::Archive(format!("a descriptor is malformed: {error}"));
    let descriptor: Descriptor = serde_json::from_value(root.clone()).map_err(malformed)?;
    let found = find(files, &descriptor, wanted, 0)?;
    let found = found.ok_or_else(|| ImageError::Archive(format!("{} is no image", descriptor.digest)))?;
    let (target, raw): (Descriptor, Map<String, Value>) = match (wanted, kept, root) {
        (None, Kept::AsAsked, Value::Object(root)) => (descriptor, root),
        _ => {
            let size = files.blob(&found.manifest.digest)?.map_or(0, |manifest| manifest.size);
            (found.manifest.clone(), described(&found.manifest, size))
        }
    };
    let (mut blobs, mut left) = (BTreeMap::new(), BLOBS_LIMIT);
    collect(files, &found.manifest, 0, &mut left, &mut blobs)?;
    collect(files, &target, 0, &mut left, &mut blobs)?;
    let target = PlannedTarget {
        digest: target.digest,
        descriptor: Value::Object(raw),
        manifest: found.manifest.digest,
        names: Vec::new(),
        blobs,
        missing: found.missing,
        referrers: Vec::new(),
    };
    Ok(Arrived { config: found.config, target })
}
