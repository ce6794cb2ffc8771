//! `POST /distribution/{name}/signature`, which is ours: a signature goes beside an image in a registry. Who asks has made it.

use axum::http::HeaderMap;
use dozen_engine::{Engine, PublicKey, SignaturePush};
use dozen_model::{Reference, base64};
use serde::Deserialize;
use serde_json::{Value, json};

use super::registry_auth;
use crate::error::{Answer, ApiError, ok};
use crate::extract::Query;

/// See the module. Bytes are base 64.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Body {
    payload: String,
    signature: String,
    /// PEM.
    public_key: String,
}

/// See the module.
pub(super) async fn push(engine: &Engine, name: &str, headers: &HeaderMap, query: &Query, body: Value) -> Answer {
    let mut request = request(name, body).map_err(|why| ApiError::invalid(format!("invalid signature: {why}")))?;
    request.credentials = registry_auth::credentials(headers);
    request.is_insecure = query.flag("insecure");
    let pushed = engine.push_signature(&request).await?;
    ok(&json!({ "Digest": pushed.image, "Tag": pushed.tag }))
}

fn request(name: &str, body: Value) -> Result<SignaturePush, String> {
    let Body { payload, signature, public_key } = Body::deserialize(body).map_err(|error| error.to_string())?;
    let decoded = |what: &str, text: &str| base64::decode(text).ok_or_else(|| format!("the {what} is no base 64"));
    Ok(SignaturePush {
        reference: name.parse::<Reference>().map_err(|error| error.to_string())?,
        payload: decoded("payload", &payload)?,
        signature: decoded("signature", &signature)?,
        key: PublicKey::read(&public_key).map_err(|why| format!("the key: {why}"))?,
        credentials: None,
        is_insecure: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_or_named() {
        let key = include_str!("../../../trust/tests/keys/p256.pub");
        let body = |payload: &str, key: &str| json!({ "Payload": payload, "Signature": "c2ln", "PublicKey": key });
        let read = request("r.example/a", body("eA==", key)).unwrap();
        assert_eq!((read.payload.as_slice(), read.signature.as_slice()), (&b"x"[..], &b"sig"[..]));
        for (name, body, words) in [
            ("r.example/a", body("-", key), "the payload is no base 64"),
            ("r.example/a", body("eA==", ""), "the key: it is no PEM"),
            ("A B", body("eA==", key), "invalid reference format"),
            ("r.example/a", json!({}), "missing field `Payload`"),
            ("r.example/a", json!({ "PrivateKey": "" }), "unknown field `PrivateKey`"),
        ] {
            let why = request(name, body).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
