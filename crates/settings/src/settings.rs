//! The settings themselves, and how each is read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    BuilderSettings, CollectionSettings, ContainerSettings, Keys, NetworkSettings, OwnRegistrySettings,
    RegistrySettings, SettingsError,
};

/// Docker's size of /dev/shm.
const SHM_SIZE_BYTES: u64 = 64 << 20;
/// Docker's driver.
const LOG_DRIVER: &str = "json-file";
/// Of the Container Device Interface (its SPEC.md).
const CDI_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What an engine is told. Its default is what holds where nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `data-root`: an absolute path.
    pub data_root: Option<PathBuf>,
    /// `hosts`: addresses to listen on, as they were written. Empty: the run root's socket.
    pub hosts: Vec<String>,
    /// `allowed-hosts`: names by which clients may call the engine over TCP, beside `localhost`.
    pub allowed_hosts: Vec<String>,
    /// `group`: name or number of the group that may use the unix sockets.
    pub group: Option<String>,
    /// `log-level`, and `debug`, which goes before it: the engine's own log.
    pub log_level: LogLevel,
    /// `labels` of the engine: `KEY=VALUE`, each key once.
    pub labels: Vec<String>,
    /// `log-driver` and `log-opts`: for containers that do not say.
    pub logging: LoggingSettings,
    /// `default-shm-size`: of containers that do not say.
    pub shm_size_bytes: u64,
    /// `ip`: where ports are published that name no address. `None`: everywhere.
    pub publish_address: Option<IpAddr>,
    /// `tls`, `tlsverify`, `tlscacert`, `tlscert`, `tlskey`.
    pub tls: TlsSettings,
    /// What containers get whose request does not say.
    pub containers: ContainerSettings,
    /// The addresses of networks, and the default bridge.
    pub networks: NetworkSettings,
    /// `builder`: how much builds may keep.
    pub builder: BuilderSettings,
    /// `collection`: what goes when the disk fills up.
    pub collection: CollectionSettings,
    /// How registries are reached.
    pub registries: RegistrySettings,
    /// `registry-listen`: the engine's own.
    pub own_registry: OwnRegistrySettings,
    /// `cdi-spec-dirs`: where specifications of devices lie; those of a later one come before those of an earlier.
    pub cdi_directories: Vec<PathBuf>,
    /// `min-api-version`: the least minor version of API 1 that is spoken. `None`: the oldest that is built.
    pub least_api_minor: Option<u16>,
}

/// How containers' output is kept that do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingSettings {
    /// The driver's name.
    pub driver: String,
    /// Its options, as a request has them.
    pub options: BTreeMap<String, String>,
}

/// How a TCP address is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `tls`: TLS without looking at the client's certificate. `Some(false)`: TCP without TLS is meant.
    pub is_on: Option<bool>,
    /// `tlsverify`: TLS, and clients show a certificate of the authority's. `Some(false)` as for `is_on`.
    pub verify: Option<bool>,
    /// The authority's certificate, PEM.
    pub authority: Option<PathBuf>,
    /// The engine's certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
}

/// How much the engine says in its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "Docker's words")]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
    Fatal,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_root: None,
            hosts: Vec::new(),
            allowed_hosts: Vec::new(),
            group: None,
            log_level: LogLevel::default(),
            labels: Vec::new(),
            logging: LoggingSettings::default(),
            shm_size_bytes: SHM_SIZE_BYTES,
            publish_address: None,
            tls: TlsSettings::default(),
            containers: ContainerSettings::default(),
            networks: NetworkSettings::default(),
            builder: BuilderSettings::default(),
            collection: CollectionSettings::default(),
            registries: RegistrySettings::default(),
            own_registry: OwnRegistrySettings::default(),
            cdi_directories: CDI_DIRECTORIES.map(PathBuf::from).to_vec(),
            least_api_minor: None,
        }
    }
}

impl Default for LoggingSettings {
    fn default() -> Self {
        Self { driver: LOG_DRIVER.to_owned(), options: BTreeMap::new() }
    }
}

impl Settings {
    /// Reads keys that all act.
    pub(crate) fn of(keys: &Keys) -> Result<Self, SettingsError> {
        let reader = Reader(keys);
        let default = Self::default();
        let shm_size_bytes = match keys.get("default-shm-size") {
            None => default.shm_size_bytes,
            Some(value) => size_bytes(value).filter(|bytes| *bytes > 0).ok_or_else(|| {
                SettingsError::value("default-shm-size", format!("{value} is no size: write \"64m\", or bytes"))
            })?,
        };
        if reader.switch("live-restore")? == Some(false) {
            return Err(SettingsError::value("live-restore", "containers always outlive the engine"));
        }
        Ok(Self {
            data_root: reader.path("data-root")?,
            hosts: reader.texts("hosts")?,
            allowed_hosts: reader.texts("allowed-hosts")?.into_iter().map(host_name).collect::<Result<_, _>>()?,
            group: reader.text("group")?.filter(|group| !group.is_empty()),
            log_level: match reader.switch("debug")? {
                Some(true) => LogLevel::Debug,
                _ => reader.text("log-level")?.map_or(Ok(LogLevel::default()), |text| log_level(&text))?,
            },
            labels: labels(reader.texts("labels")?)?,
            logging: LoggingSettings {
                driver: reader.text("log-driver")?.unwrap_or(default.logging.driver),
                options: reader.texts_by_name("log-opts")?,
            },
            shm_size_bytes,
            publish_address: match reader.text("ip")? {
                None => None,
                Some(text) => {
                    let bad = |_| SettingsError::value("ip", format!("{text:?} is no IP address"));
                    // Everywhere is what holds without it too, and means IPv4 and IPv6.
                    Some(text.parse::<IpAddr>().map_err(bad)?).filter(|address| !address.is_unspecified())
                }
            },
            tls: TlsSettings {
                is_on: reader.switch("tls")?,
                verify: reader.switch("tlsverify")?,
                authority: reader.path("tlscacert")?,
                certificate: reader.path("tlscert")?,
                key: reader.path("tlskey")?,
            },
            containers: ContainerSettings::of(&reader)?,
            networks: NetworkSettings::of(&reader)?,
            builder: BuilderSettings::of(&reader)?,
            collection: CollectionSettings::of(&reader)?,
            registries: RegistrySettings::of(&reader)?,
            own_registry: OwnRegistrySettings::of(&reader)?,
            cdi_directories: match reader.get("cdi-spec-dirs") {
                None => default.cdi_directories,
                Some(_) => reader.paths("cdi-spec-dirs")?,
            },
            least_api_minor: reader.text("min-api-version")?.map(|text| api_minor(&text)).transpose()?,
        })
    }

    /// Keys of `new` that take effect only when the engine starts again, and differ.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differ = [
            ("data-root", self.data_root != new.data_root),
            ("hosts", self.hosts != new.hosts),
            ("group", self.group != new.group),
            ("registry-listen", self.own_registry != new.own_registry),
            ("the addresses of networks", self.networks != new.networks),
            ("tls", (self.tls.is_on, self.tls.verify) != (new.tls.is_on, new.tls.verify)),
        ];
        differ.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// `self`, but for what takes effect only when the engine starts again: that stays as `present` has it.
    pub fn reloaded_over(self, present: &Self) -> Self {
        Self {
            data_root: present.data_root.clone(),
            hosts: present.hosts.clone(),
            group: present.group.clone(),
            own_registry: present.own_registry.clone(),
            networks: present.networks.clone(),
            tls: TlsSettings { is_on: present.tls.is_on, verify: present.tls.verify, ..self.tls },
            ..self
        }
    }
}

pub(crate) struct Reader<'a>(pub(crate) &'a Keys);

impl Reader<'_> {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(crate) fn switch(&self, key: &str) -> Result<Option<bool>, SettingsError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(SettingsError::value(key, format!("{other} is neither true nor false"))),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, SettingsError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(SettingsError::value(key, format!("{other} is no text"))),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, SettingsError> {
        let bad = |value: &Value| SettingsError::value(key, format!("{value} is no list of texts"));
        match self.0.get(key) {
            None => Ok(Vec::new()),
            Some(value @ Value::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| bad(value))).collect()
            }
            Some(other) => Err(bad(other)),
        }
    }

    fn texts_by_name(&self, key: &str) -> Result<BTreeMap<String, String>, SettingsError> {
        let bad = |value: &Value| {
            SettingsError::value(key, format!("{value}: write {{\"NAME\": \"VALUE\"}}, the value in quotation marks"))
        };
        match self.0.get(key) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(map)) => map
                .iter()
                .map(|(name, value)| {
                    value.as_str().map(|text| (name.clone(), text.to_owned())).ok_or_else(|| bad(value))
                })
                .collect(),
            Some(other) => Err(bad(other)),
        }
    }

    pub(crate) fn paths(&self, key: &str) -> Result<Vec<PathBuf>, SettingsError> {
        let absolute = |text: String| match Path::new(&text).is_absolute() {
            true => Ok(text.into()),
            false => Err(SettingsError::value(key, format!("{text:?} is not an absolute path"))),
        };
        self.texts(key)?.into_iter().map(absolute).collect()
    }

    pub(crate) fn path(&self, key: &str) -> Result<Option<PathBuf>, SettingsError> {
        match self.text(key)? {
            Some(text) if Path::new(&text).is_absolute() => Ok(Some(text.into())),
            Some(text) => Err(SettingsError::value(key, format!("{text:?} is not an absolute path"))),
            None => Ok(None),
        }
    }
}

fn log_level(text: &str) -> Result<LogLevel, SettingsError> {
    match text {
        "debug" | "trace" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "error" => Ok(LogLevel::Error),
        "fatal" | "panic" => Ok(LogLevel::Fatal),
        _ => Err(SettingsError::value("log-level", format!("{text:?} is none of debug, info, warn, error, fatal"))),
    }
}

/// A name as it stands in a request, without its port.
fn host_name(text: String) -> Result<String, SettingsError> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match is_name {
        true => Ok(text.trim_end_matches('.').to_owned()),
        false => Err(SettingsError::value(
            "allowed-hosts",
            format!("{text:?} is no name of a host: write it without scheme and port"),
        )),
    }
}

/// The oldest and the newest that are built are the API's to know.
fn api_minor(text: &str) -> Result<u16, SettingsError> {
    let minor = text.strip_prefix("1.").and_then(|minor| minor.parse().ok());
    minor.ok_or_else(|| SettingsError::value("min-api-version", format!("{text:?} is no version, as 1.44 is one")))
}

fn labels(labels: Vec<String>) -> Result<Vec<String>, SettingsError> {
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for label in &labels {
        let (name, value) = label
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| SettingsError::value("labels", format!("bad attribute format: {label}")))?;
        if values.insert(name, value).is_some_and(|other| other != value) {
            return Err(SettingsError::value("labels", format!("conflict labels for {name}")));
        }
    }
    Ok(labels)
}

/// Bytes as a number, or as Docker writes sizes: `64m`, `1GiB`, `512kb`.
pub(crate) fn size_bytes(value: &Value) -> Option<u64> {
    let text = match value {
        Value::Number(number) => return number.as_u64(),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        _ => return None,
    };
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Settings, String> {
        Settings::of(value.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_that_acts_is_read() {
        let read = read(json!({
            "data-root": "/srv/dozen", "hosts": ["unix:///a.sock", "fd://"], "allowed-hosts": ["a.example."], "group": "docker", "debug": true,
            "log-level": "error", "labels": ["rack=7", "rack=7"], "log-driver": "json-file",
            "log-opts": { "max-size": "10m", "max-file": "3" }, "default-shm-size": "128M", "ip": "127.0.0.1",
            "live-restore": true, "tls": true, "tlsverify": true, "tlscacert": "/ca.pem", "tlscert": "/cert.pem",
            "tlskey": "/key.pem", "cdi-spec-dirs": ["/cdi"], "min-api-version": "1.44", "dns": ["192.0.2.1"], "mtu": 1400,
        }));
        // Of which twenty-five are read in files of their own, with tests of their own: containers, users, networks, builder,
        // collection, registries, the own registry.
        let elsewhere = 25;
        let acting = crate::keys::KEYS.iter().filter(|(_, fate)| *fate == crate::keys::Fate::Acts).count();
        assert_eq!(acting, 21 + elsewhere, "this test has them all");
        let options = [("max-file", "3"), ("max-size", "10m")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            read,
            Ok(Settings {
                data_root: Some("/srv/dozen".into()),
                hosts: vec!["unix:///a.sock".into(), "fd://".into()],
                allowed_hosts: vec!["a.example".into()],
                group: Some("docker".into()),
                log_level: LogLevel::Debug,
                labels: vec!["rack=7".into(), "rack=7".into()],
                logging: LoggingSettings { driver: "json-file".into(), options: options.into() },
                shm_size_bytes: 128 << 20,
                publish_address: Some([127, 0, 0, 1].into()),
                tls: TlsSettings {
                    is_on: Some(true),
                    verify: Some(true),
                    authority: Some("/ca.pem".into()),
                    certificate: Some("/cert.pem".into()),
                    key: Some("/key.pem".into()),
                },
                containers: ContainerSettings {
                    dns: crate::DnsSettings { servers: vec![[192, 0, 2, 1].into()], ..Default::default() },
                    ..ContainerSettings::default()
                },
                networks: NetworkSettings { mtu: Some(1400), ..NetworkSettings::default() },
                builder: BuilderSettings::default(),
                collection: CollectionSettings::default(),
                registries: RegistrySettings::default(),
                own_registry: OwnRegistrySettings::default(),
                cdi_directories: vec!["/cdi".into()],
                least_api_minor: Some(44),
            })
        );
    }

    #[test]
    fn values_that_cannot_be_right_are_named() {
        for (value, words) in [
            (json!({ "debug": "yes" }), "option debug: \"yes\" is neither true nor false"),
            (json!({ "hosts": "unix:///a" }), "option hosts: \"unix:///a\" is no list of texts"),
            (json!({ "log-opts": { "max-file": 3 } }), "option log-opts: 3: write {\"NAME\": \"VALUE\"}"),
            (json!({ "log-level": "loud" }), "\"loud\" is none of debug"),
            (json!({ "labels": ["x"] }), "bad attribute format: x"),
            (json!({ "labels": ["a=1", "a=2"] }), "conflict labels for a"),
            (json!({ "default-shm-size": "much" }), "\"much\" is no size"),
            (json!({ "default-shm-size": 0 }), "0 is no size"),
            (json!({ "ip": "here" }), "\"here\" is no IP address"),
            (json!({ "live-restore": false }), "containers always outlive the engine"),
            (json!({ "data-root": "here" }), "\"here\" is not an absolute path"),
            (json!({ "cdi-spec-dirs": ["here"] }), "\"here\" is not an absolute path"),
            (json!({ "allowed-hosts": ["http://a"] }), "\"http://a\" is no name of a host"),
            (json!({ "min-api-version": "44" }), "\"44\" is no version"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (value, want) in [
            (json!(67_108_864), Some(64 << 20)),
            (json!("64m"), Some(64 << 20)),
            (json!("1 GiB"), Some(1 << 30)),
            (json!("512"), Some(512)),
            (json!("-1"), None),
            (json!("99999999999t"), None),
        ] {
            assert_eq!(size_bytes(&value), want, "{value}");
        }
    }

    #[test]
    fn a_reload_leaves_what_only_a_start_can_change() {
        let present = read(json!({ "hosts": ["unix:///a"], "labels": ["a=1"] })).unwrap();
        let new = read(json!({ "hosts": ["unix:///b"], "labels": ["a=2"], "tlscert": "/new" })).unwrap();
        assert_eq!(present.needs_restart(&new), ["hosts"]);
        let reloaded = new.reloaded_over(&present);
        assert_eq!(
            (reloaded.hosts.as_slice(), reloaded.labels.as_slice()),
            (&["unix:///a".to_owned()][..], &["a=2".to_owned()][..])
        );
        assert_eq!(reloaded.tls.certificate.as_deref(), Some(Path::new("/new")));
    }
}
