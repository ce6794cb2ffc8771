//! From a file's text to the tree: one instruction after the other, each by a function of its own.

mod commands;
mod keys;
mod stage;
mod transfer;

use dozen_model::spelling;

use crate::directives::check_syntax;
use crate::error::Error;
use crate::flags::{Flags, Takes};
use crate::heredoc::{Heredoc, Mark, marks};
use crate::instruction::{Arg, Dockerfile, Instruction, Located, Stage, Step};
use crate::logical::{Cursor, Logical};
use crate::one_or_more::OneOrMore;
use crate::span::Span;
use crate::text::{Text, Word};

/// All keywords.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// No file has more: each stage may have an environment of its own.
const MOST_STAGES: usize = 1000;

/// And no stage more ONBUILDs: each stage upon it goes through them.
const MOST_TRIGGERS: usize = 1000;

/// A file that is no Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseFailure {
    /// The first fault.
    pub error: Error,
    /// What stands before it, if that is at least one stage.
    pub before: Option<Box<Dockerfile>>,
}

impl std::fmt::Display for ParseFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for ParseFailure {}

/// Reads a whole file.
pub fn parse(source: &str) -> Result<Dockerfile, ParseFailure> {
    let mut cursor = Cursor::new(source);
    let mut file = Unfinished::default();
    let outcome = file.read(&mut cursor);
    let end = cursor.end();
    let directives = cursor.directives();
    let outcome = outcome.and_then(|()| match &directives.syntax {
        Some(syntax) => check_syntax(syntax),
        None => Ok(()),
    });
    let is_empty = file.global.is_empty() && file.stages.is_empty();
    let parsed = OneOrMore::new(file.stages).map(|stages| Dockerfile { directives, global: file.global, stages });
    match (outcome, parsed) {
        (Ok(()), Some(file)) => Ok(file),
        (Err(error), before) => Err(ParseFailure { error, before: before.map(Box::new) }),
        (Ok(()), None) => {
            let span = Span { start: end, end };
            let error = match is_empty {
                true if source.is_empty() => Error::new("the Dockerfile cannot be empty", span),
                true => Error::new("file with no instructions", span),
                false => Error::new("dockerfile contains no stages to build", span),
            };
            Err(ParseFailure { error: error.with_hint("a Dockerfile begins with FROM IMAGE"), before: None })
        }
    }
}

/// The one step that a trigger of a base image's configuration is (image-spec has none; Docker's `OnBuild`).
pub fn parse_trigger(source: &str) -> Result<Step, Error> {
    let mut cursor = Cursor::new(source);
    let logical = cursor.next()?.ok_or_else(|| Error::new("an ONBUILD trigger is empty", Span::default()))?;
    let text = logical.text.whole().trim();
    let request = Request::new(text, &mut cursor);
    let step = commands::trigger(request)?;
    match cursor.next()? {
        None => Ok(step),
        Some(more) => Err(Error::new("an ONBUILD trigger is more than one instruction", more.text.whole().span())),
    }
}

#[derive(Default)]
struct Unfinished {
    global: Vec<Located<Arg>>,
    stages: Vec<Stage>,
    /// The ONBUILDs of the last stage.
    triggers: usize,
}

impl Unfinished {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        while let Some(logical) = cursor.next()? {
            let line = logical.first_line;
            self.add(logical, cursor).map_err(|error| error.on_line(line))?;
        }
        Ok(())
    }

    fn add(&mut self, logical: Logical, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        let text = logical.text.whole().trim();
        let request = Request::new(text, cursor);
        let keyword = request.keyword.word();
        if request.name == "FROM" {
            let from = stage::from(&request)?;
            if self.stages.len() == MOST_STAGES {
                return Err(Error::new(format!("there are more than {MOST_STAGES} stages"), keyword.span));
            }
            let from = Place::new(logical.end, keyword, &logical).with(from);
            self.stages.push(Stage { from, instructions: Vec::new() });
            self.triggers = 0;
            return Ok(());
        }
        let instruction = instruction(request)?;
        if matches!(instruction, Instruction::OnBuild(_)) {
            self.triggers += 1;
            if self.triggers > MOST_TRIGGERS {
                let message = format!("there are more than {MOST_TRIGGERS} ONBUILDs in a stage");
                return Err(Error::new(message, keyword.span));
            }
        }
        // Heredocs stand behind the line; the next instruction begins after them.
        let place = Place::new(cursor.end_of_previous().max(logical.end), keyword, &logical);
        match (instruction, self.stages.last_mut()) {
            (instruction, Some(stage)) => stage.instructions.push(place.with(instruction)),
            (Instruction::Step(Step::Arg(arg)), None) => self.global.push(place.with(arg)),
            _ => {
                return Err(Error::new("no build stage in current context", place.keyword.span)
                    .with_hint("only ARG may stand before the first FROM"));
            }
        }
        Ok(())
    }
}

/// Where an instruction stands, before it is known what it says.
struct Place {
    keyword: Word,
    line: String,
    span: Span,
    line_end: usize,
    comments: Vec<Word>,
    has_empty_continuation: bool,
}

impl Place {
    fn new(end: usize, keyword: Word, logical: &Logical) -> Self {
        Self {
            span: Span { start: keyword.span.start, end },
            keyword,
            line: logical.text.whole().trim().as_str().to_owned(),
            line_end: logical.end,
            comments: logical.comments.clone(),
            has_empty_continuation: logical.has_empty_continuation,
        }
    }

    fn with<T>(self, value: T) -> Located<T> {
        let Self { keyword, line, span, line_end, comments, has_empty_continuation } = self;
        Located { value, keyword, line, span, line_end, comments, has_empty_continuation }
    }
}

/// An instruction's line, to be read.
struct Request<'a, 'file, 'cursor> {
    keyword: Text<'a>,
    /// In capitals.
    name: String,
    /// What stands behind the keyword.
    rest: Text<'a>,
    /// The whole line.
    line: Text<'a>,
    /// Where heredocs stand.
    cursor: &'cursor mut Cursor<'file>,
}

impl<'a, 'file, 'cursor> Request<'a, 'file, 'cursor> {
    fn new(line: Text<'a>, cursor: &'cursor mut Cursor<'file>) -> Self {
        let (keyword, rest) = line.split_first();
        Self { keyword, name: keyword.as_str().to_ascii_uppercase(), rest, line, cursor }
    }

    fn escape(&self) -> char {
        self.cursor.escape()
    }

    /// Takes off the flags.
    fn flags(&self, known: &[(&str, Takes)]) -> Result<(Flags, Text<'a>), Error> {
        Flags::take(self.rest, self.escape(), known)
    }

    /// What is behind the keyword of an instruction that has no flags, and needs something there.
    fn argument(&self, needs: &str) -> Result<Text<'a>, Error> {
        let (_, rest) = self.flags(&[])?;
        if rest.is_empty() { Err(self.error(format!("{} requires {needs}", self.name))) } else { Ok(rest) }
    }

    /// The texts of the heredocs that the line names.
    fn heredocs(&mut self) -> Result<Vec<Heredoc>, Error> {
        marks(self.line).into_iter().map(|mark: Mark| mark.collect(self.cursor)).collect()
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::new(message, self.line.span())
    }
}

fn instruction(request: Request<'_, '_, '_>) -> Result<Instruction, Error> {
    Ok(match request.name.as_str() {
        "ONBUILD" => Instruction::OnBuild(commands::on_build(request)?),
        "MAINTAINER" => Instruction::Maintainer(request.argument("exactly one argument")?.word()),
        _ => Instruction::Step(commands::step(request)?),
    })
}

/// A keyword that there is not.
fn unknown(keyword: Text<'_>) -> Error {
    let upper = keyword.as_str().to_ascii_uppercase();
    let near = spelling::closest(&upper, KEYWORDS.into_iter());
    Error::new(format!("unknown instruction: {}", keyword.as_str()), keyword.span()).with_suggestion(near)
}

#[cfg(test)]
mod tests;
