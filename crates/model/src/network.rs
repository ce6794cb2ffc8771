//! Which network a container joins, and the ports that it publishes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

/// The network that a container is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The default bridge, behind NAT.
    Bridge,
    /// A network namespace with nothing but loopback.
    None,
    /// The host's own network namespace.
    Host,
    /// The network namespace of another container.
    Container(ContainerId),
    /// Networks of the user's own: the one that was named first, as it was named. [`crate::ContainerSpec::endpoints`]
    /// has all of them.
    Network(String),
}

/// A transport whose ports can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port or protocol that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid port {text:?}: {why}")]
pub struct PortError {
    text: String,
    why: &'static str,
}

impl PortError {
    fn new(text: &str, why: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), why }
    }
}

impl FromStr for Protocol {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Err(PortError::new(text, "sctp is not built yet; tcp and udp are")),
            _ => Err(PortError::new(text, "the protocol is tcp or udp")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One or several ports in a row, both ends included; `first` is never 0 and never after `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range of just this port; `None` for port 0.
    pub fn single(port: u16) -> Option<Self> {
        (port != 0).then_some(Self { first: port, last: port })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// The ports, in order.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl FromStr for PortRange {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |part: &str| {
            part.parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(PortError::new(text, "want 1 to 65535, or a range of them"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(PortError::new(text, "the range ends before it begins"));
        }
        Ok(Self { first, last })
    }
}

/// A published port: what arrives at the host's address and port goes to the container's port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// The port inside the container, 1 to 65535.
    pub container_port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The host's address; `None` for all of them, IPv4 and IPv6.
    pub host_address: Option<IpAddr>,
    /// The host's port; `None` for any free one, chosen at each start. A range: the first free one in it.
    pub host_port: Option<PortRange>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_parse_or_are_refused() {
        let range: PortRange = "8000-8010".parse().unwrap();
        assert_eq!((range.first(), range.last(), range.ports().count()), (8000, 8010, 11));
        for bad in ["", "0", "65536", "9-8", "a", "1-", "-1", "1-2-3"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
