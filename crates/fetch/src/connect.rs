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
use crate::{FetchError, Fetching, Place, Reach, authorize};

/// For each address of a host.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Over which the file is asked for, and where who is at its end is.
pub(crate) async fn to(
    address: &Address,
    proxy: Option<&Address>,
    fetching: &Fetching,
) -> Result<(Box<dyn Stream>, Place), FetchError> {
    if let Some(door) = &fetching.door {
        let failed = |error| FetchError::Connect { to: address.endpoint(), why: error_chain(&error) };
        return Ok((Box::new(door.knock().await.map_err(failed)?), Place::Host));
    }
    let mut place = Place::Network;
    let stream: Box<dyn Stream> = match proxy {
        None => {
            let stream = connect(address, fetching.reach).await?;
            place = stream.peer_addr().map_or(place, |peer| Place::of(peer.ip()));
            Box::new(stream)
        }
        // Who names a proxy may have it on this host.
        Some(proxy) => {
            // What a name means is for the proxy to say; an address means the same to it, or what is worse.
            if let Ok(ip) = address.host.parse() {
                check(address, ip, fetching.reach)?;
                place = Place::of(ip);
            }
            let stream = connect(proxy, Reach::Anywhere).await?;
            if !address.is_secure {
                return Ok((Box::new(stream), place));
            }
            Box::new(tunnel(stream, proxy, address).await?)
        }
    };
    if !address.is_secure {
        return Ok((stream, place));
    }
    let failed = |error| FetchError::Connect { to: address.endpoint(), why: error_chain(&error) };
    let secured = fetching.authorities.secure(stream, &address.host).await.map_err(failed)?;
    Ok((Box::new(secured), place))
}

async fn connect(address: &Address, reach: Reach) -> Result<TcpStream, FetchError> {
    let host = address.host.clone();
    let found = tokio::task::spawn_blocking(move || dozen_lookup::addresses_of(&host)).await.unwrap_or_default();
    let mut last = FetchError::NoSuchHost { host: address.host.clone() };
    for ip in found {
        check(address, ip, reach)?;
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

fn check(address: &Address, ip: IpAddr, reach: Reach) -> Result<(), FetchError> {
    if reach.covers(Place::of(ip)) {
        return Ok(());
    }
    Err(FetchError::OutOfReach { host: address.host.clone(), address: ip })
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
