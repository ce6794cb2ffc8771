//! docker's store: `contexts/meta/<sha256 of the name>/meta.json`, and `currentContext` in `config.json`.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// The context that is not stored: what environment and flags say.
pub const DEFAULT: &str = "default";
/// A description is all that a file has besides an address: one that is larger is none of docker's.
const LARGEST_BYTES: u64 = 1 << 20;

/// Docker's names for the three files of an engine over TLS.
pub const FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// Files of a context, by name.
pub type Certificates = Vec<(String, Vec<u8>)>;

/// One of them, as its file has it: what we do not know stays as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredContext(pub Value);

impl StoredContext {
    /// A new one.
    pub fn new(name: &str) -> Self {
        Self(json!({ "Name": name, "Metadata": {}, "Endpoints": {} }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0["Name"].as_str().unwrap_or_default()
    }

    /// What its owner says of it.
    pub fn description(&self) -> &str {
        self.0["Metadata"]["Description"].as_str().unwrap_or_default()
    }

    /// The engine's address.
    pub fn host(&self) -> Option<String> {
        self.0["Endpoints"]["docker"]["Host"].as_str().filter(|host| !host.is_empty()).map(str::to_owned)
    }

    /// Sets what its owner says of it.
    pub fn set_description(&mut self, description: &str) {
        self.0["Metadata"]["Description"] = json!(description);
    }

    /// Sets the engine's address.
    pub fn set_host(&mut self, host: &str) {
        self.0["Endpoints"]["docker"] = json!({ "Host": host, "SkipTLSVerify": false });
    }
}

/// The directory that docker's command line keeps its things in.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// `DOCKER_CONFIG`, or `.docker` at home.
    pub fn of(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let directory = variable("DOCKER_CONFIG").map(PathBuf::from);
        let home = || PathBuf::from(variable("HOME").unwrap_or_else(|| "/root".to_owned())).join(".docker");
        Self { directory: directory.unwrap_or_else(home) }
    }

    /// Where it is; docker looks for certificates there too.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a context's certificates are.
    pub fn certificates(&self, name: &str) -> PathBuf {
        self.directory.join("contexts/tls").join(hash(name)).join("docker")
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Result<StoredContext, Failure> {
        let missing = || Failure::new(format!("context \"{name}\": context not found: no such context \"{name}\""));
        match self.read(&self.place(name)) {
            Ok(context) if context.name() == name => Ok(context),
            Ok(_) => Err(missing()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing().with_hint("see 'dozen context ls'")),
            Err(error) => Err(Failure::new(format!("context \"{name}\": {error}"))),
        }
    }

    /// All of them, by name. What is no context is passed over.
    pub fn list(&self) -> Vec<StoredContext> {
        let entries = std::fs::read_dir(self.directory.join("contexts/meta"));
        let mut contexts: Vec<_> =
            entries.into_iter().flatten().flatten().filter_map(|entry| self.read(&entry.path()).ok()).collect();
        contexts.sort_by(|one, other| one.name().cmp(other.name()));
        contexts
    }

    /// Writes it, in place of one of the same name.
    pub fn put(&self, context: &StoredContext) -> Result<(), Failure> {
        let place = self.place(context.name());
        let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", place.display()));
        std::fs::create_dir_all(&place).map_err(failed)?;
        replace(&place.join("meta.json"), json(&context.0)).map_err(failed)
    }

    /// What lies beside it.
    pub fn certificates_of(&self, name: &str) -> Result<Certificates, Failure> {
        let read = |file: String| {
            let path = self.certificates(name).join(&file);
            let failed = |error: io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
            Ok((file, std::fs::read(&path).map_err(failed)?))
        };
        self.names_of_certificates(name).into_iter().map(read).collect()
    }

    /// Of docker's three files, those that lie beside it.
    pub fn names_of_certificates(&self, name: &str) -> Vec<String> {
        let directory = self.certificates(name);
        FILES.iter().filter(|file| directory.join(file).is_file()).map(|file| (*file).to_owned()).collect()
    }

    /// Where it lies, and its certificates, as docker says it.
    pub fn places(&self, name: &str) -> [String; 2] {
        [self.place(name), self.directory.join("contexts/tls").join(hash(name))].map(|path| path.display().to_string())
    }

    /// Puts certificates beside it, readable by their owner alone.
    pub fn put_certificates(&self, name: &str, certificates: &Certificates) -> Result<(), Failure> {
        let directory = self.certificates(name);
        let write = |(file, bytes): &(String, Vec<u8>)| {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            replace(&directory.join(file), |file| io::Write::write_all(file, bytes))
        };
        certificates
            .iter()
            .try_for_each(write)
            .map_err(|error| Failure::new(format!("cannot write into {}: {error}", directory.display())))
    }

    /// Removes it, with the certificates that docker may have put beside it.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        self.get(name)?;
        let place = self.place(name);
        let failed = |error: io::Error| Failure::new(format!("cannot remove {}: {error}", place.display()));
        match std::fs::remove_dir_all(self.directory.join("contexts/tls").join(hash(name))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::fs::remove_dir_all(&place).map_err(failed)
    }

    /// What `context use` has set; `None`: nothing, or the default.
    pub fn chosen(&self) -> Option<String> {
        let config = self.config().ok()?;
        config.get("currentContext")?.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// `context use`. The rest of docker's configuration stays as it is.
    pub fn choose(&self, name: &str) -> Result<(), Failure> {
        self.change(|config| {
            if name == DEFAULT {
                config.remove("currentContext");
            } else {
                config.insert("currentContext".to_owned(), json!(name));
            }
        })
    }

    /// Changes docker's configuration (`config.json`), which from then on nobody else may read.
    pub fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), Failure> {
        let path = self.directory.join("config.json");
        let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
        let mut config = self.config().map_err(failed)?;
        change(&mut config);
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        replace(&path, json(&Value::Object(config))).map_err(failed)
    }

    fn config(&self) -> io::Result<Map<String, Value>> {
        match std::fs::read(self.directory.join("config.json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
            Err(error) => Err(error),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.join("contexts/meta").join(hash(name))
    }

    fn read(&self, place: &Path) -> io::Result<StoredContext> {
        let path = place.join("meta.json");
        if std::fs::metadata(&path)?.len() > LARGEST_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "its file is too large"));
        }
        let value: Value = serde_json::from_slice(&std::fs::read(path)?)?;
        if value["Name"].is_string() {
            Ok(StoredContext(value))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "its file has no name"))
        }
    }
}

fn hash(name: &str) -> String {
    Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Docker's rule for names.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || "_.+-".contains(letter);
    if name == DEFAULT {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    if name.len() < 2 || !name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) || !name.chars().all(is_fit) {
        return Err(Failure::new(format!(
            "context name \"{name}\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        )));
    }
    Ok(())
}

fn json(value: &Value) -> impl FnOnce(&mut std::fs::File) -> io::Result<()> {
    move |file| serde_json::to_writer_pretty(file, value).map_err(io::Error::from)
}

/// By rename; config.json may have secrets of docker's in it, and a key is one.
fn replace(path: &Path, write: impl FnOnce(&mut std::fs::File) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let replaced = write(&mut file).and_then(|()| std::fs::rename(&new, path));
    if replaced.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().display().to_string();
        let store = Store::of(&move |name| (name == "DOCKER_CONFIG").then(|| place.clone()));
        (directory, store)
    }

    #[test]
    fn a_context_lies_where_docker_looks_for_it() {
        let (directory, store) = store();
        let mut context = StoredContext::new("far");
        context.set_host("ssh://me@there");
        store.put(&context).unwrap();
        let meta = directory
            .path()
            .join("contexts/meta")
            .join("512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868")
            .join("meta.json");
        let text: Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
        assert_eq!(
            text,
            json!({ "Name": "far", "Metadata": {}, "Endpoints": { "docker": { "Host": "ssh://me@there", "SkipTLSVerify": false } } })
        );
        assert_eq!(store.get("far").unwrap().host().as_deref(), Some("ssh://me@there"));
        assert_eq!(store.list().len(), 1);
        store.remove("far").unwrap();
        assert!(store.get("far").unwrap_err().message.contains("no such context \"far\""));
    }

    #[test]
    fn a_key_is_its_owners_alone_and_goes_with_its_context() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, store) = store();
        let mut context = StoredContext::new("far");
        context.set_host("tcp://there:2376");
        let certificates = FILES.map(|file| (file.to_owned(), file.as_bytes().to_vec())).to_vec();
        store.put_certificates("far", &certificates).unwrap();
        store.put(&context).unwrap();
        assert_eq!(store.certificates_of("far").unwrap(), certificates);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let place = store.certificates("far");
        assert_eq!((mode(&place), mode(&place.join("key.pem"))), (0o700, 0o600));
        store.remove("far").unwrap();
        assert!(store.names_of_certificates("far").is_empty() && !place.exists());
        drop(directory);
    }

    #[test]
    fn choosing_one_leaves_the_rest_of_dockers_configuration() {
        let (directory, store) = store();
        std::fs::write(directory.path().join("config.json"), r#"{"auths":{"x":{}},"currentContext":"old"}"#).unwrap();
        assert_eq!(store.chosen().as_deref(), Some("old"));
        store.choose("new").unwrap();
        assert_eq!(store.chosen().as_deref(), Some("new"));
        store.choose(DEFAULT).unwrap();
        assert_eq!(store.chosen(), None);
        assert!(std::fs::read_to_string(directory.path().join("config.json")).unwrap().contains("auths"));
    }

    #[test]
    fn names_are_dockers() {
        for good in ["ab", "my-machine_1.2+3"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "default", "-ab", "a b", "../x", "ä1"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_in_the_environment_goes_before_what_was_chosen() {
        use super::super::current;
        let (_directory, store) = store();
        store.choose("chosen").unwrap();
        let of = |named: Option<&str>, variables: &[(&str, &str)]| {
            let look =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            current(named, &look, &store)
        };
        assert_eq!(of(None, &[]), "chosen");
        assert_eq!(of(None, &[("DOCKER_CONTEXT", "other")]), "other");
        assert_eq!(of(None, &[("DOCKER_CONTEXT", "other"), ("DOCKER_HOST", "unix:///x")]), "default");
        assert_eq!(of(Some("named"), &[("DOCKER_HOST", "unix:///x")]), "named");
    }
}
