//! What the engine has a monitor do with a container's output: resolved, so that the monitor decides nothing.

use std::collections::BTreeMap;

use dozen_model::LogFiles;
use serde::{Deserialize, Serialize};

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// Files, which `logs` reads.
    pub file: Option<LogFileSettings>,
}

/// The log on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFileSettings {
    /// How entries are written.
    pub format: LogFormat,
    /// How much is kept.
    pub files: LogFiles,
    /// What goes with every entry.
    pub attributes: BTreeMap<String, String>,
}

/// How entries are written, each on a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Docker's json-file.
    Json,
    /// Our own ([`super::compact`]).
    Compact,
}

impl LogFormat {
    /// The newest file in a container's directory. The one before it has `.1` after its name, and `.gz` after that if it
    /// is compressed; and so on.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Json => "log.json",
            Self::Compact => "log.local",
        }
    }
}
