//! The registry that the engine's process serves beside the API, on loopback. The engine knows where it is, so that pulls,
//! pushes and builds of whoever may use the engine need no login there; who serves it knows no engine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dozen_registry::{Door, OwnRegistry as Known};

use crate::{Engine, EngineError};

/// Whether there is one.
#[derive(Debug, Clone)]
pub enum OwnRegistry {
    /// At this address for others, and by this door for the engine.
    Served {
        #[expect(missing_docs, reason = "plain")]
        address: SocketAddr,
        #[expect(missing_docs, reason = "plain")]
        door: Door,
    },
    /// There was to be one.
    Failed {
        #[expect(missing_docs, reason = "plain")]
        address: SocketAddr,
        /// In words that begin with what was tried.
        why: String,
    },
}

impl OwnRegistry {
    /// As the client of registries is told.
    pub(crate) fn known(&self) -> Known {
        match self {
            Self::Served { address, door } => Known { address: *address, door: Ok(door.clone()) },
            Self::Failed { address, why } => Known { address: *address, door: Err(why.clone()) },
        }
    }
}

/// Its name below the data root.
pub(crate) const DIRECTORY: &str = "registry";

/// Whether anybody has ever come in: until then there is a password and nothing else.
pub(crate) fn is_used(root: &Path) -> bool {
    root.join("index.db").exists()
}

impl Engine {
    /// Where such a registry keeps its things.
    pub fn own_registry_root(&self) -> PathBuf {
        self.shared().config.data_root.join(DIRECTORY)
    }

    /// What became of it. It is said once, before anybody asks the engine for something.
    pub fn set_own_registry(&self, own: OwnRegistry) {
        // A second one would be a fault of the caller's, and changes nothing.
        let _ = self.shared().own_registry.set(own);
    }

    /// `None`: the settings want none.
    pub fn own_registry(&self) -> Option<&OwnRegistry> {
        self.shared().own_registry.get()
    }

    /// How much of the disk it takes, as du(1) counts. `None`: nobody has pushed to it yet, or pulled.
    pub async fn own_registry_usage(&self) -> Result<Option<u64>, EngineError> {
        let root = self.own_registry_root();
        self.measure(move || is_used(&root).then(|| dozen_image::disk_bytes(&root))).await
    }
}
