//! What the sets and maps of our table hold, encoded as the kernel keeps it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::Protocol;

use super::ruleset::{NFPROTO_IPV4, NFPROTO_IPV6};
use super::set::Map;
use crate::conntrack::Flow;
use crate::netlink::text;
use crate::ports::DirectPort;

/// What a packet must be addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PublishedKey {
    /// Unspecified stands for every address of its family.
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl PublishedKey {
    /// Whether the flow was sent to this port of the host.
    pub(crate) fn is_destination_of(&self, flow: &Flow) -> bool {
        self.protocol == Protocol::Udp
            && self.port == flow.destination_port
            && crate::ports::overlap(self.address, flow.destination)
    }
}

impl DirectPort {
    /// Whether the flow was sent to this port of the container's.
    pub(crate) fn is_destination_of(&self, flow: &Flow) -> bool {
        self.protocol == Protocol::Udp && self.port == flow.destination_port && self.address == flow.destination
    }
}

/// An element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) map: Map,
    pub(super) key: Vec<u8>,
    /// The last key of a range; empty for a single one.
    pub(super) last: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Element {
    /// What is addressed to `key` goes to the container's address and port, of the same family.
    pub(crate) fn published(key: &PublishedKey, container: IpAddr, container_port: u16) -> Self {
        let mut encoded = Vec::with_capacity(24);
        if !key.address.is_unspecified() {
            put_address(&mut encoded, key.address);
        }
        encoded.extend_from_slice(&[protocol_number(key.protocol), 0, 0, 0]);
        put_port(&mut encoded, key.port);
        let mut value = Vec::with_capacity(20);
        put_address(&mut value, container);
        put_port(&mut value, container_port);
        let map = match (key.address, key.address.is_unspecified()) {
            (IpAddr::V4(_), true) => Map::Published4,
            (IpAddr::V4(_), false) => Map::Published4At,
            (IpAddr::V6(_), true) => Map::Published6,
            (IpAddr::V6(_), false) => Map::Published6At,
        };
        Self { map, key: encoded, last: Vec::new(), value }
    }

    /// The container's port is reached at the container's own address.
    pub(crate) fn direct(port: &DirectPort) -> Self {
        let mut key = Vec::with_capacity(24);
        put_address(&mut key, port.address);
        key.extend_from_slice(&[protocol_number(port.protocol), 0, 0, 0]);
        put_port(&mut key, port.port);
        let map = if port.address.is_ipv4() { Map::Direct4 } else { Map::Direct6 };
        Self { map, key, last: Vec::new(), value: Vec::new() }
    }

    /// What this element of a set of containers' ports says.
    pub(crate) fn parse_direct(&self) -> Option<DirectPort> {
        let split = match self.map {
            Map::Direct4 => 4,
            Map::Direct6 => 16,
            _ => return None,
        };
        let address = parse_address(self.key.get(..split)?)?;
        let protocol = protocol_named(*self.key.get(split)?)?;
        Some(DirectPort { address, protocol, port: parse_port(self.key.get(split + 4..split + 6)?)? })
    }

    /// The interface is in the set.
    pub(crate) fn interface(map: Map, name: &str) -> Self {
        Self { map, key: interface_key(name), last: Vec::new(), value: Vec::new() }
    }

    /// The bridge may forward to itself.
    pub(crate) fn within(name: &str) -> Self {
        let key = [interface_key(name), interface_key(name)].concat();
        Self { map: Map::Within, key, last: Vec::new(), value: Vec::new() }
    }

    /// The subnet is the bridge's: an element of [`Map::Subnets4`] or [`Map::Subnets6`].
    pub(crate) fn subnet(bridge: &str, first: IpAddr, last: IpAddr) -> Self {
        let map = if first.is_ipv4() { Map::Subnets4 } else { Map::Subnets6 };
        Self::range(map, &interface_key(bridge), first, last)
    }

    /// The subnet is in the set, which is of its family.
    pub(crate) fn source(map: Map, first: IpAddr, last: IpAddr) -> Self {
        let family = if first.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
        Self::range(map, &[family, 0, 0, 0], first, last)
    }

    fn range(map: Map, before: &[u8], first: IpAddr, last: IpAddr) -> Self {
        let key = |address| {
            let mut key = before.to_vec();
            put_address(&mut key, address);
            key
        };
        Self { map, key: key(first), last: key(last), value: Vec::new() }
    }

    /// The name, of an element of a set of interfaces.
    pub(crate) fn interface_name(&self) -> String {
        text(&self.key)
    }

    /// What this element of a map of ports says: key, and the container's address and port.
    pub(crate) fn parse_published(&self) -> Option<(PublishedKey, IpAddr, u16)> {
        let (address, rest): (IpAddr, &[u8]) = match self.map {
            Map::Published4At => (parse_address(self.key.get(..4)?)?, &self.key[4..]),
            Map::Published6At => (parse_address(self.key.get(..16)?)?, &self.key[16..]),
            Map::Published4 => (Ipv4Addr::UNSPECIFIED.into(), &self.key),
            Map::Published6 => (Ipv6Addr::UNSPECIFIED.into(), &self.key),
            _ => return None,
        };
        let protocol = protocol_named(*rest.first()?)?;
        let port = parse_port(rest.get(4..6)?)?;
        let split = if address.is_ipv4() { 4 } else { 16 };
        let container = parse_address(self.value.get(..split)?)?;
        Some((PublishedKey { address, protocol, port }, container, parse_port(self.value.get(split..split + 2)?)?))
    }
}

fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}

/// Every part of a concatenation fills whole words of four bytes.
fn put_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
    }
}

fn parse_port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The number in the IP header.
fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn protocol_named(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol_number(*protocol) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_says_what_it_was_made_of() {
        for (address, container) in [
            ("0.0.0.0", "172.17.0.2"),
            ("192.0.2.2", "172.17.0.2"),
            ("127.0.0.1", "172.17.0.2"),
            ("::", "fd00::2"),
            ("2001:db8::1", "fd00::2"),
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let key = PublishedKey { address: address.parse().unwrap(), protocol, port: 8080 };
                let element = Element::published(&key, container.parse().unwrap(), 80);
                assert_eq!(element.parse_published(), Some((key, container.parse().unwrap(), 80)));
                assert_eq!(u32::try_from(element.key.len()).unwrap(), element.map.key().1);
                assert_eq!(u32::try_from(element.value.len()).unwrap(), element.map.value().unwrap().1);
            }
        }
        for address in ["172.17.0.2", "fd00::2"] {
            let port = DirectPort { address: address.parse().unwrap(), port: 80, protocol: Protocol::Udp };
            let element = Element::direct(&port);
            assert_eq!((element.parse_direct(), element.parse_published()), (Some(port), None));
            assert_eq!(u32::try_from(element.key.len()).unwrap(), element.map.key().1);
        }
        assert_eq!(Element::interface(Map::Opened4, "eth0").interface_name(), "eth0");
        assert_eq!(Element::interface(Map::Opened4, "eth0").parse_published(), None);
    }

    #[test]
    fn keys_are_concatenated_word_by_word() {
        let key = PublishedKey { address: "192.0.2.2".parse().unwrap(), protocol: Protocol::Tcp, port: 8080 };
        let element = Element::published(&key, "172.17.0.2".parse().unwrap(), 80);
        assert_eq!(element.key, [192, 0, 2, 2, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(element.value, [172, 17, 0, 2, 0, 80, 0, 0]);
    }
}
