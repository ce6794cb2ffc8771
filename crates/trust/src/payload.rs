//! What is signed: sigstore's simple signing payload (containers-signature(5), "Signature data format"; cosign's
//! specs/SIGNATURE_SPEC.md, "Payload").

use dozen_model::{Digest, Reference};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::identity::{SignedName, signed_name};

/// sigstore's; GPG's has another.
const KIND: &str = "cosign container image signature";

/// What a payload says, once somebody has vouched for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) digest: Digest,
    pub(crate) name: SignedName,
}

/// A field that is not known might take back what the others say. Twice the same is refused as well.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    critical: Critical,
    #[serde(default)]
    #[expect(dead_code, reason = "it has to be let in, and nothing hangs on it")]
    optional: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    identity: WrittenIdentity,
    image: Image,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIdentity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: Digest,
}

impl Statement {
    pub(crate) fn read(payload: &[u8]) -> Result<Self, String> {
        let written: Written =
            serde_json::from_slice(payload).map_err(|error| format!("its payload is malformed: {error}"))?;
        let Critical { kind, identity, image } = written.critical;
        if kind != KIND {
            return Err(format!("its payload is a {:?}, where a {KIND:?} is wanted", shortened(&kind)));
        }
        let name = SignedName::read(&identity.docker_reference)
            .ok_or_else(|| format!("it names {:?}, which is no image", shortened(&identity.docker_reference)))?;
        Ok(Self { digest: image.docker_manifest_digest, name })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

/// What is to be signed of an image that was pushed by this name.
pub fn payload(name: &Reference, digest: &Digest) -> Vec<u8> {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": signed_name(name) },
            "image": { "docker-manifest-digest": digest },
            "type": KIND,
        },
        "optional": { "creator": "dozen" },
    });
    payload.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        format!("sha256:{}", "a".repeat(64)).parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let name: Reference = "r.example/a:1".parse().unwrap();
        let read = Statement::read(&payload(&name, &digest())).unwrap();
        assert_eq!(read, Statement { digest: digest(), name: SignedName::read("r.example/a:1").unwrap() });
        let by_digest: Reference = format!("r.example/a@{}", digest()).parse().unwrap();
        let read = Statement::read(&payload(&by_digest, &digest())).unwrap();
        assert_eq!(read.name, SignedName::read("r.example/a").unwrap());
    }

    #[test]
    fn what_others_write_is_read_and_what_is_more_is_refused() {
        let of = |critical: &str, more: &str| format!(r#"{{"critical":{{{critical}}}{more}}}"#);
        let image = format!(r#""image":{{"docker-manifest-digest":"{}"}}"#, digest());
        let identity = r#""identity":{"docker-reference":"r.example/a"}"#;
        let kind = r#""type":"cosign container image signature""#;
        let all = format!("{identity},{image},{kind}");
        // cosign writes `null` where nothing was said.
        for more in ["", r#","optional":null"#, r#","optional":{"creator":"x","timestamp":1}"#] {
            assert!(Statement::read(of(&all, more).as_bytes()).is_ok(), "{more}");
        }
        let atomic = kind.replace("cosign container image", "atomic container");
        let nothing = identity.replace("r.example/a", "a b");
        for (text, words) in [
            ("{}".to_owned(), "missing field `critical`"),
            (of(&all, r#","more":1"#), "unknown field `more`"),
            (of(&format!("{all},\"more\":1"), ""), "unknown field `more`"),
            (of(&format!("{all},{image}"), ""), "duplicate field `image`"),
            (of(&format!("{identity},{kind}"), ""), "missing field `image`"),
            (of(&format!("{identity},{image},{atomic}"), ""), "its payload is a \"atomic container signature\""),
            (of(&format!("{nothing},{image},{kind}"), ""), "it names \"a b\", which is no image"),
            (of(&all.replace("sha256:a", "sha256:A"), ""), "invalid digest"),
        ] {
            let why = Statement::read(text.as_bytes()).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
