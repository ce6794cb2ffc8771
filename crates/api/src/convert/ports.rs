//! Ports as Docker writes them: `80/tcp`, `8000-8010/udp`, and the host's side of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dozen_model::{PortBinding, PortRange, Protocol};

use super::request::HostPort;
use crate::error::ApiError;

/// The most ports that one request may name: a range of all of them once per protocol.
const PORTS_MAX: usize = 2 * 65535;

/// `80`, `80/tcp`, `8000-8010/udp`.
fn port_and_protocol(text: &str) -> Result<(PortRange, Protocol), ApiError> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if protocol.eq_ignore_ascii_case("sctp") {
        return Err(ApiError::not_built(format_args!("publishing sctp (port {text:?})")));
    }
    let range = range.parse().map_err(ApiError::from)?;
    Ok((range, if protocol.is_empty() { Protocol::Tcp } else { protocol.parse()? }))
}

/// Keys of an `ExposedPorts` map, the image's or the user's; ranges count port by port.
pub(crate) fn exposed<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<BTreeSet<(u16, Protocol)>, ApiError> {
    let mut ports = BTreeSet::new();
    // An image's are an attacker's: a configuration has room for some hundred thousand ranges of nearly all ports.
    let mut count = 0;
    for key in keys {
        let (range, protocol) = port_and_protocol(key)?;
        count += range.ports().count();
        if count > 4 * PORTS_MAX {
            return Err(ApiError::invalid("more ports are exposed than there are"));
        }
        ports.extend(range.ports().map(|port| (port, protocol)));
    }
    Ok(ports)
}

/// A `PortBindings` map.
pub(crate) fn bindings(map: &BTreeMap<String, Option<Vec<HostPort>>>) -> Result<Vec<PortBinding>, ApiError> {
    let mut bindings = Vec::new();
    for (key, hosts) in map {
        let (range, protocol) = port_and_protocol(key)?;
        for host in hosts.iter().flatten() {
            let host_address = host_address(&host.ip)?;
            let wanted: Option<PortRange> = match host.port.as_str() {
                "" | "0" => None,
                text => Some(text.parse().map_err(|error: dozen_model::PortError| {
                    ApiError::invalid(error.to_string()).context(format_args!("invalid port specification for {key}"))
                })?),
            };
            let count = range.ports().count();
            for (offset, container_port) in range.ports().enumerate() {
                let host_port = match wanted {
                    Some(wanted) if count > 1 => {
                        if wanted.ports().count() != count {
                            return Err(ApiError::invalid(format!(
                                "invalid ranges specified for container and host ports: {key} and {}",
                                host.port
                            )));
                        }
                        wanted.ports().nth(offset).and_then(PortRange::single)
                    }
                    wanted => wanted,
                };
                bindings.push(PortBinding { container_port, protocol, host_address, host_port });
            }
            if bindings.len() > PORTS_MAX {
                return Err(ApiError::invalid("more ports are published than there are"));
            }
        }
    }
    Ok(bindings)
}

fn host_address(text: &str) -> Result<Option<IpAddr>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(Some).map_err(|_| ApiError::invalid(format!("invalid IP address: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(key: &str, ip: &str, port: &str) -> BTreeMap<String, Option<Vec<HostPort>>> {
        BTreeMap::from([(key.to_owned(), Some(vec![HostPort { ip: ip.into(), port: port.into() }]))])
    }

    #[test]
    fn bindings_parse() {
        #[track_caller]
        fn check(key: &str, ip: &str, port: &str, want: &[&str]) {
            let got: Vec<String> = bindings(&map(key, ip, port))
                .unwrap()
                .into_iter()
                .map(|b| {
                    let host = b.host_port.map_or("any".into(), |r| format!("{}-{}", r.first(), r.last()));
                    let address = b.host_address.map_or("all".into(), |a| a.to_string());
                    format!("{address} {host} {}/{}", b.container_port, b.protocol)
                })
                .collect();
            assert_eq!(got, want);
        }
        check("80/tcp", "", "8080", &["all 8080-8080 80/tcp"]);
        check("80", "127.0.0.1", "", &["127.0.0.1 any 80/tcp"]);
        check("53/udp", "[::1]", "0", &["::1 any 53/udp"]);
        check("80/tcp", "0.0.0.0", "8000-8010", &["0.0.0.0 8000-8010 80/tcp"]);
        check("80-81/tcp", "", "90-91", &["all 90-90 80/tcp", "all 91-91 81/tcp"]);
        assert_eq!(bindings(&BTreeMap::from([("80/tcp".to_owned(), None)])), Ok(vec![]));
    }

    /// An image whose configuration names ranges without end would keep the engine busy for hours.
    #[test]
    fn an_images_ranges_are_not_counted_without_end() {
        let keys: Vec<String> = (1..1000).map(|first| format!("{first}-65535/tcp")).collect();
        assert_eq!(exposed(keys.iter().map(String::as_str)).unwrap_err().status(), 400);
        let all = ["1-65535/tcp", "1-65535/udp"];
        assert_eq!(exposed(all.into_iter().chain(all)).unwrap().len(), PORTS_MAX);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (key, ip, port) in [
            ("", "", ""),
            ("80/icmp", "", "1"),
            ("80/tcp", "x", "1"),
            ("80/tcp", "", "70000"),
            ("80-82/tcp", "", "90-91"),
            ("0/tcp", "", ""),
        ] {
            assert_eq!(bindings(&map(key, ip, port)).unwrap_err().status(), 400, "{key}");
        }
        assert_eq!(bindings(&map("80/sctp", "", "1")).unwrap_err().status(), 501);
    }

    #[test]
    fn exposed_ranges_count_port_by_port() {
        assert_eq!(exposed(["80/tcp", "90-92"]).unwrap().len(), 4);
        assert!(exposed(["x"]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(key in "[0-9/a-z-]{0,12}", ip in "[0-9a-f:.\\[\\]]{0,12}", port in "[0-9-]{0,12}") {
            let _ = bindings(&map(&key, &ip, &port));
        }
    }
}
