//! Certificates and keys, from their files.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_model::{Classified, ErrorKind};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum TlsError {
    #[error("cannot read {what} {}: {why}", path.display())]
    File { what: &'static str, path: PathBuf, why: String },
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
    #[error("{0:?} is neither a name nor an address that a certificate can be for")]
    Name(String),
    #[error("cannot connect to {address}")]
    Connect { address: SocketAddr, source: io::Error },
}

impl Classified for TlsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        }
    }
}

/// The engine's side, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Of the authority that has signed the clients' certificates.
    pub authority: PathBuf,
    /// The engine's own, with those between it and the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The command line's side, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// Of the authority that has signed the engine's certificate.
    pub authority: PathBuf,
    /// What is shown to the engine.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl ServerFiles {
    /// Reads them. A client without a certificate of the authority's is refused before it has said anything.
    ///
    /// # Errors
    /// A file cannot be read, or they do not belong together.
    pub fn read(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(authority(&self.authority)?);
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().map_err(unusable)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates(&self.certificate)?, key(&self.key)?)
            .map_err(unusable)?;
        // A session that is taken up again shows no certificate: one that has expired since would still be let in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ClientFiles {
    /// Reads them.
    ///
    /// # Errors
    /// A file cannot be read, or they do not belong together.
    pub(crate) fn read(&self) -> Result<ClientConfig, TlsError> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(authority(&self.authority)?)
            .with_client_auth_cert(certificates(&self.certificate)?, key(&self.key)?)
            .map_err(unusable)
    }
}

pub(crate) fn unusable(error: impl std::fmt::Display) -> TlsError {
    TlsError::Unusable(error.to_string())
}

fn authority(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "the certificate";
    let failed = |why: String| TlsError::File { what, path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(failed("there is none in it (PEM)".to_owned())),
        Ok(certificates) => Ok(certificates),
        // The reader's own words may quote the file.
        Err(_) => Err(failed("it is not PEM".to_owned())),
    }
}

pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |why: String| TlsError::File { what: "the key", path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    // The reader's own words may quote the file.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| failed("there is none in it (PEM, not encrypted)".to_owned()))
}
