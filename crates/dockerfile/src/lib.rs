//! Dockerfiles: from a file's text to a tree in which every word knows where it stands; what variables in it become;
//! which stages there are and which of them a target needs; what `.dockerignore` leaves out; and the build checks.
//!
//! Nothing here reads a file, asks a registry or builds: it is pure, and takes whatever a stranger wrote. The language
//! is that of docs.docker.com/reference/dockerfile, where that leaves something open as BuildKit reads it; the words of
//! the errors are BuildKit's where scripts may look for them.

mod character_class;
pub mod directives;
mod error;
pub mod expand;
mod exposed;
mod file_mode;
mod flags;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod heredoc;
pub mod ignore;
pub mod instruction;
pub mod lint;
mod logical;
mod mount;
pub mod named;
mod one_or_more;
mod parse;
mod remote;
pub mod scope;
mod span;
pub mod stages;
mod text;
mod words;

pub use character_class::CharacterClass;
pub use error::Error;
pub use exposed::ExposedPorts;
pub use file_mode::FileMode;
pub use heredoc::Heredoc;
pub use instruction::Dockerfile;
pub use mount::{Mount, MountSpec, Owner, Sharing};
pub use one_or_more::OneOrMore;
pub use parse::{ParseFailure, parse, parse_trigger};
pub use remote::Remote;
pub use span::{Lines, Position, Span};
pub use text::Word;
