//! Where an engine keeps its things.

use std::path::PathBuf;

use dozen_settings::SharedSettings;

/// What an engine is started with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Survives a reboot: ledger, layers, containers, volumes. `/var/lib/dozen`.
    pub data_root: PathBuf,
    /// Sockets and locks of what runs. `/run/dozen`.
    pub run_root: PathBuf,
    /// dozen's own binary as monitors and keepers are executed from: a path that stays valid in this process.
    pub program: PathBuf,
    /// What the configuration file and the flags say; a reload changes it.
    pub settings: SharedSettings,
}
