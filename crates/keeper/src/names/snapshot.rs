//! `<run_root>/names.json`.

use std::io;
use std::path::Path;

use dozen_names::Zones;
use serde::{Deserialize, Serialize};

use crate::snapshot::VERSION;

/// The file's name.
const FILE: &str = "names.json";

/// Who is called what, and who may ask.
#[derive(Debug, Serialize, Deserialize)]
pub struct Names {
    /// [`VERSION`] of the engine that wrote it.
    version: u32,
    /// What it says.
    #[serde(flatten)]
    pub zones: Zones,
}

/// A container that cannot ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFailure {
    /// Which.
    pub container_id: String,
    /// Why.
    pub message: String,
}

impl Names {
    /// Reads it.
    pub fn read(run_root: &Path) -> io::Result<Self> {
        let names: Self = serde_json::from_slice(&std::fs::read(run_root.join(FILE))?)?;
        if names.version > VERSION {
            let words = format!("{FILE} has version {}, this keeper knows {VERSION}", names.version);
            return Err(io::Error::other(words));
        }
        Ok(names)
    }

    /// Writes it, by rename.
    pub fn write(run_root: &Path, zones: &Zones) -> io::Result<()> {
        let temporary = run_root.join("names.json.new");
        let names = Self { version: VERSION, zones: zones.clone() };
        std::fs::write(&temporary, serde_json::to_vec(&names)?)?;
        std::fs::rename(temporary, run_root.join(FILE))
    }

    /// Whether there are any.
    pub fn is_there(run_root: &Path) -> bool {
        run_root.join(FILE).exists()
    }

    /// There are none any more.
    pub fn remove(run_root: &Path) {
        let _ = std::fs::remove_file(run_root.join(FILE));
    }
}
