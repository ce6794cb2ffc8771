//! `commit`: a container's upper directory becomes one more layer.

use std::path::Path;

use dozen_model::{Digest, ImageId, Reference};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::image::{Image, ImageConfig};
use crate::install::NewImage;
use crate::manifest::LAYERS_LIMIT;
use crate::new_layer::{EMPTY_TAR_BYTES, pack_and_unpack};
use crate::store::ImageStore;

/// What to commit.
#[derive(Debug)]
pub struct CommitRequest<'a> {
    /// The image that the container was made from.
    pub base: ImageId,
    /// The overlay's upper directory. Not mounted elsewhere by this; it may change meanwhile.
    pub upper: &'a Path,
    /// The new image's execution parameters. What only Docker knows of the base's (Healthcheck, OnBuild) is kept.
    pub config: ImageConfig,
    /// In place of the base's `Healthcheck`, in the same form.
    pub healthcheck: Option<Value>,
    /// `--author`.
    pub author: Option<String>,
    /// `--message`.
    pub comment: Option<String>,
    /// The command line that made the changes, for `history`.
    pub created_by: String,
    /// The new image's name. `None`: it has only its id.
    pub reference: Option<Reference>,
    /// When it was made. `None`: now.
    pub created: Option<Timestamp>,
}

impl ImageStore {
    /// Makes an image of an image and what a container changed. A tree without a change adds no layer.
    ///
    /// The new layer is packed, and unpacked from what was packed as any other: its directory is what everybody gets who
    /// loads it.
    ///
    /// `is_whole` is asked once the tree has been read: if it was being removed meanwhile, the half that was left of it
    /// makes no image, and the answer is `None`.
    pub fn commit(
        &self,
        request: CommitRequest<'_>,
        is_whole: &dyn Fn() -> bool,
    ) -> Result<Option<ImageId>, ImageError> {
        if request.reference.as_ref().is_some_and(|reference| reference.digest().is_some()) {
            return Err(ImageError::TagWithDigest);
        }
        let inner = &self.0;
        let base = {
            let state = inner.read_state();
            let base = state.images.get(&request.base).or_else(|| state.removed.get(&request.base)).cloned();
            base.ok_or_else(|| state.missing(&request.base))?
        };
        let missing = || ImageError::NoSuchImage(request.base.to_string());
        let _pins = base.diff_ids.iter().map(|id| inner.pin(id).ok_or_else(missing)).collect::<Result<Vec<_>, _>>()?;
        let scratch = inner.scratch()?;
        let packed = pack_and_unpack(request.upper, request.created.map(Timestamp::as_second), &scratch);
        if !is_whole() {
            return Ok(None);
        }
        let staged = Some(packed?).filter(|staged| staged.row.tar_size_bytes != EMPTY_TAR_BYTES);
        let layers = base.diff_ids.len() + usize::from(staged.is_some());
        if layers > LAYERS_LIMIT {
            return Err(ImageError::Commit(format!(
                "it would have {layers} layers, and the kernel stacks {LAYERS_LIMIT} at the most; export the container \
                 and import that, which makes one layer of them"
            )));
        }
        failpoint("image.packed");
        let layer = staged.as_ref().map(|staged| &staged.row.diff_id);
        let config = new_config(&base, &request, layer, request.created.unwrap_or_else(Timestamp::now));
        let config = serde_json::to_vec(&config).expect("a JSON value serializes");
        let id = ImageId::new(Digest::from_sha256(Sha256::digest(&config).into()));
        let diff_ids = base.diff_ids.iter().chain(layer).cloned().collect();
        let references = request.reference.into_iter().collect();
        let image = NewImage { id: id.clone(), config, diff_ids, parent: Some(request.base), references };
        inner.install(&scratch, staged.into_iter().collect(), &[image])?;
        Ok(Some(id))
    }
}

/// The base's configuration with what this commit says. Pure.
fn new_config(base: &Image, request: &CommitRequest<'_>, layer: Option<&Digest>, now: Timestamp) -> Value {
    let mut config = Map::new();
    for key in ["architecture", "os", "variant", "os.version", "os.features", "rootfs", "history"] {
        if let Some(value) = base.raw.get(key) {
            config.insert(key.into(), value.clone());
        }
    }
    let created = now.to_string();
    config.insert("created".into(), json!(created));
    let author = request.author.clone().or_else(|| base.config.author().clone());
    if let Some(author) = author.filter(|author| !author.is_empty()) {
        config.insert("author".into(), json!(author));
    }
    let mut parameters = merge_config(base.raw.get("config"), &request.config);
    if let Some(check) = &request.healthcheck {
        parameters["Healthcheck"] = check.clone();
    }
    config.insert("config".into(), parameters);
    if let Some(layer) = layer {
        let ids = config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")).and_then(Value::as_array_mut);
        ids.expect("the base's configuration was parsed").push(json!(layer));
    }
    let mut entry = json!({ "created": created, "created_by": request.created_by });
    for (key, value) in [("author", &request.author), ("comment", &request.comment)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            entry[key] = json!(value);
        }
    }
    if layer.is_none() {
        entry["empty_layer"] = json!(true);
    }
    match config.get_mut("history").and_then(Value::as_array_mut) {
        Some(history) => history.push(entry),
        None => drop(config.insert("history".into(), json!([entry]))),
    }
    Value::Object(config)
}

/// The keys that OCI knows are the request's alone; those that only Docker knows stay the base's.
fn merge_config(base: Option<&Value>, request: &ImageConfig) -> Value {
    const OCI: [&str; 9] =
        ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"];
    let mut merged = base.and_then(Value::as_object).cloned().unwrap_or_default();
    merged.retain(|key, _| !OCI.contains(&key.as_str()));
    let request = serde_json::to_value(request).expect("a configuration serializes");
    if let Value::Object(request) = request {
        merged.extend(request.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Value::Object(merged)
}
