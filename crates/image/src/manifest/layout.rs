//! An OCI layout: `index.json`, and what it leads to (OCI image-spec, image-layout.md, image-index.md, manifest.md).

use std::collections::BTreeMap;

use dozen_model::{Digest, Reference};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Files, IMAGES_LIMIT, Planned, PlannedTarget, Spooled, blob_name, check_layers, check_together, merge, platform,
    reference,
};
use crate::ImageError;
use crate::platform::Platform;

/// An index may name indexes; real ones go two deep.
pub(super) const DEPTH_LIMIT: usize = 4;
/// Digests that all targets of one archive may lead to together: they are in memory for as long as their images are.
pub(super) const BLOBS_LIMIT: usize = 50_000;

/// OCI image-spec, descriptor.md.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) size: Option<u64>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) urls: Option<Vec<String>>,
}

impl Descriptor {
    pub(super) fn of(digest: &Digest) -> Self {
        let digest = digest.clone();
        Self { media_type: String::new(), digest, size: None, annotations: None, platform: None, urls: None }
    }
}

/// An index or a manifest: which of the two its members say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(default)]
    pub(super) manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Option<Vec<Descriptor>>,
    /// Of the artifact manifests that the specification had before 1.1.
    #[serde(default)]
    pub(super) blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default, rename = "artifactType")]
    pub(super) artifact_type: Option<String>,
}

/// The images that `index.json` names, each with its target. What is no image is carried along with what it is about.
pub(super) fn images(files: &Files, wanted: Option<&Platform>) -> Result<Vec<Planned>, ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Map<String, Value>>,
    }
    let layout: Layout = files.json("oci-layout")?;
    if !layout.image_layout_version.starts_with("1.") {
        return Err(ImageError::NotBuilt(format!("OCI layout {} is not built yet", layout.image_layout_version)));
    }
    let index: Index = files.json("index.json")?;
    if index.manifests.len() > IMAGES_LIMIT {
        return Err(ImageError::Archive(format!("index.json names more than {IMAGES_LIMIT} images")));
    }
    of_index(files, index.manifests, wanted)
}

/// The same for these descriptors of an `index.json`.
pub(super) fn of_index(
    files: &Files,
    descriptors: Vec<Map<String, Value>>,
    wanted: Option<&Platform>,
) -> Result<Vec<Planned>, ImageError> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut others = Vec::new();
    let mut left = BLOBS_LIMIT;
    let mut all_layers = 0;
    for raw in descriptors {
        let descriptor: Descriptor = serde_json::from_value(Value::Object(raw.clone()))
            .map_err(|error| ImageError::Archive(format!("index.json is malformed: {error}")))?;
        let Some(found) = find(files, &descriptor, wanted, 0)? else {
            others.push((descriptor, Value::Object(raw)));
            continue;
        };
        all_layers += found.layers.len();
        check_together(all_layers, 0)?;
        let names: Vec<_> = annotated_name(&descriptor)?.into_iter().collect();
        let Found { manifest, config, layers, missing, .. } = found;
        let (target, raw) = match wanted {
            // The one that is wanted stands for itself.
            Some(_) => (manifest.clone(), described(&manifest, 0)),
            None => (descriptor, raw),
        };
        // One name more for what is known already.
        let is_known = |image: &&mut Planned| image.targets.iter().any(|known| known.digest == target.digest);
        if let Some(image) = planned.iter_mut().find(is_known) {
            image
                .references
                .extend(names.iter().filter(|name| !image.references.contains(name)).cloned().collect::<Vec<_>>());
            let known = image.targets.iter_mut().filter(|known| known.digest == target.digest);
            known.for_each(|known| known.names.extend(names.iter().cloned()));
            continue;
        }
        let mut blobs = BTreeMap::new();
        // First the image itself, however it is called where it is named.
        collect(files, &manifest, 0, &mut left, &mut blobs)?;
        collect(files, &target, 0, &mut left, &mut blobs)?;
        let target = PlannedTarget {
            descriptor: without_names(raw, blobs[&target.digest].size),
            digest: target.digest,
            manifest: manifest.digest,
            names: names.clone(),
            blobs,
            missing,
            referrers: Vec::new(),
        };
        merge(&mut planned, Planned { config, layers, references: names, targets: vec![target] });
    }
    for (descriptor, raw) in others {
        refer(files, &descriptor, raw, wanted, &mut planned, &mut left)?;
    }
    Ok(planned)
}

/// Carries an artifact along with what it is about.
fn refer(
    files: &Files,
    descriptor: &Descriptor,
    raw: Value,
    wanted: Option<&Platform>,
    planned: &mut [Planned],
    left: &mut usize,
) -> Result<(), ImageError> {
    let document: Document = files.json(&blob_name(&descriptor.digest))?;
    let mut targets = planned.iter_mut().flat_map(|image| &mut image.targets);
    let about =
        document.subject.as_ref().and_then(|subject| targets.find(|target| target.blobs.contains_key(&subject.digest)));
    match about {
        Some(target) => {
            collect(files, descriptor, 0, left, &mut target.blobs)?;
            target.referrers.push(raw);
            Ok(())
        }
        // Builders write notes about images that are elsewhere; and what is about the index stays behind with it.
        None if is_note(descriptor) || wanted.is_some() => Ok(()),
        None => Err(ImageError::NotBuilt(format!(
            "{} holds {:?} and no image; artifacts that are about no image of the archive are not built yet",
            descriptor.digest,
            document.config.map(|config| config.media_type).unwrap_or_default()
        ))),
    }
}

/// containerd's annotation is a whole reference; OCI's is one for some writers and for others a bare tag, which names
/// nothing by itself (OCI image-spec, annotations.md, "org.opencontainers.image.ref.name").
fn annotated_name(descriptor: &Descriptor) -> Result<Option<Reference>, ImageError> {
    let annotation = |key| descriptor.annotations.as_ref().and_then(|all| all.get(key));
    if let Some(name) = annotation(NAMES[0]) {
        return reference(name).map(Some);
    }
    match annotation(NAMES[1]) {
        Some(name) if is_whole(name) => reference(name).map(Some),
        _ => Ok(None),
    }
}

fn is_whole(name: &str) -> bool {
    name.contains([':', '/'])
}

const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// The rest of a descriptor, with the size that is true. A bare tag, by which others find it in the layout, stays.
fn without_names(mut descriptor: Map<String, Value>, size: u64) -> Value {
    descriptor.insert("size".to_owned(), json!(size));
    if let Some(annotations) = descriptor.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(NAMES[0]);
        if annotations.get(NAMES[1]).is_none_or(|name| name.as_str().is_none_or(is_whole)) {
            annotations.remove(NAMES[1]);
        }
        if annotations.is_empty() {
            descriptor.remove("annotations");
        }
    }
    Value::Object(descriptor)
}

/// An image that a descriptor leads to.
pub(super) struct Found {
    pub(super) manifest: Descriptor,
    pub(super) config: Spooled,
    layers: Vec<(String, Option<Spooled>)>,
    layer_descriptors: Vec<Descriptor>,
    pub(super) missing: Vec<Digest>,
}

/// One image of a target.
#[derive(Debug)]
pub(crate) struct Selected {
    /// A descriptor of that manifest.
    pub(crate) descriptor: Value,
    pub(crate) config: Spooled,
    /// The layers' blobs as the manifest has them, lowest first: digest, media type, size if they are here.
    pub(crate) layers: Vec<(Digest, String, Option<Spooled>)>,
    /// All that the manifest leads to, itself included.
    pub(crate) blobs: BTreeMap<Digest, Spooled>,
}

/// The image for a platform that an index or manifest leads to; without one, the manifest's own.
pub(crate) fn select(files: &Files, target: &Digest, wanted: Option<&Platform>) -> Result<Selected, ImageError> {
    let descriptor = Descriptor::of(target);
    let no_image = || ImageError::Archive(format!("{target} is no image"));
    let found = find(files, &descriptor, wanted, 0)?.ok_or_else(no_image)?;
    let mut blobs = BTreeMap::new();
    let mut left = BLOBS_LIMIT;
    collect(files, &Descriptor { digest: found.manifest.digest.clone(), ..descriptor }, 0, &mut left, &mut blobs)?;
    let size = blobs.get(&found.manifest.digest).map_or(0, |manifest| manifest.size);
    Ok(Selected {
        descriptor: Value::Object(described(&found.manifest, size)),
        config: found.config,
        layers: found
            .layer_descriptors
            .into_iter()
            .zip(found.layers)
            .map(|(descriptor, (_, file))| (descriptor.digest, descriptor.media_type, file))
            .collect(),
        blobs,
    })
}

/// A manifest's descriptor for an `index.json`.
pub(super) fn described(manifest: &Descriptor, size: u64) -> Map<String, Value> {
    let media_type = match manifest.media_type.as_str() {
        "" => MANIFEST,
        media_type => media_type,
    };
    let platform = manifest.platform.as_ref().map(|Platform { os, architecture, variant }| {
        let mut platform = json!({ "architecture": architecture, "os": os });
        if let Some(variant) = variant {
            platform["variant"] = json!(variant);
        }
        platform
    });
    let members = [("mediaType", json!(media_type)), ("digest", json!(manifest.digest)), ("size", json!(size))];
    let members = members.into_iter().chain(platform.map(|platform| ("platform", platform)));
    members.map(|(key, value)| (key.to_owned(), value)).collect()
}

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn missing(digest: &Digest) -> ImageError {
    ImageError::Archive(format!("blob {digest} is missing: it may be cut short"))
}

/// Of an index the image that is wanted, or else runs here best; `None` for what is no image.
pub(super) fn find(
    files: &Files,
    descriptor: &Descriptor,
    wanted: Option<&Platform>,
    depth: usize,
) -> Result<Option<Found>, ImageError> {
    if depth > DEPTH_LIMIT {
        return Err(ImageError::Archive(format!("indexes are nested deeper than {DEPTH_LIMIT}")));
    }
    files.blob(&descriptor.digest)?.ok_or_else(|| missing(&descriptor.digest))?;
    let document: Document = files.json(&blob_name(&descriptor.digest))?;
    if let Some(manifests) = document.manifests {
        let chosen = choose(files, &manifests, &descriptor.digest, wanted)?;
        return find(files, chosen, wanted, depth + 1);
    }
    if is_note(descriptor) {
        return Ok(None);
    }
    let Some(config) = document.config else {
        let is_artifact = document.subject.is_some() || document.blobs.is_some();
        return if is_artifact {
            Ok(None)
        } else {
            Err(ImageError::Archive(format!("{} is neither a manifest nor an index", descriptor.digest)))
        };
    };
    if !is_image_config(&config.media_type) {
        return Ok(None);
    }
    let spooled = files.blob(&config.digest)?.ok_or_else(|| missing(&config.digest))?.clone();
    // What the index says of it counts more: configurations often leave the variant out.
    let says = descriptor.platform.clone().or_else(|| platform(&spooled));
    if let Some(wanted) = wanted.filter(|wanted| !says.is_some_and(|platform| wanted.names(&platform))) {
        return Err(no_such_platform(&descriptor.digest.to_string(), wanted));
    }
    let descriptors = document.layers.unwrap_or_default();
    check_layers(&spooled, descriptors.len())?;
    let mut layers = Vec::new();
    let mut absent = Vec::new();
    for layer in &descriptors {
        if layer.media_type.contains("encrypted") {
            return Err(ImageError::NotBuilt(format!("layer {} is encrypted; that is not built yet", layer.digest)));
        }
        let file = files.blob(&layer.digest)?.cloned();
        if file.is_none() {
            absent.push(layer.digest.clone());
        }
        // A layer that others may not pass on is to be fetched from where it says (layer.md, "Non-Distributable Layers").
        let name = match layer.urls.as_deref() {
            Some([url, ..]) => format!("{} (a foreign one, at {url})", layer.digest),
            _ => layer.digest.to_string(),
        };
        layers.push((name, file));
    }
    let (manifest, layer_descriptors) = (descriptor.clone(), descriptors);
    Ok(Some(Found { manifest, config: spooled, layers, layer_descriptors, missing: absent }))
}

pub(super) fn is_image_config(media_type: &str) -> bool {
    media_type.contains("image.config.v1") || media_type.contains("container.image.v1")
}

pub(super) fn choose<'a>(
    files: &Files,
    manifests: &'a [Descriptor],
    index: &Digest,
    wanted: Option<&Platform>,
) -> Result<&'a Descriptor, ImageError> {
    // An index may be here as a whole, and of its images only one: what is not here is nobody's choice while others are.
    let is_here = |manifest: &Descriptor| files.get(&blob_name(&manifest.digest)).is_some();
    let any_is_here = manifests.iter().any(|manifest| !is_note(manifest) && is_here(manifest));
    let images: Vec<_> = manifests
        .iter()
        .filter(|manifest| !is_note(manifest) && (is_here(manifest) || !any_is_here))
        .map(|manifest| (manifest, platform_of(files, manifest)))
        .collect();
    let host = Platform::host();
    let rank = |platform: &Option<Platform>| match (platform, wanted) {
        (Some(platform), Some(wanted)) => wanted.names(platform).then(|| wanted.rank(platform).unwrap_or(usize::MAX)),
        (Some(platform), None) => host.rank(platform),
        (None, _) => None,
    };
    let ranked = images.iter().filter_map(|(manifest, platform)| Some((rank(platform)?, *manifest)));
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, manifest)| manifest);
    let only = match images.as_slice() {
        // An index of one is that one; an index in an index has no platform of its own.
        [(only, None)] => Some(*only),
        [(only, _)] if wanted.is_none() => Some(*only),
        _ => None,
    };
    let platforms =
        || images.iter().filter_map(|(_, platform)| Some(platform.as_ref()?.to_string())).collect::<Vec<_>>();
    best.or(only).ok_or_else(|| match wanted {
        Some(wanted) => no_such_platform(&index.to_string(), wanted),
        None => ImageError::Archive(format!("it holds {index} for other machines only: {}", platforms().join(", "))),
    })
}

pub(crate) fn no_such_platform(what: &str, wanted: &Platform) -> ImageError {
    ImageError::NoSuchPlatform(format!("{what} has no image for {wanted}"))
}

/// As the index says it, or else the image's configuration.
pub(super) fn platform_of(files: &Files, descriptor: &Descriptor) -> Option<Platform> {
    if let Some(platform) = &descriptor.platform {
        return Some(platform.clone());
    }
    files.blob(&descriptor.digest).ok()??;
    let document: Document = files.json(&blob_name(&descriptor.digest)).ok()?;
    let config = document.config.filter(|config| is_image_config(&config.media_type))?;
    platform(files.blob(&config.digest).ok()??)
}

/// All that a descriptor leads to, as far as the archive has it. What is not known to lead further does not.
pub(super) fn collect(
    files: &Files,
    descriptor: &Descriptor,
    depth: usize,
    left: &mut usize,
    blobs: &mut BTreeMap<Digest, Spooled>,
) -> Result<(), ImageError> {
    if blobs.contains_key(&descriptor.digest) {
        return Ok(());
    }
    // Parts of another kind of digest are nothing that could be compared.
    let Some(blob) = files.blob(&descriptor.digest)? else { return Ok(()) };
    *left = left
        .checked_sub(1)
        .ok_or_else(|| ImageError::Archive(format!("its indexes and manifests name more than {BLOBS_LIMIT} blobs")))?;
    blobs.insert(descriptor.digest.clone(), blob.clone());
    if depth > 0 && !leads_further(descriptor) {
        return Ok(());
    }
    if depth > DEPTH_LIMIT + 1 {
        return Err(ImageError::Archive(format!("indexes are nested deeper than {DEPTH_LIMIT}")));
    }
    let document: Document = files.json(&blob_name(&descriptor.digest))?;
    let parts = [document.manifests, document.layers, document.blobs].into_iter().flatten().flatten();
    for part in parts.chain(document.config) {
        collect(files, &part, depth + 1, left, blobs)?;
    }
    Ok(())
}

/// Whether it is of a kind that names others.
pub(super) fn leads_further(descriptor: &Descriptor) -> bool {
    ["image.manifest.v1", "image.index.v1", "artifact.manifest.v1", "distribution.manifest"]
        .iter()
        .any(|kind| descriptor.media_type.contains(kind))
}

/// A builder's note about an image (its provenance, its parts), which stands in an index like a platform's image.
pub(super) fn is_note(descriptor: &Descriptor) -> bool {
    descriptor.annotations.as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"))
        || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}
