//! How bundles lie beside an image in a registry (cosign's specs/BUNDLE_SPEC.md): each is the one layer of an artifact that
//! refers to the image.

use dozen_model::Digest;
use serde::Deserialize;

use crate::MANIFEST_TYPE;
use crate::bundle::{BUNDLE_BYTES, BUNDLE_TYPE, PREDICATE_TYPE};

/// Of one image's bundles that are looked at; whoever may attach more may take away all.
pub const MOST_BUNDLES: usize = 32;
/// Of the manifest that names one. cosign's have some 800.
pub const BUNDLE_MANIFEST_BYTES: u64 = 64 * 1024;

/// The annotation by which a list may say what is in a bundle (BUNDLE_SPEC.md, "Annotations").
pub const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";

/// What go-containerregistry says in a list under a tag, of whatever type the artifact is: the type of its configuration
/// (cosign#4641).
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// Whether what a list says of something leaves it open that it is a signature. The list is no proof of anything: what is
/// left out was not looked at.
pub fn may_be_signature(artifact_type: &str, predicate_type: Option<&str>) -> bool {
    matches!(artifact_type, BUNDLE_TYPE | EMPTY_TYPE | "") && predicate_type.is_none_or(|it| it == PREDICATE_TYPE)
}

/// Where a bundle is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct BundleBlob {
    pub digest: Digest,
    pub size_bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: String,
    artifact_type: Option<String>,
    layers: Vec<Layer>,
    subject: Option<Subject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

/// The bundle that a manifest brings to an image.
///
/// # Errors
/// It brings none to this image, in words.
pub fn bundle_of(manifest: &[u8], image: &Digest) -> Result<BundleBlob, String> {
    if manifest.len() as u64 > BUNDLE_MANIFEST_BYTES {
        return Err(format!("what refers to it has a manifest of more than {BUNDLE_MANIFEST_BYTES} bytes"));
    }
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| format!("what refers to it is malformed: {error}"))?;
    if manifest.media_type != MANIFEST_TYPE || manifest.artifact_type.as_deref() != Some(BUNDLE_TYPE) {
        return Err("what refers to it is no bundle".to_owned());
    }
    if manifest.subject.is_none_or(|subject| subject.digest != *image) {
        return Err("a bundle in its list refers to another image".to_owned());
    }
    match <[Layer; 1]>::try_from(manifest.layers) {
        Ok([Layer { media_type, digest, size }]) if media_type == BUNDLE_TYPE && size <= BUNDLE_BYTES => {
            Ok(BundleBlob { digest, size_bytes: size })
        }
        Ok([Layer { size, .. }]) if size > BUNDLE_BYTES => Err(format!("a bundle has more than {BUNDLE_BYTES} bytes")),
        _ => Err("a bundle's manifest has one layer, which is the bundle, and this has not".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    /// As cosign 3 has it.
    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": BUNDLE_TYPE,
            "config": { "mediaType": EMPTY_TYPE, "digest": digest('e'), "size": 2 },
            "layers": [{ "mediaType": BUNDLE_TYPE, "digest": digest('b'), "size": 4971 }],
            "annotations": { "dev.sigstore.bundle.content": "dsse-envelope", PREDICATE_ANNOTATION: PREDICATE_TYPE },
            "subject": { "mediaType": MANIFEST_TYPE, "digest": digest('a'), "size": 7 },
        })
    }

    #[test]
    fn a_manifest_names_its_bundle() {
        let read = |manifest: &Value| bundle_of(manifest.to_string().as_bytes(), &digest('a'));
        assert_eq!(read(&manifest()), Ok(BundleBlob { digest: digest('b'), size_bytes: 4971 }));
        for (pointer, value, words) in [
            ("/mediaType", json!("application/vnd.oci.image.index.v1+json"), "no bundle"),
            ("/artifactType", json!("application/vnd.dev.sigstore.bundle+json;version=0.2"), "no bundle"),
            ("/artifactType", Value::Null, "no bundle"),
            ("/subject", Value::Null, "another image"),
            ("/subject/digest", json!(digest('c')), "another image"),
            ("/layers", json!([]), "has one layer"),
            ("/layers/0/mediaType", json!("application/json"), "has one layer"),
            ("/layers/0/size", json!(BUNDLE_BYTES + 1), "more than 262144 bytes"),
            ("/layers/0/size", json!(-1), "malformed"),
            ("/layers/0/digest", json!("sha256:b"), "malformed"),
        ] {
            let mut wrong = manifest();
            *wrong.pointer_mut(pointer).unwrap() = value;
            let why = read(&wrong).unwrap_err();
            assert!(why.contains(words), "{pointer}: {why}");
        }
        let mut twice = manifest();
        let layer = twice["layers"][0].clone();
        twice["layers"].as_array_mut().unwrap().push(layer);
        assert!(read(&twice).unwrap_err().contains("has one layer"));
        let mut large = manifest();
        large["more"] = json!("x".repeat(64 * 1024));
        assert!(read(&large).unwrap_err().contains("more than 65536 bytes"));
    }

    #[test]
    fn a_list_says_what_need_not_be_looked_at() {
        for (kind, predicate, may_be) in [
            (BUNDLE_TYPE, Some(PREDICATE_TYPE), true),
            (BUNDLE_TYPE, None, true),
            (BUNDLE_TYPE, Some("https://slsa.dev/provenance/v1"), false),
            (EMPTY_TYPE, None, true),
            ("", None, true),
            ("application/spdx+json", None, false),
            ("application/vnd.dev.sigstore.bundle.v0.3+json;x=1", None, false),
        ] {
            assert_eq!(may_be_signature(kind, predicate), may_be, "{kind} {predicate:?}");
        }
    }
}
