//! How a command ends when it does not end well: what is said on stderr, and the exit code.

use std::fmt::Write as _;
use std::io;

use crate::client::ClientError;

/// The exit code of a plain failure.
pub const FAILED: u8 = 1;
/// The exit code when dozen itself, not the container's process, is why `run` failed; also of a bad flag.
pub const ENGINE_FAILED: u8 = 125;
/// The container's command is there, but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The container's command is not there.
pub const NOT_FOUND: u8 = 127;
/// What a shell shows for a process that SIGPIPE ended: nobody reads our output any more.
const BROKEN_PIPE: u8 = 128 + 13;

/// What a command returns: an exit code, or what went wrong.
pub type Outcome = Result<u8, Failure>;

/// A failure, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What failed, on what. Empty: everything has been said already.
    pub message: String,
    /// The way out, one sentence.
    pub hint: Option<String>,
    /// A closing line, after an empty one: where to read on.
    pub see: Option<String>,
    /// The process's exit code.
    pub exit_code: u8,
    /// Begin with `dozen: `, as Docker does where it does.
    pub is_prefixed: bool,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: FAILED, ..Self::default() }
    }

    /// Ends with `exit_code` and says nothing: it has been said.
    pub fn silent(exit_code: u8) -> Self {
        Self { exit_code, ..Self::default() }
    }

    /// Something of Docker's that dozen does not have yet.
    pub fn not_built(what: &str) -> Self {
        Self { is_prefixed: true, ..Self::new(format!("{what} is not built yet")) }
    }

    /// The same with a way out.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    pub fn with_exit_code(mut self, exit_code: u8) -> Self {
        self.exit_code = exit_code;
        self
    }

    /// The same as Docker's `run`, `create` and friends show it: with the program's name in front, a full stop,
    /// and where to read on. `verb` is `run` or `container run`.
    pub fn of_verb(mut self, verb: &str) -> Self {
        self.is_prefixed = true;
        self.see.get_or_insert_with(|| format!("See 'dozen {verb} --help'."));
        if !self.message.is_empty() && !self.message.ends_with(['.', '?', '!']) {
            self.message.push('.');
        }
        self
    }

    /// The text for stderr; ends with a line feed unless it is empty.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.message.is_empty() {
            let prefix = if self.is_prefixed { "dozen: " } else { "" };
            let _ = writeln!(text, "{prefix}{}", self.message);
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        if let Some(see) = &self.see {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{see}");
        }
        text
    }

    /// Several things failed, one after the other: all of it is shown, and the exit code is 1.
    pub fn all(failures: Vec<Failure>) -> Outcome {
        match failures.len() {
            0 => Ok(0),
            _ => {
                let text = failures.iter().map(Failure::render).collect::<String>();
                Err(Self::new(text.trim_end_matches('\n')))
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = error.hint();
        Self { hint, ..Self::new(error.to_string()) }
    }
}

/// Only for our own output; a file's failure is made a [`Failure`] where its path is known.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(BROKEN_PIPE),
            _ => Self::new(format!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_run_has_dockers_shape() {
        let failure = Failure::new("Error response from daemon: No such image: x:latest")
            .with_hint("load it with 'dozen load -i FILE'")
            .of_verb("run");
        assert_eq!(
            failure.render(),
            "dozen: Error response from daemon: No such image: x:latest.\n\
             hint: load it with 'dozen load -i FILE'\n\n\
             See 'dozen run --help'.\n"
        );
    }

    #[test]
    fn several_failures_are_all_said() {
        let outcome = Failure::all(vec![Failure::new("a").with_hint("b"), Failure::new("c")]);
        assert_eq!(outcome.map_err(|failure| failure.render()), Err("a\nhint: b\nc\n".to_owned()));
        assert_eq!(Failure::all(Vec::new()), Ok(0));
    }
}
