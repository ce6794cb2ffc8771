//! Which variables there are where (docs.docker.com/reference/dockerfile, "ARG", "ENV").
//!
//! What ARG declares before the first FROM is known to FROM alone, and to a stage that declares the name again. In a
//! stage a name is known from its line on, and in the stages that begin from that one. ENV wins over ARG, whichever comes
//! first. Of the platforms, FROM knows all names, and a stage those that it declares.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::expand::{Expanded, Quotes, Value, Variables, expand};
use crate::instruction::{Arg, Declaration, Dockerfile, KeyValues, Step};
use crate::text::Word;

/// What the caller says: `--build-arg`, the platforms, the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// `--build-arg NAME=VALUE`.
    pub arguments: BTreeMap<String, String>,
    /// Where the build runs.
    pub build_platform: Platform,
    /// What it is for.
    pub target_platform: Platform,
    /// `--target`; empty: the last stage.
    pub target_stage: String,
}

/// A platform's parts, as the platform arguments have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`; empty if there is none.
    pub variant: String,
}

impl Default for Platform {
    fn default() -> Self {
        Self { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: String::new() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// The arguments that RUN sees without a declaration, and that leave no trace in the image ("Predefined ARGs"); also in
/// small letters.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

impl Given {
    /// The proxies that the caller has passed on: for RUN alone, and no part of what a step is known by.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_proxy =
            |name: &str| PROXIES.contains(&name) || PROXIES.iter().any(|proxy| proxy.to_ascii_lowercase() == name);
        self.arguments
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(move |(name, _)| is_proxy(name))
    }

    /// The arguments that nobody need declare for FROM ("Automatic platform ARGs in the global scope").
    fn automatic(&self, last_stage: Option<&str>) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (prefix, platform) in [("BUILD", &self.build_platform), ("TARGET", &self.target_platform)] {
            for (name, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone()),
                ("OSVERSION", String::new()),
            ] {
                all.insert(format!("{prefix}{name}"), value);
            }
        }
        let stage = match self.target_stage.as_str() {
            "" => last_stage.unwrap_or("default"),
            stage => stage,
        };
        all.insert("TARGETSTAGE".to_owned(), stage.to_owned());
        for (name, value) in &mut all {
            if let Some(said) = self.arguments.get(name) {
                value.clone_from(said);
            }
        }
        all
    }
}

/// No stage knows more variables: those of a file that begins stage upon stage would take all memory there is.
const MOST_VARIABLES: usize = 4096;
/// And no more of their text: a process that is to get it would not begin (execve(2), "Limits on size of arguments and
/// environment").
const MOST_BYTES: usize = 512 << 10;

/// What a declaration says by itself: the caller's value, or the default, which is not looked at otherwise.
fn value(
    declaration: &Declaration,
    escape: char,
    given: &Given,
    variables: &dyn Variables,
) -> Result<Option<String>, Error> {
    if let Some(said) = given.arguments.get(&declaration.name.text) {
        return Ok(Some(said.clone()));
    }
    let text = |word: &Word| expand(word, escape, Quotes::Taken, variables).map(|it| it.text);
    declaration.default.as_ref().map(text).transpose()
}

/// What FROM knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalScope {
    automatic: BTreeMap<String, String>,
    /// What has been declared; `None`: without a value.
    declared: BTreeMap<String, Option<String>>,
}

impl GlobalScope {
    /// What the ARGs before the first FROM make of what the caller says.
    pub fn new(file: &Dockerfile, given: &Given) -> Result<Self, Error> {
        let last = file.stages.last().from.value.alias.as_ref().map(|alias| alias.name.text.to_ascii_lowercase());
        let mut scope = Self { automatic: given.automatic(last.as_deref()), declared: BTreeMap::new() };
        let escape = file.directives.escape.character();
        let mut bytes = 0;
        for declaration in file.global_declarations() {
            let value = value(declaration, escape, given, &scope)?;
            bytes += declaration.name.text.len() + value.as_ref().map_or(0, String::len);
            scope.declared.insert(declaration.name.text.clone(), value);
            let message = if scope.declared.len() > MOST_VARIABLES {
                format!("there are more than {MOST_VARIABLES} global arguments")
            } else if bytes > MOST_BYTES {
                format!("the global arguments take more than {} KiB", MOST_BYTES >> 10)
            } else {
                continue;
            };
            return Err(Error::new(message, declaration.name.span));
        }
        Ok(scope)
    }

    /// All names that are known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().chain(self.automatic.keys()).map(String::as_str)
    }

    /// It has been declared before the first FROM.
    pub fn is_declared(&self, name: &str) -> bool {
        self.declared.contains_key(name)
    }

    fn get(&self, name: &str) -> Option<&str> {
        match self.declared.get(name) {
            Some(Some(value)) => Some(value),
            _ => self.automatic.get(name).map(String::as_str),
        }
    }
}

impl Variables for GlobalScope {
    fn value(&self, name: &str) -> Value<'_> {
        match self.get(name) {
            Some(value) => Value::Set(value),
            None if self.is_declared(name) => Value::Declared,
            None => Value::Unknown,
        }
    }
}

/// What a stage knows after the steps that it has gone through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StageScope {
    arguments: BTreeMap<String, Option<String>>,
    environment: BTreeMap<String, String>,
    /// Of all names and values.
    bytes: usize,
}

impl StageScope {
    /// A stage whose base image has this environment.
    pub fn new(environment: BTreeMap<String, String>) -> Self {
        let bytes = environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        Self { arguments: BTreeMap::new(), environment, bytes }
    }

    /// The environment that the image has so far.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The build arguments that have a value, which RUN sees beside the environment.
    pub fn arguments(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arguments.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }

    /// A build argument's value, whatever the environment says.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.get(name)?.as_deref()
    }

    /// All names that are known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.environment.keys().chain(self.arguments.keys()).map(String::as_str)
    }

    /// Goes through a step: what ARG and ENV say is known to those behind it.
    ///
    /// The variables of one ENV are those from before it: `ENV a=1 b=$a` does not see its own `a`.
    pub fn apply(&mut self, step: &Step, escape: char, global: &GlobalScope, given: &Given) -> Result<(), Error> {
        match step {
            Step::Arg(arg) => self.declare(arg, escape, global, given),
            Step::Env(pairs) => self.set(pairs, escape),
            _ => Ok(()),
        }
    }

    fn check_size(&self, word: &Word) -> Result<(), Error> {
        let message = if self.arguments.len() + self.environment.len() > MOST_VARIABLES {
            format!("the stage has more than {MOST_VARIABLES} variables")
        } else if self.bytes > MOST_BYTES {
            format!("the variables of the stage take more than {} KiB", MOST_BYTES >> 10)
        } else {
            return Ok(());
        };
        Err(Error::new(message, word.span))
    }

    fn declare(&mut self, arg: &Arg, escape: char, global: &GlobalScope, given: &Given) -> Result<(), Error> {
        for declaration in arg.declarations.iter() {
            let name = &declaration.name.text;
            let value = value(declaration, escape, given, self)?.or_else(|| global.get(name).map(str::to_owned));
            self.bytes += name.len() + value.as_ref().map_or(0, String::len);
            if let Some(before) = self.arguments.insert(name.clone(), value) {
                self.bytes -= name.len() + before.map_or(0, |before| before.len());
            }
            self.check_size(&declaration.name)?;
        }
        Ok(())
    }

    fn set(&mut self, pairs: &KeyValues, escape: char) -> Result<(), Error> {
        let text = |word: &Word| self.expand(word, escape).map(|it| it.text);
        let read: Result<Vec<_>, Error> = pairs.iter().map(|pair| Ok((text(&pair.key)?, text(&pair.value)?))).collect();
        for ((name, value), pair) in read?.into_iter().zip(pairs.iter()) {
            let length = name.len();
            self.bytes += length + value.len();
            if let Some(before) = self.environment.insert(name, value) {
                self.bytes -= length + before.len();
            }
            self.check_size(&pair.key)?;
        }
        Ok(())
    }

    /// Expands a word of this stage.
    pub fn expand(&self, word: &Word, escape: char) -> Result<Expanded, Error> {
        expand(word, escape, Quotes::Taken, self)
    }
}

impl Variables for StageScope {
    fn value(&self, name: &str) -> Value<'_> {
        match (self.environment.get(name), self.arguments.get(name)) {
            (Some(value), _) | (None, Some(Some(value))) => Value::Set(value),
            (None, Some(None)) => Value::Declared,
            (None, None) => Value::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::Instruction;
    use crate::parse;

    /// What `$probe` becomes at the end of the last stage, each stage beginning from the one before it.
    fn probe(source: &str, word: &str, given: &[(&str, &str)]) -> String {
        let file = parse(source).unwrap();
        let arguments = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let given = Given { arguments, ..Given::default() };
        let global = GlobalScope::new(&file, &given).unwrap();
        let mut scope = StageScope::default();
        for located in file.stages.iter().flat_map(|stage| &stage.instructions) {
            let Instruction::Step(step) = &located.value else { continue };
            scope.apply(step, '\\', &global, &given).unwrap();
        }
        let word = Word { text: word.to_owned(), ..Word::default() };
        scope.expand(&word, '\\').unwrap().text
    }

    #[test]
    fn proxies_are_passed_on() {
        let all = ["HTTP_PROXY", "no_proxy", "All_Proxy", "OTHER"].map(|name| (name.to_owned(), "x".to_owned()));
        let given = Given { arguments: all.into(), ..Given::default() };
        assert_eq!(given.proxies().map(|(name, _)| name).collect::<Vec<_>>(), ["HTTP_PROXY", "no_proxy"]);
    }

    #[test]
    fn arguments_are_known_where_they_are_declared() {
        for (source, word, given, expected) in [
            ("ARG a=1\nFROM x", "[$a]", &[][..], "[]"),
            ("ARG a=1\nFROM x\nARG a", "$a", &[], "1"),
            ("ARG a=1\nFROM x\nARG a=2", "$a", &[], "2"),
            ("ARG a=1\nFROM x\nARG a", "$a", &[("a", "3")], "3"),
            ("FROM x\nARG a=1 b=${a}2\nARG c='$a'", "$a$b$c", &[], "112$a"),
            ("FROM x\nARG a", "[${a-none}]", &[], "[none]"),
            ("FROM x", "[$a]", &[("a", "3")], "[]"),
            ("FROM x\nARG a=1\nFROM y\nRUN z", "$a", &[], "1"),
            ("FROM x\nARG a=1\nENV a=2", "$a", &[("a", "3")], "2"),
            ("FROM x\nENV a=2\nARG a=1", "$a", &[("a", "3")], "2"),
            ("FROM x\nARG v\nENV a=${v:-v1}", "$a", &[("v", "v2")], "v2"),
            ("FROM x\nENV a=1\nENV a=2 b=$a", "$a$b", &[], "21"),
            ("FROM x\nENV a b  c", "$a", &[], "b  c"),
            (
                "FROM x\nARG TARGETPLATFORM TARGETARCH",
                "$TARGETPLATFORM $TARGETARCH [$TARGETOS]",
                &[],
                "linux/amd64 amd64 []",
            ),
            ("FROM x\nARG a=${b:?no}", "$a", &[("a", "3")], "3"),
            ("ARG a=$TARGETSTAGE\nFROM x\nARG a\nFROM y AS Last\nRUN z", "$a", &[], "last"),
            ("ARG b=1\nARG a=$b$BUILDOS\nFROM x\nARG a", "$a", &[], "1linux"),
        ] {
            assert_eq!(probe(source, word, given), expected, "{source}");
        }
    }
}
