//! All that has to be sent for a manifest or an index to be whole elsewhere: what it names before what names it.

use std::collections::BTreeSet;

use dozen_model::Digest;
use serde_json::Value;

use super::layout::{BLOBS_LIMIT, DEPTH_LIMIT, Descriptor, Document, INDEX, MANIFEST, leads_further};
use super::{Files, blob_name};
use crate::ImageError;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shipment {
    /// Manifests and indexes with their media types; the last is what was asked for.
    pub(crate) documents: Vec<(Digest, String)>,
    /// What they name beside, each once.
    pub(crate) parts: Vec<Part>,
    /// Manifests that an index names and that are not here, or not with all that they name.
    pub(crate) absent: Vec<Digest>,
}

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) is_configuration: bool,
}

impl Shipment {
    /// Of a document that is here. Parts of the image itself that are not are an error.
    pub(crate) fn of(files: &Files, root: &Digest, media_type: &str) -> Result<Self, ImageError> {
        let mut descriptor = Descriptor::of(root);
        descriptor.media_type = media_type.to_owned();
        let mut left = BLOBS_LIMIT;
        match walk(files, &descriptor, 0, &mut left)? {
            Walked::Whole(shipment) => Ok(shipment.each_once()),
            Walked::Lacks(digest) => Err(ImageError::Absent(format!("{digest}, which {root} names, is not here"))),
        }
    }

    fn part(&mut self, digest: Digest, size_bytes: u64, is_configuration: bool) {
        self.parts.push(Part { digest, size_bytes, is_configuration });
    }

    fn join(&mut self, other: Self) {
        self.documents.extend(other.documents);
        self.parts.extend(other.parts);
        self.absent.extend(other.absent);
    }

    fn each_once(mut self) -> Self {
        let mut seen = BTreeSet::new();
        self.documents.retain(|(digest, _)| seen.insert(digest.clone()));
        self.parts.retain(|part| seen.insert(part.digest.clone()));
        self.absent.retain(|digest| seen.insert(digest.clone()));
        self
    }
}

enum Walked {
    Whole(Shipment),
    /// This is not here.
    Lacks(Digest),
}

fn walk(files: &Files, descriptor: &Descriptor, depth: usize, left: &mut usize) -> Result<Walked, ImageError> {
    if depth > DEPTH_LIMIT {
        return Err(ImageError::Archive(format!("indexes are nested deeper than {DEPTH_LIMIT}")));
    }
    if files.blob(&descriptor.digest)?.is_none() {
        return Ok(Walked::Lacks(descriptor.digest.clone()));
    }
    let too_many = || ImageError::Archive(format!("its indexes name more than {BLOBS_LIMIT} manifests"));
    *left = left.checked_sub(1).ok_or_else(too_many)?;
    let name = blob_name(&descriptor.digest);
    let (document, raw): (Document, Value) = (files.json(&name)?, files.json(&name)?);
    let mut shipment = Shipment::default();
    let is_index = document.manifests.is_some();
    for child in document.manifests.into_iter().flatten() {
        // An index may name what nobody knows.
        if !child.media_type.is_empty() && !leads_further(&child) {
            match files.blob(&child.digest)? {
                Some(file) => shipment.part(child.digest, file.size, false),
                None => shipment.absent.push(child.digest),
            }
            continue;
        }
        match walk(files, &child, depth + 1, left)? {
            Walked::Whole(of_child) => shipment.join(of_child),
            Walked::Lacks(_) => shipment.absent.push(child.digest),
        }
    }
    let parts = [document.layers, document.blobs].into_iter().flatten().flatten();
    let config = document.config.into_iter().map(|config| (config, true));
    for (part, is_configuration) in config.chain(parts.map(|part| (part, false))) {
        // Whoever gets the image fetches it from where it says (image-spec, layer.md, "Non-Distributable Layers").
        if part.media_type.contains("nondistributable") || part.media_type.contains("foreign") {
            continue;
        }
        let Some(file) = files.blob(&part.digest)? else { return Ok(Walked::Lacks(part.digest)) };
        shipment.part(part.digest, file.size, is_configuration);
    }
    shipment.documents.push((descriptor.digest.clone(), media_type(descriptor, &raw, is_index)));
    Ok(Walked::Whole(shipment))
}

/// What it calls itself, or else what it is called where it is named; older ones do neither.
fn media_type(descriptor: &Descriptor, raw: &Value, is_index: bool) -> String {
    let own = raw.get("mediaType").and_then(Value::as_str);
    let named = leads_further(descriptor).then_some(descriptor.media_type.as_str());
    let default = if is_index { INDEX } else { MANIFEST };
    own.or(named).unwrap_or(default).to_owned()
}
