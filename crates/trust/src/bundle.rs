//! A signature as cosign 3 makes it: a sigstore bundle (protobuf-specs' sigstore_bundle.proto, as JSON) with a DSSE envelope
//! around an in-toto statement (its spec/v1/statement.md).
//!
//! The statement has the image's digest and no name (cosign#5014), so that it proves less than a [payload](crate::payload):
//! whatever the key has signed is as good in any other repository. Only rules that say so take it
//! ([`crate::policy::Bundles`]).

use dozen_model::{Digest, base64};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Of the bundle, the manifest that names it, and the artifact: all have the same.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Of one bundle. Those of cosign have some 5,000, with the log's entry and a timestamp.
pub const BUNDLE_BYTES: u64 = 256 * 1024;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What `cosign sign` states. Of others (provenance, lists of packages) none says that the image is good.
pub(crate) const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What is in a bundle, before anybody has vouched for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// Nothing of what surrounds the envelope is signed: what else is in it does not matter, but for how it was signed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenBundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<WrittenEnvelope>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    /// With a hint at which key it is: whoever wrote the bundle may hint at anything.
    public_key: Option<IgnoredAny>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Deserialize)]
struct WrittenSignature {
    sig: String,
}

impl Envelope {
    pub(crate) fn read(bundle: &[u8]) -> Result<Self, String> {
        if bundle.len() as u64 > BUNDLE_BYTES {
            return Err(format!("a bundle has more than {BUNDLE_BYTES} bytes"));
        }
        let bundle: WrittenBundle =
            serde_json::from_slice(bundle).map_err(|error| format!("a bundle is malformed: {error}"))?;
        if bundle.media_type != BUNDLE_TYPE {
            return Err(format!(
                "a bundle is a {:?}, where a {BUNDLE_TYPE:?} is wanted",
                shortened(&bundle.media_type)
            ));
        }
        let Material { public_key, certificate, x509_certificate_chain } = bundle.verification_material;
        match (public_key, certificate.or(x509_certificate_chain)) {
            (Some(_), None) => {}
            (None, Some(_)) => return Err("a bundle is signed by who has a certificate: by keys is wanted".to_owned()),
            _ => return Err("a bundle says neither that a key has signed it nor who else".to_owned()),
        }
        let envelope = match (bundle.dsse_envelope, bundle.message_signature) {
            (Some(envelope), None) => envelope,
            (None, Some(_)) => return Err("a bundle has a bare signature, which says of nothing what it is".to_owned()),
            _ => return Err("a bundle has no envelope, or more than that".to_owned()),
        };
        if envelope.payload_type != PAYLOAD_TYPE {
            let kind = shortened(&envelope.payload_type);
            return Err(format!("a bundle's payload is a {kind:?}, where a {PAYLOAD_TYPE:?} is wanted"));
        }
        // DSSE has several; a bundle has one (sigstore_bundle.proto).
        let [signature] = envelope.signatures.as_slice() else {
            return Err(format!("a bundle has {} signatures, where one is wanted", envelope.signatures.len()));
        };
        match (base64::decode(&envelope.payload), base64::decode(&signature.sig)) {
            (Some(payload), Some(signature)) => Ok(Self { payload, signature }),
            _ => Err("a bundle's payload and signature are base 64, and these are not".to_owned()),
        }
    }

    /// What a key has signed: DSSE's "PAE", which nothing else can be read as (its protocol.md, "Signature Definition").
    pub(crate) fn signed(&self) -> Vec<u8> {
        let mut signed = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), self.payload.len()).into_bytes();
        signed.extend(&self.payload);
        signed
    }
}

/// As with a [payload](crate::payload): a field that is not known might take back what the others say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStatement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[expect(dead_code, reason = "cosign's is empty, and nothing hangs on it")]
    predicate: Option<IgnoredAny>,
}

/// A ResourceDescriptor (in-toto's spec/v1/resource_descriptor.md), of which the digest alone says what it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they have to be let in, and nothing hangs on them")]
struct Subject {
    digest: SubjectDigest,
    annotations: Option<IgnoredAny>,
    name: Option<IgnoredAny>,
    uri: Option<IgnoredAny>,
    #[serde(rename = "mediaType")]
    media_type: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: Option<String>,
    sha512: Option<String>,
}

/// The image that a statement says is signed, once somebody has vouched for it.
pub(crate) fn signed_image(payload: &[u8]) -> Result<Digest, String> {
    let statement: WrittenStatement =
        serde_json::from_slice(payload).map_err(|error| format!("a bundle's statement is malformed: {error}"))?;
    if statement.kind != STATEMENT_TYPE {
        let kind = shortened(&statement.kind);
        return Err(format!("a bundle's statement is a {kind:?}, where a {STATEMENT_TYPE:?} is wanted"));
    }
    if statement.predicate_type != PREDICATE_TYPE {
        return Err(format!("a bundle states {:?}, which is no signature", shortened(&statement.predicate_type)));
    }
    let [subject] = statement.subject.as_slice() else {
        return Err(format!("a bundle is of {} subjects, where one is wanted", statement.subject.len()));
    };
    let digest = match (&subject.digest.sha256, &subject.digest.sha512) {
        (Some(hex), None) => format!("sha256:{hex}").parse().ok(),
        (None, Some(hex)) => format!("sha512:{hex}").parse().ok(),
        _ => None,
    };
    digest.ok_or_else(|| "a bundle's subject has no digest, or several".to_owned())
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
pub(crate) mod tests;
