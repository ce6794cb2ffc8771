//! Why a build has failed, for people: what, where in the Dockerfile, what to do.

use dozen_build::copy::CopyError;
use dozen_build::copy::owner::OwnerError;
use dozen_build::tree::TreeError;
use dozen_dockerfile::{Error, Lines, Span};
use dozen_model::{Classified, Digest, error_chain};

use super::shell::Left;
use super::{BuildFailure, StepId};
use crate::EngineError;
use crate::container::snapshot::ExitStatus;

/// Why a build has failed, and where.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: StepError,
    /// The instruction that was carried out.
    pub(super) span: Option<Span>,
    pub(super) step: Option<StepId>,
}

impl Failed {
    /// While the instruction was looked at, before any step.
    pub(super) fn at(span: Span) -> impl Fn(StepError) -> Self {
        move |error| Self { error, span: Some(span), step: None }
    }

    /// While the step was done.
    pub(super) fn in_step(step: StepId, span: Span) -> impl FnOnce(StepError) -> Self {
        move |error| Self { error, span: Some(span), step: Some(step) }
    }

    /// As the caller is told. `name` and `text` are the Dockerfile's.
    pub(super) fn told(self, name: &str, text: &str) -> BuildFailure {
        BuildFailure { step: self.step, ..self.error.told(name, text, self.span) }
    }
}

impl<E: Into<StepError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), span: None, step: None }
    }
}

/// Why a step has failed.
#[derive(Debug)]
pub(super) enum StepError {
    /// The Dockerfile is wrong.
    File(Error),
    /// A command was run and did not succeed.
    Command { arguments: Vec<String>, status: ExitStatus, left: Option<Box<Left>> },
    /// What is to be copied is not there, or cannot come to where it is to go.
    Copy(CopyError),
    /// A cache has promised a layer that cannot be had.
    Cache { layer: Digest, why: String },
    /// The engine could not.
    Engine(EngineError),
    /// This.
    Said { message: String, hint: Option<String> },
}

impl StepError {
    /// Something that needs no more words than these.
    pub(super) fn said(message: impl Into<String>) -> Self {
        Self::Said { message: message.into(), hint: None }
    }

    /// With what to do.
    pub(super) fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Said { message: message.into(), hint: Some(hint.into()) }
    }

    fn told(self, name: &str, text: &str, span: Option<Span>) -> BuildFailure {
        let lines = Lines::new(text);
        let excerpt = span.map(|span| lines.excerpt(name, lines.of(span), None));
        let (message, hint) = match self {
            Self::File(error) => {
                let excerpt = error.has_place().then(|| error.excerpt(name, text));
                let (message, hint) = (error.to_string(), error.hint);
                return BuildFailure { message, excerpt, hint, ..BuildFailure::default() };
            }
            Self::Command { arguments, status, left: _ } => {
                let code = i64::from(status.exit_code);
                let command = arguments.join(" ");
                let hint = match (&status.error, status.out_of_memory) {
                    (_, true) => Some("it ran out of memory; give it more with --memory".to_owned()),
                    (Some(why), _) => Some(why.clone()),
                    (None, _) => None,
                };
                let message = format!("The command '{command}' returned a non-zero code: {code}");
                let exit_code = Some(code);
                return BuildFailure { message, excerpt, hint, exit_code, ..BuildFailure::default() };
            }
            Self::Copy(error) => (error_chain(&error), error.hint()),
            Self::Engine(error) => (error_chain(&error), error.hint()),
            Self::Cache { layer, why } => (format!("the layer {layer} of the build cache cannot be had: {why}"), None),
            Self::Said { message, hint } => (message, hint),
        };
        BuildFailure { message, excerpt, hint, ..BuildFailure::default() }
    }
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<dozen_image::ImageError> for StepError {
    fn from(error: dozen_image::ImageError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

impl From<TreeError> for StepError {
    fn from(error: TreeError) -> Self {
        Self::Copy(error.into())
    }
}

impl From<OwnerError> for StepError {
    fn from(error: OwnerError) -> Self {
        Self::Said { hint: error.hint(), message: error.to_string() }
    }
}

impl From<CopyError> for StepError {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}
