//! What is wrong with a Dockerfile: where, and what to do next.

use std::fmt;

use crate::span::{Lines, Span};

/// A fault in a Dockerfile. `Display` is one line, in Docker's words where scripts look for them; [`Error::excerpt`]
/// shows the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong, and with what.
    pub message: String,
    /// Where; see [`Error::has_place`].
    pub span: Span,
    /// The way out, one sentence.
    pub hint: Option<String>,
    stage: Stage,
}

/// When the fault was found: Docker's first words depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The line says something that no Dockerfile may.
    Parsing { line: usize },
    /// Every line is right, and together they are not.
    Meaning,
    /// The file is right, and what the caller wants of it is not.
    Asking,
}

impl Error {
    /// A fault of what stands at `span`.
    pub fn new(message: impl Into<String>, span: Span) -> Self {
        Self { message: message.into(), span, hint: None, stage: Stage::Meaning }
    }

    /// Of what the caller wants: there is no place in the file to show.
    pub fn of_caller(message: impl Into<String>) -> Self {
        Self { stage: Stage::Asking, ..Self::new(message, Span::default()) }
    }

    /// The same with the way out.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with Docker's `(did you mean …?)`, if there is something near.
    pub(crate) fn with_suggestion(mut self, near: Option<&str>) -> Self {
        if let Some(near) = near {
            self.message = format!("{} (did you mean {near}?)", self.message);
        }
        self
    }

    /// It was found while the instruction that begins on `line` was read.
    pub(crate) fn on_line(mut self, line: usize) -> Self {
        self.stage = Stage::Parsing { line };
        self
    }

    /// It stands in the file, and its span says where.
    pub fn has_place(&self) -> bool {
        self.stage != Stage::Asking
    }

    /// The lines around the fault, marked, with carets under it; empty if it has no place.
    pub fn excerpt(&self, file: &str, text: &str) -> String {
        let lines = Lines::new(text);
        if self.has_place() { lines.excerpt(file, lines.of(self.span), Some(self.span)) } else { String::new() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            Stage::Parsing { line } => write!(f, "dockerfile parse error on line {line}: {}", self.message),
            Stage::Meaning | Stage::Asking => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}
