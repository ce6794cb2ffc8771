//! A cache inside an image: its configuration says which steps have made its layers (`--cache-to type=inline`).

use std::collections::HashMap;
use std::sync::Arc;

use dozen_build::carried::INLINE;
use dozen_image::HeldLayers;
use dozen_model::{Classified, Digest, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::imported::CacheStep;
use super::stored::StoredLayer;
use crate::EngineError;
use crate::shared::Shared;

/// More steps than a build has.
const STEPS_LIMIT: usize = 10_000;

/// A step, as it stands there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    key: Digest,
    /// Its diff id.
    layer: Option<Digest>,
    created: jiff::Timestamp,
    description: String,
}

/// Puts the steps of an image into its configuration.
pub(super) fn write<'a>(configuration: &mut Value, steps: impl Iterator<Item = &'a CacheStep>) {
    let written = |step: &CacheStep| {
        let CacheStep { key, layer, created, description, is_of_image: _ } = step.clone();
        json!(Written { key, layer, created, description })
    };
    configuration[INLINE] = steps.map(written).collect();
}

/// What images, and caches in registries, say of steps.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) steps: Vec<CacheStep>,
    /// The images' layers.
    pub(super) held: Vec<HeldLayers>,
    /// Layers that lie in registries.
    pub(super) stored: HashMap<Digest, StoredLayer>,
    pub(super) warnings: Vec<String>,
}

/// Looks into images. Blocks.
pub(super) fn read(shared: &Arc<Shared>, images: &[String]) -> Result<Inside, EngineError> {
    let Inside { mut steps, mut held, mut warnings, stored } = Inside::default();
    for name in images {
        let mut warn = |why: &str| warnings.push(format!("no cache is imported from {name}: {why}"));
        let image = match shared.images.find(name) {
            Ok(image) => image,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
                warn("there is no such image here; bring it first (dozen pull)");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(written) = image.raw.get(INLINE) else {
            warn("it has none inside; it is built with --cache-to type=inline");
            continue;
        };
        let Some(layers) = shared.images.hold_layers(&image.diff_ids) else { continue };
        let found = steps_of(written, &image.diff_ids);
        if found.is_empty() {
            warn("what it says of its cache cannot be read");
        }
        steps.extend(found);
        held.push(layers);
    }
    Ok(Inside { steps, held, stored, warnings })
}

/// An image speaks of its own layers alone.
fn steps_of(written: &Value, diff_ids: &[Digest]) -> Vec<CacheStep> {
    let listed = written.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = listed.iter().take(STEPS_LIMIT).filter_map(|it| Written::deserialize(it).ok());
    let is_own = |it: &Written| it.layer.as_ref().is_none_or(|layer| diff_ids.contains(layer));
    let step = |Written { key, layer, created, description }| CacheStep {
        key,
        layer,
        created,
        description,
        is_of_image: true,
    };
    read.filter(is_own).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_speaks_of_its_own_layers_alone() {
        let digest = |byte| Digest::from_sha256([byte; 32]);
        let step = |key, layer: Option<u8>| CacheStep {
            key: digest(key),
            layer: layer.map(digest),
            created: "2023-11-14T22:13:20Z".parse().unwrap(),
            description: "RUN x".to_owned(),
            is_of_image: true,
        };
        let mut configuration = json!({ "os": "linux" });
        write(&mut configuration, [step(1, Some(7)), step(2, None), step(3, Some(8))].iter());
        let member = &configuration[INLINE];
        assert_eq!(steps_of(member, &[digest(7)]), [step(1, Some(7)), step(2, None)]);
        for hostile in [json!(null), json!({ "key": 1 }), json!([1, { "key": "x" }, { "key": digest(1), "layer": 3 }])]
        {
            assert_eq!(steps_of(&hostile, &[digest(7)]), []);
        }
    }
}
