//! What an image has manifests of, in the words of Docker's API (1.47, "ImageManifestSummary").

use std::collections::BTreeMap;

use dozen_model::{Digest, ImageId};
use serde_json::Value;

use super::layout::{
    BLOBS_LIMIT, DEPTH_LIMIT, Descriptor, Document, collect, is_image_config, is_note, leads_further, platform_of,
};
use super::{Files, blob_name};
use crate::ImageError;
use crate::platform::Platform;

/// A manifest that a name leads to: of an image for one platform, or of something about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestSummary {
    /// The manifest's own.
    pub digest: Digest,
    /// As the index has it, or `index.json`.
    pub descriptor: Value,
    /// All that it names is here.
    pub available: bool,
    /// Bytes of it and of all that it names, as far as they are here, compressed as they came.
    pub content_bytes: u64,
    /// What it is.
    pub kind: ManifestKind,
}

/// What a manifest is of.
#[derive(Debug, Clone, PartialEq)]
pub enum ManifestKind {
    /// An image.
    Image {
        /// `None` if neither the index nor a configuration that is here says it.
        platform: Option<Platform>,
        /// `None` if the manifest is not here.
        image: Option<ImageId>,
        /// Bytes of its files; 0 unless it is unpacked.
        unpacked_bytes: u64,
    },
    /// A builder's note about an image.
    Attestation {
        /// The digest of that image's manifest, as the note says it.
        of: String,
    },
    /// Something else.
    Unknown,
}

/// The manifests of a target, those in its indexes one by one, whether they are here or not.
pub(crate) fn summaries(files: &Files, target: &Value) -> Result<Vec<ManifestSummary>, ImageError> {
    let mut found = Vec::new();
    walk(files, target, 0, &mut found)?;
    Ok(found)
}

fn walk(files: &Files, raw: &Value, depth: usize, found: &mut Vec<ManifestSummary>) -> Result<(), ImageError> {
    let malformed = |error| ImageError::Archive(format!("an index is malformed: {error}"));
    let descriptor: Descriptor = serde_json::from_value(raw.clone()).map_err(malformed)?;
    let is_here = matches!(files.blob(&descriptor.digest), Ok(Some(_)));
    let document: Option<Document> = match is_here && (depth == 0 || leads_further(&descriptor)) {
        true => Some(files.json(&blob_name(&descriptor.digest))?),
        false => None,
    };
    if document.as_ref().is_some_and(|document| document.manifests.is_some()) {
        if depth > DEPTH_LIMIT {
            return Err(ImageError::Archive(format!("indexes are nested deeper than {DEPTH_LIMIT}")));
        }
        // As they stand, with what we know nothing of.
        let index: Value = files.json(&blob_name(&descriptor.digest))?;
        let manifests = index.get("manifests").and_then(Value::as_array);
        return manifests.into_iter().flatten().try_for_each(|raw| walk(files, raw, depth + 1, found));
    }
    let mut blobs = BTreeMap::new();
    let mut left = BLOBS_LIMIT;
    if is_here {
        collect(files, &descriptor, depth, &mut left, &mut blobs)?;
    }
    let config = document.as_ref().and_then(|document| document.config.as_ref());
    let config = config.filter(|config| is_image_config(&config.media_type));
    let is_image = match &document {
        Some(_) => config.is_some(),
        None => descriptor.platform.is_some() && leads_further(&descriptor),
    };
    let kind = if is_note(&descriptor) {
        let of = descriptor.annotations.as_ref().and_then(|all| all.get("vnd.docker.reference.digest"));
        ManifestKind::Attestation { of: of.cloned().unwrap_or_default() }
    } else if is_image {
        let platform = platform_of(files, &descriptor);
        let here = config.map(|config| files.blob(&config.digest)).transpose()?.flatten();
        let image = match (here, config) {
            (Some(here), _) => Some(here.image_id()?),
            (None, config) => config.map(|config| ImageId::new(config.digest.clone())),
        };
        ManifestKind::Image { platform, image, unpacked_bytes: 0 }
    } else {
        ManifestKind::Unknown
    };
    let mut parts = document
        .into_iter()
        .flat_map(|document| [document.layers, document.blobs].into_iter().flatten().flatten().chain(document.config));
    let available = is_here && parts.all(|part| matches!(files.blob(&part.digest), Ok(Some(_))));
    found.push(ManifestSummary {
        digest: descriptor.digest,
        descriptor: raw.clone(),
        available,
        content_bytes: blobs.values().map(|blob| blob.size).sum(),
        kind,
    });
    Ok(())
}
