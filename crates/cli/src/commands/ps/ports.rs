//! The ports of a container, with neighbours drawn together: `0.0.0.0:8080-8081->80-81/tcp`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A port as the listing of containers has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Port {
    #[serde(rename = "IP")]
    pub ip: String,
    pub private_port: u16,
    pub public_port: u16,
    #[serde(rename = "Type")]
    pub protocol: String,
}

/// All ports in one line, in Docker's order.
pub fn display(ports: &[Port]) -> String {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.private_port, &port.ip, port.public_port, &port.protocol));
    // A port that is not published, or under another number, starts a group only with its like.
    let mut groups: BTreeMap<String, (u16, u16)> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut single: Vec<String> = Vec::new();
    let mut finished: Vec<String> = Vec::new();
    for port in sorted {
        let (private, public) = (port.private_port, port.public_port);
        let mut key = port.protocol.clone();
        if !port.ip.is_empty() {
            if public != private {
                let address = host(&port.ip);
                single.push(format!("{address}:{public}->{private}/{}", port.protocol));
                continue;
            }
            key = format!("{}/{}", port.ip, port.protocol);
        }
        match groups.get_mut(&key) {
            None => {
                groups.insert(key.clone(), (private, private));
                order.push(key);
            }
            Some((_, last)) if *last == private || *last + 1 == private => *last = private,
            Some(range) => {
                finished.push(group(&key, *range));
                *range = (private, private);
            }
        }
    }
    finished.extend(order.iter().map(|key| group(key, groups[key])));
    finished.extend(single);
    finished.join(", ")
}

fn group(key: &str, (first, last): (u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match key.rsplit_once('/') {
        Some((ip, protocol)) => format!("{}:{range}->{range}/{protocol}", host(ip)),
        None => format!("{range}/{key}"),
    }
}

fn host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, public_port: u16, private_port: u16) -> Port {
        Port { ip: ip.to_owned(), private_port, public_port, protocol: "tcp".to_owned() }
    }

    #[test]
    fn neighbours_are_drawn_together() {
        for (ports, line) in [
            (vec![], ""),
            (vec![port("", 0, 80)], "80/tcp"),
            (vec![port("", 0, 80), port("", 0, 81), port("", 0, 90)], "80-81/tcp, 90/tcp"),
            (vec![port("0.0.0.0", 80, 80), port("0.0.0.0", 81, 81)], "0.0.0.0:80-81->80-81/tcp"),
            (vec![port("0.0.0.0", 8080, 80), port("::", 8080, 80)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ] {
            assert_eq!(display(&ports), line);
        }
    }
}
