//! RUN: what is executed, with which variables, and what is mounted meanwhile.

use dozen_dockerfile::instruction::{Run, RunCommand};
use dozen_dockerfile::stages::Taking;
use dozen_dockerfile::{Error, Heredoc, MountSpec, Word};

use super::{Effect, State, path, transfer};
use crate::operation::{self, Mount, Operation, Origin, Script};

/// Where a heredoc with an interpreter is mounted (as BuildKit has it: it is seen in the history).
const SCRIPTS: &str = "/dev/pipes";

/// Arguments that say something to scanners of images, and nothing to a command (as BuildKit has it).
const NOT_SEEN: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl State<'_> {
    pub(super) fn run(&self, run: &Run) -> Result<Effect, Error> {
        let Command { arguments, script, note } = self.command(&run.command)?;
        let mounts = run.mounts.iter().map(|mount| self.mount(mount)).collect::<Result<Vec<_>, _>>()?;
        let created_by = format!("RUN {}{}", self.said_arguments(), arguments.join(" "));
        let run = operation::Run {
            arguments,
            script,
            environment: self.visible(),
            proxies: self.proxies(),
            user: self.configuration.user.clone(),
            working_directory: path::join("", &self.configuration.working_directory),
            mounts,
            network: run.network,
            security: run.security,
        };
        Ok(Effect { note, ..Effect::done(created_by, Operation::Run(run)) })
    }

    fn command(&self, command: &RunCommand) -> Result<Command, Error> {
        let (line, heredocs) = match command {
            RunCommand::Exec(words) => {
                let arguments = words.iter().map(|word| word.text.clone()).collect();
                return Ok(Command { arguments, script: None, note: String::new() });
            }
            RunCommand::Shell { line, heredocs } => (line, heredocs.as_slice()),
        };
        if let [heredoc] = heredocs
            && line.span == heredoc.mark
        {
            return self.script(heredoc);
        }
        // The shell reads them itself, tabs and quotes included.
        let mut line = line.text.clone();
        for heredoc in heredocs {
            line.push('\n');
            line.push_str(&heredoc.content.text);
            line.push_str(&heredoc.name);
        }
        Ok(Command { arguments: self.in_shell(line), script: None, note: String::new() })
    }

    /// A line that is nothing but a heredoc's mark: the shell is given the text, or a file if it names an interpreter.
    fn script(&self, heredoc: &Heredoc) -> Result<Command, Error> {
        let content = heredoc.text();
        let note = summary(&content);
        if !content.starts_with("#!") {
            return Ok(Command { arguments: self.in_shell(content), script: None, note });
        }
        let path = path::join(SCRIPTS, transfer::file_name(heredoc)?);
        Ok(Command { arguments: self.in_shell(path.clone()), script: Some(Script { path, content }), note })
    }

    fn mount(&self, mount: &dozen_dockerfile::Mount) -> Result<Mount, Error> {
        let mut spec = mount.resolve(|word| self.text(word))?;
        let span = mount.target().map_or(self.span, |target| target.span);
        if let Some(target) = target(&mut spec) {
            *target = path::join(&self.configuration.working_directory, target);
            if target == "/" {
                return Err(Error::new("invalid mount target \"/\"", span));
            }
        }
        let origin = |from: &Option<String>| -> Result<Option<Origin>, Error> {
            let Some(name) = from else { return Ok(None) };
            let written = mount.from().cloned().unwrap_or_else(|| Word { text: name.clone(), span });
            let taking = Taking::Mount { target: mount.target().map(|it| it.text.clone()).unwrap_or_default() };
            self.origin(&written, &taking).map(Some)
        };
        Ok(match &mut spec {
            MountSpec::Bind { from, .. } => {
                let origin = origin(from)?.unwrap_or(Origin::Context);
                Mount::Taking(spec, origin)
            }
            MountSpec::Cache { from, id, target, .. } => {
                id.get_or_insert_with(|| target.clone());
                match origin(from)? {
                    Some(origin) => Mount::Taking(spec, origin),
                    None => Mount::Plain(spec),
                }
            }
            MountSpec::Tmpfs { .. } | MountSpec::Secret { .. } | MountSpec::Ssh { .. } => Mount::Plain(spec),
        })
    }

    /// What a `from` means.
    pub(super) fn origin(&self, from: &Word, taking: &Taking) -> Result<Origin, Error> {
        let origin = self.planning.stages.origin(self.stage, from, taking)?;
        Ok(transfer::origin(origin))
    }

    /// The image's variables, and the build arguments that these do not hide.
    fn visible(&self) -> Vec<(String, String)> {
        let is_hidden = |name: &str| NOT_SEEN.contains(&name) || self.scope.environment().contains_key(name);
        let arguments = self.scope.arguments().filter(|(name, _)| !is_hidden(name));
        let arguments = arguments.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.configuration.environment.iter().cloned().chain(arguments).collect()
    }

    /// In capitals and in small letters, whichever was given: programs look for either. What the Dockerfile says of
    /// them wins.
    fn proxies(&self) -> Vec<(String, String)> {
        let mut proxies: Vec<(String, String)> = Vec::new();
        let given: Vec<(&str, &str)> = self.planning.given.proxies().collect();
        let others = given
            .iter()
            .flat_map(|(name, value)| [(name.to_ascii_uppercase(), *value), (name.to_ascii_lowercase(), *value)]);
        let all = given.iter().map(|(name, value)| ((*name).to_owned(), *value)).chain(others);
        for (name, value) in all {
            let is_known = self.scope.environment().contains_key(&name) || self.scope.argument(&name).is_some();
            // One that is empty is none, as with BuildKit.
            if !value.is_empty() && !is_known && !proxies.iter().any(|(before, _)| *before == name) {
                proxies.push((name, value.to_owned()));
            }
        }
        proxies.sort();
        proxies
    }

    /// `|2 a=1 b=2 `: the build arguments that the stage has declared so far, each as often as it was.
    fn said_arguments(&self) -> String {
        if self.declared.is_empty() {
            return String::new();
        }
        let mut said = format!("|{} ", self.declared.len());
        for name in &self.declared {
            let environment = self.scope.environment().get(name).map(String::as_str);
            let value = environment.or_else(|| self.scope.argument(name)).unwrap_or_default();
            said.push_str(&format!("{name}={value} "));
        }
        said
    }
}

/// What a RUN comes down to.
struct Command {
    arguments: Vec<String>,
    script: Option<Script>,
    note: String,
}

fn target(spec: &mut MountSpec) -> Option<&mut String> {
    match spec {
        MountSpec::Bind { target, .. } | MountSpec::Cache { target, .. } | MountSpec::Tmpfs { target, .. } => {
            Some(target)
        }
        MountSpec::Secret { target, .. } | MountSpec::Ssh { target, .. } => target.as_mut(),
    }
}

/// The first line of a script: ` (set -e...)`.
fn summary(content: &str) -> String {
    let mut lines = content.trim().lines();
    let first = lines.next().unwrap_or_default();
    format!(" ({first}{})", if lines.next().is_some() { "..." } else { "" })
}
