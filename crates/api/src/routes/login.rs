//! `POST /auth`: whether a name and a password are right for a registry. Nothing is kept of them here.

use axum::extract::State;
use dozen_engine::{Credentials, Engine, RegistrySecret};
use dozen_model::Reference;
use serde::Deserialize;
use serde_json::json;

use crate::error::{Answer, ApiError, ok};
use crate::extract::Json;

/// Docker's AuthConfig.
#[derive(Deserialize)]
#[serde(default, rename_all = "lowercase", deny_unknown_fields)]
#[derive(Default)]
struct Asked {
    username: String,
    password: String,
    serveraddress: String,
    identitytoken: String,
    // Of older clients, and of a client's own file: of no use here.
    #[serde(rename = "email")]
    _email: String,
    #[serde(rename = "auth")]
    _auth: String,
    #[serde(rename = "registrytoken")]
    _registry_token: String,
}

/// See the module.
pub(super) async fn log_in(State(engine): State<Engine>, Json(body): Json) -> Answer {
    // The reader's own words could quote the password.
    let asked: Asked =
        serde_json::from_value(body).map_err(|_| ApiError::invalid("the request's body is no AuthConfig"))?;
    let registry = registry(&asked.serveraddress)?;
    let credentials = match (asked.identitytoken, asked.username) {
        (token, _) if !token.is_empty() => Credentials::IdentityToken(RegistrySecret::new(token)),
        (_, user) if !user.is_empty() => Credentials::Password { user, password: RegistrySecret::new(asked.password) },
        _ => return Err(ApiError::invalid("no user is named")),
    };
    engine.log_in(&registry, credentials).await?;
    ok(&json!({ "Status": "Login Succeeded", "IdentityToken": "" }))
}

/// Host and port, of an address that may be whole; Docker Hub's has several names.
fn registry(address: &str) -> Result<String, ApiError> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let host = rest.split('/').next().unwrap_or_default();
    if matches!(host, "" | "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        return Ok("docker.io".to_owned());
    }
    let name: Result<Reference, _> = format!("{host}/x").parse();
    match name {
        Ok(name) if name.registry() == host => Ok(host.to_owned()),
        _ => {
            Err(ApiError::invalid(format!("{host:?} is no registry that an image's name could name: write HOST:PORT")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read() {
        for (address, want) in [
            ("", Some("docker.io")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("registry-1.docker.io", Some("docker.io")),
            ("localhost:5000", Some("localhost:5000")),
            ("http://a.example/v2/", Some("a.example")),
            ("plainname", None),
            ("a b.c", None),
        ] {
            assert_eq!(registry(address).ok().as_deref(), want, "{address}");
        }
    }
}
