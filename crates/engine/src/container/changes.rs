//! `--change`: Dockerfile instructions that say what becomes of an image's configuration, for `commit` and `import`.

use std::collections::BTreeMap;

use dozen_model::{MountSource, Protocol, Signal};
use oci_spec::image::{Config, ConfigBuilder};

use crate::EngineError;
use crate::container::snapshot::Snapshot;

mod words;

use words::{Variables, expand, split};

/// The part of a configuration that an image keeps of its container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    user: String,
    exposed_ports: Vec<String>,
    environment: Vec<(String, String)>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    volumes: Vec<String>,
    working_directory: String,
    labels: BTreeMap<String, String>,
    stop_signal: Option<Signal>,
    /// A change has set the command: it is meant for the entrypoint that another change sets.
    has_new_command: bool,
}

impl Settings {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let spec = &snapshot.spec;
        let pair = |entry: &String| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let anonymous = |mount: &dozen_model::Mount| match &mount.source {
            MountSource::Volume { anonymous: true, .. } => Some(mount.target.to_string_lossy().into_owned()),
            _ => None,
        };
        Self {
            user: spec.process.user.to_string(),
            exposed_ports: spec.exposed_ports.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect(),
            environment: spec.process.environment.iter().filter_map(pair).collect(),
            entrypoint: spec.process.entrypoint.clone(),
            command: spec.process.command.clone(),
            volumes: spec.mounts.iter().filter_map(anonymous).collect(),
            working_directory: spec.process.working_directory.clone(),
            labels: spec.labels.clone(),
            stop_signal: (spec.stop.signal != Signal::TERM).then_some(spec.stop.signal),
            has_new_command: false,
        }
    }

    /// All changes in order, each one Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR,
    /// STOPSIGNAL.
    pub(crate) fn apply_all(&mut self, changes: &[String]) -> Result<(), EngineError> {
        changes.iter().try_for_each(|change| {
            self.apply(change).map_err(|why| EngineError::Invalid {
                message: format!("cannot apply the change {change:?}: {why}"),
                hint: Some(
                    "changes are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR and STOPSIGNAL".into(),
                ),
            })
        })
    }

    /// One Dockerfile instruction, by the Dockerfile reference. Variables are those of the environment as the changes
    /// before this one left it; a command's are the container's shell's business.
    fn apply(&mut self, change: &str) -> Result<(), String> {
        let (instruction, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
        let rest = rest.trim();
        let variables = Variables::of(&self.environment);
        match instruction.to_ascii_uppercase().as_str() {
            "CMD" => {
                self.command = command(rest);
                self.has_new_command |= !self.command.is_empty();
            }
            "ENTRYPOINT" => {
                self.entrypoint = command(rest);
                // As in a Dockerfile: a command that belonged to another entrypoint does not fit this one.
                if !self.has_new_command {
                    self.command.clear();
                }
            }
            "ENV" => {
                for (name, value) in pairs(rest, &variables)? {
                    self.environment.retain(|(known, _)| *known != name);
                    self.environment.push((name, value));
                }
            }
            "LABEL" => self.labels.extend(pairs(rest, &variables)?),
            "EXPOSE" => {
                let expanded =
                    split(rest)?.into_iter().map(|word| expand(word, &variables)).collect::<Result<Vec<_>, _>>()?;
                // A variable may hold several ports.
                for word in expanded.iter().flat_map(|words| words.split_whitespace()) {
                    let (port, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
                    let port: u16 = port.parse().map_err(|_| format!("{word:?} is no port"))?;
                    let protocol: Protocol =
                        protocol.parse().map_err(|error: dozen_model::PortError| error.to_string())?;
                    let exposed = format!("{port}/{protocol}");
                    if !self.exposed_ports.contains(&exposed) {
                        self.exposed_ports.push(exposed);
                    }
                }
            }
            "USER" => self.user = valued(expand(rest, &variables)?)?,
            "VOLUME" => {
                let paths = match serde_json::from_str::<Vec<String>>(rest) {
                    Ok(paths) => paths,
                    Err(_) => rest.split_whitespace().map(str::to_owned).collect(),
                };
                let paths =
                    paths.iter().map(|path| valued(expand(path, &variables)?)).collect::<Result<Vec<_>, _>>()?;
                if paths.is_empty() {
                    return Err("it needs a value".into());
                }
                self.volumes.extend(paths);
            }
            "WORKDIR" => {
                let path = valued(expand(rest, &variables)?)?;
                self.working_directory = match path.starts_with('/') {
                    true => path,
                    false => format!("{}/{path}", self.working_directory.trim_end_matches('/')),
                }
            }
            "STOPSIGNAL" => {
                let signal = expand(rest, &variables)?.parse();
                self.stop_signal = Some(signal.map_err(|error: dozen_model::SignalError| error.to_string())?)
            }
            "HEALTHCHECK" | "ONBUILD" => return Err(format!("{instruction} is not built yet")),
            _ => return Err(format!("{instruction} is not a valid change command")),
        }
        Ok(())
    }

    pub(crate) fn into_config(self) -> Config {
        let environment =
            self.environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let mut config = ConfigBuilder::default()
            .env(environment)
            .working_dir(self.working_directory)
            .labels(self.labels.into_iter().collect::<std::collections::HashMap<_, _>>());
        if !self.user.is_empty() {
            config = config.user(self.user);
        }
        if !self.exposed_ports.is_empty() {
            config = config.exposed_ports(self.exposed_ports);
        }
        if !self.entrypoint.is_empty() {
            config = config.entrypoint(self.entrypoint);
        }
        if !self.command.is_empty() {
            config = config.cmd(self.command);
        }
        if !self.volumes.is_empty() {
            config = config.volumes(self.volumes);
        }
        if let Some(signal) = self.stop_signal {
            config = config.stop_signal(signal.to_string());
        }
        config.build().expect("every field of an image's configuration is optional")
    }
}

/// The JSON form, or else the shell form.
fn command(rest: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(arguments) => arguments,
        Err(_) if rest.is_empty() => Vec::new(),
        Err(_) => vec!["/bin/sh".into(), "-c".into(), rest.to_owned()],
    }
}

fn valued(text: String) -> Result<String, String> {
    if text.is_empty() { Err("it needs a value".into()) } else { Ok(text) }
}

/// `NAME=value NAME="a value"`, or the old form `NAME the rest`.
fn pairs(rest: &str, variables: &Variables) -> Result<Vec<(String, String)>, String> {
    let words = split(rest)?;
    let pair = |name: &str, value: &str| match (expand(name, variables)?, expand(value, variables)?) {
        (name, _) if name.is_empty() => Err("it needs NAME=value: the name is empty".to_owned()),
        pair => Ok(pair),
    };
    match words.first() {
        None => Err("it needs NAME=value".into()),
        Some(first) if !first.contains('=') => {
            let (name, value) = rest.split_once(char::is_whitespace).ok_or("it needs NAME=value")?;
            Ok(vec![pair(name, value.trim())?])
        }
        Some(_) => words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((name, value)) => pair(name, value),
                None => Err(format!("{word:?} is not NAME=value")),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(changes: &[&str]) -> Settings {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = Settings {
            command: vec!["old".into()],
            working_directory: "/a".into(),
            environment: vec![pair("PATH", "/bin"), pair("WHO", "me")],
            ..Settings::default()
        };
        changes.iter().for_each(|change| settings.apply(change).unwrap());
        settings
    }

    #[test]
    fn changes_act() {
        let settings = applied(&[
            "ENTRYPOINT [\"python\"]",
            "cmd [\"app.py\", \"-v\"]",
            "ENV A=1 B=\"two words\"",
            "ENV A the rest",
            "EXPOSE 80 53/udp",
            "USER app:app",
            "WORKDIR b",
            "LABEL x=y",
            "VOLUME /data",
            "STOPSIGNAL INT",
        ]);
        assert_eq!(
            (settings.entrypoint, settings.command),
            (vec!["python".into()], vec!["app.py".into(), "-v".into()])
        );
        assert_eq!(settings.environment[2..], [("B".into(), "two words".into()), ("A".into(), "the rest".into())]);
        assert_eq!(settings.exposed_ports, ["80/tcp", "53/udp"]);
        assert_eq!((settings.user.as_str(), settings.working_directory.as_str()), ("app:app", "/a/b"));
        assert_eq!((settings.labels["x"].as_str(), settings.volumes), ("y", vec!["/data".to_owned()]));
        assert_eq!(settings.stop_signal.map(|signal| signal.number()), Some(2));
        assert_eq!(applied(&["CMD echo $HOME"]).command, ["/bin/sh", "-c", "echo $HOME"]);
    }

    #[test]
    fn variables_are_the_containers_and_those_set_before() {
        let settings = applied(&[
            "ENV PATH=/venv/bin:$PATH PORTS=\"80 443/tcp\"",
            // All of one instruction sees what was before it.
            "ENV PATH=/first:$PATH AFTER=${PATH}",
            "ENV OLD form of $WHO",
            "LABEL \"of.$WHO\"='$WHO' x=\\$WHO",
            "EXPOSE $PORTS ${NONE:-90}/udp",
            "USER ${NOBODY:-app}",
            "WORKDIR $WHO/src",
            "VOLUME [\"/data/$WHO\"]",
            "STOPSIGNAL ${WHO:+INT}",
            "CMD echo $WHO",
            "ENTRYPOINT [\"$WHO\"]",
        ]);
        let environment: Vec<_> = settings.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let paths = ["PATH=/first:/venv/bin:/bin", "AFTER=/venv/bin:/bin"];
        assert_eq!(environment, ["WHO=me", "PORTS=80 443/tcp", paths[0], paths[1], "OLD=form of me"]);
        assert_eq!((settings.labels["of.me"].as_str(), settings.labels["x"].as_str()), ("$WHO", "$WHO"));
        assert_eq!(settings.exposed_ports, ["80/tcp", "443/tcp", "90/udp"]);
        assert_eq!((settings.user.as_str(), settings.working_directory.as_str()), ("app", "/a/me/src"));
        assert_eq!(settings.volumes, ["/data/me"]);
        assert_eq!(settings.stop_signal.map(|signal| signal.number()), Some(2));
        assert_eq!(settings.command, ["/bin/sh", "-c", "echo $WHO"]);
        assert_eq!(settings.entrypoint, ["$WHO"]);
    }

    #[test]
    fn an_entrypoint_takes_away_only_an_inherited_command() {
        for (changes, command) in [
            (&["ENTRYPOINT [\"e\"]"][..], &[][..]),
            (&["CMD [\"c\"]", "ENTRYPOINT [\"e\"]"], &["c"]),
            (&["ENTRYPOINT [\"e\"]", "CMD [\"c\"]"], &["c"]),
            (&["CMD []", "ENTRYPOINT [\"e\"]"], &[]),
            (&["CMD [\"c\"]"], &["c"]),
            (&["ENV A=b"], &["old"]),
        ] {
            assert_eq!(applied(changes).command, command, "{changes:?}");
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for change in [
            "",
            "RUN x",
            "FROM y",
            "ENV",
            "ENV A=\"1",
            "EXPOSE x",
            "STOPSIGNAL NOPE",
            "USER",
            "USER $NONE",
            "WORKDIR $NONE",
            "VOLUME []",
            "HEALTHCHECK NONE",
            "ENV =1",
            "ENV $NONE=1",
            "ENV A=${B",
            "ENV A=${B#x}",
        ] {
            assert!(Settings::default().apply(change).is_err(), "{change}");
        }
    }

    proptest! {
        #[test]
        fn no_change_panics(change in "\\PC{0,60}", rest in "\\PC{0,40}") {
            let _ = Settings::default().apply(&change);
            let _ = Settings::default().apply(&format!("ENV {rest}"));
        }
    }
}
