//! The settings that hold now: read by many, replaced on a reload.

use std::sync::{Arc, PoisonError, RwLock};

use crate::Settings;

/// The settings that hold now. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SharedSettings(Arc<RwLock<Arc<Settings>>>);

impl SharedSettings {
    /// With these to begin with.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(settings))))
    }

    /// Those that hold at this moment; whoever began with them goes on with them.
    pub fn get(&self) -> Arc<Settings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these hold.
    pub fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}
