//! Go's text/template, as far as `--format` needs it (pkg.go.dev/text/template, and docs.docker.com, "Format command
//! and log output", for the functions that Docker adds).
//!
//! Text is cut into tokens ([`lexer`]), tokens become a tree ([`parser`]), and the tree is evaluated over a
//! [`Value`]. Templates that define or call other templates are refused by name.

mod evaluate;
mod fields;
mod functions;
mod lexer;
mod parser;
mod value;

pub use value::{Row, Value};

/// A template that cannot be read or does not fit the data. The words are Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {place}: {message}")]
pub struct TemplateError {
    place: String,
    message: String,
}

/// A template, parsed.
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    nodes: Vec<parser::Node>,
}

impl Template {
    /// Parses.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let nodes = parser::parse(source).map_err(|fault| fault.place_in(source, false))?;
        Ok(Self { source: source.to_owned(), nodes })
    }

    /// Evaluates over `data`, which is `.` and `$`.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        evaluate::render(&self.nodes, data).map_err(|fault| fault.place_in(&self.source, true))
    }
}

/// What is wrong, at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    offset: usize,
    message: String,
}

impl Fault {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }

    fn place_in(self, source: &str, with_column: bool) -> TemplateError {
        let before = &source.as_bytes()[..self.offset.min(source.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
        let place = if with_column { format!(":{line}:{column}") } else { format!(":{line}") };
        TemplateError { place, message: self.message }
    }
}

#[cfg(test)]
mod tests;
