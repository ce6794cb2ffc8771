//! The instructions that only say something of the image, and what the history says of them.

use dozen_dockerfile::instruction::{Arg, CommandLine, Declaration, HealthCheck, HealthTiming, KeyValues, Step};
use dozen_dockerfile::{Error, ExposedPorts, OneOrMore, Word};
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

    /// WORKDIR: the directory is made, unless it is the root. An absolute path is kept as it was written.
    pub(super) fn work_directory(&mut self, word: &Word) -> Result<Effect, Error> {
        let said = self.text(word)?;
        let path = path::join(&self.configuration.working_directory, &said);
        let to = if said.starts_with('/') { said } else { path.clone() };
        let user = self.configuration.user.clone();
        let operation = (path != "/").then_some(Operation::MakeDirectory(MakeDirectory { path, user }));
        let created_by = Some(format!("WORKDIR {to}"));
        self.configuration.working_directory = to;
        Ok(Effect { created_by, operation, note: String::new() })
    }

    /// The history has the defaults, whatever the caller or the global scope says.
    fn argument(&mut self, step: &Step, arg: &Arg) -> Result<String, Error> {
        // A default that is not needed may be wrong, so it is looked at here alone.
        let needless = |Declaration { name, default }: &Declaration| {
            let word = default.as_ref().filter(|_| self.planning.given.arguments.contains_key(&name.text))?;
            let expanded = self.scope.expand(word, self.planning.escape());
            Some(expanded.map_or_else(|_| word.text.clone(), |it| it.text))
        };
        let mut needless: Vec<Option<String>> = arg.declarations.iter().map(needless).collect();
        self.apply(step)?;
        let mut said = "ARG".to_owned();
        for (Declaration { name, default }, needless) in arg.declarations.iter().zip(&mut needless) {
            said.push_str(&format!(" {}", name.text));
            if default.is_some() {
                let value = needless.take();
                let value = value.as_deref().or_else(|| self.scope.argument(&name.text)).unwrap_or_default();
                self.planning.spend(value.len(), name.span)?;
                said.push_str(&format!("={value}"));
            }
            self.declared.push(name.text.clone());
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
                ports.add(ExposedPorts::parse(text, word.span)?);
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
