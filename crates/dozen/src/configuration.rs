//! From flags, environment and file to settings; again on SIGHUP.

use std::path::{Path, PathBuf};

use dozen_model::Classified;
use dozen_settings::{DEFAULT_PATH, Keys, Layers, Settings, SettingsError, TlsSettings};
use dozen_tls::ServerFiles;

use crate::addresses::{self, Address};
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
        let files = tls_files(&settings.tls)?;
        let addresses = addresses::parse(&settings.hosts, &self.own_socket, files.is_some())?;
        settings.group.as_deref().map(group::find).transpose()?;
        match files {
            Some(files) => drop(files.read().map_err(|error| dozen_model::error_chain(&error))?),
            None => check_bare(&addresses, &settings.tls)?,
        }
        dozen_api::check_settings(settings)
    }
}

/// TCP without TLS. Docker (since 27, cmd/dockerd) delays its start by 15 seconds where an address that is not loopback's is
/// named and nobody has said that this is meant, and announces that it will refuse: so it is refused here.
fn check_bare(addresses: &[Address], tls: &TlsSettings) -> Result<(), String> {
    let is_meant = [tls.is_on, tls.verify].contains(&Some(false));
    let reachable = addresses.iter().find_map(|address| match address {
        Address::Tcp(address) if !address.ip().is_loopback() => Some(address),
        _ => None,
    });
    match reachable {
        Some(address) if !is_meant => Err(format!(
            "tcp://{address} is refused without TLS and client certificates, since whoever reaches it is root of this \
             machine: set tlsverify, tlscacert, tlscert and tlskey (or tls to false, if it is to be so)"
        )),
        _ => Ok(()),
    }
}

/// The certificates, if TLS is wanted. Without looking at those of clients it is not to be had.
pub(crate) fn tls_files(tls: &TlsSettings) -> Result<Option<ServerFiles>, String> {
    let TlsSettings { is_on, verify, authority, certificate, key } = tls;
    match (*verify == Some(true), authority, certificate, key) {
        (true, Some(authority), Some(certificate), Some(key)) => {
            Ok(Some(ServerFiles { authority: authority.clone(), certificate: certificate.clone(), key: key.clone() }))
        }
        (true, ..) => Err("tlsverify needs tlscacert, tlscert and tlskey".to_owned()),
        (false, ..) if *is_on == Some(true) => {
            Err("tls without tlsverify would let anybody in: set tlsverify, and tlscacert".to_owned())
        }
        (false, None, None, None) => Ok(None),
        (false, ..) => Err("tlscacert, tlscert and tlskey are for tlsverify, which is not set".to_owned()),
    }
}
