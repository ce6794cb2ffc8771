//! What an installation has put on the machine: written before the first file, so that nothing is forgotten.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where it lies, below the prefix.
const PLACE: &str = "share/dozen/install.json";

/// What is to be removed again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Files and links, in the order in which they were made.
    pub files: Vec<PathBuf>,
    /// Directories that were not there before, parents first.
    pub directories: Vec<PathBuf>,
    /// The group that was not there before.
    pub group: Option<String>,
}

impl Manifest {
    /// Its own place, with the root in front.
    pub fn path(root: &Path, prefix: &Path) -> PathBuf {
        below(root, &prefix.join(PLACE))
    }

    /// `None`: nothing is installed.
    pub fn read(root: &Path, prefix: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(Self::path(root, prefix)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces it.
    pub fn write(&self, root: &Path, prefix: &Path) -> io::Result<()> {
        let path = Self::path(root, prefix);
        std::fs::write(path.with_extension("new"), serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(path.with_extension("new"), path)
    }
}

/// An absolute path of the machine's, seen from here.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
