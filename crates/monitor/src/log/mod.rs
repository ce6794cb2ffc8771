//! The container's log in Docker's json-file format, one JSON object a line:
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2026-01-01T00:00:00.000000000Z"}
//! ```
//!
//! [`lines`] decides what is written (pure), [`timestamp`] says when, [`file`] writes and rotates.

pub mod file;
pub mod lines;
pub mod timestamp;

/// Which of the process's streams a piece of output came from. A terminal has only `Stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its word in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
