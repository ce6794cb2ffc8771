//! A connection to whoever has a file: straight or through a proxy, plain or by TLS.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use dozen_model::error_chain;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::address::Address;
use crate::{FetchError, Fetching, authorize};

/// For each address of a host.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Over which the file is asked for, and whether it is this host itself that is at its end.
pub(crate) async fn to(
    address: &Address,
    proxy: Option<&Address>,
    fetching: &Fetching,
) -> Result<(Box<dyn Stream>, bool), FetchError> {
    if let Some(door) = &fetching.door {
        let failed = |error| FetchError::Connect { to: address.endpoint(), why: error_chain(&error) };
        return Ok((Box::new(door.knock().await.map_err(failed)?), true));
    }
    let mut is_of_host = false;
    let stream: Box<dyn Stream> = match proxy {
        None => {
            let stream = connect(address, fetching.may_reach_host).await?;
            is_of_host = stream.peer_addr().is_ok_and(|peer| is_host(peer.ip()));
            Box::new(stream)
        }
        // Who names a proxy may have it on this host.
        Some(proxy) => {
            let stream = connect(proxy, true).await?;
            if !address.is_secure {
                return Ok((Box::new(stream), false));
            }
            Box::new(tunnel(stream, proxy, address).await?)
        }
    };
    if !address.is_secure {
        return Ok((stream, is_of_host));
    }
    let failed = |error| FetchError::Connect { to: address.endpoint(), why: error_chain(&error) };
    let secured = fetching.authorities.secure(stream, &address.host).await.map_err(failed)?;
    Ok((Box::new(secured), is_of_host))
}

async fn connect(address: &Address, may_reach_host: bool) -> Result<TcpStream, FetchError> {
    let host = address.host.clone();
    let found = tokio::task::spawn_blocking(move || dozen_lookup::addresses_of(&host)).await.unwrap_or_default();
    let mut last = FetchError::NoSuchHost { host: address.host.clone() };
    for ip in found {
        if is_host(ip) && !may_reach_host {
            return Err(FetchError::Host { host: address.host.clone(), address: ip });
        }
        let place = SocketAddr::new(ip, address.port);
        let why = match tokio::time::timeout(PATIENCE, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error_chain(&error),
            Err(_) => "nobody answers".to_owned(),
        };
        last = FetchError::Connect { to: format!("{} ({place})", address.host), why };
    }
    Err(last)
}

/// What only this host's own processes reach: loopback, and what the kernel takes for it.
pub fn is_host(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// RFC 9110, section 9.3.6.
async fn tunnel(stream: TcpStream, proxy: &Address, to: &Address) -> Result<impl Stream + use<>, FetchError> {
    let failed = |why: String| FetchError::Connect {
        to: format!("{} through the proxy {}", to.endpoint(), proxy.endpoint()),
        why,
    };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error_chain(&error)))?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::connect(to.endpoint()).header(header::HOST, to.endpoint()).body(Empty::<Bytes>::new());
    let mut request = request.map_err(|error| failed(error.to_string()))?;
    authorize(request.headers_mut(), header::PROXY_AUTHORIZATION, proxy);
    let answer = sender.send_request(request).await.map_err(|error| failed(error_chain(&error)))?;
    if !answer.status().is_success() {
        return Err(failed(format!("it answers {}", answer.status())));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| failed(error_chain(&error)))?;
    Ok(TokioIo::new(upgraded))
}
