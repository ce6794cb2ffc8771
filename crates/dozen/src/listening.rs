//! Opens what the API is served on.

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use dozen_api::{ListeningSockets, Way};
use dozen_engine::Engine;
use dozen_tls::Acceptor;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use crate::addresses::{self, Address};
use crate::configuration::{Sources, tls_files};
use crate::{group, inherited};

/// Clients over TCP (with TLS: that have shown who they are) which wait for the API's server, for each address.
const WAITING: usize = 16;

/// What the API is served on, and what TLS needs replaced when the settings change.
pub(crate) struct Opened {
    pub(crate) sockets: ListeningSockets,
    pub(crate) acceptor: Option<Acceptor>,
}

/// Listens on all addresses of the settings; sockets of the file system are the keeper's, those that were handed over
/// the service manager's: both outlive this process.
pub(crate) async fn open(
    engine: &Engine,
    sources: &Sources,
    handed_over: Vec<OwnedFd>,
) -> Result<Opened, Box<dyn Error>> {
    let settings = engine.settings();
    let group = settings.group.as_deref().map(group::find).transpose()?;
    let acceptor = match tls_files(&settings.tls)? {
        Some(files) => Some(Acceptor::new(&files)?),
        None => None,
    };
    let (mut listeners, mut relayed) = (Vec::new(), Vec::new());
    for address in addresses::parse(&settings.hosts, &sources.own_socket, acceptor.is_some())? {
        match address {
            Address::Unix(path) => {
                let engine = engine.clone();
                let (socket, shown) = (path.clone(), path);
                let socket = tokio::task::spawn_blocking(move || engine.listener(&socket, group)).await??;
                listeners.push(socket.into());
                tracing::info!("listening on {}", shown.display());
            }
            Address::Inherited => {
                listeners.extend(inherited::listeners(&handed_over)?);
                tracing::info!("listening on what was handed over");
            }
            Address::Tcp(address) => {
                let failed = |error| format!("cannot listen on tcp://{address}: {error}");
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                let way = match acceptor {
                    Some(_) => Way::Certified,
                    None => Way::Bare { loopback: address.ip().is_loopback() },
                };
                if acceptor.is_none() {
                    warn_of(address);
                }
                let (clients, waiting) = mpsc::channel(WAITING);
                tokio::spawn(dozen_tls::serve(listener, acceptor.clone(), clients));
                relayed.push((waiting, way));
                tracing::info!("listening on tcp://{address}");
            }
        }
    }
    let listeners = listeners.into_iter().map(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    let sockets = ListeningSockets::new(listeners.collect::<Result<_, std::io::Error>>()?);
    let sockets = relayed.into_iter().fold(sockets, |sockets, (waiting, way)| sockets.with_relayed(waiting, way));
    Ok(Opened { sockets, acceptor })
}

/// What Docker says of it, too.
fn warn_of(address: SocketAddr) {
    let who = if address.ip().is_loopback() { "every user of this machine" } else { "everyone who reaches it" };
    tracing::warn!("tcp://{address} has neither TLS nor client certificates: {who} is root of this machine by it");
    tracing::warn!(
        "programs of every user reach such an address, and containers may; web pages in a browser are refused"
    );
    tracing::warn!("say tlsverify, tlscacert, tlscert and tlskey, or use ssh:// from elsewhere");
}
