//! Whom to be for a registry: docker's `config.json`, and the programs that it names for what it does not keep itself
//! (docs.docker.com, "docker login": credential stores and helpers). Secrets go to helpers by their standard input, never by an argument.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dozen_model::base64;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::context::store::Store;
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

/// Who one is for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Empty with a token.
    pub user: String,
    /// Password.
    pub password: String,
    /// In the password's place.
    pub identity_token: String,
}

impl Account {
    /// Docker's AuthConfig.
    fn described(&self, key: &str) -> Value {
        json!({
            "username": self.user, "password": self.password, "identitytoken": self.identity_token,
            "serveraddress": key,
        })
    }
}

/// The key of a registry, as images' names have it or as a whole address, in docker's file.
pub fn key_of(registry: &str) -> &str {
    match host(registry) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB_KEY,
        host => host,
    }
}

/// For several registries, as the header `X-Registry-Config` carries them: each by its key. `None`: nobody in particular for
/// any of them.
///
/// # Errors
/// As [`of_registry`].
pub fn of_registries<'a>(
    directory: &Path,
    registries: impl IntoIterator<Item = &'a str>,
) -> Result<Option<RegistryAuth>, Failure> {
    let mut all = Map::new();
    for registry in registries {
        let key = key_of(registry);
        if let Some(account) = account(directory, key)? {
            all.insert(key.to_owned(), account.described(key));
        }
    }
    Ok((!all.is_empty()).then(|| RegistryAuth::of(&Value::Object(all))))
}

/// For a registry as images' names have it. `None`: nobody in particular.
///
/// # Errors
/// The file is no JSON; a helper cannot be asked.
pub fn of_registry(directory: &Path, registry: &str) -> Result<Option<RegistryAuth>, Failure> {
    let key = key_of(registry);
    Ok(account(directory, key)?.map(|account| RegistryAuth::of(&account.described(key))))
}

/// Who one is, by the registry's key.
///
/// # Errors
/// As [`of_registry`].
pub fn account(directory: &Path, key: &str) -> Result<Option<Account>, Failure> {
    let Some(config) = read(directory)? else { return Ok(None) };
    match helper(&config, key) {
        Some(helper) => ask_helper(helper, key),
        None => Ok(config["auths"].as_object().and_then(|auths| kept(auths, key))),
    }
}

/// Keeps an account; gives the file's path if it stands there for whoever reads it.
///
/// # Errors
/// It cannot be kept.
pub fn keep(store: &Store, key: &str, account: &Account) -> Result<Option<PathBuf>, Failure> {
    let config = read(store.directory())?.unwrap_or_default();
    if let Some(helper) = helper(&config, key) {
        let secret = json!({ "ServerURL": key, "Username": account.user, "Secret": account.password });
        run_helper(helper, "store", secret.to_string().as_bytes())?;
        return Ok(None);
    }
    let pair = base64::encode(format!("{}:{}", account.user, account.password).as_bytes());
    store.change(|config| {
        let auths = config.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[key] = json!({ "auth": pair });
    })?;
    Ok(Some(store.directory().join("config.json")))
}

/// Forgets an account; whether there was one.
///
/// # Errors
/// It cannot be forgotten.
pub fn forget(store: &Store, key: &str) -> Result<bool, Failure> {
    let config = read(store.directory())?.unwrap_or_default();
    if account(store.directory(), key)?.is_none() {
        return Ok(false);
    }
    if let Some(helper) = helper(&config, key) {
        run_helper(helper, "erase", key.as_bytes())?;
    }
    store.change(|config| {
        if let Some(auths) = config.get_mut("auths").and_then(Value::as_object_mut) {
            auths.retain(|known, _| host(known) != host(key));
        }
    })?;
    Ok(true)
}

fn read(directory: &Path) -> Result<Option<Value>, Failure> {
    let path = directory.join("config.json");
    let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    // The reader's words name a place, and quote nothing.
    read.map(Some).map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

fn helper<'c>(config: &'c Value, key: &str) -> Option<&'c str> {
    let named = config["credHelpers"][key].as_str().or_else(|| config["credsStore"].as_str());
    named.filter(|helper| !helper.is_empty())
}

/// What the file itself keeps. Keys may be whole addresses, of which the host counts.
fn kept(auths: &Map<String, Value>, key: &str) -> Option<Account> {
    let entry =
        auths.get(key).or_else(|| auths.iter().find(|(known, _)| host(known) == host(key)).map(|(_, it)| it))?;
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let pair = base64::decode(&text("auth")).and_then(|bytes| String::from_utf8(bytes).ok());
    let (user, password) = match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => (user.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (text("username"), text("password")),
    };
    let account = Account { user, password, identity_token: text("identitytoken") };
    (!account.user.is_empty() || !account.identity_token.is_empty()).then_some(account)
}

/// Without scheme and path.
fn host(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or_default()
}

/// Asks `docker-credential-HELPER get`.
fn ask_helper(helper: &str, key: &str) -> Result<Option<Account>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let answered = match run_helper(helper, "get", key.as_bytes()) {
        Err(error) if error.message.contains("credentials not found") => return Ok(None),
        answered => answered?,
    };
    let answer: Answer = serde_json::from_slice(&answered)
        .map_err(|_| Failure::new(format!("error getting credentials - docker-credential-{helper}: no JSON")))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Account { user: String::new(), password: String::new(), identity_token: answer.secret },
        _ => Account { user: answer.username, password: answer.secret, identity_token: String::new() },
    }))
}

fn run_helper(helper: &str, verb: &str, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let program = format!("docker-credential-{helper}");
    let action = if verb == "get" { "getting" } else { "changing" };
    let failed = |why: String| {
        Failure::new(format!("error {action} credentials - {program}: {why}"))
            .with_hint("config.json names it under credsStore or credHelpers")
    };
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing says why itself.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(output.stdout),
        // What helpers say there when they fail are words and no secret.
        false => Err(failed(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
    }
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
    fn several_registries_are_told_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let pair = |user: &str| json!({ "auth": base64::encode(format!("{user}:x").as_bytes()) });
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": pair("hub"), "a.example:5000": pair("a"), "secret.example": pair("nobody's"),
        } });
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let found = of_registries(directory.path(), ["docker.io", "a.example:5000", "b.example"]).unwrap().unwrap();
        let text = found.header().replace('-', "+").replace('_', "/");
        let read: Value = serde_json::from_slice(&base64::decode(&text).unwrap()).unwrap();
        let users: Vec<_> = read.as_object().unwrap().iter().map(|(key, it)| (key.as_str(), &it["username"])).collect();
        assert_eq!(users, [("a.example:5000", &json!("a")), (HUB_KEY, &json!("hub"))]);
        assert!(of_registries(directory.path(), ["b.example"]).unwrap().is_none());
        assert!(of_registries(directory.path(), []).unwrap().is_none());
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
    fn what_is_kept_is_found_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap().to_owned();
        let store = Store::of(&|name| (name == "DOCKER_CONFIG").then(|| path.clone()));
        store.change(|config| drop(config.insert("psFormat".into(), json!("x")))).unwrap();
        let me = Account { user: "me".into(), password: "p:w".into(), identity_token: String::new() };
        let file = directory.path().join("config.json");
        assert_eq!(keep(&store, key_of("https://a.example/v2/"), &me).unwrap(), Some(file.clone()));
        assert!(account(directory.path(), key_of("a.example")).unwrap() == Some(me));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(forget(&store, "a.example").unwrap() && !forget(&store, "a.example").unwrap());
        let left: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(left, json!({ "auths": {}, "psFormat": "x" }));
        assert_eq!([key_of("docker.io"), key_of(""), key_of("b:5000")], [HUB_KEY, HUB_KEY, "b:5000"]);
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
