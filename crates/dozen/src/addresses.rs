//! What `--host` and `hosts` name: addresses to listen on.

use std::path::PathBuf;

/// Where the API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of the file system, held by the keeper.
    Unix(PathBuf),
    /// Sockets that the service manager has opened (sd_listen_fds(3)).
    Inherited,
}

/// Reads them. None at all, or `unix://` without a path, means `own_socket`. One that is named twice is meant once.
pub(crate) fn parse(hosts: &[String], own_socket: &std::path::Path) -> Result<Vec<Address>, String> {
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
            Some(("tcp", _)) => return Err(format!("{host}: listening on TCP is not built yet: use unix:///path")),
            _ => return Err(format!("{host} is no address to listen on: use unix:///path or fd://")),
        };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let read = |hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            parse(&hosts, "/run/dozen/dozen.sock".as_ref())
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
            ("tcp://0.0.0.0:2375", "tcp://0.0.0.0:2375: listening on TCP is not built yet"),
            ("/a", "/a is no address to listen on"),
            ("npipe:////x", "is no address to listen on"),
        ] {
            let error = read(&[host]).unwrap_err();
            assert!(error.contains(words), "{host}: {error}");
        }
    }
}
