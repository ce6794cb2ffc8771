//! What `--host` and `hosts` name: addresses to listen on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Docker's ports, without TLS and with it.
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// Where the API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of the file system, held by the keeper.
    Unix(PathBuf),
    /// Sockets that the service manager has opened (sd_listen_fds(3)).
    Inherited,
    /// TCP, as the settings protect it.
    Tcp(SocketAddr),
}

/// Reads them. None at all, or `unix://` without a path, means `own_socket`. One that is named twice is meant once.
/// `is_tls`: which port is meant where none is named.
pub(crate) fn parse(hosts: &[String], own_socket: &std::path::Path, is_tls: bool) -> Result<Vec<Address>, String> {
    if hosts.is_empty() {
        return Ok(vec![Address::Unix(own_socket.to_owned())]);
    }
    let mut addresses = Vec::new();
    for host in hosts {
        let address = match host.split_once("://") {
            Some(("unix", "")) => Address::Unix(own_socket.to_owned()),
            Some(("unix", path)) if path.starts_with('/') => Address::Unix(path.into()),
            Some(("unix", _)) => return Err(format!("{host}: the socket's path is absolute: unix:///path")),
            Some(("fd", "" | "*")) => Address::Inherited,
            Some(("fd", _)) => return Err(format!("{host}: all inherited sockets are taken: fd://")),
            Some(("tcp", place)) => Address::Tcp(tcp(place, is_tls).ok_or_else(|| {
                format!("{host}: no address and port, as in tcp://127.0.0.1:2376 and tcp://[::]:2376")
            })?),
            _ => {
                return Err(format!(
                    "{host} is no address to listen on: use unix:///path, fd:// or tcp://address:port"
                ));
            }
        };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// `ADDRESS[:PORT]`; as for Docker, no address means 127.0.0.1. No names but `localhost`: what they mean may change.
fn tcp(place: &str, is_tls: bool) -> Option<SocketAddr> {
    let place = place.trim_end_matches('/');
    if let Ok(address) = place.parse() {
        return Some(address);
    }
    let (address, port) = match place.rsplit_once(':') {
        Some((address, port)) if !place.ends_with(']') => (address, port.parse().ok()?),
        _ => (place, if is_tls { TLS_PORT } else { PORT }),
    };
    let address: IpAddr = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok()?.into(),
        None if ["", "localhost"].contains(&address) => Ipv4Addr::LOCALHOST.into(),
        None => address.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let read = |hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            parse(&hosts, "/run/dozen/dozen.sock".as_ref(), true)
        };
        let own = Address::Unix("/run/dozen/dozen.sock".into());
        assert_eq!(read(&[]), Ok(vec![own.clone()]));
        assert_eq!(
            read(&["unix://", "unix:///a", "fd://", "unix:///a"]),
            Ok(vec![own, Address::Unix("/a".into()), Address::Inherited])
        );
        for (host, words) in [
            ("unix://a", "the socket's path is absolute"),
            ("fd://9", "all inherited sockets are taken"),
            ("tcp://[]:1", "no address and port"),
            ("tcp://::1", "no address and port"),
            ("tcp://example.com:2376", "no address and port"),
            ("tcp://127.0.0.1:many", "no address and port"),
            ("/a", "/a is no address to listen on"),
            ("npipe:////x", "is no address to listen on"),
        ] {
            let error = read(&[host]).unwrap_err();
            assert!(error.contains(words), "{host}: {error}");
        }
        for (host, want) in [
            ("tcp://127.0.0.1:1", "127.0.0.1:1"),
            ("tcp://127.0.0.1", "127.0.0.1:2376"),
            ("tcp://:9", "127.0.0.1:9"),
            ("tcp://", "127.0.0.1:2376"),
            ("tcp://[::]:9", "[::]:9"),
            ("tcp://[::1]", "[::1]:2376"),
            ("tcp://[::1]:9/", "[::1]:9"),
            ("tcp://localhost:9", "127.0.0.1:9"),
        ] {
            assert_eq!(read(&[host]), Ok(vec![Address::Tcp(want.parse().unwrap())]), "{host}");
        }
        let bare = parse(&["tcp://".to_owned()], "/r".as_ref(), false);
        assert_eq!(bare, Ok(vec![Address::Tcp("127.0.0.1:2375".parse().unwrap())]));
    }
}
