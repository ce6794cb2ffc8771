//! What can go wrong between a spec and a process.

use std::io;

use dozen_model::{Classified, ErrorKind};

/// A failure of the runtime: what was attempted, on what.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The spec or a request cannot be right.
    #[error("{0}")]
    Invalid(String),
    /// Understood, and not built.
    #[error("{0} is not built yet")]
    NotBuilt(String),
    /// No such container, or nothing of it is left.
    #[error("{0}")]
    NotFound(String),
    /// The container is not in a state for this.
    #[error("{0}")]
    Conflict(String),
    /// The kernel refused a step.
    #[error("{action}: {source}", source = crate::error::words(.source))]
    System {
        /// What was attempted, on what: "mount proc on /proc".
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The new process failed before it executed anything; it told us why.
    #[error("{message}")]
    Inside {
        /// The kind, as the process judged it.
        kind: ErrorKind,
        /// The whole story in one line.
        message: String,
    },
}

impl RuntimeError {
    /// A step that the kernel refused.
    pub(crate) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { action: action.into(), source: source.into() }
    }
}

impl Classified for RuntimeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NotBuilt(_) => ErrorKind::NotBuilt,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Inside { kind, .. } => *kind,
            Self::System { source, .. } => match source.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN) => {
                    ErrorKind::Exhausted
                }
                _ => ErrorKind::Internal,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::System { source, .. } if source.raw_os_error() == Some(libc::EPERM) => {
                Some("dozen's engine and runtime need root's capabilities, CAP_SYS_ADMIN first".to_owned())
            }
            _ => None,
        }
    }
}

/// The kernel's words, lower case, without Rust's "(os error 2)": "no such file or directory", as scripts
/// that were written for Docker match it.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}

/// `result.or_else(action)`: names the step that failed.
pub(crate) trait Context<T> {
    /// Says what was attempted, on what.
    fn context(self, action: impl FnOnce() -> String) -> Result<T, RuntimeError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, RuntimeError> {
        self.map_err(|error| RuntimeError::system(action(), error))
    }
}
