//! COPY and ADD: what is taken, from where, and where it goes.

use std::borrow::Cow;

use dozen_dockerfile::expand::{Quotes, expand};
use dozen_dockerfile::instruction::{Add, Copy, Source, Transfer};
use dozen_dockerfile::stages::{self, Taking};
use dozen_dockerfile::{Error, FileMode, Heredoc, Remote, Word};
use dozen_model::Digest;

use super::{Effect, State, path};
use crate::operation::{self, Operation, Origin};
use crate::repository::{Repository, RepositoryError, is_beginning_of_commit};

/// What `--from` may name beside stages and images: nothing at all.
const EMPTY: &str = "scratch";

impl State<'_> {
    pub(super) fn copy(&self, copy: &Copy) -> Result<Effect, Error> {
        let origin = match &copy.from {
            Some(from) => self.origin(from, &Taking::Copy)?,
            None => Origin::Context,
        };
        let mut moved = self.transfer(&copy.transfer, origin)?;
        moved.operation.parents = copy.parents;
        for (source, word) in &moved.named {
            let kind = match source {
                operation::Source::Url(_) => "a URL",
                operation::Source::Git(_) => "a git ref",
                operation::Source::Path(_) | operation::Source::Inline { .. } => continue,
            };
            return Err(Error::new(format!("source can't be {kind} for COPY"), word.span).with_hint("ADD fetches"));
        }
        let flags = if copy.parents { " --parents" } else { "" };
        Ok(moved.effect(&format!("COPY{flags}")))
    }

    pub(super) fn add(&self, add: &Add) -> Result<Effect, Error> {
        let checksum = match &add.checksum {
            Some(word) => Some((self.text(word)?, word)).filter(|(text, _)| !text.is_empty()),
            None => None,
        };
        let mut moved = self.transfer(&add.transfer, Origin::Context)?;
        for (source, word) in &moved.named {
            check_repository(source, word)?;
        }
        if let Some((text, word)) = &checksum {
            check_checksum(text, word, &moved)?;
        }
        moved.operation.add = Some(operation::Add {
            checksum: checksum.map(|(text, _)| text),
            keep_git_directory: add.keep_git_directory,
            unpack: add.unpack,
        });
        Ok(moved.effect("ADD"))
    }

    fn transfer<'w>(&self, transfer: &'w Transfer, origin: Origin) -> Result<Moved<'w>, Error> {
        let flag = |word: &Option<Word>| -> Result<Option<String>, Error> {
            Ok(word.as_ref().map(|word| self.text(word)).transpose()?.filter(|text| !text.is_empty()))
        };
        let (owner, mode) = (flag(&transfer.owner)?, flag(&transfer.mode)?);
        let mut flags = String::new();
        for (name, value) in [("chown", &owner), ("chmod", &mode)] {
            if let Some(value) = value {
                flags.push_str(&format!(" --{name}={value}"));
            }
        }
        let parsed = match (&mode, &transfer.mode) {
            (Some(mode), Some(word)) => Some(FileMode::parse(mode).map_err(|why| Error::new(why, word.span))?),
            _ => None,
        };
        let mut words = flags;
        let (mut named, mut inline) = (Vec::new(), Vec::new());
        for source in transfer.sources.iter() {
            match source {
                Source::Named(word) => {
                    let text = self.text(word)?;
                    let source = read(text.clone());
                    // The history goes wherever the image does. A variable without a value is nothing there.
                    let said = if text.is_empty() { Cow::Borrowed("") } else { source.shown() };
                    words.push_str(&format!(" {said}"));
                    named.push((source, word));
                }
                Source::Heredoc(heredoc) => inline.push(self.inline(heredoc)?),
            }
        }
        let destination = self.text(&transfer.destination)?;
        for source in &inline {
            if let operation::Source::Inline { name, .. } = source {
                words.push_str(&format!(" <<{name}"));
            }
        }
        words.push_str(&format!(" {destination}"));
        let operation = operation::Copy {
            origin,
            sources: named.iter().map(|(source, _)| source.clone()).chain(inline).collect(),
            destination: path::destination(&self.configuration.working_directory, &destination),
            // Whose number a name is stands in the image below: such files are not the same upon another.
            link: transfer.link && owner.as_deref().is_none_or(is_number),
            owner,
            mode: parsed,
            parents: false,
            exclude: transfer.exclude.iter().map(|word| word.text.clone()).collect(),
            add: None,
        };
        Ok(Moved { operation, named, words })
    }

    fn inline(&self, heredoc: &Heredoc) -> Result<operation::Source, Error> {
        let name = file_name(heredoc)?.to_owned();
        let text = heredoc.text();
        if !heredoc.expand {
            return Ok(operation::Source::Inline { name, content: text });
        }
        // The escape character is the shell's, whatever the file's is.
        let word = Word { text, span: heredoc.content.span };
        let content = expand(&word, '\\', Quotes::Kept, &self.scope)?.text;
        self.planning.spend(content.len(), word.span)?;
        Ok(operation::Source::Inline { name, content })
    }
}

/// A COPY or an ADD, almost done.
struct Moved<'w> {
    operation: operation::Copy,
    /// The sources that are no heredocs, and where they stand.
    named: Vec<(operation::Source, &'w Word)>,
    /// Flags, sources and destination, as the history shows them.
    words: String,
}

impl Moved<'_> {
    fn effect(self, verb: &str) -> Effect {
        Effect::done(format!("{verb}{}", self.words), Operation::Copy(self.operation))
    }
}

/// What a name means to a step.
pub(super) fn origin(origin: stages::Origin) -> Origin {
    match origin {
        stages::Origin::Stage(stage) => Origin::Stage(stage),
        stages::Origin::Image(name) if name == EMPTY => Origin::Empty,
        stages::Origin::Image(name) => Origin::Image(name),
    }
}

/// `1` or `1:2`.
fn is_number(owner: &str) -> bool {
    owner.split(':').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A heredoc's name where it is a file's.
pub(super) fn file_name(heredoc: &Heredoc) -> Result<&str, Error> {
    let message = || format!("the heredoc's name {:?} is no file's name: it has a slash in it", heredoc.name);
    path::file_name(&heredoc.name).ok_or_else(|| Error::new(message(), heredoc.mark))
}

fn read(text: String) -> operation::Source {
    match Remote::of(&text) {
        // A variable without a value names the root, as everywhere in a COPY.
        Remote::None if text.is_empty() => operation::Source::Path("/".to_owned()),
        Remote::None => operation::Source::Path(text),
        Remote::Http => operation::Source::Url(text),
        Remote::Git => operation::Source::Git(text),
    }
}

/// It is of one thing that is fetched: a digest of a file's, a commit of a repository's.
fn check_checksum(text: &str, word: &Word, moved: &Moved<'_>) -> Result<(), Error> {
    let wrong = |message: &str| Err(Error::new(message, word.span));
    match moved.operation.sources.as_slice() {
        [operation::Source::Url(_)] if text.parse::<Digest>().is_err() => {
            wrong("invalid checksum digest format").map_err(|error| error.with_hint("sha256: and 64 digits"))
        }
        [operation::Source::Git(_)] if !is_beginning_of_commit(text) => {
            wrong(&format!("invalid checksum {text:?}: want a commit")).map_err(|error| error.with_hint("40 digits"))
        }
        [operation::Source::Url(_) | operation::Source::Git(_)] => Ok(()),
        [_] => wrong("checksum requires HTTP(S) or Git sources"),
        _ => wrong("checksum can't be specified for multiple sources"),
    }
}

/// What no repository can be is said before anything is fetched.
fn check_repository(source: &operation::Source, word: &Word) -> Result<(), Error> {
    let operation::Source::Git(text) = source else { return Ok(()) };
    let wrong = |error: RepositoryError| {
        let told = Error::new(format!("cannot fetch what ADD names: {error}"), word.span);
        match error.hint() {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    };
    Repository::parse(text).map(drop).map_err(wrong)
}
