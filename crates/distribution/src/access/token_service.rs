//! A token service elsewhere: this registry says where it is, and takes what it has signed (the distribution project's
//! "Token Authentication Implementation", "Verifying the token").

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use crate::access::public_key::PublicKey;
use crate::access::scope::Granted;
use crate::access::token::decode;

/// Clocks differ by so much at the most (RFC 7519, section 4.1.4).
const LEEWAY_SECONDS: u64 = 60;
/// Longer tokens are nobody's.
const LONGEST_BYTES: usize = 32 << 10;

/// Why its keys cannot be had.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum TokenServiceError {
    #[error("cannot read the keys of the token service in {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} has no keys of a token service: {why}")]
    Keys { path: String, why: &'static str },
}

/// See the module.
#[derive(Debug)]
pub struct TokenService {
    /// Where clients get tokens.
    pub(crate) realm: String,
    /// By what it calls this registry.
    pub(crate) service: String,
    issuer: String,
    path: PathBuf,
    keys: RwLock<Vec<PublicKey>>,
}

impl TokenService {
    /// At this URL; `service` is what it calls us, `issuer` what it calls itself, and its public keys are in this file.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is not understood.
    pub fn new(
        realm: impl Into<String>,
        service: impl Into<String>,
        issuer: impl Into<String>,
        path: &Path,
    ) -> Result<Self, TokenServiceError> {
        let keys = RwLock::new(read(path)?);
        Ok(Self { realm: realm.into(), service: service.into(), issuer: issuer.into(), path: path.to_owned(), keys })
    }

    /// From now on the keys that the file has now.
    ///
    /// # Errors
    /// As [`Self::new`]; then nothing has changed.
    pub fn reload(&self) -> Result<(), TokenServiceError> {
        let keys = read(&self.path)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Who has this token, and for what; or why it counts for nothing, without any of its words.
    pub(crate) fn read(&self, token: &str, now: u64) -> Result<(Option<String>, Granted), &'static str> {
        let malformed = "it is no JSON Web Token";
        if token.len() > LONGEST_BYTES {
            return Err("it is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (head, body) = signed.split_once('.').ok_or(malformed)?;
        let json = |text: &str| serde_json::from_slice::<Value>(&decode(text)?).ok();
        let (head, signature) = (json(head).ok_or(malformed)?, decode(signature).ok_or(malformed)?);
        // Rules that it says have to be understood, and that nobody here understands (RFC 7515, section 4.1.11).
        if head.get("crit").is_some() {
            return Err("it wants more than is understood");
        }
        let algorithm = head["alg"].as_str().ok_or(malformed)?;
        let id = head["kid"].as_str();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_signed = |key: &PublicKey| key.is_called(id) && key.verifies(algorithm, signed.as_bytes(), &signature);
        if !keys.iter().any(is_signed) {
            return Err("no key of the token service has signed it");
        }
        let body = json(body).ok_or(malformed)?;
        self.check(&body, now)?;
        let user = body["sub"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        Ok((user, Granted::of_claims(&body["access"])))
    }

    fn check(&self, claims: &Value, now: u64) -> Result<(), &'static str> {
        if claims["iss"] != self.issuer {
            return Err("another issuer gave it");
        }
        let is_for_us = match &claims["aud"] {
            Value::Array(all) => all.iter().any(|one| *one == self.service),
            one => *one == self.service,
        };
        if !is_for_us {
            return Err("it is for another service");
        }
        let time = |name: &str| -> Result<Option<u64>, &'static str> {
            let value = &claims[name];
            if value.is_null() {
                return Ok(None);
            }
            // A fraction is allowed (RFC 7519, section 2, "NumericDate").
            let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0).ok_or("a time in it is none")?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "what is larger is the largest"
            )]
            Ok(Some(seconds as u64))
        };
        let ends = time("exp")?.ok_or("it has no end")?;
        if now >= ends.saturating_add(LEEWAY_SECONDS) {
            return Err("it is good no longer");
        }
        if time("nbf")?.is_some_and(|begins| now.saturating_add(LEEWAY_SECONDS) < begins) {
            return Err("it is not good yet");
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<PublicKey>, TokenServiceError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| TokenServiceError::Read { path: shown.clone(), source })?;
    PublicKey::read_all(&text).map_err(|why| TokenServiceError::Keys { path: shown, why })
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::access::rights::Right;
    use crate::access::token::encode;

    struct Elsewhere(Ed25519KeyPair);

    impl Elsewhere {
        fn new() -> Self {
            let made = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
            Self(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap())
        }

        fn trusted(&self) -> TokenService {
            let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": encode(self.0.public_key().as_ref()) });
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), json!({ "keys": [key] }).to_string()).unwrap();
            TokenService::new("https://auth.example/token", "us", "auth.example", file.path()).unwrap()
        }

        fn token(&self, head: &Value, claims: &Value) -> String {
            let signed = format!("{}.{}", encode(head.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
            format!("{signed}.{}", encode(self.0.sign(signed.as_bytes()).as_ref()))
        }
    }

    #[test]
    fn only_what_the_service_has_signed_for_us_and_now_counts() {
        let elsewhere = Elsewhere::new();
        let service = elsewhere.trusted();
        let head = json!({ "typ": "JWT", "alg": "EdDSA", "kid": "k" });
        let access = json!([{ "type": "repository", "name": "a", "actions": ["pull"] }]);
        let claims = json!({
            "iss": "auth.example", "aud": "us", "sub": "ann", "exp": 2000, "nbf": 1000, "access": access,
        });
        let with = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            claims
        };
        let told = |head: &Value, claims: &Value, now| {
            service.read(&elsewhere.token(head, claims), now).map(|(user, granted)| {
                assert!(granted.has(&"a".parse().unwrap(), Right::Pull));
                user
            })
        };
        let ann = Ok(Some("ann".to_owned()));
        assert_eq!(told(&head, &claims, 1500), ann);
        assert_eq!(told(&json!({ "alg": "EdDSA" }), &claims, 1500), ann);
        assert_eq!(told(&head, &with("aud", json!(["them", "us"])), 1500), ann);
        assert_eq!(told(&head, &with("exp", json!(2000.5)), 2059), ann);
        assert_eq!(told(&head, &claims, 940), ann);
        assert_eq!(told(&head, &with("sub", json!("")), 1500), Ok(None));
        for (head, claims, now, why) in [
            (&head, claims.clone(), 2060, "it is good no longer"),
            (&head, claims.clone(), 939, "it is not good yet"),
            (&head, with("exp", Value::Null), 1500, "it has no end"),
            (&head, with("exp", json!("soon")), 1500, "a time in it is none"),
            (&head, with("iss", json!("mallory")), 1500, "another issuer gave it"),
            (&head, with("aud", json!("them")), 1500, "it is for another service"),
            (&head, with("aud", json!(["them"])), 1500, "it is for another service"),
            (&json!({ "alg": "EdDSA", "kid": "j" }), claims.clone(), 1500, "no key of the token service has signed it"),
            (&json!({ "alg": "none", "kid": "k" }), claims.clone(), 1500, "no key of the token service has signed it"),
            (&json!({ "alg": "HS256" }), claims.clone(), 1500, "no key of the token service has signed it"),
            (&json!({ "alg": "EdDSA", "crit": ["x"] }), claims.clone(), 1500, "it wants more than is understood"),
        ] {
            assert_eq!(told(head, &claims, now), Err(why), "{claims}");
        }
        let another = Elsewhere::new().token(&head, &claims);
        assert!(service.read(&another, 1500).unwrap_err().contains("no key"));
        for bad in ["", ".", "..", "a.b.c", "é.é.é"] {
            assert!(service.read(bad, 1500).is_err(), "{bad}");
        }
    }
}
