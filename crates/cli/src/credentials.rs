//! Whom to be for a registry: docker's `config.json`, and the programs that it names for what it does not keep itself
//! (docs.docker.com, "docker login": credential stores and helpers). Read only: `login` writes it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use dozen_model::base64;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// Docker Hub's key there.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user's name with which a helper gives an identity token in the password's place (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";

/// Credentials as the header `X-Registry-Auth` carries them. Nobody sees them.
pub struct RegistryAuth(String);

impl RegistryAuth {
    /// The header's value.
    pub fn header(&self) -> &str {
        &self.0
    }

    fn of(config: &Value) -> Self {
        // RFC 4648, section 5, as Go's base64.URLEncoding.
        Self(base64::encode(config.to_string().as_bytes()).replace('+', "-").replace('/', "_"))
    }
}

/// For a registry as images' names have it. `None`: nobody in particular.
///
/// # Errors
/// The file is no JSON; a helper cannot be asked.
pub fn of_registry(directory: &Path, registry: &str) -> Result<Option<RegistryAuth>, Failure> {
    let path = directory.join("config.json");
    let config: Value = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?,
        Err(_) => return Ok(None),
    };
    let key = if registry == "docker.io" { HUB_KEY } else { registry };
    let helper = config["credHelpers"][key].as_str().or_else(|| config["credsStore"].as_str());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
        return Ok(ask_helper(helper, key)?.map(|answer| RegistryAuth::of(&answer)));
    }
    Ok(config["auths"].as_object().and_then(|auths| kept(auths, key)).map(|found| RegistryAuth::of(&found)))
}

/// What the file itself keeps. Keys may be whole addresses, of which the host counts.
fn kept(auths: &Map<String, Value>, key: &str) -> Option<Value> {
    let entry =
        auths.get(key).or_else(|| auths.iter().find(|(known, _)| host(known) == host(key)).map(|(_, it)| it))?;
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let pair = base64::decode(&text("auth")).and_then(|bytes| String::from_utf8(bytes).ok());
    let (user, password) = match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => (user.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (text("username"), text("password")),
    };
    let tokens = (text("identitytoken"), text("registrytoken"));
    if user.is_empty() && tokens.0.is_empty() && tokens.1.is_empty() {
        return None;
    }
    Some(json!({
        "username": user, "password": password, "serveraddress": key,
        "identitytoken": tokens.0, "registrytoken": tokens.1,
    }))
}

/// Without scheme and path.
fn host(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or_default()
}

/// Asks `docker-credential-HELPER get`.
fn ask_helper(helper: &str, key: &str) -> Result<Option<Value>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| {
        Failure::new(format!("error getting credentials - {program}: {why}"))
            .with_hint("config.json names it under credsStore or credHelpers")
    };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing says why itself.
        let _ = stdin.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        // What helpers say there, on stdout, are words and no secret.
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        return if said.contains("credentials not found") { Ok(None) } else { Err(failed(said)) };
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is no JSON".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => json!({ "identitytoken": answer.secret, "serveraddress": key }),
        user => json!({ "username": user, "password": answer.secret, "serveraddress": key }),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &Value, registry: &str) -> Option<Value> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let found = of_registry(directory.path(), registry).unwrap()?;
        let text = found.header().replace('-', "+").replace('_', "/");
        Some(serde_json::from_slice(&base64::decode(&text).unwrap()).unwrap())
    }

    #[test]
    fn what_the_file_keeps_is_found() {
        let pair = json!({ "auth": base64::encode(b"me:p:w?") });
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": pair, "https://a.example/v2/": pair, "b.example:5000": pair,
            "token.example": { "identitytoken": "t" }, "empty.example": {},
        } });
        for (registry, is_found) in [
            ("docker.io", true),
            ("a.example", true),
            ("b.example:5000", true),
            ("b.example", false),
            ("empty.example", false),
            ("c.example", false),
        ] {
            let found = of(&config, registry);
            assert_eq!(found.is_some(), is_found, "{registry}");
            if let Some(found) = found {
                assert_eq!((found["username"].as_str(), found["password"].as_str()), (Some("me"), Some("p:w?")));
            }
        }
        assert_eq!(of(&config, "token.example").unwrap()["identitytoken"], json!("t"));
        assert!(of(&json!({}), "docker.io").is_none());
    }

    #[test]
    fn without_a_file_one_is_nobody() {
        let directory = tempfile::tempdir().unwrap();
        assert!(of_registry(directory.path(), "docker.io").unwrap().is_none());
        std::fs::write(directory.path().join("config.json"), "{").unwrap();
        let error = of_registry(directory.path(), "docker.io").err().unwrap();
        assert!(error.message.contains("config.json: EOF"), "{}", error.message);
    }

    #[test]
    fn a_helper_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({ "credHelpers": { "a.example": "dozen-has-no-such-helper" } });
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let error = of_registry(directory.path(), "a.example").err().unwrap();
        assert!(error.message.starts_with("error getting credentials - docker-credential-dozen-has-no-such-helper"));
        assert!(of_registry(directory.path(), "b.example").unwrap().is_none());
    }
}
