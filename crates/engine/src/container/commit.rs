//! `commit`: a container's changes become an image's layer, and its configuration, with `--change`, the image's.

use std::collections::BTreeMap;

use dozen_image::CommitRequest;
use dozen_model::{ImageId, MountSource, Protocol, Reference, Signal};
use oci_spec::image::{Config, ConfigBuilder};

use crate::EngineError;
use crate::container::snapshot::{Phase, Snapshot};
use crate::shared::Shared;

/// What `commit` may change.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "Docker's words")]
pub struct CommitOptions {
    pub reference: Option<Reference>,
    pub author: Option<String>,
    pub comment: Option<String>,
    /// Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL.
    pub changes: Vec<String>,
}

/// Blocks. The container may run: files that change while they are read are taken as they are at that moment. One that
/// is removed meanwhile makes no image.
pub(crate) fn commit(shared: &Shared, snapshot: &Snapshot, options: CommitOptions) -> Result<ImageId, EngineError> {
    let mut settings = Settings::of(snapshot);
    for change in &options.changes {
        settings.apply(change).map_err(|why| EngineError::Invalid {
            message: format!("cannot apply the change {change:?}: {why}"),
            hint: Some("changes are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR and STOPSIGNAL".into()),
        })?;
    }
    let created_by = snapshot.spec.process.arguments().cloned().collect::<Vec<_>>().join(" ");
    let request = CommitRequest {
        base: snapshot.spec.image.clone(),
        upper: &snapshot.directory.join("upper"),
        config: settings.into_config(),
        author: options.author,
        comment: options.comment,
        created_by,
        reference: options.reference,
    };
    // A removal is published before the first file goes: whoever has read all of them before that has them whole.
    let is_whole = || {
        let entry = shared.registry.get(&snapshot.id);
        entry.is_some_and(|entry| !matches!(entry.snapshot().phase, Phase::Removing { .. }))
    };
    shared.images.commit(request, &is_whole)?.ok_or_else(|| EngineError::Conflict {
        message: format!("cannot commit container {}: it is being removed", snapshot.name),
        hint: None,
    })
}

/// The part of a configuration that an image keeps of its container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    user: String,
    exposed_ports: Vec<String>,
    environment: Vec<(String, String)>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    volumes: Vec<String>,
    working_directory: String,
    labels: BTreeMap<String, String>,
    stop_signal: Option<Signal>,
}

impl Settings {
    fn of(snapshot: &Snapshot) -> Self {
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
        }
    }

    /// One Dockerfile instruction, by the Dockerfile reference; without variables, which a commit has none of.
    fn apply(&mut self, change: &str) -> Result<(), String> {
        let (instruction, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
        let rest = rest.trim();
        match instruction.to_ascii_uppercase().as_str() {
            "CMD" => self.command = command(rest),
            "ENTRYPOINT" => {
                self.entrypoint = command(rest);
                // As in a Dockerfile: a command that belonged to another entrypoint does not fit this one.
                self.command.clear();
            }
            "ENV" => {
                for (name, value) in pairs(rest)? {
                    self.environment.retain(|(known, _)| *known != name);
                    self.environment.push((name, value));
                }
            }
            "LABEL" => self.labels.extend(pairs(rest)?),
            "EXPOSE" => {
                for word in rest.split_whitespace() {
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
            "USER" if !rest.is_empty() => self.user = rest.to_owned(),
            "VOLUME" if !rest.is_empty() => match serde_json::from_str::<Vec<String>>(rest) {
                Ok(paths) => self.volumes.extend(paths),
                Err(_) => self.volumes.extend(rest.split_whitespace().map(str::to_owned)),
            },
            "WORKDIR" if !rest.is_empty() => {
                self.working_directory = match rest.strip_prefix('/') {
                    Some(_) => rest.to_owned(),
                    None => format!("{}/{rest}", self.working_directory.trim_end_matches('/')),
                }
            }
            "STOPSIGNAL" => {
                self.stop_signal = Some(rest.parse().map_err(|error: dozen_model::SignalError| error.to_string())?)
            }
            "USER" | "VOLUME" | "WORKDIR" => return Err("it needs a value".into()),
            "HEALTHCHECK" | "ONBUILD" => return Err(format!("{instruction} is not built yet")),
            _ => return Err(format!("{instruction} is not a valid change command")),
        }
        Ok(())
    }

    fn into_config(self) -> Config {
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

/// `NAME=value NAME="a value"`, or the old form `NAME the rest`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(rest)?;
    match words.first() {
        None => Err("it needs NAME=value".into()),
        Some(first) if !first.contains('=') => {
            let (name, value) = rest.split_once(char::is_whitespace).ok_or("it needs NAME=value")?;
            Ok(vec![(name.to_owned(), value.trim().to_owned())])
        }
        Some(_) => words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(format!("{word:?} is not NAME=value")),
            })
            .collect(),
    }
}

/// Words as the Dockerfile reference parts them: quotes keep spaces, a backslash keeps the next character.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', quoted) if quoted != Some('\'') => {
                word.get_or_insert_default().push(characters.next().ok_or("it ends with a backslash")?);
            }
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, Some(open)) if open == character => quote = None,
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(changes: &[&str]) -> Settings {
        let mut settings =
            Settings { command: vec!["old".into()], working_directory: "/a".into(), ..Settings::default() };
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
        assert_eq!(settings.environment, [("B".into(), "two words".into()), ("A".into(), "the rest".into())]);
        assert_eq!(settings.exposed_ports, ["80/tcp", "53/udp"]);
        assert_eq!((settings.user.as_str(), settings.working_directory.as_str()), ("app:app", "/a/b"));
        assert_eq!((settings.labels["x"].as_str(), settings.volumes), ("y", vec!["/data".to_owned()]));
        assert_eq!(settings.stop_signal.map(|signal| signal.number()), Some(2));
        assert_eq!(applied(&["CMD echo $HOME"]).command, ["/bin/sh", "-c", "echo $HOME"]);
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
            "HEALTHCHECK NONE",
            "ENV =1",
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
