//! The flags of `dozen daemon`, and what they say by the names that the configuration file has.

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use dozen_model::run_root::SOCKET_NAME;
use dozen_settings::Keys;
use serde_json::{Value, json};

use crate::configuration::Sources;
use crate::defaults::Defaults;
use crate::registries::Registries;

#[derive(Debug, Parser)]
#[command(
    name = "dozen daemon",
    about = "Run the engine in the foreground",
    after_help = "Examples:\n  dozen daemon\n  dozen daemon --data-root /srv/dozen --run-root /run/dozen-2\n  \
                  dozen daemon --validate --config-file ./daemon.json\n\n\
                  SIGTERM ends it. What runs goes on without it, and is found again by the next one.\n\
                  SIGHUP has it read its configuration file again."
)]
pub(crate) struct Arguments {
    /// Where images, containers and volumes are kept
    #[arg(long, env = "DOZEN_DATA_ROOT", default_value = "/var/lib/dozen")]
    pub(crate) data_root: PathBuf,
    /// Where sockets and locks are kept
    #[arg(long, env = "DOZEN_RUN_ROOT", default_value = "/run/dozen")]
    pub(crate) run_root: PathBuf,
    /// Address to listen on, more than once if need be: unix:///path, tcp://address:port with
    /// --tlsverify, or fd:// for the socket unit's (by default the
    /// socket dozen.sock in the run root)
    #[arg(short = 'H', long, env = "DOZEN_HOST")]
    host: Vec<String>,
    /// Name by which clients may call the engine over TCP without TLS, beside localhost and addresses
    #[arg(long)]
    allowed_host: Vec<String>,
    /// Group that may use the unix sockets
    #[arg(short = 'G', long)]
    group: Option<String>,
    /// Configuration file (by default /etc/dozen/daemon.json, if it is there)
    #[arg(long)]
    config_file: Option<PathBuf>,
    /// Read the configuration, say what is wrong with it, and end
    #[arg(long)]
    pub(crate) validate: bool,
    /// The same as --log-level debug
    #[arg(short = 'D', long)]
    debug: bool,
    /// How much the engine says: debug, info, warn, error, fatal
    #[arg(short = 'l', long)]
    log_level: Option<String>,
    /// Label of the engine: KEY=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// Log driver of containers that name none
    #[arg(long)]
    log_driver: Option<String>,
    /// Option of that log driver: NAME=VALUE
    #[arg(long)]
    log_opt: Vec<String>,
    /// Size of /dev/shm in containers that name none
    #[arg(long)]
    default_shm_size: Option<String>,
    /// Address on which ports are published that name none
    #[arg(long)]
    ip: Option<String>,
    #[command(flatten)]
    defaults: Defaults,
    #[command(flatten)]
    registries: Registries,
    /// Use TLS on tcp:// addresses; implied by --tlsverify, without which it is refused (--tls=false: anybody is let in)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    tls: Option<bool>,
    /// Use TLS, and let in only clients with a certificate of the authority's
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    tlsverify: Option<bool>,
    /// Certificate of the authority that signs the clients' (PEM)
    #[arg(long)]
    tlscacert: Option<PathBuf>,
    /// Certificate of the engine (PEM)
    #[arg(long)]
    tlscert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long)]
    tlskey: Option<PathBuf>,
    /// Print the places where the crash suite can kill engine, monitor and keeper, and end
    #[arg(long, hide = true)]
    pub(crate) failpoints: bool,
    /// Filled in by [`Self::read`].
    #[arg(skip)]
    environment: Vec<&'static str>,
}

impl Arguments {
    /// Reads the command line, which begins with the word `daemon`. Ends the process for `--help` and a bad flag.
    pub(crate) fn read(arguments: impl Iterator<Item = std::ffi::OsString>) -> Self {
        let mut command = Self::command();
        let matches = command.clone().get_matches_from(arguments);
        Self::of(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }

    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut read = Self::from_arg_matches(matches)?;
        let is_environments = |name: &&str| matches.value_source(name) == Some(ValueSource::EnvVariable);
        let is_said =
            |name: &&str| matches.value_source(name).is_some_and(|source| source != ValueSource::DefaultValue);
        read.environment =
            ["data_root", "host"].into_iter().filter(|name| is_environments(name) || !is_said(name)).collect();
        Ok(read)
    }

    /// What flags and environment say. Paths on the command line count from here.
    pub(crate) fn sources(&self) -> Result<Sources, String> {
        let mut sources = Sources {
            file: self.config_file.clone(),
            environment: Keys::new(),
            flags: Keys::new(),
            own_socket: absolute(&self.run_root)?.join(SOCKET_NAME),
        };
        let data_root = text(&absolute(&self.data_root)?)?;
        if !self.is_of("data_root") {
            sources.flags.insert("data-root".into(), data_root);
        } else if std::env::var_os("DOZEN_DATA_ROOT").is_some() {
            sources.environment.insert("data-root".into(), data_root);
        }
        if !self.host.is_empty() {
            let layer = if self.is_of("host") { &mut sources.environment } else { &mut sources.flags };
            layer.insert("hosts".into(), json!(self.host));
        }
        let texts = [
            ("group", &self.group),
            ("log-level", &self.log_level),
            ("log-driver", &self.log_driver),
            ("default-shm-size", &self.default_shm_size),
            ("ip", &self.ip),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                sources.flags.insert(key.into(), json!(value));
            }
        }
        self.defaults.say(&mut sources.flags)?;
        self.registries.say(&mut sources.flags);
        for (key, value) in [("tlscacert", &self.tlscacert), ("tlscert", &self.tlscert), ("tlskey", &self.tlskey)] {
            if let Some(path) = value {
                sources.flags.insert(key.into(), text(&absolute(path)?)?);
            }
        }
        for (key, is_on) in [("debug", self.debug.then_some(true)), ("tls", self.tls), ("tlsverify", self.tlsverify)] {
            if let Some(is_on) = is_on {
                sources.flags.insert(key.into(), json!(is_on));
            }
        }
        if !self.allowed_host.is_empty() {
            sources.flags.insert("allowed-hosts".into(), json!(self.allowed_host));
        }
        if !self.label.is_empty() {
            sources.flags.insert("labels".into(), json!(self.label));
        }
        if !self.log_opt.is_empty() {
            sources.flags.insert("log-opts".into(), Value::Object(options(&self.log_opt)?));
        }
        Ok(sources)
    }

    fn is_of(&self, name: &str) -> bool {
        self.environment.contains(&name)
    }
}

fn options(words: &[String]) -> Result<Keys, String> {
    let option = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), json!(value))),
        _ => Err(format!("--log-opt {word}: write NAME=VALUE")),
    };
    words.iter().map(option).collect()
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("cannot tell where {} is: {error}", path.display()))
}

pub(crate) fn text(path: &Path) -> Result<Value, String> {
    path.to_str().map(|text| json!(text)).ok_or_else(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(words: &[&str]) -> Sources {
        let words = ["daemon"].iter().chain(words).map(std::ffi::OsString::from);
        let matches = Arguments::command().get_matches_from(words);
        Arguments::of(&matches).unwrap().sources().unwrap()
    }

    #[test]
    fn flags_speak_by_the_names_of_the_file() {
        Arguments::command().debug_assert();
        let flags = sources(&[
            "--data-root",
            "/d",
            "--run-root",
            "/r",
            "-H",
            "unix:///a",
            "-H",
            "fd://",
            "-G",
            "docker",
            "--allowed-host",
            "a.example",
            "-D",
            "--label",
            "a=1",
            "--label",
            "b=2",
            "--log-opt",
            "max-size=1m",
            "--default-shm-size",
            "1m",
            "--ip",
            "127.0.0.1",
        ]);
        assert_eq!(flags.own_socket, Path::new("/r/dozen.sock"));
        assert_eq!(
            Value::Object(flags.flags),
            json!({
                "data-root": "/d", "hosts": ["unix:///a", "fd://"], "group": "docker", "debug": true,
                "allowed-hosts": ["a.example"],
                "labels": ["a=1", "b=2"], "log-opts": { "max-size": "1m" }, "default-shm-size": "1m", "ip": "127.0.0.1",
            })
        );
    }

    #[test]
    fn what_nobody_says_is_the_files_to_say() {
        let sources = sources(&[]);
        assert!(sources.flags.is_empty());
    }
}
