//! What becomes of a container when it ends by itself.

use serde::{Deserialize, Serialize};

/// Docker's restart policies (docs.docker.com/engine/containers/start-containers-automatically).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// It stays as it is.
    #[default]
    No,
    /// It runs again; one that was stopped by hand does once the engine starts anew.
    Always,
    /// It runs again unless it was stopped by hand.
    UnlessStopped,
    /// It runs again if it has failed, so many times in a row.
    OnFailure {
        /// 0: there is no limit.
        most: u32,
    },
}

impl RestartPolicy {
    /// Docker's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure { .. } => "on-failure",
        }
    }

    /// The most restarts in a row; 0 where there is no limit.
    pub fn most(self) -> u32 {
        match self {
            Self::OnFailure { most } => most,
            _ => 0,
        }
    }
}
