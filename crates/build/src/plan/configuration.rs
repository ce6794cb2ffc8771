//! What an image says of itself: the part of its configuration that containers are made from (OCI image-spec, config.md;
//! what Docker has beside it, moby/docker-image-spec), and what it is for.

use std::collections::{BTreeMap, BTreeSet};

use dozen_dockerfile::scope::Platform;
use serde_json::{Map, Value, json};

/// Where programs are looked for if the image says nothing (moby/buildkit, util/system).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image is for, in a configuration's words.
const PLATFORM_KEYS: [&str; 5] = ["architecture", "os", "variant", "os.version", "os.features"];

/// An image's configuration without its layers and its history. Lists that are empty are not written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// In order, each name once.
    pub environment: Vec<(String, String)>,
    /// `user[:group]`; empty: root.
    pub user: String,
    /// Absolute, as it was written, or empty.
    pub working_directory: String,
    /// The program that a container is.
    pub entrypoint: Vec<String>,
    /// What it runs, or the program's arguments.
    pub command: Vec<String>,
    /// `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// Directories that are volumes.
    pub volumes: BTreeSet<String>,
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// As it was written.
    pub stop_signal: String,
    /// The shell of the shell form; empty: `/bin/sh -c`.
    pub shell: Vec<String>,
    /// As Docker writes it: `Test`, and durations in nanoseconds.
    pub healthcheck: Option<Value>,
    /// What is to be done upon it, an instruction each.
    pub on_build: Vec<String>,
    /// A CMD has been said: of use on Windows alone, and written by BuildKit everywhere.
    pub is_escaped: bool,
    /// Who made it.
    pub author: String,
    /// `architecture`, `os`, and what stands beside them.
    platform: Map<String, Value>,
}

impl Configuration {
    /// That of no image.
    pub(super) fn empty(platform: &Platform) -> Self {
        let mut empty = Self { working_directory: "/".to_owned(), ..Self::default() };
        empty.set_platform(platform);
        empty.environment.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        empty
    }

    /// That of an image. What is not as it should be counts as not there: the image was let into the store with it.
    pub(super) fn read(raw: &Value) -> Self {
        let config = &raw["config"];
        let mut environment = environment(&config["Env"]);
        if !environment.iter().any(|(name, _)| name == "PATH") {
            environment.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        let labels = config["Labels"].as_object().into_iter().flatten();
        let working_directory = match string(&config["WorkingDir"]) {
            path if path.is_empty() || path.starts_with('/') => path,
            path => super::path::join("/", &path),
        };
        let platform = PLATFORM_KEYS.iter().filter_map(|key| Some(((*key).to_owned(), raw.get(key)?.clone())));
        Self {
            environment,
            user: string(&config["User"]),
            working_directory,
            entrypoint: strings(&config["Entrypoint"]),
            command: strings(&config["Cmd"]),
            exposed_ports: keys(&config["ExposedPorts"]),
            volumes: keys(&config["Volumes"]),
            labels: labels.map(|(name, value)| (name.clone(), string(value))).collect(),
            stop_signal: string(&config["StopSignal"]),
            shell: strings(&config["Shell"]),
            healthcheck: config.get("Healthcheck").filter(|check| check.is_object()).cloned(),
            on_build: strings(&config["OnBuild"]),
            is_escaped: config["ArgsEscaped"] == json!(true),
            author: string(&raw["author"]),
            platform: platform.collect(),
        }
    }

    /// Says what it is for.
    pub(super) fn set_platform(&mut self, platform: &Platform) {
        let is_same = self.platform.get("os") == Some(&json!(platform.os))
            && self.platform.get("architecture") == Some(&json!(platform.architecture));
        if !is_same {
            self.platform.clear();
        }
        self.platform.insert("os".to_owned(), json!(platform.os));
        self.platform.insert("architecture".to_owned(), json!(platform.architecture));
        if !platform.variant.is_empty() {
            self.platform.insert("variant".to_owned(), json!(platform.variant));
        }
    }

    /// Sets a variable where it stands, or behind all others.
    pub(super) fn set_environment(&mut self, name: &str, value: String) {
        match self.environment.iter_mut().find(|(known, _)| known == name) {
            Some((_, before)) => *before = value,
            None => self.environment.push((name.to_owned(), value)),
        }
    }

    /// What it is for, with the names of a configuration.
    pub(super) fn platform(&self) -> &Map<String, Value> {
        &self.platform
    }

    /// The member `config` of an image's document.
    pub fn to_value(&self) -> Value {
        let mut config = Map::new();
        let mut add = |key: &str, is_empty: bool, value: Value| {
            if !is_empty {
                config.insert(key.to_owned(), value);
            }
        };
        let set = |names: &BTreeSet<String>| names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>();
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        add("Env", self.environment.is_empty(), environment.collect());
        add("User", self.user.is_empty(), json!(self.user));
        add("WorkingDir", self.working_directory.is_empty(), json!(self.working_directory));
        add("Entrypoint", self.entrypoint.is_empty(), json!(self.entrypoint));
        add("Cmd", self.command.is_empty(), json!(self.command));
        add("ExposedPorts", self.exposed_ports.is_empty(), Value::Object(set(&self.exposed_ports)));
        add("Volumes", self.volumes.is_empty(), Value::Object(set(&self.volumes)));
        add("Labels", self.labels.is_empty(), json!(self.labels));
        add("StopSignal", self.stop_signal.is_empty(), json!(self.stop_signal));
        add("Shell", self.shell.is_empty(), json!(self.shell));
        add("Healthcheck", self.healthcheck.is_none(), json!(self.healthcheck));
        add("OnBuild", self.on_build.is_empty(), json!(self.on_build));
        add("ArgsEscaped", !self.is_escaped, json!(true));
        Value::Object(config)
    }

    /// About the bytes that it takes.
    pub(super) fn size(&self) -> usize {
        let pairs = self.environment.iter().map(|(name, value)| name.len() + value.len());
        let labels = self.labels.iter().map(|(name, value)| name.len() + value.len());
        let lists = [&self.entrypoint, &self.command, &self.shell, &self.on_build];
        let words = lists.into_iter().flatten().chain(&self.exposed_ports).chain(&self.volumes).map(String::len);
        pairs.chain(labels).chain(words).map(|length| length + 2 * super::TEXT_WORK).sum()
    }
}

/// Each name once, where it stood first; the last value counts.
fn environment(entries: &Value) -> Vec<(String, String)> {
    let mut environment: Vec<(String, String)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for entry in strings(entries) {
        let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
        match places.get(name) {
            Some(at) => environment[*at].1 = value.to_owned(),
            None => {
                places.insert(name.to_owned(), environment.len());
                environment.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    environment
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}
