//! Variables in words: `$name`, `${name}`, and what may stand behind the name (docs.docker.com/reference/dockerfile,
//! "Environment replacement"; the patterns are the shell's, POSIX.1 XCU 2.6.2 and 2.13).
//!
//! A word is first taken apart, without a look at any variable ([`template`]), and then put together with their values.
//! Quotes and escapes go in the same pass, as in a shell. What is expanded at all stands in [`words`].

mod pattern;
mod template;
pub mod words;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::Error;
use crate::span::Span;
use crate::text::Word;
use template::{Modifier, Part, Substitution, Template};

/// No word may become longer: a few lines that double one another would take all memory there is.
pub const LONGEST_BYTES: usize = 1 << 20;

/// What quotes and escapes mean in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// They are taken off, and keep what they hold from being parted or expanded.
    Taken,
    /// They are characters like any other: in the text of a heredoc.
    Kept,
}

/// What a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// It has this value.
    Set(&'a str),
    /// It may be used and has none: an ARG without a default.
    Declared,
    /// Nobody has declared it.
    Unknown,
}

/// Who knows what variables are.
pub trait Variables {
    /// The variable of this name.
    fn value(&self, name: &str) -> Value<'_>;
}

impl<F: Fn(&str) -> Option<&'static str>> Variables for F {
    fn value(&self, name: &str) -> Value<'_> {
        self(name).map_or(Value::Unknown, Value::Set)
    }
}

/// What became of a word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// All of it.
    pub text: String,
    /// Parted at blanks that no quotes held; what a value brings is parted too.
    pub words: Vec<String>,
    /// The variables that were asked for and had been declared.
    pub used: BTreeSet<String>,
    /// Those that nobody has declared.
    pub unknown: BTreeSet<String>,
}

/// Expands a word.
pub fn expand(word: &Word, escape: char, quotes: Quotes, variables: &dyn Variables) -> Result<Expanded, Error> {
    let whole = 0..word.text.len();
    let fault = |fault: Fault| {
        // Where nothing was joined or decoded, the fault has a place of its own.
        let is_plain = word.span.end - word.span.start == word.text.len() && fault.at.end <= word.text.len();
        let at = if is_plain { fault.at } else { whole.clone() };
        let span = match is_plain {
            true => Span { start: word.span.start + at.start, end: word.span.start + at.end },
            false => word.span,
        };
        Error::new(format!("failed to process {:?}: {}", shortened(&word.text), fault.message), span)
    };
    let template = Template::parse(&word.text, escape, quotes).map_err(fault)?;
    let mut output = Output { escape, variables, expanded: Expanded::default(), word: String::new() };
    output.template(&template).map_err(fault)?;
    output.end_word();
    Ok(output.expanded)
}

/// The names of the variables in a word, whatever they are.
pub fn names(word: &Word, escape: char, quotes: Quotes) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if let Ok(template) = Template::parse(&word.text, escape, quotes) {
        template.names(&mut names);
    }
    names
}

/// What is wrong with a word, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    message: String,
    at: Range<usize>,
}

impl Fault {
    fn new(message: impl Into<String>, at: Range<usize>) -> Self {
        Self { message: message.into(), at }
    }
}

/// A word while it is put together.
struct Output<'a> {
    escape: char,
    variables: &'a dyn Variables,
    expanded: Expanded,
    /// What has been read of the word that has not ended.
    word: String,
}

impl Output<'_> {
    fn template(&mut self, template: &Template) -> Result<(), Fault> {
        for part in &template.parts {
            match part {
                Part::Bare(text) => {
                    self.expanded.text.push_str(text);
                    self.parted(text);
                }
                Part::Quoted(text) => {
                    self.expanded.text.push_str(text);
                    self.word.push_str(text);
                }
                Part::Substitution(substitution) => {
                    let value = self.substitution(substitution)?;
                    if value.len() + self.expanded.text.len() > LONGEST_BYTES {
                        let message = format!("it becomes longer than {LONGEST_BYTES} bytes");
                        return Err(Fault::new(message, substitution.at.clone()));
                    }
                    self.expanded.text.push_str(&value);
                    match substitution.is_quoted {
                        true => self.word.push_str(&value),
                        false => self.parted(&value),
                    }
                }
            }
        }
        Ok(())
    }

    fn parted(&mut self, text: &str) {
        for character in text.chars() {
            match character.is_whitespace() {
                true => self.end_word(),
                false => self.word.push(character),
            }
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.expanded.words.push(std::mem::take(&mut self.word));
        }
    }

    /// The text of a template within another.
    fn inner(&mut self, template: &Template) -> Result<String, Fault> {
        let mut inner = Output {
            escape: self.escape,
            variables: self.variables,
            expanded: Expanded::default(),
            word: String::new(),
        };
        inner.template(template)?;
        self.expanded.used.append(&mut inner.expanded.used);
        self.expanded.unknown.append(&mut inner.expanded.unknown);
        Ok(inner.expanded.text)
    }

    fn substitution(&mut self, substitution: &Substitution) -> Result<String, Fault> {
        let Substitution { name, modifier, at, .. } = substitution;
        let value = match self.variables.value(name) {
            Value::Set(value) => {
                self.expanded.used.insert(name.clone());
                Some(value)
            }
            Value::Declared => {
                self.expanded.used.insert(name.clone());
                None
            }
            Value::Unknown => {
                self.expanded.unknown.insert(name.clone());
                None
            }
        };
        let Some(modifier) = modifier else { return Ok(value.unwrap_or_default().to_owned()) };
        let with = |why: String| Fault::new(why, at.clone());
        let escape = self.escape;
        Ok(match modifier {
            Modifier::Default { word, also_if_empty } => {
                let word = self.inner(word)?;
                value.filter(|value| !(*also_if_empty && value.is_empty())).map_or(word, str::to_owned)
            }
            Modifier::Alternative { word, also_if_empty } => {
                let word = self.inner(word)?;
                match value.filter(|value| !(*also_if_empty && value.is_empty())) {
                    Some(_) => word,
                    None => String::new(),
                }
            }
            Modifier::Required { word, also_if_empty } => {
                let word = self.inner(word)?;
                let otherwise = |default: &str| if word.is_empty() { default.to_owned() } else { word.clone() };
                match value {
                    None => return Err(with(format!("{name}: {}", otherwise("is not allowed to be unset")))),
                    Some("") if *also_if_empty => {
                        return Err(with(format!("{name}: {}", otherwise("is not allowed to be empty"))));
                    }
                    Some(value) => value.to_owned(),
                }
            }
            Modifier::Cut { end, longest, word } => {
                let word = self.inner(word)?;
                pattern::cut(value.unwrap_or_default(), &word, escape, *end, *longest).map_err(with)?
            }
            Modifier::Replace { word, replacement, all } => {
                let (word, replacement) = (self.inner(word)?, self.inner(replacement)?);
                pattern::replace(value.unwrap_or_default(), &word, &replacement, escape, *all).map_err(with)?
            }
        })
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
