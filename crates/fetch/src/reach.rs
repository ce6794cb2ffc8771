//! Where a server is, seen from this machine, and how far somebody's word leads. Who writes a Dockerfile or a manifest, and who
//! redirects, is to send the engine nowhere where a stranger gets no answer: not to the host's own servers, and not to those
//! that give the machine's credentials to whoever is on it. It is the address that counts to which a connection is made, so
//! a name that has another one a moment later (DNS rebinding) changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Anywhere; a private network, too.
    Network,
    /// On this machine's own links, where clouds answer the machine itself and nobody else.
    Link,
    /// What only this host's own processes reach: loopback, and what the kernel takes for it.
    Host,
}

/// What may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Anything: who names it may.
    Anywhere,
    /// The network, and the place of who leads there: a registry on loopback may have its blobs there.
    Beside(Place),
}

/// Metadata services of clouds whose addresses are not link-local: AWS over IPv6, Google Compute Engine over IPv6, Azure's
/// wire server, Alibaba Cloud, Oracle Cloud's older one, Scaleway over IPv6 (each of its documentation).
const METADATA: [IpAddr; 6] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

impl Place {
    /// Of an address.
    pub fn of(ip: IpAddr) -> Self {
        let ip = plain(ip);
        let is_link_local = match ip {
            // RFC 3927.
            IpAddr::V4(ip) => ip.is_link_local(),
            // RFC 4291, section 2.5.6.
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if ip.is_loopback() || ip.is_unspecified() {
            Self::Host
        } else if is_link_local || METADATA.contains(&ip) {
            Self::Link
        } else {
            Self::Network
        }
    }

    /// For sentences about an address there.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Network => "elsewhere",
            Self::Link => "where clouds tell a machine its secrets (link-local)",
            Self::Host => "this host itself",
        }
    }
}

/// The address of IPv4 that one of IPv6 stands for: mapped, or behind a NAT64 with the well-known prefix (RFC 6052, section 2.1).
fn plain(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = ip.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        other => other,
    }
}

impl Reach {
    /// Whether it goes so far.
    pub fn covers(self, place: Place) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Beside(own) => place == Place::Network || place == own,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_address_has_its_place() {
        use Place::{Host, Link, Network};
        for (address, want) in [
            ("127.0.0.1", Host),
            ("127.9.9.9", Host),
            ("0.0.0.0", Host),
            ("::1", Host),
            ("::", Host),
            ("::ffff:127.0.0.1", Host),
            ("64:ff9b::7f00:1", Host),
            ("169.254.169.254", Link),
            ("169.254.0.1", Link),
            ("169.254.170.2", Link),
            ("::ffff:169.254.169.254", Link),
            ("64:ff9b::a9fe:a9fe", Link),
            ("fe80::1", Link),
            ("febf::1", Link),
            ("fd00:ec2::254", Link),
            ("fd20:ce::254", Link),
            ("fd00:42::42", Link),
            ("168.63.129.16", Link),
            ("100.100.100.200", Link),
            ("192.0.0.192", Link),
            ("::ffff:100.100.100.200", Link),
            ("169.253.255.255", Network),
            ("169.255.0.0", Network),
            ("10.0.0.1", Network),
            ("172.16.0.1", Network),
            ("192.168.0.1", Network),
            ("100.64.0.1", Network),
            ("fd00::1", Network),
            ("fec0::1", Network),
            ("64:ff9b:1::7f00:1", Network),
            ("8.8.8.8", Network),
            ("2001:db8::1", Network),
        ] {
            assert_eq!(Place::of(address.parse().unwrap()), want, "{address}");
        }
    }

    #[test]
    fn a_word_leads_to_the_network_and_beside_who_says_it() {
        use Place::{Host, Link, Network};
        for (reach, covered) in [
            (Reach::Anywhere, vec![Network, Link, Host]),
            (Reach::Beside(Network), vec![Network]),
            (Reach::Beside(Link), vec![Network, Link]),
            (Reach::Beside(Host), vec![Network, Host]),
        ] {
            let found: Vec<Place> = [Network, Link, Host].into_iter().filter(|place| reach.covers(*place)).collect();
            assert_eq!(found, covered, "{reach:?}");
        }
    }
}
