//! Engines over TCP: TLS with certificates on both sides, between a TCP connection and one end of a socket pair.
//!
//! Whoever speaks HTTP (the API's server, the command line) has a unix socket in its hands in every case, so that
//! half-closing and hanging up are what they are there; `relay` carries both over TLS: a half-close is `close_notify`
//! (RFC 8446, section 6.1), with the connection open or half closed too, and a connection that ends without one is broken
//! off. The same without TLS for those who insist. One provider, ring. This crate is a leaf: nothing else is built with
//! TLS in it. `client` is for files that a build fetches from anywhere; `door` for a server that lets anybody in.

mod client;
mod client_certificate;
mod configuration;
mod door;
mod relay;
mod self_signed;
mod server;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

pub use client::{Authorities, certificates_of_host};
pub use client_certificate::ClientCertificate;
pub use configuration::{ClientFiles, ServerFiles, TlsError};
pub use door::{DoorKeeper, TlsStream};
use relay::Side;
pub use server::{Acceptor, serve};
use tcp::{HalfClose, Tcp};

/// How long an engine has to answer the door. Docker's command line waits as long.
const PATIENCE: Duration = Duration::from_secs(32);

/// A way to an engine.
#[derive(Debug)]
pub struct Connection {
    /// As if it were the engine's own socket. Needs the tokio runtime, which carries the bytes.
    pub stream: UnixStream,
    /// Set before the stream ends, if it ended otherwise than by the engine's will: why. In TLS 1.3 an engine refuses a
    /// certificate when the client takes itself for connected (RFC 8446, section 2).
    pub ended: Arc<OnceLock<String>>,
}

/// Connects to an engine. Without `files` there is no TLS.
///
/// `name`: what the engine's certificate has to be for, a name or an address.
///
/// # Errors
/// The files, the connection, or the engine's certificate is refused.
pub async fn connect(address: SocketAddr, name: &str, files: Option<&ClientFiles>) -> Result<Connection, TlsError> {
    let late = |_| TlsError::Connect { address, source: io::ErrorKind::TimedOut.into() };
    tokio::time::timeout(PATIENCE, connect_in_time(address, name, files))
        .await
        .unwrap_or_else(|elapsed| Err(late(elapsed)))
}

async fn connect_in_time(address: SocketAddr, name: &str, files: Option<&ClientFiles>) -> Result<Connection, TlsError> {
    let failed = |source: io::Error| TlsError::Connect { address, source };
    let tls = match files {
        None => None,
        Some(files) => {
            let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
            Some((TlsConnector::from(Arc::new(files.read()?)), name))
        }
    };
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let ended = Arc::new(OnceLock::new());
    match tls {
        None => {
            let tcp = Tcp::new(stream, HalfClose::Tcp).map_err(failed)?;
            tokio::spawn(carry(tcp.clone(), tcp, ours, ended.clone()));
        }
        Some((connector, name)) => {
            let tcp = Tcp::new(stream, HalfClose::Tls).map_err(failed)?;
            let tls = connector.connect(name, tcp.clone()).await.map_err(failed)?;
            tokio::spawn(carry(tls, tcp, ours, ended.clone()));
        }
    }
    Ok(Connection { stream: theirs, ended })
}

async fn carry<S>(peer: S, tcp: Tcp, mut ours: UnixStream, ended: Arc<OnceLock<String>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    if let Err(error) = relay::relay(Side::Client, peer, &tcp, &mut ours).await {
        let _ = ended.set(error.to_string());
    }
}
