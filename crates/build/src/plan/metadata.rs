//! The instructions that only say something of the image, and what the history says of them.

use dozen_dockerfile::instruction::{Arg, CommandLine, HealthCheck, HealthTiming, KeyValues, Step};
use dozen_dockerfile::{Error, OneOrMore, Word};
use dozen_model::Signal;
use serde_json::{Map, Value, json};

use super::{Effect, State, go, path, ports};
use crate::operation::{MakeDirectory, Operation};

impl State<'_> {
    /// Goes through an instruction that does nothing to the file system; its words for the history.
    pub(super) fn say(&mut self, step: &Step) -> Result<String, Error> {
        match step {
            Step::Arg(arg) => self.argument(step, arg),
            Step::Env(pairs) => self.environment(step, pairs),
            Step::Label(pairs) => self.label(pairs),
            Step::Cmd(command) => {
                self.configuration.command = self.command_line(command);
                self.configuration.is_escaped = true;
                self.has_command = true;
                Ok(format!("CMD {}", go::quoted_list(&self.configuration.command)))
            }
            Step::Entrypoint(command) => {
                self.configuration.entrypoint = self.command_line(command);
                // The base's command was meant for the base's entry point.
                if !self.has_command {
                    self.configuration.command.clear();
                }
                Ok(format!("ENTRYPOINT {}", go::quoted_list(&self.configuration.entrypoint)))
            }
            Step::Expose(words) => self.expose(words),
            Step::HealthCheck(check) => Ok(self.health_check(check)),
            Step::Shell(words) => {
                self.configuration.shell = words.iter().map(|word| word.text.clone()).collect();
                Ok(format!("SHELL [{}]", self.configuration.shell.join(" ")))
            }
            Step::StopSignal(word) => {
                let signal = self.text(word)?;
                signal.parse::<Signal>().map_err(|error| Error::new(error.to_string(), word.span))?;
                self.configuration.stop_signal.clone_from(&signal);
                Ok(format!("STOPSIGNAL {signal}"))
            }
            Step::User(word) => {
                self.configuration.user = self.text(word)?;
                Ok(format!("USER {}", self.configuration.user))
            }
            Step::Volume(words) => self.volume(words),
            Step::Add(_) | Step::Copy(_) | Step::Run(_) | Step::WorkDir(_) => {
                unreachable!("what does something to the file system is planned elsewhere")
            }
        }
    }

    /// WORKDIR: the directory is made, unless it is the root.
    pub(super) fn work_directory(&mut self, word: &Word) -> Result<Effect, Error> {
        let to = path::join(&self.configuration.working_directory, &self.text(word)?);
        let user = self.configuration.user.clone();
        let operation = (to != "/").then(|| Operation::MakeDirectory(MakeDirectory { path: to.clone(), user }));
        let created_by = Some(format!("WORKDIR {to}"));
        self.configuration.working_directory = to;
        Ok(Effect { created_by, operation, note: String::new() })
    }

    fn argument(&mut self, step: &Step, arg: &Arg) -> Result<String, Error> {
        self.apply(step)?;
        let mut said = "ARG".to_owned();
        for declaration in arg.declarations.iter() {
            let name = &declaration.name.text;
            if !self.declared.contains(name) {
                self.declared.push(name.clone());
            }
            let value = self.scope.argument(name).map(|value| format!("={value}")).unwrap_or_default();
            self.planning.spend(value.len(), declaration.name.span)?;
            said.push_str(&format!(" {name}{value}"));
        }
        Ok(said)
    }

    fn environment(&mut self, step: &Step, pairs: &KeyValues) -> Result<String, Error> {
        let pairs = self.pairs(pairs, "ENV")?;
        self.apply(step)?;
        let mut said = "ENV".to_owned();
        for (name, value) in pairs {
            said.push_str(&format!(" {name}={value}"));
            self.configuration.set_environment(&name, value);
        }
        Ok(said)
    }

    fn label(&mut self, pairs: &KeyValues) -> Result<String, Error> {
        let mut said = "LABEL".to_owned();
        for (name, value) in self.pairs(pairs, "LABEL")? {
            said.push_str(&format!(" {name}={value}"));
            self.configuration.labels.insert(name, value);
        }
        Ok(said)
    }

    /// All are expanded with what was known before the first.
    fn pairs(&self, pairs: &KeyValues, instruction: &str) -> Result<Vec<(String, String)>, Error> {
        let read = |word: &Word| self.text(word);
        pairs
            .iter()
            .map(|pair| match (read(&pair.key)?, read(&pair.value)?) {
                (name, _) if name.is_empty() => {
                    Err(Error::new(format!("{instruction} names can not be blank"), pair.key.span))
                }
                pair => Ok(pair),
            })
            .collect()
    }

    fn apply(&mut self, step: &Step) -> Result<(), Error> {
        let planning = self.planning;
        self.scope.apply(step, planning.escape(), planning.global, planning.given)
    }

    fn command_line(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Shell(line) => self.in_shell(line.text.clone()),
            CommandLine::Exec(words) => words.iter().map(|word| word.text.clone()).collect(),
        }
    }

    fn expose(&mut self, words: &OneOrMore<Word>) -> Result<String, Error> {
        let mut ports = ports::Ports::default();
        for word in words.iter() {
            let expanded = self.scope.expand(word, self.planning.escape())?;
            self.planning.spend(expanded.text.len(), word.span)?;
            for text in &expanded.words {
                ports.add(text).map_err(|why| Error::new(why, word.span))?;
            }
        }
        self.planning.spend(ports.count() * 64, words.first.span)?;
        let ports = ports.into_names();
        let said: Vec<String> = ports.iter().map(|port| format!("{port}:{{}}")).collect();
        self.configuration.exposed_ports.extend(ports);
        Ok(format!("EXPOSE map[{}]", said.join(" ")))
    }

    fn volume(&mut self, words: &OneOrMore<Word>) -> Result<String, Error> {
        let mut paths = Vec::new();
        for word in words.iter() {
            let path = self.text(word)?;
            if path.is_empty() {
                return Err(Error::new("VOLUME specified can not be an empty string", word.span));
            }
            paths.push(path);
        }
        let said = format!("VOLUME [{}]", paths.join(" "));
        self.configuration.volumes.extend(paths);
        Ok(said)
    }

    fn health_check(&mut self, check: &HealthCheck) -> String {
        let (test, timing) = match check {
            HealthCheck::None => (vec!["NONE".to_owned()], HealthTiming::default()),
            HealthCheck::Check { command: CommandLine::Shell(line), timing } => {
                (vec!["CMD-SHELL".to_owned(), line.text.clone()], timing.clone())
            }
            HealthCheck::Check { command: CommandLine::Exec(words), timing } => {
                let words = words.iter().map(|word| word.text.clone());
                (std::iter::once("CMD".to_owned()).chain(words).collect(), timing.clone())
            }
        };
        let times = [
            ("Interval", timing.interval),
            ("Timeout", timing.timeout),
            ("StartPeriod", timing.start_period),
            ("StartInterval", timing.start_interval),
        ]
        .map(|(name, time)| (name, time.unwrap_or_default().as_nanos()));
        let retries = timing.retries.unwrap_or_default();
        // Go's %q of the whole, a number being a character.
        let shown: Vec<String> = times.iter().map(|(_, nanoseconds)| go::quoted(&go::duration(*nanoseconds))).collect();
        let said =
            format!("HEALTHCHECK &{{{} {} {}}}", go::quoted_list(&test), shown.join(" "), go::quoted_rune(retries));
        let mut document = Map::from_iter([("Test".to_owned(), json!(test))]);
        for (name, nanoseconds) in times {
            // The parser takes what fits a Go duration.
            if let Some(nanoseconds) = u64::try_from(nanoseconds).ok().filter(|it| *it > 0) {
                document.insert(name.to_owned(), json!(nanoseconds));
            }
        }
        if retries > 0 {
            document.insert("Retries".to_owned(), json!(retries));
        }
        self.configuration.healthcheck = Some(Value::Object(document));
        said
    }
}
