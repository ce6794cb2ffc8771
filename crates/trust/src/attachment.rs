//! How signatures lie beside an image in a registry (cosign's specs/SIGNATURE_SPEC.md, "Storage"): a manifest by a tag that is
//! made of the image's digest, whose layers are payloads, each with its signature in an annotation.

use dozen_model::json::memory_of;
use dozen_model::{Digest, base64};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::PublicKey;
use crate::payload::Statement;

/// The manifest's own.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Of signatures of one image that are looked at; whoever may attach more may take away all.
const MOST_SIGNATURES: usize = 32;
/// Of one payload. Those of others have some 300.
pub const PAYLOAD_BYTES: u64 = 64 * 1024;

/// Of a manifest: thirty-two of the largest that cosign makes, with certificates that nobody here reads.
const MANIFEST_BYTES: usize = 1024 * 1024;
/// The same in memory, read.
const MEMORY_BYTES: usize = 8 * 1024 * 1024;

/// The tag at which an image's signatures are. Of SHA-512 there is none: a tag has 128 letters at the most.
pub fn signature_tag(image: &Digest) -> Option<String> {
    Some(format!("{}-{}.sig", image.algorithm(), image.hex())).filter(|tag| dozen_model::is_tag(tag))
}

/// What a manifest lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A signature of a payload that is a blob.
    #[expect(missing_docs, reason = "plain")]
    Signature { payload: Digest, size_bytes: u64, signature: Vec<u8> },
    /// Something that is none, with the reason.
    Unusable(String),
}

/// The signatures of a manifest, as far as they are looked at.
///
/// # Errors
/// It is none, in words.
pub fn listed(manifest: &[u8]) -> Result<Vec<Listed>, String> {
    let layers = layers(manifest)?;
    Ok(layers.iter().filter(|layer| is_payload(layer)).take(MOST_SIGNATURES).map(one).collect())
}

fn layers(manifest: &[u8]) -> Result<Vec<Value>, String> {
    if manifest.len() > MANIFEST_BYTES {
        return Err(format!("what is attached has more than {MANIFEST_BYTES} bytes"));
    }
    if memory_of(manifest) > MEMORY_BYTES {
        return Err(format!("what is attached would take more than {MEMORY_BYTES} bytes of memory"));
    }
    let mut manifest: Value =
        serde_json::from_slice(manifest).map_err(|error| format!("what is attached is malformed: {error}"))?;
    match manifest.get_mut("layers").map(Value::take) {
        Some(Value::Array(layers)) => Ok(layers),
        _ => Err("what is attached has no layers".to_owned()),
    }
}

fn is_payload(layer: &Value) -> bool {
    layer["mediaType"] == PAYLOAD_TYPE
}

fn one(layer: &Value) -> Listed {
    let payload = layer["digest"].as_str().and_then(|digest| digest.parse().ok());
    let signature = layer["annotations"][SIGNATURE].as_str().and_then(base64::decode);
    match (payload, layer["size"].as_u64(), signature) {
        (Some(payload), Some(size_bytes), Some(signature)) => Listed::Signature { payload, size_bytes, signature },
        _ => Listed::Unusable("it is a payload without a signature".to_owned()),
    }
}

/// What is to be put beside an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The image that it is of.
    pub image: Digest,
    /// Blobs that the manifest names.
    pub blobs: [Vec<u8>; 2],
    /// With all signatures that were there.
    pub manifest: Vec<u8>,
}

/// Why nothing is put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAttached(String);

/// Adds a signature to those that are there. `None`: this key has signed just this already.
///
/// # Errors
/// It is no signature of this key's, or there are too many, so that nobody would look at this one.
pub fn attach(
    there: Option<&[u8]>,
    payload: &[u8],
    signature: &[u8],
    key: &PublicKey,
) -> Result<Option<Attachment>, NotAttached> {
    if payload.len() as u64 > PAYLOAD_BYTES {
        return Err(NotAttached(format!("a payload has at most {PAYLOAD_BYTES} bytes")));
    }
    if !key.verifies(payload, signature) {
        return Err(NotAttached("the signature is not of this key and this payload".to_owned()));
    }
    let image = Statement::read(payload).map_err(NotAttached)?.digest;
    let mut layers = there.map_or(Ok(Vec::new()), layers).map_err(NotAttached)?;
    let own = digest_of(payload);
    let is_own = |listed: Listed| match listed {
        Listed::Signature { payload: signed, signature, .. } => signed == own && key.verifies(payload, &signature),
        Listed::Unusable(_) => false,
    };
    if layers.iter().filter(|layer| is_payload(layer)).any(|layer| is_own(one(layer))) {
        return Ok(None);
    }
    if layers.iter().filter(|layer| is_payload(layer)).count() >= MOST_SIGNATURES {
        return Err(NotAttached(format!("the image has {MOST_SIGNATURES} signatures already")));
    }
    layers.push(json!({
        "mediaType": PAYLOAD_TYPE,
        "digest": own,
        "size": payload.len(),
        "annotations": { SIGNATURE: base64::encode(signature) },
    }));
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": { "mediaType": CONFIG_TYPE, "digest": digest_of(&config), "size": config.len() },
        "layers": layers,
    });
    Ok(Some(Attachment { image, blobs: [payload.to_vec(), config], manifest: manifest.to_string().into_bytes() }))
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest::from_sha256(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PrivateKey, payload};

    fn key() -> PrivateKey {
        PrivateKey::read(include_str!("../tests/keys/p256.key"), b"").unwrap()
    }

    fn image() -> Digest {
        digest_of(b"image")
    }

    fn attached(there: Option<&[u8]>, key: &PrivateKey, name: &str) -> Result<Option<Attachment>, String> {
        let payload = payload(&name.parse().unwrap(), &image());
        let signature = key.sign(&payload).unwrap();
        attach(there, &payload, &signature, &key.public()).map_err(|error| error.to_string())
    }

    #[test]
    fn signatures_are_added_to_each_other() {
        let (other, _) = PrivateKey::generate(b"").unwrap();
        let first = attached(None, &key(), "r.example/a:1").unwrap().unwrap();
        assert_eq!((first.image.clone(), listed(&first.manifest).unwrap().len()), (image(), 1));
        // The same again is nothing new.
        assert_eq!(attached(Some(&first.manifest), &key(), "r.example/a:1"), Ok(None));
        let second = attached(Some(&first.manifest), &key(), "r.example/a:2").unwrap().unwrap();
        let third = attached(Some(&second.manifest), &other, "r.example/a:1").unwrap().unwrap();
        let signatures = listed(&third.manifest).unwrap();
        assert_eq!(signatures.len(), 3);
        assert_eq!(signatures[0], listed(&first.manifest).unwrap()[0]);
        let Listed::Signature { payload, size_bytes, .. } = &signatures[2] else { panic!() };
        assert_eq!((payload, *size_bytes), (&digest_of(&third.blobs[0]), third.blobs[0].len() as u64));
        let manifest: Value = serde_json::from_slice(&third.manifest).unwrap();
        assert_eq!(manifest["config"]["digest"], json!(digest_of(&third.blobs[1])));
    }

    #[test]
    fn what_is_no_signature_is_not_attached() {
        let key = key();
        let payload = payload(&"r.example/a:1".parse().unwrap(), &image());
        let signature = key.sign(&payload).unwrap();
        let why = |there: Option<&[u8]>, payload: &[u8], signature: &[u8]| {
            attach(there, payload, signature, &key.public()).unwrap_err().to_string()
        };
        assert!(why(None, &payload, b"x").contains("not of this key"));
        assert!(why(None, b"{}", &key.sign(b"{}").unwrap()).contains("its payload is malformed"));
        assert!(why(Some(&vec![b' '; MANIFEST_BYTES + 1]), &payload, &signature).contains("more than 1048576 bytes"));
        let intricate = format!("[{}{{}}]", "{},".repeat(20_000));
        assert!(why(Some(intricate.as_bytes()), &payload, &signature).contains("more than 8388608 bytes of memory"));
        assert!(why(Some(b"{}"), &payload, &signature).contains("has no layers"));
        assert!(why(Some(b"<html>"), &payload, &signature).contains("is malformed"));
        let many = json!({ "layers": vec![json!({ "mediaType": PAYLOAD_TYPE }); 32] }).to_string();
        assert!(why(Some(many.as_bytes()), &payload, &signature).contains("has 32 signatures already"));
        assert_eq!(listed(many.as_bytes()).unwrap()[0], Listed::Unusable("it is a payload without a signature".into()));
        let other = json!({ "layers": [{ "mediaType": "text/plain" }] }).to_string();
        assert_eq!(listed(other.as_bytes()), Ok(vec![]));
    }

    #[test]
    fn a_tag_is_made_of_a_digest() {
        assert_eq!(signature_tag(&image()).unwrap(), format!("sha256-{}.sig", image().hex()));
        assert_eq!(signature_tag(&Digest::from_sha512([7; 64])), None);
    }
}
