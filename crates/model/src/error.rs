//! What kind of failure an error is: one kind maps to one HTTP status and one exit code, in one place each.

use serde::{Deserialize, Serialize};

/// The kind of a failure, as far as the one who asked needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request itself cannot be right, whatever the state of the engine.
    Invalid,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The request is understood and refused by a rule.
    Forbidden,
    /// The thing named is not here.
    NotFound,
    /// The request contradicts the present state: a name in use, a container that runs.
    Conflict,
    /// Docker's feature, known by name, that dozen does not build yet (or never will: the message says).
    NotBuilt,
    /// Something needed is absent for now: a dead resolver, an engine that is going down.
    Unavailable,
    /// The host has not enough of something: disk, memory, addresses.
    Exhausted,
    /// A fault of dozen or of the host under it.
    Internal,
}

/// An error that knows its kind and may know what to do next.
///
/// `Display` says what failed and on what, without its source; [`Classified::hint`] says the way out.
pub trait Classified: std::error::Error {
    /// The kind, from which the status and the exit code follow.
    fn kind(&self) -> ErrorKind;

    /// One sentence on what to do next, if there is something to do.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// An error with all its sources, in one line: `Display` keeps sources out, and who reads a message or a log wants
/// them. A source whose words the error repeats already is not said twice.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Door(#[source] std::io::Error);

    #[test]
    fn a_chain_says_everything_once() {
        let error = Door(std::io::Error::other("it is locked"));
        assert_eq!(error_chain(&error), "cannot open the door: it is locked");
    }
}
