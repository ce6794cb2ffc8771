//! A build cache in a directory: an OCI layout with an artifact of our own (OCI image-spec, manifest.md, "Guidelines for
//! Artifact Usage"), so that tools for images can carry it.
//!
//! ```text
//! index.json → manifest (artifactType application/vnd.dozen.build-cache.v1)
//!                ├── config: { "steps": [ { "key", "layer", "created", "description" } ],
//!                │             "rootfs": { "type": "layers", "diff_ids": [ … ] } }
//!                └── layers: blobs, plain or compressed, in the order of the diff ids
//! ```
//!
//! A step's key is a digest of all that its result depends on; its layer is one of the diff ids, or null if it changes
//! nothing. Keys of another form of dozen's are others, and never found.

use std::collections::BTreeMap;

use dozen_model::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::layout::{Choice, Descriptor, Layout};

pub(super) const ARTIFACT: &str = "application/vnd.dozen.build-cache.v1";
pub(super) const CONFIG: &str = "application/vnd.dozen.build-cache.config.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// More than a build has.
const STEPS_LIMIT: usize = 10_000;

/// A step that has been done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Step {
    #[serde(alias = "Key")]
    pub key: Digest,
    #[serde(alias = "Layer")]
    pub layer: Option<Digest>,
    #[serde(alias = "Created")]
    pub created: Timestamp,
    #[serde(alias = "Description", default)]
    pub description: String,
    /// As the engine tells it: part of the image, and not only of what that is made from.
    #[serde(alias = "IsOfImage", default, skip_serializing)]
    pub is_of_image: bool,
}

impl Step {
    /// As the engine is told it.
    pub(super) fn described(&self) -> Value {
        let Self { key, layer, created, description, is_of_image: _ } = self;
        json!({ "Key": key, "Layer": layer, "Created": created, "Description": description })
    }
}

/// A cache as it lies there.
#[derive(Debug)]
pub(super) struct Cache {
    pub steps: Vec<Step>,
    /// The blobs of layers, by their diff ids.
    pub layers: BTreeMap<Digest, Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Config {
    steps: Vec<Step>,
    rootfs: Rootfs,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rootfs {
    r#type: String,
    diff_ids: Vec<Digest>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    artifact_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl Cache {
    /// Reads what a directory says. No layer is looked at.
    pub(super) fn read(layout: &Layout, choice: &Choice) -> Result<Self, String> {
        let descriptor = layout.find(choice)?;
        let unreadable = |error: serde_json::Error| format!("{}: {error}", layout.blob(&descriptor.digest).display());
        let manifest: Manifest = serde_json::from_slice(&layout.document(&descriptor)?).map_err(unreadable)?;
        let (ARTIFACT, Some(config)) = (manifest.artifact_type.as_str(), &manifest.config) else {
            return Err("it is no build cache of dozen's; those of BuildKit are not read".to_owned());
        };
        let unreadable = |error: serde_json::Error| format!("{}: {error}", layout.blob(&config.digest).display());
        let Config { mut steps, rootfs } = serde_json::from_slice(&layout.document(config)?).map_err(unreadable)?;
        if rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(format!("it has {} layers, and names {}", manifest.layers.len(), rootfs.diff_ids.len()));
        }
        let layers: BTreeMap<_, _> = rootfs.diff_ids.into_iter().zip(manifest.layers).collect();
        steps.truncate(STEPS_LIMIT);
        steps.retain(|step| step.layer.as_ref().is_none_or(|layer| layers.contains_key(layer)));
        Ok(Self { steps, layers })
    }
}

/// The configuration's text, and the manifest's once the blobs are known.
pub(super) fn config(steps: &[Step], diff_ids: &[Digest]) -> Vec<u8> {
    let rootfs = Rootfs { r#type: "layers".to_owned(), diff_ids: diff_ids.to_vec() };
    text(&json!(Config { steps: steps.to_vec(), rootfs }))
}

pub(super) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    text(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT, "config": config, "layers": layers,
    }))
}

fn text(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::tests::put;
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256([byte; 32])
    }

    fn step(key: u8, layer: Option<u8>) -> Step {
        Step {
            key: digest(key),
            layer: layer.map(digest),
            created: "2023-11-14T22:13:20Z".parse().unwrap(),
            description: "RUN make".into(),
            is_of_image: false,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let steps = [step(1, Some(7)), step(2, None)];
        let (blob, stray) = (put(at, "tar", b"layer"), step(3, Some(9)));
        let all = [steps.as_slice(), &[stray]].concat();
        let config = put(at, CONFIG, &config(&all, &[digest(7)]));
        let written = put(at, MANIFEST, &manifest(&config, std::slice::from_ref(&blob)));
        let index = |descriptor: &Descriptor| {
            std::fs::write(at.join("index.json"), json!({ "manifests": [descriptor] }).to_string()).unwrap();
        };
        index(&written);
        let (layout, latest) = (Layout::new(at), Choice::Name("latest".into()));
        let read = Cache::read(&layout, &latest).unwrap();
        // One that says what is not there is not believed.
        assert_eq!((read.steps, read.layers), (steps.to_vec(), BTreeMap::from([(digest(7), blob)])));
        let refused = |document: &[u8], words: &str| {
            index(&put(at, MANIFEST, document));
            let said = Cache::read(&layout, &latest).unwrap_err();
            assert!(said.contains(words), "{said}\nnot\n{words}");
        };
        refused(&manifest(&config, &[]), "it has 0 layers, and names 1");
        refused(b"{}", "it is no build cache of dozen's");
        refused(b"[", "EOF");
        let large = Descriptor { size: 100 << 20, ..config.clone() };
        refused(&manifest(&large, &[]), "larger than 4 MiB");
        let other = Descriptor { digest: digest(1), ..config };
        refused(&manifest(&other, &[]), "no such file");
    }

    #[test]
    fn the_engines_words_are_read() {
        let said = json!({
            "Key": digest(1), "Layer": null, "Created": "2023-11-14T22:13:20Z", "Description": "RUN make", "IsOfImage": true,
        });
        let read = Step::deserialize(&said).unwrap();
        assert_eq!(read, Step { is_of_image: true, ..step(1, None) });
        let described = read.described();
        assert_eq!((&described["Key"], described.get("IsOfImage")), (&said["Key"], None));
    }
}
