//! From flags, environment and file to settings; again on SIGHUP.

use std::path::{Path, PathBuf};

use dozen_model::Classified;
use dozen_settings::{DEFAULT_PATH, Keys, Layers, Settings, SettingsError};

use crate::addresses;
use crate::group;

/// Where settings come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// `--config-file`.
    pub(crate) file: Option<PathBuf>,
    pub(crate) environment: Keys,
    pub(crate) flags: Keys,
    /// Where an engine listens that is told nothing.
    pub(crate) own_socket: PathBuf,
}

/// Why there are no settings, in Docker's words where it has some.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unconfigured {
    #[error("unable to configure the engine with file {}", path.display())]
    File { path: PathBuf, source: SettingsError },
    #[error(transparent)]
    Flags(#[from] SettingsError),
    #[error("{0}")]
    Unusable(String),
}

impl Unconfigured {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::File { source, .. } | Self::Flags(source) => source.hint(),
            Self::Unusable(_) => None,
        }
    }
}

impl Sources {
    /// Reads them, and makes sure that an engine can use what they say.
    pub(crate) fn read(&self) -> Result<Settings, Unconfigured> {
        let path = self.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let of_file = |source| Unconfigured::File { path: path.to_owned(), source };
        let file = dozen_settings::read(path, self.file.is_none()).map_err(of_file)?;
        let is_of_flags = file.is_empty();
        let layers = Layers { file, environment: self.environment.clone(), flags: self.flags.clone() };
        let settings = dozen_settings::merge(layers)
            .map_err(|error| if is_of_flags { Unconfigured::Flags(error) } else { of_file(error) })?;
        self.check(&settings).map_err(Unconfigured::Unusable)?;
        Ok(settings)
    }

    /// What only the whole program can tell.
    fn check(&self, settings: &Settings) -> Result<(), String> {
        addresses::parse(&settings.hosts, &self.own_socket)?;
        settings.group.as_deref().map(group::find).transpose()?;
        let tls = &settings.tls;
        if tls.is_on || tls.verify {
            return Err("TLS is for listening on TCP, which is not built yet".to_owned());
        }
        dozen_api::check_settings(settings)
    }
}
