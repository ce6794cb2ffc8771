//! Takes connections in: TLS first, and only who has shown a certificate is anybody's business.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::configuration::{ServerFiles, TlsError};
use crate::relay::{Side, relay};
use crate::tcp::{HalfClose, Tcp};

/// How long a client has to show who it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients that have not shown yet who they are. The one that has been here longest makes room for the next: who hurries
/// is not held up by those who do not.
const STRANGERS: usize = 64;
/// After a failed accept (no descriptors left, say): trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// With which certificates clients are taken in; may be replaced while they come. Clones share them.
#[derive(Clone)]
pub struct Acceptor(Arc<RwLock<Arc<ServerConfig>>>);

impl std::fmt::Debug for Acceptor {
    /// Says nothing of what is in it: there is a key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Acceptor")
    }
}

impl Acceptor {
    /// With these.
    ///
    /// # Errors
    /// As [`ServerFiles::read`].
    pub fn new(files: &ServerFiles) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(files.read()?)))))
    }

    /// From now on with these; who is connected stays.
    ///
    /// # Errors
    /// As [`ServerFiles::read`]; then nothing has changed.
    pub fn reload(&self, files: &ServerFiles) -> Result<(), TlsError> {
        let new = Arc::new(files.read()?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn current(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes connections in for ever, and gives each to `clients`, as one end of a socket pair. With an acceptor they speak
/// TLS, and have shown a certificate; without, anybody is taken in.
pub async fn serve(listener: TcpListener, acceptor: Option<Acceptor>, clients: mpsc::Sender<UnixStream>) {
    // Closed by a client that is a stranger no more; dropped, it tells the client to go.
    let mut strangers: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match &acceptor {
                None => drop(tokio::spawn(bare(stream, peer, clients.clone()))),
                Some(acceptor) => {
                    strangers.retain(|stranger| !stranger.is_closed());
                    if strangers.len() >= STRANGERS {
                        strangers.pop_front();
                    }
                    let (stranger, asked_to_go) = oneshot::channel();
                    strangers.push_back(stranger);
                    tokio::spawn(protected(stream, peer, acceptor.current(), asked_to_go, clients.clone()));
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn protected(
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
    asked_to_go: oneshot::Receiver<()>,
    clients: mpsc::Sender<UnixStream>,
) {
    let shown = async {
        let tcp = Tcp::new(stream, HalfClose::Tls)?;
        let tls = TlsAcceptor::from(config).accept(tcp.clone()).await?;
        std::io::Result::Ok((tls, tcp))
    };
    let shown = tokio::select! {
        shown = tokio::time::timeout(PATIENCE, shown) => shown,
        _ = asked_to_go => {
            tracing::info!("{peer} was refused: it has shown no certificate, and others wait");
            return;
        }
    };
    match shown {
        Ok(Ok((tls, tcp))) => hand_over(tls, &tcp, clients).await,
        Ok(Err(error)) => tracing::info!("{peer} was refused: {error}"),
        Err(_) => tracing::info!("{peer} was refused: it has shown no certificate in {PATIENCE:?}"),
    }
}

async fn bare(stream: TcpStream, peer: SocketAddr, clients: mpsc::Sender<UnixStream>) {
    match Tcp::new(stream, HalfClose::Tcp) {
        Ok(tcp) => hand_over(tcp.clone(), &tcp, clients).await,
        Err(error) => tracing::info!("{peer} was refused: {error}"),
    }
}

async fn hand_over<S>(stream: S, tcp: &Tcp, clients: mpsc::Sender<UnixStream>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let (mut ours, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => {
            tracing::warn!(%error, "cannot take a client in over TCP");
            return;
        }
    };
    if clients.send(theirs).await.is_ok()
        && let Err(error) = relay(Side::Engine, stream, tcp, &mut ours).await
    {
        tracing::debug!(%error, "a client over TCP has gone");
    }
}
