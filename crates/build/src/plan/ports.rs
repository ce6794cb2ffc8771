//! EXPOSE's words: `[[ADDRESS:]HOST-PORT:]PORT[-PORT][/PROTOCOL]`, of which only the last two mean something
//! (docs.docker.com/reference/dockerfile, "EXPOSE"; the rest and the errors as docker/go-connections, nat).

use std::collections::BTreeSet;
use std::net::IpAddr;

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The ports of one instruction: ranges, since a file of many of them would take all memory there is.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ranges: BTreeSet<(usize, u16, u16)>,
}

impl Ports {
    /// Reads one expanded word; words on what is wrong with it.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (before, port) = text.rsplit_once(':').map_or((None, text), |(before, port)| (Some(before), port));
        let (port, protocol) = port.split_once('/').unwrap_or((port, ""));
        if let Some(before) = before {
            check_host(before)?;
        }
        if port.is_empty() {
            return Err(format!("no port specified: {text}<empty>"));
        }
        let (first, last) = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
        let lower = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
        let known = PROTOCOLS.iter().position(|known| *known == lower);
        self.ranges.insert((known.ok_or_else(|| format!("invalid proto: {protocol}"))?, first, last));
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.merged().into_iter().map(|(_, first, last)| usize::from(last - first) + 1).sum()
    }

    /// `80/tcp` and so on.
    pub fn into_names(self) -> BTreeSet<String> {
        let names = |(protocol, first, last): (usize, u16, u16)| {
            (first..=last).map(move |port| format!("{port}/{}", PROTOCOLS[protocol]))
        };
        self.merged().into_iter().flat_map(names).collect()
    }

    /// Without those that lie in one another.
    fn merged(&self) -> Vec<(usize, u16, u16)> {
        let mut merged: Vec<(usize, u16, u16)> = Vec::new();
        for (protocol, first, last) in self.ranges.iter().copied() {
            match merged.last_mut() {
                Some((known, _, end)) if *known == protocol && first <= *end => *end = last.max(*end),
                _ => merged.push((protocol, first, last)),
            }
        }
        merged
    }
}

/// What is published is said when a container is made; here it is read and forgotten.
fn check_host(before: &str) -> Result<(), String> {
    let (address, port) = before.rsplit_once(':').unwrap_or(("", before));
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    if !port.is_empty() && range(port).is_none() {
        return Err(format!("invalid hostPort: {port}"));
    }
    Ok(())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_does() {
        let mut ports = Ports::default();
        for text in ["80", "8000-8002/UDP", "8001-8003/udp", "127.0.0.1:1:2", "[::1]:5:6/sctp", "7:8/", ":9", "0"] {
            ports.add(text).unwrap();
        }
        assert_eq!(ports.count(), 10);
        let expected =
            ["0/tcp", "2/tcp", "6/sctp", "8/tcp", "80/tcp", "8000/udp", "8001/udp", "8002/udp", "8003/udp", "9/tcp"];
        assert_eq!(ports.into_names().into_iter().collect::<Vec<_>>(), expected);
        for (text, why) in [
            ("x", "invalid containerPort: x"),
            ("65536", "invalid containerPort: 65536"),
            ("2-1", "invalid containerPort: 2-1"),
            ("1-2-3", "invalid containerPort: 1-2-3"),
            ("+1", "invalid containerPort: +1"),
            ("80/icmp", "invalid proto: icmp"),
            ("/tcp", "no port specified: /tcp<empty>"),
            ("8:", "no port specified: 8:<empty>"),
            ("x:80", "invalid hostPort: x"),
            ("host:1:80", "invalid IP address: host"),
        ] {
            assert_eq!(Ports::default().add(text), Err(why.to_owned()), "{text}");
        }
    }
}
