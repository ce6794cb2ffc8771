//! `-p [ip:][hostPort:]containerPort[/protocol]` and `--expose port[/protocol]`, both with ranges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the API takes: `PortBindings` and `ExposedPorts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// By `80/tcp`: the host's address (or nothing) and port (or nothing, or a range) of each.
    pub bindings: BTreeMap<String, Vec<(String, String)>>,
    /// `80/tcp`.
    pub exposed: BTreeSet<String>,
}

impl Ports {
    /// Takes one `--publish`. The words of the refusals are Docker's.
    pub fn publish(&mut self, text: &str) -> Result<(), String> {
        if text.contains('=') {
            return Err("the long form of --publish (published=…,target=…) is not built yet".to_owned());
        }
        let (rest, protocol) = split_protocol(text)?;
        let (address, host, container) = split_parts(rest)?;
        if container.is_empty() {
            return Err(format!("no port specified: {text}<empty>"));
        }
        let address = match address {
            "" => String::new(),
            address => {
                let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
                bare.parse::<IpAddr>().map_err(|_| format!("invalid IP address: {address}"))?;
                bare.to_owned()
            }
        };
        let (first, last) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
        let host_range = match host {
            "" => None,
            host => Some(range_or_zero(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
        };
        if let Some((host_first, host_last)) = host_range
            && host_last - host_first != last - first
            && first != last
        {
            return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
        }
        for (index, port) in (first..=last).enumerate() {
            let host_port = match host_range {
                None => String::new(),
                // One port of the container's, several of the host's: the first free one of them.
                Some((host_first, host_last)) if first == last && host_first != host_last => host.to_owned(),
                Some((host_first, _)) => (usize::from(host_first) + index).to_string(),
            };
            let key = format!("{port}/{protocol}");
            self.exposed.insert(key.clone());
            self.bindings.entry(key).or_default().push((address.clone(), host_port));
        }
        Ok(())
    }

    /// Takes one `--expose`.
    pub fn expose(&mut self, text: &str) -> Result<(), String> {
        if text.contains(':') {
            return Err(format!("invalid port format for --expose: {text}"));
        }
        let (ports, protocol) = split_protocol(text)?;
        let (first, last) =
            range(ports).ok_or_else(|| format!("invalid range format for --expose: {text}: want 1 to 65535"))?;
        self.exposed.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        Ok(())
    }
}

fn split_protocol(text: &str) -> Result<(&str, String), String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        known @ ("tcp" | "udp") => Ok((rest, known.to_owned())),
        "sctp" => Err(format!("publishing sctp ({text}) is not built yet")),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

/// Address, host's ports and container's ports. An address may have colons itself, in brackets or not.
fn split_parts(text: &str) -> Result<(&str, &str, &str), String> {
    let Some((rest, container)) = text.rsplit_once(':') else { return Ok(("", "", text)) };
    let Some((address, host)) = rest.rsplit_once(':') else { return Ok(("", rest, container)) };
    if address.is_empty() {
        return Err(format!("invalid publish opts format (should be name=value but got '{text}')"));
    }
    Ok((address, host, container))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let range: dozen_model::PortRange = text.parse().ok()?;
    Some((range.first(), range.last()))
}

/// A host's port may be 0: any free one.
fn range_or_zero(text: &str) -> Option<(u16, u16)> {
    if text == "0" { Some((0, 0)) } else { range(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, wanted: &[(&str, &str, &str)]) {
        let mut ports = Ports::default();
        ports.publish(text).unwrap();
        let got: Vec<_> = ports
            .bindings
            .iter()
            .flat_map(|(key, list)| list.iter().map(move |(ip, port)| (key.as_str(), ip.as_str(), port.as_str())))
            .collect();
        assert_eq!(got, wanted, "{text}");
    }

    #[test]
    fn all_forms_of_publish() {
        check("80", &[("80/tcp", "", "")]);
        check("8080:80", &[("80/tcp", "", "8080")]);
        check("0:80", &[("80/tcp", "", "0")]);
        check("53:53/udp", &[("53/udp", "", "53")]);
        check("53:53/UDP", &[("53/udp", "", "53")]);
        check("127.0.0.1:8080:80", &[("80/tcp", "127.0.0.1", "8080")]);
        check("127.0.0.1::80", &[("80/tcp", "127.0.0.1", "")]);
        check("[::1]:80:80/udp", &[("80/udp", "::1", "80")]);
        check("::1:80:80", &[("80/tcp", "::1", "80")]);
        check("8080-8081:80-81", &[("80/tcp", "", "8080"), ("81/tcp", "", "8081")]);
        check("9000-9010:53", &[("53/tcp", "", "9000-9010")]);
        check("80-81", &[("80/tcp", "", ""), ("81/tcp", "", "")]);
    }

    #[test]
    fn what_is_no_port_is_refused_in_dockers_words() {
        for (text, words) in [
            ("99999:1", "invalid hostPort: 99999"),
            ("1:99999", "invalid containerPort: 99999"),
            ("1:0", "invalid containerPort: 0"),
            ("", "no port specified: <empty>"),
            ("80:", "no port specified: 80:<empty>"),
            ("a:1:1", "invalid IP address: a"),
            ("1:1/x", "invalid proto: x"),
            ("1-3:1-2", "invalid ranges specified for container and host Ports: 1-2 and 1-3"),
            ("1:1/sctp", "publishing sctp (1:1/sctp) is not built yet"),
        ] {
            assert_eq!(Ports::default().publish(text).unwrap_err(), words);
        }
    }

    #[test]
    fn expose_takes_ranges() {
        let mut ports = Ports::default();
        ports.expose("90-91").unwrap();
        ports.expose("53/udp").unwrap();
        assert_eq!(ports.exposed.iter().map(String::as_str).collect::<Vec<_>>(), ["53/udp", "90/tcp", "91/tcp"]);
        assert!(Ports::default().expose("1:2").is_err());
        assert!(Ports::default().expose("x").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[0-9a-f.:/\\[\\]-]{0,20}") {
            let _ = Ports::default().publish(&text);
            let _ = Ports::default().expose(&text);
        }
    }
}
