//! Images with notes about them, as builders make them: the image's manifest and one with the notes in an index, which is
//! kept, and saved, as if it had come so (BuildKit, docs/attestations/attestation-storage.md).

use std::collections::BTreeMap;

use dozen_model::{Digest, ImageId, Reference};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::ImageError;
use crate::install::{Carried, CarriedTarget, NewImage};
use crate::new_layer::check_new;
use crate::platform::Platform;
use crate::save::{CONFIG, INDEX, MANIFEST, bytes, layer_descriptor};
use crate::store::ImageStore;
use crate::target::Target;

const STATEMENT: &str = "application/vnd.in-toto+json";

/// A note about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// Which kind it is: an address.
    pub predicate_type: String,
    /// An in-toto statement, as it is kept.
    pub statement: Vec<u8>,
}

impl ImageStore {
    /// Makes an image of layers that are held, as [`ImageStore::add_image`] does, with notes about it. What they are about
    /// is known once it has a manifest: `attest` is told its digest.
    pub fn add_attested_image(
        &self,
        configuration: &Value,
        diff_ids: Vec<Digest>,
        references: Vec<Reference>,
        attest: impl FnOnce(&Digest) -> Vec<Attestation>,
    ) -> Result<ImageId, ImageError> {
        check_new(&diff_ids, &references)?;
        let inner = &self.0;
        let config = bytes(configuration);
        let id = ImageId::new(digest_of(&config));
        let layers = {
            let state = inner.read_state();
            let gone = |diff_id: &Digest| ImageError::NoSuchImage(diff_id.to_string());
            let described =
                |diff_id| state.layers.get(diff_id).map(|row| layer_descriptor(row)).ok_or_else(|| gone(diff_id));
            diff_ids.iter().map(described).collect::<Result<Vec<Value>, _>>()?
        };
        let mut made = Blobs::default();
        let of_config = json!({ "mediaType": CONFIG, "digest": id, "size": config.len() });
        let (manifest, mut of_manifest) = made.manifest(&of_config, &layers);
        of_manifest["platform"] = platform(configuration);
        let of_notes = made.notes(&attest(&manifest), &manifest);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [of_manifest, of_notes] });
        let (digest, descriptor) = made.add(INDEX, bytes(&index));

        let scratch = inner.scratch()?;
        let mut files = BTreeMap::new();
        for (number, (digest, bytes)) in made.0.into_iter().enumerate() {
            let path = scratch.0.join(format!("a{number}"));
            std::fs::write(&path, &bytes).map_err(ImageError::io("write", path.display()))?;
            files.insert(digest, (path, bytes.len() as u64));
        }
        let of_image = std::iter::once(id.digest()).chain(&diff_ids);
        let target = Target {
            digest,
            descriptor,
            manifest,
            image: id.clone(),
            blobs: files.keys().chain(of_image).cloned().collect(),
            referrers: Vec::new(),
        };
        let target = CarriedTarget { target, names: references.clone(), borrowed: Vec::new() };
        let carried = Carried { targets: vec![target], files, pins: Vec::new() };
        let image = NewImage { id: id.clone(), config, diff_ids, parent: None, references };
        inner.install_with(&scratch, Vec::new(), &[image], &carried)?;
        Ok(id)
    }
}

/// Documents by their digests.
#[derive(Default)]
struct Blobs(BTreeMap<Digest, Vec<u8>>);

impl Blobs {
    /// Its digest and its descriptor.
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> (Digest, Value) {
        let digest = digest_of(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.0.insert(digest.clone(), bytes);
        (digest, descriptor)
    }

    fn manifest(&mut self, config: &Value, layers: &[Value]) -> (Digest, Value) {
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        self.add(MANIFEST, bytes(&manifest))
    }

    /// An image that nobody runs, whose layers are the statements.
    fn notes(&mut self, notes: &[Attestation], about: &Digest) -> Value {
        let mut layers = Vec::new();
        for Attestation { predicate_type, statement } in notes {
            let (_, mut layer) = self.add(STATEMENT, statement.clone());
            layer["annotations"] = json!({ "in-toto.io/predicate-type": predicate_type });
            layers.push(layer);
        }
        let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = bytes(&json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": digests },
        }));
        let (_, config) = self.add(CONFIG, config);
        let (_, mut manifest) = self.manifest(&config, &layers);
        manifest["annotations"] = json!({
            "vnd.docker.reference.digest": about,
            "vnd.docker.reference.type": "attestation-manifest",
        });
        manifest["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
        manifest
    }
}

fn platform(configuration: &Value) -> Value {
    let Platform { os, architecture, variant } = Platform::of_config(configuration);
    let mut platform = json!({ "architecture": architecture, "os": os });
    if let Some(variant) = variant {
        platform["variant"] = json!(variant);
    }
    platform
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
