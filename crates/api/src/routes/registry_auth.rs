//! Who one is for registries, as Docker's clients say it in headers. What makes no sense there is as if it were not there, as
//! with Docker.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use dozen_engine::{Credentials, RegistrySecret};
use dozen_model::base64;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Docker's AuthConfig.
#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// `X-Registry-Auth`: for the one registry that a request is about.
pub(super) fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    read::<AuthConfig>(headers, "x-registry-auth")?.credentials()
}

/// `X-Registry-Config`: for those that a build may ask, by their names in images' names.
pub(super) fn by_registry(headers: &HeaderMap) -> BTreeMap<String, Credentials> {
    let all: BTreeMap<String, AuthConfig> = read(headers, "x-registry-config").unwrap_or_default();
    let all = all.into_iter().filter_map(|(address, config)| Some((registry(&address), config.credentials()?)));
    all.collect()
}

/// Of a key of docker's config.json: an address may be whole, and Docker Hub's has several names.
fn registry(address: &str) -> String {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

fn read<T: DeserializeOwned>(headers: &HeaderMap, name: &str) -> Option<T> {
    serde_json::from_slice(&from_base64_url(headers.get(name)?.to_str().ok()?)?).ok()
}

impl AuthConfig {
    fn credentials(self) -> Option<Credentials> {
        let pair = base64::decode(&self.auth).and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
        if !self.registrytoken.is_empty() {
            return Some(Credentials::RegistryToken(RegistrySecret::new(self.registrytoken)));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credentials::IdentityToken(RegistrySecret::new(self.identitytoken)));
        }
        let (user, password) = match (self.username.as_str(), pair) {
            ("", Some((user, password))) => (user.to_owned(), password.to_owned()),
            ("", None) => return None,
            _ => (self.username, self.password),
        };
        Some(Credentials::Password { user, password: RegistrySecret::new(password) })
    }
}

/// RFC 4648, section 5, with padding or without.
fn from_base64_url(text: &str) -> Option<Vec<u8>> {
    let mut standard = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    base64::decode(&standard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str, json: &str) -> [HeaderMap; 2] {
        let text = base64::encode(json.as_bytes()).replace('+', "-").replace('/', "_");
        [text.as_str(), text.trim_end_matches('=')]
            .map(|text| [(name.parse().unwrap(), text.parse().unwrap())].into_iter().collect())
    }

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.into(), password: RegistrySecret::new(password) }
    }

    #[test]
    fn who_asks_is_read() {
        let of = |json: &str| {
            let [padded, bare] = header("x-registry-auth", json);
            assert_eq!(credentials(&padded), credentials(&bare));
            credentials(&padded)
        };
        let asked = of(r#"{"username":"a","password":"b?>é","serveraddress":"x"}"#);
        assert_eq!(asked, Some(password("a", "b?>é")));
        assert_eq!(of(r#"{"auth":"bWU6cHc6"}"#), Some(password("me", "pw:")));
        assert_eq!(
            of(r#"{"identitytoken":"t","username":"a"}"#),
            Some(Credentials::IdentityToken(RegistrySecret::new("t")))
        );
        for nothing in ["{}", "null", "[]", "<"] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn several_are_told_apart_by_their_registries() {
        let config = r#"{
            "https://index.docker.io/v1/": { "username": "a", "password": "1" },
            "registry.example:5000": { "auth": "bWU6cHc6" },
            "https://b.example/v2/": { "username": "b", "password": "2" },
            "empty.example": {}
        }"#;
        let [padded, _] = header("x-registry-config", config);
        let want = [
            ("docker.io", password("a", "1")),
            ("b.example", password("b", "2")),
            ("registry.example:5000", password("me", "pw:")),
        ];
        assert_eq!(by_registry(&padded), want.map(|(name, who)| (name.to_owned(), who)).into());
        for nothing in ["{}", "null", "[]", "<", r#"{"a":7}"#] {
            assert_eq!(by_registry(&header("x-registry-config", nothing)[0]), BTreeMap::new(), "{nothing}");
        }
        assert_eq!(by_registry(&HeaderMap::new()), BTreeMap::new());
    }
}
