//! Parser directives: the comments at the top of a file that are for the parser (docs.docker.com/reference/dockerfile,
//! "Parser directives"). They stand before everything else, one a line, each once; the first line that is none ends them.

use crate::error::Error;
use crate::span::Span;
use crate::text::Word;

/// What the directives say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// `# syntax=`: the image of the frontend that is to read the file.
    pub syntax: Option<Word>,
    /// `# escape=`.
    pub escape: Escape,
    /// `# check=`: which build checks are left out, and whether they fail the build.
    pub check: Option<Word>,
}

/// The character that escapes others and continues lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`.
    #[default]
    Backslash,
    /// `` ` ``, for paths of Windows.
    Backtick,
}

impl Escape {
    /// The character.
    pub fn character(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// Reads the directives of a file one line after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    directives: Directives,
    has_escape: bool,
    line: usize,
    is_done: bool,
    has_shebang: bool,
}

impl Reader {
    /// Takes the next line, which begins at `start` in the file; true if it was a directive.
    pub fn take(&mut self, line: &str, start: usize) -> Result<bool, Error> {
        self.line += 1;
        if self.is_done {
            return Ok(false);
        }
        if self.line == 1 && line.starts_with("#!") {
            // BuildKit looks behind a shebang for all but the escape character (its parser/directives.go).
            self.has_shebang = true;
            return Ok(false);
        }
        let Some((key, value)) = split(line) else {
            self.is_done = true;
            return Ok(false);
        };
        let at = start + (value.as_ptr() as usize - line.as_ptr() as usize);
        let word = Word { text: value.to_owned(), span: Span { start: at, end: at + value.len() } };
        let seen = match key.to_ascii_lowercase().as_str() {
            "syntax" => self.directives.syntax.replace(word).is_some(),
            "check" => self.directives.check.replace(word).is_some(),
            "escape" => {
                let read = escape(&word).map_err(|error| error.on_line(self.line))?;
                if !self.has_shebang {
                    self.directives.escape = read;
                }
                std::mem::replace(&mut self.has_escape, true)
            }
            _ => {
                self.is_done = true;
                return Ok(false);
            }
        };
        match seen {
            false => Ok(true),
            true => {
                let span = Span { start, end: start + line.len() };
                let message = format!("only one {} parser directive can be used", key.to_ascii_lowercase());
                Err(Error::new(message, span).on_line(self.line))
            }
        }
    }

    pub fn escape(&self) -> Escape {
        self.directives.escape
    }

    pub fn finish(self) -> Directives {
        self.directives
    }
}

/// `# key = value`.
fn split(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((key, value))
}

fn escape(value: &Word) -> Result<Escape, Error> {
    match value.text.as_str() {
        "\\" => Ok(Escape::Backslash),
        "`" => Ok(Escape::Backtick),
        other => Err(Error::new(format!("invalid escape token '{other}' does not match ` or \\"), value.span)),
    }
}

/// A `# syntax=` that asks for another language than the one that is built in.
///
/// What is built in answers for every `docker/dockerfile:1` and for those of its channels that add nothing to it
/// (docs.docker.com/build/buildkit/frontend, "Official releases").
pub fn check_syntax(syntax: &Word) -> Result<(), Error> {
    // What stands behind a blank is for the frontend.
    let image = syntax.text.split(' ').next().unwrap_or_default();
    let known = image.parse::<dozen_model::Reference>().is_ok_and(|reference| {
        let repository = (reference.registry(), reference.path());
        let is_stable = |tag: &str| {
            let digits = tag.strip_suffix("-labs").unwrap_or(tag);
            digits == "latest" || digits == "labs" || digits == "1" || digits.starts_with("1.")
        };
        matches!(repository, ("docker.io", "docker/dockerfile")) && reference.tag().is_none_or(is_stable)
            || matches!(repository, ("docker.io", "docker/dockerfile-upstream"))
                && reference.tag().is_some_and(|tag| tag == "master" || is_stable(tag))
    });
    if known {
        return Ok(());
    }
    Err(Error::new(format!("the Dockerfile frontend {image:?} is not built in"), syntax.span)
        .with_hint("dozen reads docker/dockerfile:1 itself and runs no other frontend: say '# syntax=docker/dockerfile:1', or leave the line out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Directives, String> {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.take(line, line.as_ptr() as usize - text.as_ptr() as usize).map_err(|error| error.to_string())?;
        }
        Ok(reader.finish())
    }

    #[test]
    fn directives_end_with_the_first_other_line() {
        let directives = read("# syntax = a b\n#\tEsCaPe=`\n#check=skip=all\n").unwrap();
        assert_eq!(directives.syntax.unwrap().text, "a b");
        assert_eq!(directives.escape, Escape::Backtick);
        let check = directives.check.unwrap();
        assert_eq!((check.text.as_str(), check.span), ("skip=all", Span { start: 33, end: 41 }));
        let behind = read("#!/usr/bin/docker\n# escape=`\n# syntax=a\n").unwrap();
        assert_eq!((behind.escape, behind.syntax.unwrap().text.as_str()), (Escape::Backslash, "a"));
        for ended in
            ["# a comment\n# escape=`", "\n# escape=`", "# other=1\n# escape=`", "FROM a\n# escape=`", "# escape="]
        {
            assert_eq!(read(ended), Ok(Directives::default()), "{ended}");
        }
    }

    #[test]
    fn wrong_directives_are_said() {
        for (text, message) in [
            ("# escape=x", "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\"),
            (
                "# syntax=a\n# Syntax=b",
                "dockerfile parse error on line 2: only one syntax parser directive can be used",
            ),
            (
                "# escape=\\\n# escape=\\",
                "dockerfile parse error on line 2: only one escape parser directive can be used",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }

    #[test]
    fn other_frontends_are_refused() {
        let check = |text: &str| check_syntax(&Word { text: text.to_owned(), span: Span::default() }).is_ok();
        let digest = "0123456789abcdef".repeat(4);
        for good in [
            "docker/dockerfile:1",
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1.4 option",
            "docker/dockerfile-upstream:master",
            &format!("docker/dockerfile:1@sha256:{digest}"),
        ] {
            assert!(check(good), "{good}");
        }
        for bad in ["docker/dockerfile:2", "example.org/docker/dockerfile:1", "mine", "docker/dockerfile:0.9", ":"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
