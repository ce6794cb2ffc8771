//! An image's document: the configuration with the layers and the history (OCI image-spec, config.md). The same plan
//! with the same layers and times gives the same bytes.

use dozen_model::Digest;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::StagePlan;

/// What BuildKit writes beside each entry of the history.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// And beside entries for layers that nobody has said anything of.
const COMMENT_OF_UNKNOWN: &str = "buildkit.exporter.image.v0";

/// What became of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Its layer's plain tar stream; `None`: it has added none.
    pub layer: Option<Digest>,
    /// When the layer was made: one from the cache has its first time, so that a build of nothing new gives the same
    /// image. Steps without a layer need none.
    pub created: Option<Timestamp>,
}

/// The configuration of a stage's image.
///
/// `base` is that of the image the stage begins from, or what this function gave for the stage it begins from; `None`:
/// nothing. `done` has one for each step of the plan. `created` is the time of everything that the stage has done
/// (SOURCE_DATE_EPOCH); without it steps that add no layer have the time of the first new one, and the image that of the
/// last entry.
pub fn image_configuration(base: Option<&Value>, plan: &StagePlan, done: &[Done], created: Option<Timestamp>) -> Value {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut layers = list(base.and_then(|base| base.pointer("/rootfs/diff_ids")));
    let mut history = list(base.and_then(|base| base.get("history")));
    settle(&mut history, layers.len());
    for (index, step) in plan.steps.iter().enumerate() {
        let Done { layer, created: of_layer } = done.get(index).cloned().unwrap_or_default();
        if let Some(said) = &step.created_by {
            let mut entry = json!({ "created_by": said, "comment": COMMENT });
            if let Some(time) = created.or(of_layer) {
                entry["created"] = json!(time);
            }
            if layer.is_none() {
                entry["empty_layer"] = json!(true);
            }
            history.push(entry);
        }
        layers.extend(layer.map(|layer| json!(layer)));
    }
    fill_times(&mut history);
    let last = history.iter().rev().find_map(|entry| entry.get("created").cloned());

    let mut document: Map<String, Value> = plan.configuration.platform().clone();
    if let Some(created) = created.map(|created| json!(created)).or(last) {
        document.insert("created".to_owned(), created);
    }
    if !plan.configuration.author.is_empty() {
        document.insert("author".to_owned(), json!(plan.configuration.author));
    }
    document.insert("config".to_owned(), plan.configuration.to_value());
    document.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": layers }));
    document.insert("history".to_owned(), Value::Array(history));
    Value::Object(document)
}

/// Entries and layers belong together by their order, so a base whose history says too little or too much would have all
/// that follows at the wrong layers. What is too much counts from the bottom.
fn settle(history: &mut Vec<Value>, layers: usize) {
    let is_layer = |entry: &Value| entry.get("empty_layer") != Some(&json!(true));
    let said = history.iter().filter(|entry| is_layer(entry)).count();
    for entry in history.iter_mut().filter(|entry| is_layer(entry)).take(said.saturating_sub(layers)) {
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("empty_layer".to_owned(), json!(true));
        }
    }
    history.extend((said..layers).map(|_| json!({ "comment": COMMENT_OF_UNKNOWN })));
}

/// An entry without a time has that of the layer before it, or, before the first new layer, that one's.
fn fill_times(history: &mut [Value]) {
    let time = |entry: &Value| entry.get("created").filter(|time| time.is_string()).cloned();
    let first_missing = history.iter().position(|entry| time(entry).is_none());
    let Some(first_missing) = first_missing else { return };
    let (before, after) = history.split_at(first_missing);
    let mut last = after.iter().find_map(time).or_else(|| before.iter().rev().find_map(time));
    for entry in &mut history[first_missing..] {
        match (time(entry), &last) {
            (Some(time), _) => last = Some(time),
            (None, Some(last)) => entry["created"] = last.clone(),
            (None, None) => {}
        }
    }
}
