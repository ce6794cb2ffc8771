//! An image as the store shows it.

use std::sync::Arc;

use dozen_model::json::memory_of;
use dozen_model::{Digest, ImageId, Reference};
use jiff::Timestamp;
pub use oci_spec::image::{Config as ImageConfig, ImageConfiguration};
use serde::Deserialize;
use serde_json::Value;

/// An image: its configuration, and what names it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the configuration.
    pub id: ImageId,
    /// Its names with a tag, sorted.
    pub references: Vec<Reference>,
    /// Its names with the digest of a manifest, sorted (Docker's RepoDigests).
    pub repo_digests: Vec<Reference>,
    /// The configuration, parsed.
    pub config: Arc<ImageConfiguration>,
    /// The configuration as it is, with what only Docker knows: Healthcheck, OnBuild, Shell.
    pub raw: Arc<Value>,
    /// Bytes of all files in all layers.
    pub size_bytes: u64,
    /// When it was made, if its configuration says so.
    pub created: Option<Timestamp>,
    /// The image that it was committed from, if that is still known.
    pub parent: Option<ImageId>,
    /// The digests of its layers as plain tar streams, lowest first.
    pub diff_ids: Arc<[Digest]>,
}

/// What a configuration may take of memory, read, and all of one archive together: they stay there for as long as their
/// images do.
pub(crate) const CONFIGS_MEMORY_LIMIT: usize = 12 * 1024 * 1024;

/// Reads a configuration; the error says what is wrong with it.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<(ImageConfiguration, Value, Vec<Digest>), String> {
    if memory_of(bytes) > CONFIGS_MEMORY_LIMIT {
        return Err(format!("its configuration would take more than {CONFIGS_MEMORY_LIMIT} bytes of memory"));
    }
    let raw: Value = serde_json::from_slice(bytes).map_err(|error| format!("its configuration is no JSON: {error}"))?;
    check_objects(&raw).map_err(|what| format!("its configuration is malformed: {what} is no object"))?;
    let config: ImageConfiguration =
        ImageConfiguration::deserialize(&raw).map_err(|error| format!("its configuration is malformed: {error}"))?;
    if config.os() != &oci_spec::image::Os::Linux {
        return Err(format!("it is an image for {}, and dozen runs Linux images", config.os()));
    }
    let digests = config.rootfs().diff_ids().iter().map(|text| text.parse()).collect::<Result<Vec<Digest>, _>>();
    let digests = digests.map_err(|error| format!("its configuration names a layer by an {error}"))?;
    if let Some(digest) = digests.iter().find(|digest| digest.algorithm() != "sha256") {
        let algorithm = digest.algorithm();
        return Err(format!(
            "its layers' plain digests (diff_ids) are by {algorithm}, which is not built yet: those by sha256 are"
        ));
    }
    Ok((config, raw, digests))
}

/// Members are looked up by name, here and later: a list of their values in an object's place, which serde takes for one as
/// well, is none.
fn check_objects(raw: &Value) -> Result<(), &'static str> {
    if !raw.is_object() {
        return Err("it");
    }
    let is_wrong = |key: &&str| raw.get(key).is_some_and(|value| !value.is_null() && !value.is_object());
    if let Some(key) = ["config", "rootfs"].into_iter().find(is_wrong) {
        return Err(key);
    }
    match raw.get("history").and_then(Value::as_array) {
        Some(history) if !history.iter().all(Value::is_object) => Err("an entry of its history"),
        _ => Ok(()),
    }
}

impl Image {
    pub(crate) fn new(id: ImageId, bytes: &[u8], size_bytes: u64, parent: Option<ImageId>) -> Result<Self, String> {
        let (config, raw, diff_ids) = parse_config(bytes)?;
        let created = config.created().as_ref().and_then(|text| text.parse().ok());
        Ok(Self {
            id,
            references: Vec::new(),
            repo_digests: Vec::new(),
            config: Arc::new(config),
            raw: Arc::new(raw),
            size_bytes,
            created,
            parent,
            diff_ids: diff_ids.into(),
        })
    }
}
