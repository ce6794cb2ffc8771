//! What a manifest says, as far as a registry has to know it: what it names, what it is about, what is told of it in a list
//! of referrers (image-spec 1.1, manifest.md and image-index.md; Docker's image manifest 2, schema 2).

use std::collections::{BTreeMap, BTreeSet};

use dozen_model::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::refusal::{Kind, Refusal};

/// Larger ones nobody has to take (distribution-spec 1.1, "Pushing Manifests").
pub const LARGEST_BYTES: usize = 4 << 20;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The type of an index, and so of a list of referrers.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA_ONE: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedBlob {
    /// Which.
    pub digest: Digest,
    /// So long it has to be.
    pub size_bytes: u64,
    /// It may be elsewhere: a layer with addresses, or that may not be given away.
    pub may_be_missing: bool,
}

/// A manifest whose form is right. Whether what it names is there is the index's to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Of its bytes.
    pub media_type: String,
    /// Configuration and layers, each once.
    pub blobs: Vec<NamedBlob>,
    /// The manifests of an index, each once.
    pub manifests: Vec<Digest>,
    /// What it is about.
    pub subject: Option<Digest>,
    /// As lists of referrers tell it (distribution-spec 1.1, "Listing Referrers").
    pub artifact_type: Option<String>,
    /// The same.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
    fs_layers: Option<IgnoredAny>,
    blobs: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    urls: Option<Vec<String>>,
}

impl Descriptor {
    fn blob(self) -> NamedBlob {
        let media_type = self.media_type.unwrap_or_default();
        let is_foreign = media_type.contains(".nondistributable.") || media_type.contains(".rootfs.foreign.");
        let may_be_missing = is_foreign || self.urls.is_some_and(|urls| !urls.is_empty());
        NamedBlob { digest: self.digest, size_bytes: self.size, may_be_missing }
    }
}

/// `content_type` is what the request says, if it does; parameters do not count.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, Refusal> {
    let invalid = |words: String| Refusal::new(Kind::ManifestInvalid, words);
    let said = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if said.as_deref().is_some_and(|said| SCHEMA_ONE.contains(&said)) {
        return Err(schema_one());
    }
    let wire: Wire = serde_json::from_slice(bytes).map_err(|error| invalid(format!("it is no manifest: {error}")))?;
    if wire.schema_version == Some(1) || wire.fs_layers.is_some() {
        return Err(schema_one());
    }
    if wire.schema_version != Some(2) {
        return Err(invalid("schemaVersion has to be 2".to_owned()));
    }
    let media_type = match (&wire.media_type, said) {
        (Some(own), Some(said)) if own.to_ascii_lowercase() != said && is_known(&said) => {
            return Err(invalid(format!("its mediaType is {own:?}, Content-Type says {said:?}")));
        }
        (Some(own), _) => own.clone(),
        (None, Some(said)) if is_known(&said) => said,
        // Of those, OCI's alone may say nothing of themselves.
        (None, _) if wire.manifests.is_some() => OCI_INDEX.to_owned(),
        (None, _) => OCI_MANIFEST.to_owned(),
    };
    // One that reads as either would be another one to each reader (image-spec's advisory GHSA-77vh-xpmg-72qh).
    let (blobs, manifests, own_type) = match media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST => {
            if wire.manifests.is_some() || wire.blobs.is_some() {
                return Err(invalid("an image's manifest has neither manifests nor blobs".to_owned()));
            }
            let config = wire.config.ok_or_else(|| invalid("config is missing".to_owned()))?;
            let layers = wire.layers.ok_or_else(|| invalid("layers is missing".to_owned()))?;
            let config_type = config.media_type.clone();
            let blobs: BTreeSet<_> = [config].into_iter().chain(layers).map(Descriptor::blob).collect();
            (blobs.into_iter().collect(), Vec::new(), config_type)
        }
        OCI_INDEX | DOCKER_LIST => {
            if wire.config.is_some() || wire.layers.is_some() || wire.blobs.is_some() {
                return Err(invalid("an index has neither config nor layers".to_owned()));
            }
            let manifests = wire.manifests.ok_or_else(|| invalid("manifests is missing".to_owned()))?;
            let manifests: BTreeSet<_> = manifests.into_iter().map(|descriptor| descriptor.digest).collect();
            (Vec::new(), manifests.into_iter().collect(), None)
        }
        other => return Err(invalid(format!("manifests of the type {other:?} are not taken"))),
    };
    let artifact_type = wire.artifact_type.filter(|text| !text.is_empty()).or(own_type);
    let subject = wire.subject.map(|subject| subject.digest);
    let annotations = wire.annotations.unwrap_or_default();
    Ok(Manifest { media_type, blobs, manifests, subject, artifact_type, annotations })
}

fn is_known(media_type: &str) -> bool {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&media_type)
}

fn schema_one() -> Refusal {
    let words =
        "manifests of schema 1 are not taken: push with a client of Docker 1.10 (2016) or newer, or convert it first";
    Refusal::new(Kind::ManifestInvalid, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn digest(byte: &str) -> String {
        format!("sha256:{}", byte.repeat(32))
    }

    fn read(value: &Value, content_type: Option<&str>) -> Result<Manifest, String> {
        parse(value.to_string().as_bytes(), content_type).map_err(|refusal| {
            assert_eq!(refusal.kind, Kind::ManifestInvalid);
            refusal.message
        })
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.example", "digest": digest("01"), "size": 1 },
            "layers": [
                { "mediaType": "l", "digest": digest("02"), "size": 2 },
                { "mediaType": "l", "digest": digest("02"), "size": 2 },
                { "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": digest("03"), "size": 3 },
                { "mediaType": "l", "digest": digest("04"), "size": 4, "urls": ["https://a.example/"] },
            ],
        })
    }

    #[test]
    fn an_images_manifest_names_its_blobs() {
        let manifest = read(&image(), Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).unwrap();
        let named: Vec<_> = manifest.blobs.iter().map(|blob| (blob.size_bytes, blob.may_be_missing)).collect();
        assert_eq!(named, [(1, false), (2, false), (3, true), (4, true)]);
        assert_eq!(manifest.media_type, OCI_MANIFEST);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.example"));
        assert_eq!((manifest.subject, manifest.manifests.len()), (None, 0));
    }

    #[test]
    fn an_artifact_says_what_it_is_and_what_it_is_about() {
        let mut artifact = image();
        artifact["artifactType"] = json!("application/vnd.signature");
        artifact["subject"] = json!({ "mediaType": "m", "digest": digest("09"), "size": 9 });
        artifact["annotations"] = json!({ "key": "value" });
        let manifest = read(&artifact, None).unwrap();
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.signature"));
        assert_eq!(manifest.subject.unwrap().as_str(), digest("09"));
        assert_eq!(manifest.annotations["key"], "value");
    }

    #[test]
    fn an_index_names_manifests() {
        let entry = json!({ "mediaType": OCI_MANIFEST, "digest": digest("05"), "size": 5 });
        for (own, said, expected) in [
            (Some(OCI_INDEX), None, OCI_INDEX),
            (None, None, OCI_INDEX),
            (None, Some(DOCKER_LIST), DOCKER_LIST),
            (Some(DOCKER_LIST), Some("application/json"), DOCKER_LIST),
        ] {
            let mut index = json!({ "schemaVersion": 2, "manifests": [entry, entry] });
            if let Some(own) = own {
                index["mediaType"] = json!(own);
            }
            let manifest = read(&index, said).unwrap();
            assert_eq!((manifest.media_type.as_str(), manifest.manifests.len()), (expected, 1));
            assert_eq!((manifest.blobs.len(), manifest.artifact_type), (0, None));
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_reason() {
        let with = |key: &str, value: Value| {
            let mut manifest = image();
            manifest[key] = value;
            manifest
        };
        let without = |key: &str| {
            let mut manifest = image();
            manifest.as_object_mut().unwrap().remove(key);
            manifest
        };
        for (value, content_type, words) in [
            (json!([]), None, "it is no manifest"),
            (json!({}), None, "schemaVersion has to be 2"),
            (with("schemaVersion", json!(1)), None, "schema 1"),
            (with("fsLayers", json!([])), None, "schema 1"),
            (image(), Some(SCHEMA_ONE[1]), "schema 1"),
            (image(), Some(DOCKER_MANIFEST), "Content-Type says"),
            (with("mediaType", json!("application/json")), None, "are not taken"),
            (with("manifests", json!([])), None, "neither manifests nor blobs"),
            (with("mediaType", json!(OCI_INDEX)), None, "neither config nor layers"),
            (without("config"), None, "config is missing"),
            (without("layers"), None, "layers is missing"),
            (with("config", json!({ "digest": "md5:1", "size": 1 })), None, "invalid digest"),
            (with("config", json!({ "digest": digest("01"), "size": -1 })), None, "it is no manifest"),
            (with("subject", json!({ "digest": "x", "size": 1 })), None, "invalid digest"),
            (json!({ "schemaVersion": 2, "mediaType": OCI_INDEX }), None, "manifests is missing"),
        ] {
            let refused = read(&value, content_type).unwrap_err();
            assert!(refused.contains(words), "{words}: {refused}");
        }
        // Whoever reads the first and whoever reads the last of two would see two manifests.
        let twice = image().to_string().replacen('{', "{\"layers\":[],", 1);
        assert!(parse(twice.as_bytes(), None).unwrap_err().message.contains("duplicate field"));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>, text in "\\{(\"[a-zA-Z]{1,10}\":[0-9\\[\\]{}\"]{0,8},?){0,6}\\}") {
            let _ = parse(&bytes, None);
            let _ = parse(text.as_bytes(), Some(OCI_INDEX));
        }
    }
}
