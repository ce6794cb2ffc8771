use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{PrivateKey, PublicKey};

/// Made by `@sigstore/sign` (its `DSSEBundleBuilder`, with a key in place of a certificate) with `tests/keys/p256.key`, of an
/// image `sha256:aaaa…`; `@sigstore/verify` has verified it.
pub(crate) const FOREIGN: &str = include_str!("../../tests/bundles/p256.json");
/// The same with a key of P-384, and so SHA-384, as cosign has it (cosign#5091).
const FOREIGN_P384: &str = include_str!("../../tests/bundles/p384.json");

fn image(letter: char) -> Digest {
    format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
}

/// As `cosign sign` writes it.
pub(crate) fn statement(image: &Digest) -> Value {
    json!({
        "_type": STATEMENT_TYPE,
        "subject": [{ "digest": { image.algorithm(): image.hex() }, "annotations": {} }],
        "predicateType": PREDICATE_TYPE,
        "predicate": {},
    })
}

fn written(payload: &[u8], signature: &[u8]) -> Value {
    json!({
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": { "hint": "AoWjDtY9JNr4PCusWlp1Xo+ZXhYO12ycJrRaI7WrOik=" },
            // cosign writes what a log has said of it; nobody here looks.
            "tlogEntries": [{ "logIndex": "1", "logId": { "keyId": "AAAA" } }],
            "timestampVerificationData": { "rfc3161Timestamps": [{ "signedTimestamp": "AAAA" }] },
        },
        "dsseEnvelope": {
            "payload": base64::encode(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": base64::encode(signature) }],
        },
    })
}

pub(crate) fn signed(key: &PrivateKey, statement: &Value) -> Vec<u8> {
    let payload = statement.to_string().into_bytes();
    let envelope = Envelope { payload, signature: Vec::new() };
    written(&envelope.payload, &key.sign(&envelope.signed()).unwrap()).to_string().into_bytes()
}

#[test]
fn what_others_have_signed_is_verified() {
    for (bundle, key, other) in [
        (FOREIGN, include_str!("../../tests/keys/p256.pub"), include_str!("../../tests/keys/p384.pub")),
        (FOREIGN_P384, include_str!("../../tests/bundles/p384.pub"), include_str!("../../tests/keys/p384.pub")),
    ] {
        let envelope = Envelope::read(bundle.as_bytes()).unwrap();
        let verifies =
            |key: &str, message: &[u8]| PublicKey::read(key).unwrap().verifies_envelope(message, &envelope.signature);
        assert!(verifies(key, &envelope.signed()));
        assert!(!verifies(key, &envelope.payload), "the envelope is signed, not the payload");
        assert!(!verifies(other, &envelope.signed()));
        assert_eq!(signed_image(&envelope.payload), Ok(image('a')));
    }
}

#[test]
fn what_is_signed_has_its_type_and_length_before_it() {
    let envelope = Envelope { payload: b"hello world".to_vec(), signature: Vec::new() };
    assert_eq!(envelope.signed(), b"DSSEv1 28 application/vnd.in-toto+json 11 hello world");
}

#[test]
fn what_is_no_bundle_is_refused_by_name() {
    let good = written(b"{}", b"s");
    let read = |bundle: &Value| Envelope::read(bundle.to_string().as_bytes());
    assert_eq!(read(&good), Ok(Envelope { payload: b"{}".to_vec(), signature: b"s".to_vec() }));
    for (pointer, value, words) in [
        ("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.3"), "is a \"application/vnd.dev"),
        ("/mediaType", json!("application/vnd.dev.sigstore.bundle.v0.3+JSON"), "is a \"application/vnd.dev"),
        ("/mediaType", json!(1), "malformed"),
        ("/verificationMaterial", json!({ "certificate": { "rawBytes": "AAAA" } }), "who has a certificate"),
        ("/verificationMaterial", json!({ "x509CertificateChain": {} }), "who has a certificate"),
        ("/verificationMaterial", json!({ "certificate": {}, "publicKey": {} }), "neither that a key"),
        ("/verificationMaterial", json!({}), "neither that a key"),
        ("/verificationMaterial", Value::Null, "malformed"),
        ("/dsseEnvelope", Value::Null, "no envelope"),
        ("/dsseEnvelope/payloadType", json!("application/vnd.in-toto+jsonl"), "is a \"application/vnd.in-toto+jsonl\""),
        ("/dsseEnvelope/payload", json!("e30"), "base 64"),
        ("/dsseEnvelope/payload", json!("e30=\n"), "base 64"),
        ("/dsseEnvelope/signatures", json!([]), "has 0 signatures"),
        ("/dsseEnvelope/signatures", json!([{ "sig": "AA==" }, { "sig": "AA==" }]), "has 2 signatures"),
        ("/dsseEnvelope/signatures/0", json!({ "keyid": "a" }), "missing field `sig`"),
        ("/dsseEnvelope/signatures/0/sig", json!("A-_="), "base 64"),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).unwrap() = value.clone();
        let why = read(&wrong).unwrap_err();
        assert!(why.contains(words), "{pointer} {value}: {why}");
    }
    let mut both = good.clone();
    both["messageSignature"] = json!({});
    assert!(read(&both).unwrap_err().contains("or more than that"));
    both["dsseEnvelope"] = Value::Null;
    assert!(read(&both).unwrap_err().contains("a bare signature"));
    let twice = good.to_string().replacen('{', "{\"mediaType\":\"x\",", 1);
    assert!(Envelope::read(twice.as_bytes()).unwrap_err().contains("duplicate field"));
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    assert!(Envelope::read(deep.as_bytes()).unwrap_err().contains("malformed"));
    let large = vec![b' '; 256 * 1024 + 1];
    assert!(Envelope::read(&large).unwrap_err().contains("more than 262144 bytes"));
}

#[test]
fn a_statement_is_of_one_image_and_a_signature() {
    let read = |statement: &Value| signed_image(statement.to_string().as_bytes());
    let good = statement(&image('a'));
    assert_eq!(read(&good), Ok(image('a')));
    let sha512: Digest = format!("sha512:{}", "b".repeat(128)).parse().unwrap();
    assert_eq!(read(&statement(&sha512)), Ok(sha512));
    // cosign 3.0 wrote no predicate (cosign#4634); of a name nothing is believed.
    let mut bare = good.clone();
    bare.as_object_mut().unwrap().remove("predicate");
    bare["subject"][0]["name"] = json!("r.example/team/web");
    assert_eq!(read(&bare), Ok(image('a')));
    let (a, b) = ("a".repeat(64), "b".repeat(128));
    for (pointer, value, words) in [
        ("/_type", json!("https://in-toto.io/Statement/v0.1"), "is a \"https://in-toto.io/Statement/v0.1\""),
        ("/predicateType", json!("https://slsa.dev/provenance/v1"), "states \"https://slsa.dev/provenance/v1\""),
        ("/predicateType", json!("https://sigstore.dev/cosign/sign/v1/"), "which is no signature"),
        ("/predicateType", json!("https://sigstore.dev/cosign/sign/v2"), "which is no signature"),
        ("/subject", json!([]), "of 0 subjects"),
        ("/subject", json!([good["subject"][0], good["subject"][0]]), "of 2 subjects"),
        ("/subject/0/digest", json!({}), "no digest, or several"),
        ("/subject/0/digest", json!({ "sha256": a, "sha512": b }), "no digest, or several"),
        ("/subject/0/digest", json!({ "sha256": "A".repeat(64) }), "no digest, or several"),
        ("/subject/0/digest", json!({ "sha256": format!("sha256:{a}") }), "no digest, or several"),
        ("/subject/0/digest", json!({ "sha1": "a" }), "unknown field `sha1`"),
        ("/subject/0", json!({ "digest": { "sha256": a }, "except": 1 }), "unknown field `except`"),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).unwrap() = value.clone();
        let why = read(&wrong).unwrap_err();
        assert!(why.contains(words), "{pointer} {value}: {why}");
    }
    for (from, to, words) in [
        ("{\"_type\"", "{\"more\":1,\"_type\"", "unknown field `more`"),
        ("{\"_type\"", "{\"_type\":\"x\",\"_type\"", "duplicate field `_type`"),
        ("{\"sha256\"", "{\"sha256\":\"x\",\"sha256\"", "duplicate field `sha256`"),
    ] {
        let wrong = good.to_string().replacen(from, to, 1);
        let why = signed_image(wrong.as_bytes()).unwrap_err();
        assert!(why.contains(words), "{wrong}: {why}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(payload: Vec<u8>, signature: Vec<u8>) {
        let bundle = written(&payload, &signature).to_string();
        prop_assert_eq!(Envelope::read(bundle.as_bytes()), Ok(Envelope { payload, signature }));
    }

    /// Whatever else a signature may be made to be of, it is not that.
    #[test]
    fn a_byte_that_was_changed_signs_nothing_else(at in 0..FOREIGN.len(), to: u8) {
        let mut bundle = FOREIGN.as_bytes().to_vec();
        bundle[at] = to;
        let key = PublicKey::read(include_str!("../../tests/keys/p256.pub")).unwrap();
        if let Ok(envelope) = Envelope::read(&bundle)
            && key.verifies_envelope(&envelope.signed(), &envelope.signature)
        {
            prop_assert_eq!(signed_image(&envelope.payload), Ok(image('a')));
        }
    }
}
