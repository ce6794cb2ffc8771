//! A word taken apart: text, and variables with what stands behind their names.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

use super::pattern::End;
use super::{Fault, Quotes};

/// `${a:-${b:-…}}`: whoever writes more of them one in another wants our stack.
const DEEPEST: usize = 32;

/// A word's parts, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Template {
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text; blanks in it part words.
    Bare(String),
    /// Text that is one with what is around it.
    Quoted(String),
    Substitution(Substitution),
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Substitution {
    pub name: String,
    pub modifier: Option<Modifier>,
    /// In double quotes.
    pub is_quoted: bool,
    /// Where it stands in the word.
    pub at: Range<usize>,
}

/// What is to be done with the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Modifier {
    /// `-word`, `:-word`.
    Default { word: Template, also_if_empty: bool },
    /// `+word`, `:+word`.
    Alternative { word: Template, also_if_empty: bool },
    /// `?word`, `:?word`.
    Required { word: Template, also_if_empty: bool },
    /// `#word`, `##word`, `%word`, `%%word`.
    Cut { end: End, longest: bool, word: Template },
    /// `/word/replacement`, `//word/replacement`.
    Replace { word: Template, replacement: Template, all: bool },
}

impl Template {
    pub fn parse(text: &str, escape: char, quotes: Quotes) -> Result<Self, Fault> {
        let mut parser = Parser { text, characters: text.char_indices().peekable(), escape, quotes, depth: 0 };
        parser.template(None, Escapes::Taken)
    }

    /// All names in it.
    pub fn names(&self, names: &mut BTreeSet<String>) {
        for part in &self.parts {
            let Part::Substitution(substitution) = part else { continue };
            names.insert(substitution.name.clone());
            match &substitution.modifier {
                None => {}
                Some(
                    Modifier::Default { word, .. }
                    | Modifier::Alternative { word, .. }
                    | Modifier::Required { word, .. }
                    | Modifier::Cut { word, .. },
                ) => word.names(names),
                Some(Modifier::Replace { word, replacement, .. }) => {
                    word.names(names);
                    replacement.names(names);
                }
            }
        }
    }

    fn push(&mut self, character: char, is_quoted: bool) {
        match (self.parts.last_mut(), is_quoted) {
            (Some(Part::Bare(text)), false) | (Some(Part::Quoted(text)), true) => text.push(character),
            (_, false) => self.parts.push(Part::Bare(character.into())),
            (_, true) => self.parts.push(Part::Quoted(character.into())),
        }
    }
}

/// What becomes of an escape character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// It goes.
    Taken,
    /// It stays, for the pattern to be read.
    Kept,
}

struct Parser<'a> {
    text: &'a str,
    characters: Peekable<CharIndices<'a>>,
    escape: char,
    quotes: Quotes,
    depth: usize,
}

impl Parser<'_> {
    /// Up to `stop`, which is taken too, or to the end of the text.
    fn template(&mut self, stop: Option<char>, escapes: Escapes) -> Result<Template, Fault> {
        let mut template = Template::default();
        while let Some((at, character)) = self.characters.next() {
            match character {
                _ if Some(character) == stop => return Ok(template),
                '$' => self.dollar(at, &mut template, false)?,
                '\'' if self.quotes == Quotes::Taken => self.single(at, &mut template)?,
                '"' if self.quotes == Quotes::Taken => self.double(at, &mut template, escapes)?,
                _ if character == self.escape => {
                    // At the end of the text it escapes nothing and goes.
                    if let Some((_, escaped)) = self.characters.next() {
                        if escapes == Escapes::Kept {
                            template.push(character, true);
                        }
                        template.push(escaped, true);
                    }
                }
                _ => template.push(character, false),
            }
        }
        match stop {
            None => Ok(template),
            Some('/') => Err(self.fault("syntax error: missing '/' in ${}", self.text.len())),
            Some(_) => Err(self.fault("syntax error: missing '}'", self.text.len())),
        }
    }

    fn single(&mut self, at: usize, template: &mut Template) -> Result<(), Fault> {
        for (_, character) in self.characters.by_ref() {
            if character == '\'' {
                return Ok(());
            }
            template.push(character, true);
        }
        Err(self.fault("unexpected end of statement while looking for matching single-quote", at))
    }

    /// In double quotes the escape character escapes `"`, `$` and itself, and is itself before all others.
    fn double(&mut self, at: usize, template: &mut Template, escapes: Escapes) -> Result<(), Fault> {
        while let Some((place, character)) = self.characters.next() {
            match character {
                '"' => return Ok(()),
                '$' => self.dollar(place, template, true)?,
                _ if character == self.escape => match self.characters.peek() {
                    Some(&(_, next)) if next == '"' || next == '$' || next == self.escape => {
                        if escapes == Escapes::Kept {
                            template.push(character, true);
                        }
                        template.push(next, true);
                        self.characters.next();
                    }
                    Some(_) => template.push(character, true),
                    None => {}
                },
                _ => template.push(character, true),
            }
        }
        Err(self.fault("unexpected end of statement while looking for matching double-quote", at))
    }

    fn dollar(&mut self, at: usize, template: &mut Template, is_quoted: bool) -> Result<(), Fault> {
        if self.characters.next_if(|(_, it)| *it == '{').is_some() {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(self.fault(format!("more than {DEEPEST} variables one in another"), at));
            }
            let (name, modifier) = self.braces(at)?;
            self.depth -= 1;
            let at = at..self.place();
            template.parts.push(Part::Substitution(Substitution { name, modifier, is_quoted, at }));
            return Ok(());
        }
        let name = self.name();
        if name.is_empty() {
            template.push('$', is_quoted);
        } else {
            let at = at..self.place();
            template.parts.push(Part::Substitution(Substitution { name, modifier: None, is_quoted, at }));
        }
        Ok(())
    }

    fn braces(&mut self, at: usize) -> Result<(String, Option<Modifier>), Fault> {
        match self.characters.peek() {
            None => return Err(self.fault("syntax error: missing '}'", at)),
            Some((_, '{' | '}' | ':')) => return Err(self.fault("syntax error: bad substitution", at)),
            Some(_) => {}
        }
        let name = self.name();
        let Some((_, operator)) = self.characters.next() else {
            return Err(self.fault("syntax error: missing '}'", at));
        };
        let also_if_empty = operator == ':';
        let operator = match also_if_empty {
            false => operator,
            true => match self.characters.next() {
                Some((_, operator @ ('-' | '+' | '?'))) => operator,
                Some((_, other)) => return Err(self.unsupported(&format!(":{other}"), at)),
                None => return Err(self.fault("syntax error: missing '}'", at)),
            },
        };
        if name.is_empty() {
            return Err(self.fault("syntax error: bad substitution", at));
        }
        let modifier = match operator {
            '}' => return Ok((name, None)),
            '-' => Modifier::Default { word: self.template(Some('}'), Escapes::Taken)?, also_if_empty },
            '+' => Modifier::Alternative { word: self.template(Some('}'), Escapes::Taken)?, also_if_empty },
            '?' => Modifier::Required { word: self.template(Some('}'), Escapes::Taken)?, also_if_empty },
            '#' | '%' => {
                let longest = self.characters.next_if(|(_, it)| *it == operator).is_some();
                let end = if operator == '#' { End::Front } else { End::Back };
                Modifier::Cut { end, longest, word: self.template(Some('}'), Escapes::Kept)? }
            }
            '/' => {
                let all = self.characters.next_if(|(_, it)| *it == '/').is_some();
                let word = self.template(Some('/'), Escapes::Kept)?;
                Modifier::Replace { word, replacement: self.template(Some('}'), Escapes::Taken)?, all }
            }
            other => return Err(self.unsupported(&other.to_string(), at)),
        };
        Ok((name, Some(modifier)))
    }

    /// A name; digits; or one of the shell's own, which nothing here sets. Empty: there is none.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.characters.peek() {
            Some(&(_, first)) if first.is_numeric() => {
                while let Some((_, digit)) = self.characters.next_if(|(_, it)| it.is_numeric()) {
                    name.push(digit);
                }
            }
            Some(&(_, special @ ('@' | '*' | '#' | '?' | '-' | '$' | '!'))) => {
                self.characters.next();
                name.push(special);
            }
            _ => {
                while let Some((_, letter)) = self.characters.next_if(|(_, it)| it.is_alphanumeric() || *it == '_') {
                    name.push(letter);
                }
            }
        }
        name
    }

    fn place(&mut self) -> usize {
        self.characters.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn unsupported(&mut self, modifier: &str, at: usize) -> Fault {
        self.fault(format!("unsupported modifier ({modifier}) in substitution"), at)
    }

    /// A fault from `at` to what has been read.
    fn fault(&self, message: impl Into<String>, at: usize) -> Fault {
        let mut rest = self.characters.clone();
        let end = rest.peek().map_or(self.text.len(), |(at, _)| *at);
        Fault::new(message, at.min(end)..end)
    }
}
