//! Why settings are refused.

use dozen_model::{Classified, ErrorKind};

/// Why settings are refused. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read it")]
    Unreadable(#[source] std::io::Error),
    /// The file is no JSON object.
    #[error("{0}")]
    Malformed(
        /// What is wrong with it, with line and column.
        String,
    ),
    /// Keys that nobody knows; Docker's words.
    #[error("the following directives don't match any configuration option: {}", .unknown.join(", "))]
    Unknown {
        /// The keys.
        unknown: Vec<String>,
        /// The key that is meant, perhaps.
        nearest: Option<&'static str>,
    },
    /// A key of Docker's that does not act here.
    #[error("the configuration option {key} is refused: {reason}")]
    Refused {
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// A value cannot be right.
    #[error("invalid value for the configuration option {key}: {why}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Said twice; Docker's words.
    #[error(
        "the following directives are specified both as a flag and in the configuration file: {}", .0.join(", ")
    )]
    Twice(
        /// `debug: (from flag: true, from file: false)`.
        Vec<String>,
    ),
}

impl SettingsError {
    pub(crate) fn value(key: &str, why: impl Into<String>) -> Self {
        Self::Value { key: key.to_owned(), why: why.into() }
    }
}

impl Classified for SettingsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable(_) => ErrorKind::Internal,
            Self::Refused { .. } => ErrorKind::NotBuilt,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable(_) => Some("--config-file names another one".into()),
            Self::Malformed(_) => Some("the file is one JSON object: { \"debug\": true }".into()),
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean {nearest}?")),
            Self::Unknown { nearest: None, .. } => Some("see docs/configuration.md for what can be set".into()),
            Self::Refused { .. } => Some("take it out of the file".into()),
            Self::Value { .. } => None,
            Self::Twice(_) => Some("say each of them in one of the two places".into()),
        }
    }
}
