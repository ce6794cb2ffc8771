//! A build cache that travels, as it is written: an artifact of our own (OCI image-spec, manifest.md, "Guidelines for
//! Artifact Usage"), in a directory or in a registry, so that tools for images can carry it.
//!
//! ```text
//! manifest (artifactType application/vnd.dozen.build-cache.v1)
//!   ├── config: { "steps": [ { "key", "layer", "created", "description" } ],
//!   │             "rootfs": { "type": "layers", "diff_ids": [ … ] } }
//!   └── layers: blobs, plain or compressed, in the order of the diff ids
//! ```
//!
//! A step's key is a digest of all that its result depends on; its layer is one of the diff ids, or null if it changes
//! nothing. Keys of another form of dozen's are others, and never found.
//!
//! An image may have the same inside: the steps stand in its configuration, beside its own `rootfs`.

use std::collections::BTreeMap;

use dozen_model::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The manifest's `artifactType`.
pub const ARTIFACT: &str = "application/vnd.dozen.build-cache.v1";
/// The media type of its configuration.
pub const CONFIG: &str = "application/vnd.dozen.build-cache.config.v1+json";
/// The member of an image's configuration that has the steps, which nobody else has.
pub const INLINE: &str = "dozen.build-cache.v1";
/// Its own media type.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Configurations of images (OCI image-spec, media-types.md; distribution, manifest-v2-2.md).
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// More than a build has.
const STEPS_LIMIT: usize = 10_000;

/// A step that has been done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is known by.
    #[serde(alias = "Key")]
    pub key: Digest,
    /// The diff id of what it made; `None`: it changed nothing.
    #[serde(alias = "Layer")]
    pub layer: Option<Digest>,
    /// When it was done.
    #[serde(alias = "Created")]
    pub created: Timestamp,
    /// For people.
    #[serde(alias = "Description", default)]
    pub description: String,
    /// As an engine tells it: part of the image, and not only of what that is made from.
    #[serde(alias = "IsOfImage", default, skip_serializing)]
    pub is_of_image: bool,
}

/// A reference to a blob (OCI image-spec, descriptor.md); what else it says is kept out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "plain")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// What a cache says.
#[derive(Debug)]
pub struct Cache {
    #[expect(missing_docs, reason = "plain")]
    pub steps: Vec<Step>,
    /// The blobs of layers, by their diff ids.
    pub layers: BTreeMap<Digest, Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Config {
    steps: Vec<Step>,
    rootfs: Rootfs,
}

/// What of an image's configuration is looked at.
#[derive(Debug, Deserialize)]
struct ImageConfig {
    rootfs: Rootfs,
    #[serde(rename = "dozen.build-cache.v1", default)]
    steps: Option<Vec<Step>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rootfs {
    r#type: String,
    diff_ids: Vec<Digest>,
}

/// A cache's manifest, or that of an image with a cache inside.
#[derive(Debug)]
pub struct Manifest {
    #[expect(missing_docs, reason = "plain")]
    pub config: Descriptor,
    layers: Vec<Descriptor>,
    is_image: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    artifact_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl Manifest {
    /// # Errors
    /// It is no JSON, or of something else; in words.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| format!("its manifest: {error}"))?;
        let is_of_image = |config: &Descriptor| IMAGE_CONFIGS.contains(&config.media_type.as_str());
        match (written.artifact_type.as_str(), written.config) {
            (ARTIFACT, Some(config)) => Ok(Self { config, layers: written.layers, is_image: false }),
            ("", Some(config)) if is_of_image(&config) => Ok(Self { config, layers: written.layers, is_image: true }),
            _ => Err("it is no build cache of dozen's; those of BuildKit are not read".to_owned()),
        }
    }

    /// With its configuration, whose digest has been compared. A step with a layer that is not among its layers is left out.
    ///
    /// # Errors
    /// It is no JSON, or of another manifest; in words.
    pub fn cache(self, config: &[u8]) -> Result<Cache, String> {
        let malformed = |error| format!("its configuration: {error}");
        let Config { mut steps, rootfs } = match self.is_image {
            false => serde_json::from_slice(config).map_err(malformed)?,
            true => {
                let ImageConfig { rootfs, steps } = serde_json::from_slice(config).map_err(malformed)?;
                let none = "it is an image with none inside; one is built with --cache-to type=inline";
                Config { steps: steps.ok_or(none)?, rootfs }
            }
        };
        if rootfs.diff_ids.len() != self.layers.len() {
            return Err(format!("it has {} layers, and names {}", self.layers.len(), rootfs.diff_ids.len()));
        }
        let layers: BTreeMap<_, _> = rootfs.diff_ids.into_iter().zip(self.layers).collect();
        steps.truncate(STEPS_LIMIT);
        steps.retain(|step| step.layer.as_ref().is_none_or(|layer| layers.contains_key(layer)));
        Ok(Cache { steps, layers })
    }
}

/// The configuration's text.
pub fn config(steps: &[Step], diff_ids: &[Digest]) -> Vec<u8> {
    let rootfs = Rootfs { r#type: "layers".to_owned(), diff_ids: diff_ids.to_vec() };
    text(&json!(Config { steps: steps.to_vec(), rootfs }))
}

/// The manifest's, once the blobs are known.
pub fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    text(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT, "config": config, "layers": layers,
    }))
}

fn text(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers are JSON")
}

#[cfg(test)]
mod tests {
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

    fn descriptor(byte: u8) -> Descriptor {
        Descriptor { media_type: CONFIG.into(), digest: digest(byte), size: 7 }
    }

    #[test]
    fn what_is_written_is_read_again_and_what_it_has_not_got_is_left_out() {
        let steps = [step(1, Some(7)), step(2, None)];
        let all = [steps.as_slice(), &[step(3, Some(9))]].concat();
        let config = config(&all, &[digest(7)]);
        let read = |layers: &[Descriptor]| Manifest::read(&manifest(&descriptor(4), layers)).unwrap();
        assert_eq!(read(&[]).config, descriptor(4));
        let cache = read(&[descriptor(5)]).cache(&config).unwrap();
        assert_eq!((cache.steps, cache.layers), (steps.to_vec(), BTreeMap::from([(digest(7), descriptor(5))])));
        for (layers, config, words) in [
            (&[][..], config.as_slice(), "it has 0 layers, and names 1"),
            (&[descriptor(5)], b"{}", "its configuration: missing field"),
            (&[descriptor(5)], b"[", "its configuration: EOF"),
        ] {
            let said = read(layers).cache(config).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        for (bytes, words) in [
            (&b"{}"[..], "it is no build cache of dozen's"),
            (br#"{"config":{"mediaType":"x","digest":"y","size":1}}"#, "its manifest: invalid digest"),
            (br#"{"artifactType":"application/vnd.dozen.build-cache.v1"}"#, "it is no build cache of dozen's"),
            (b"<html>", "its manifest: expected value"),
        ] {
            let said = Manifest::read(bytes).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn an_image_has_one_inside_or_none() {
        let config = |more: Value| {
            let mut config = json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": [digest(7)] } });
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            text(&config)
        };
        for media_type in IMAGE_CONFIGS {
            let of = Descriptor { media_type: media_type.into(), ..descriptor(4) };
            let manifest = text(&json!({ "config": of, "layers": [descriptor(5)] }));
            let read = || Manifest::read(&manifest).unwrap();
            let inside = config(json!({ INLINE: [step(1, Some(7)), step(2, None), step(3, Some(9))] }));
            let cache = read().cache(&inside).unwrap();
            assert_eq!(cache.steps, [step(1, Some(7)), step(2, None)]);
            assert_eq!(cache.layers, BTreeMap::from([(digest(7), descriptor(5))]));
            let said = read().cache(&config(json!({}))).unwrap_err();
            assert!(said.contains("an image with none inside"), "{said}");
            let said = read().cache(&config(json!({ INLINE: [{ "key": 1 }] }))).unwrap_err();
            assert!(said.starts_with("its configuration: "), "{said}");
        }
        // Some other artifact, whatever its configuration is.
        let of = Descriptor { media_type: IMAGE_CONFIGS[0].into(), ..descriptor(4) };
        assert!(Manifest::read(&text(&json!({ "artifactType": "a/b", "config": of }))).is_err());
    }
}
