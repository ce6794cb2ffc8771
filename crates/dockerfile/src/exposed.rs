//! EXPOSE's words: `[[ADDRESS:]HOST-PORT:]PORT[-PORT][/PROTOCOL]` (docs.docker.com/reference/dockerfile, "EXPOSE"; the rest
//! and the errors as docker/go-connections, nat). They are read once variables are known.

use std::net::IpAddr;

use crate::error::Error;
use crate::span::Span;

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Ports that one word of EXPOSE names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExposedPorts {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The first of them.
    pub first: u16,
    /// The last of them; not before the first.
    pub last: u16,
}

impl ExposedPorts {
    /// Reads one expanded word, which stands at `span`. What is published is said when a container is made: an address
    /// and a port of the host's are read and forgotten.
    pub fn parse(text: &str, span: Span) -> Result<Self, Error> {
        let wrong = |message: String| Err(Error::new(message, span));
        let (host, port) = text.rsplit_once(':').map_or((None, text), |(host, port)| (Some(host), port));
        let (port, protocol) = port.split_once('/').unwrap_or((port, ""));
        let (address, host_port) = host.map_or(("", ""), |host| host.rsplit_once(':').unwrap_or(("", host)));
        let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
        if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
            return wrong(format!("invalid IP address: {address}"));
        }
        if !host_port.is_empty() && range(host_port).is_none() {
            return wrong(format!("invalid hostPort: {host_port}"));
        }
        if port.is_empty() {
            return wrong(format!("no port specified: {text}<empty>"));
        }
        let Some((first, last)) = range(port) else {
            return wrong(format!("invalid containerPort: {port}")).map_err(|error| {
                error.with_hint("a port is a number up to 65535, or a range of them: EXPOSE 8000-8010/tcp")
            });
        };
        let lower = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
        match PROTOCOLS.into_iter().find(|known| *known == lower) {
            Some(protocol) => Ok(Self { protocol, first, last }),
            None => wrong(format!("invalid proto: {protocol}"))
                .map_err(|error| error.with_hint("it is one of tcp, udp and sctp: EXPOSE 53/udp")),
        }
    }
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
        let read = |text: &str| ExposedPorts::parse(text, Span::default()).map_err(|error| error.message);
        for (text, protocol, first, last) in [
            ("80", "tcp", 80, 80),
            ("8000-8002/UDP", "udp", 8000, 8002),
            ("127.0.0.1:1:2", "tcp", 2, 2),
            ("[::1]:5:6/sctp", "sctp", 6, 6),
            ("::1:5:6", "tcp", 6, 6),
            ("7:8/", "tcp", 8, 8),
            (":9", "tcp", 9, 9),
            ("0", "tcp", 0, 0),
        ] {
            assert_eq!(read(text), Ok(ExposedPorts { protocol, first, last }), "{text}");
        }
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
            assert_eq!(read(text), Err(why.to_owned()), "{text}");
        }
    }
}
