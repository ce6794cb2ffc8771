//! The flags of an instruction: the words behind its keyword that begin with `--`.
//!
//! A value stands behind `=` (docs.docker.com/reference/dockerfile has no other form); quotes and escapes in it are taken
//! off here, as BuildKit does, and `--` alone ends the flags. The words of the errors are BuildKit's.

use dozen_model::spelling;

use crate::error::Error;
use crate::span::Span;
use crate::text::{Text, Word};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// A value, once.
    Value,
    /// A value, any number of times.
    Values,
    /// `true`, `false`, or nothing.
    Switch,
    /// Docker has it, and we do not.
    NotBuilt,
}

/// The flags of one instruction, which are known to be right.
#[derive(Debug)]
pub(crate) struct Flags {
    found: Vec<Flag>,
}

#[derive(Debug)]
struct Flag {
    name: String,
    value: Option<Word>,
    span: Span,
}

impl Flags {
    /// Takes the flags off the beginning of a text; the rest is what the instruction is about.
    pub fn take<'a>(text: Text<'a>, escape: char, known: &[(&str, Takes)]) -> Result<(Self, Text<'a>), Error> {
        let mut found: Vec<Flag> = Vec::new();
        let mut rest = text.trim();
        while rest.as_str().starts_with("--") {
            let (word, value) = unquoted(rest, escape);
            rest = rest.after(word.as_str().len()).trim_start();
            if word.as_str() == "--" {
                break;
            }
            let flag = Flag::new(word, &value);
            flag.check(known, &found)?;
            found.push(flag);
        }
        Ok((Self { found }, rest))
    }

    /// The value of a flag.
    pub fn value(&self, name: &str) -> Option<Word> {
        self.found.iter().find(|flag| flag.name == name).and_then(|flag| flag.value.clone())
    }

    /// The values of a flag that may stand there often.
    pub fn values(&self, name: &str) -> Vec<Word> {
        self.found.iter().filter(|flag| flag.name == name).filter_map(|flag| flag.value.clone()).collect()
    }

    /// A switch, if it was given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.found.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_ref().is_none_or(|value| value.text.eq_ignore_ascii_case("true")))
    }
}

impl Flag {
    fn new(word: Text<'_>, unquoted: &str) -> Self {
        let (name, value) =
            unquoted[2..].split_once('=').map_or((&unquoted[2..], None), |(name, value)| (name, Some(value)));
        let value = value.map(|text| {
            let at = word.as_str().find('=').map_or(0, |at| at + 1);
            Word { text: text.to_owned(), span: word.after(at).span() }
        });
        Self { name: name.to_owned(), value, span: word.span() }
    }

    fn check(&self, known: &[(&str, Takes)], before: &[Flag]) -> Result<(), Error> {
        let name = &self.name;
        let error = |message: String| Err(Error::new(message, self.span));
        let Some((_, takes)) = known.iter().find(|(it, _)| it == name) else {
            let near = spelling::closest(name, known.iter().map(|(it, _)| *it));
            return error(format!("unknown flag: --{name}")).map_err(|error| error.with_suggestion(near));
        };
        if *takes != Takes::Values && before.iter().any(|flag| flag.name == *name) {
            return error(format!("duplicate flag specified: {name}"));
        }
        match (takes, &self.value) {
            (Takes::NotBuilt, _) => error(format!("--{name} is not built yet")),
            (Takes::Value | Takes::Values, None) => error(format!("missing a value on flag: {name}"))
                .map_err(|error| error.with_hint(format!("the value stands behind '=': --{name}=VALUE"))),
            (Takes::Switch, Some(value)) if !["true", "false"].contains(&value.text.to_ascii_lowercase().as_str()) => {
                error(format!("expecting boolean value for flag {name}, not: {}", value.text))
            }
            _ => Ok(()),
        }
    }
}

/// The first word as it was written, and without quotes and escapes.
fn unquoted(text: Text<'_>, escape: char) -> (Text<'_>, String) {
    let mut word = String::new();
    let mut quote = None;
    let mut end = text.as_str().len();
    let mut characters = text.as_str().char_indices();
    while let Some((at, character)) = characters.next() {
        match quote {
            None if character.is_whitespace() => {
                end = at;
                break;
            }
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ if character == escape => word.extend(characters.next().map(|(_, it)| it)),
            _ => word.push(character),
        }
    }
    (text.part(0, end), word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Joined;

    const KNOWN: [(&str, Takes); 4] =
        [("from", Takes::Value), ("mount", Takes::Values), ("link", Takes::Switch), ("device", Takes::NotBuilt)];

    fn read(text: &str) -> Result<String, String> {
        let mut joined = Joined::default();
        joined.push(text, 0);
        let (flags, rest) = Flags::take(joined.whole(), '\\', &KNOWN).map_err(|error| error.message)?;
        let from = flags.value("from").map(|it| format!("{it:?}")).unwrap_or_default();
        Ok(format!("{from} {:?} {:?} [{}]", flags.values("mount"), flags.switch("link"), rest.as_str()))
    }

    #[test]
    fn flags_are_taken_off() {
        for (text, expected) in [
            ("a --from=x", " [] None [a --from=x]"),
            ("--from=x --link  a b", "\"x\"@7..8 [] Some(true) [a b]"),
            ("--mount=a --link=False --mount='b c',d\\\\ a", " [\"a\"@8..9, \"b c,d\\\\\"@31..40] Some(false) [a]"),
            ("--link -- --from=a", " [] Some(true) [--from=a]"),
            ("--from=", "\"\"@7..7 [] None []"),
        ] {
            assert_eq!(read(text), Ok(expected.to_owned()), "{text}");
        }
        for (text, expected) in [
            ("--fro=a", "unknown flag: --fro (did you mean from?)"),
            ("--zzzzz", "unknown flag: --zzzzz"),
            ("--from x", "missing a value on flag: from"),
            ("--from=a --from=b", "duplicate flag specified: from"),
            ("--link=2", "expecting boolean value for flag link, not: 2"),
            ("--device=a", "--device is not built yet"),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text}");
        }
    }
}
