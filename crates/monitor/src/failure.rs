//! What goes wrong in a monitor, in the words that cross to the engine.

use std::io;

use dozen_model::{Classified, ErrorKind};

use crate::protocol::Failure;

/// A step of the monitor's own that failed.
pub fn internal(action: &str, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    Failure { kind, message: format!("cannot {action}: {error}"), hint: None }
}

/// An error with its chain of sources in one line.
pub fn failure(error: &dyn Classified) -> Failure {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Some errors have their source's words in their own already.
        if !message.to_lowercase().contains(words.split(" (os error").next().unwrap_or("").to_lowercase().as_str()) {
            message = format!("{message}: {words}");
        }
        source = cause.source();
    }
    Failure { kind: error.kind(), message, hint: error.hint() }
}

/// There is no process to act on.
pub fn not_running() -> Failure {
    Failure { kind: ErrorKind::Conflict, message: "the container is not running".to_owned(), hint: None }
}

/// The request cannot be right.
pub fn invalid(message: String) -> Failure {
    Failure { kind: ErrorKind::Invalid, message, hint: None }
}

/// No exec of this id runs, or is remembered.
pub fn no_exec(exec_id: &str) -> Failure {
    Failure { kind: ErrorKind::NotFound, message: format!("No such exec instance: {exec_id}"), hint: None }
}

/// A word to whoever reads the monitor's standard error; mostly /dev/null.
#[expect(clippy::print_stderr, reason = "the monitor's own log is its standard error")]
pub fn complain(message: impl std::fmt::Display) {
    eprintln!("dozen monitor: {message}");
}
