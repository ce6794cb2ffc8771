//! Opens what the API is served on.

use std::error::Error;
use std::os::fd::OwnedFd;

use dozen_api::ListeningSockets;
use dozen_engine::Engine;
use tokio::net::UnixListener;

use crate::addresses::{self, Address};
use crate::configuration::Sources;
use crate::{group, inherited};

/// Listens on all addresses of the settings; sockets of the file system are the keeper's, those that were handed over
/// the service manager's: both outlive this process.
pub(crate) async fn open(
    engine: &Engine,
    sources: &Sources,
    handed_over: Vec<OwnedFd>,
) -> Result<ListeningSockets, Box<dyn Error>> {
    let settings = engine.settings();
    let group = settings.group.as_deref().map(group::find).transpose()?;
    let mut listeners = Vec::new();
    for address in addresses::parse(&settings.hosts, &sources.own_socket)? {
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
        }
    }
    let listeners = listeners.into_iter().map(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    Ok(ListeningSockets::new(listeners.collect::<Result<_, std::io::Error>>()?))
}
