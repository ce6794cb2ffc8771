//! The engine's settings while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_settings::Settings;

use crate::Engine;
use crate::events::EventKind;

impl Engine {
    /// The settings that hold now.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.config.settings.get()
    }

    /// From now on these hold: for containers that are made from now on, and for `info`. Tells the world, as Docker
    /// does (event `reload` of type `daemon`).
    pub fn reload(&self, settings: Settings) {
        let attributes = BTreeMap::from([
            ("name".to_owned(), rustix::system::uname().nodename().to_string_lossy().into_owned()),
            ("debug".to_owned(), (settings.log_level == dozen_settings::LogLevel::Debug).to_string()),
            ("default-shm-size".to_owned(), settings.shm_size_bytes.to_string()),
            ("labels".to_owned(), format!("{:?}", settings.labels)),
            ("log-driver".to_owned(), settings.logging.driver.clone()),
            ("log-opts".to_owned(), format!("{:?}", settings.logging.options)),
        ]);
        self.shared.config.settings.set(settings);
        self.shared.emit(EventKind::Daemon, "reload", self.shared.id.clone(), attributes);
    }
}
