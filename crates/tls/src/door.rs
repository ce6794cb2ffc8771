//! A server for anybody: it shows a certificate and asks for none. Who may come in is for those behind it to say.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server};

use crate::configuration::{TlsError, certificates, key, unusable};

/// A connection with TLS, as a server has it.
pub type TlsStream = server::TlsStream<TcpStream>;

/// With which certificate clients are taken in; may be replaced while they come. Clones share it.
#[derive(Clone)]
pub struct DoorKeeper {
    files: Arc<(PathBuf, PathBuf)>,
    configuration: Arc<RwLock<Arc<ServerConfig>>>,
}

impl std::fmt::Debug for DoorKeeper {
    /// Says nothing of what is in it: there is a key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DoorKeeper")
    }
}

impl DoorKeeper {
    /// With this certificate, those between it and its authority behind it, and its key; PEM.
    ///
    /// # Errors
    /// A file cannot be read, or they do not belong together.
    pub fn new(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let configuration = Arc::new(RwLock::new(Arc::new(read(certificate, key)?)));
        Ok(Self { files: Arc::new((certificate.to_owned(), key.to_owned())), configuration })
    }

    /// From now on with what is in the files now; who is connected stays.
    ///
    /// # Errors
    /// As [`Self::new`]; then nothing has changed.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(read(&self.files.0, &self.files.1)?);
        *self.configuration.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Takes a client in. It may take as long as the client likes: give it a time.
    ///
    /// # Errors
    /// The client does not speak TLS as we do, or has gone.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream> {
        let configuration = self.configuration.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(configuration).accept(stream).await
    }
}

fn read(certificate: &Path, key_file: &Path) -> Result<ServerConfig, TlsError> {
    let mut configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, key(key_file)?)
        .map_err(unusable)?;
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}
