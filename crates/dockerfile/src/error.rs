//! What is wrong with a Dockerfile: where, and what to do next.

use std::fmt;

use crate::span::{Lines, Span};

/// A fault in a Dockerfile. `Display` is one line, in Docker's words where scripts look for them; [`Error::excerpt`]
/// shows the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong, and with what.
    pub message: String,
    /// Where.
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
}

impl Error {
    pub(crate) fn new(message: impl Into<String>, span: Span) -> Self {
        Self { message: message.into(), span, hint: None, stage: Stage::Meaning }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
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

    /// The lines around the fault, marked, with carets under it.
    pub fn excerpt(&self, file: &str, text: &str) -> String {
        let lines = Lines::new(text);
        lines.excerpt(file, lines.of(self.span), Some(self.span))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            Stage::Parsing { line } => write!(f, "dockerfile parse error on line {line}: {}", self.message),
            Stage::Meaning => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}
