//! Which ports of the host a container gets, decided without touching the host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::{Classified, ErrorKind, PortBinding, Protocol};
use serde::{Deserialize, Serialize};

use crate::address::Destination;

/// Where a free port is looked for when none is asked for: Linux's own ephemeral range
/// (`net.ipv4.ip_local_port_range`), from which Docker takes them too.
pub const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 32768..=60999;

/// A port of the host that leads to a port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port inside the container.
    pub container_port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0` and `::` stand for every address of their family.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

/// A port of a container's that others reach at the container's own address, for its network is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectPort {
    /// The container's address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// No port could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// The port that was asked for is in use (Docker's words).
    #[error("Bind for {}:{port} failed: port is already allocated", host(*.address))]
    Allocated {
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
    },
    /// Every port of the range is in use.
    #[error("Bind for {}:{first}-{last} failed: all ports are allocated", host(*.address))]
    RangeAllocated {
        /// The host's address.
        address: IpAddr,
        /// The lowest port.
        first: u16,
        /// The highest port.
        last: u16,
    },
    /// A port is to be published on an address of a family that the network has not got.
    #[error("cannot publish {port} on {address}: the network has no {}", if address.is_ipv4() { "IPv4" } else { "IPv6" })]
    NotOfFamily {
        /// The host's address.
        address: IpAddr,
        /// The container's port.
        port: u16,
    },
}

impl Classified for PortsError {
    fn kind(&self) -> ErrorKind {
        match self {
            // Docker answers a port in use with 500; a script reads the words. It is a conflict all the same.
            Self::Allocated { .. } | Self::RangeAllocated { .. } => ErrorKind::Conflict,
            Self::NotOfFamily { .. } => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Allocated { port, .. } => {
                Some(format!("see who has it (`dozen ps`, `ss -lntup 'sport = :{port}'`), or publish on another port"))
            }
            Self::RangeAllocated { .. } => Some("give a wider range, or no host port to get any free one".to_owned()),
            Self::NotOfFamily { address: IpAddr::V6(_), .. } => Some("publish on an IPv4 address".to_owned()),
            Self::NotOfFamily { address: IpAddr::V4(_), .. } => {
                Some("publish on an IPv6 address, such as [::], or without an address".to_owned())
            }
        }
    }
}

/// As it stands in front of a colon and a port.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The ports that these bindings open at the container's own addresses on networks that are routed. The host's port means
/// nothing there, and of the host's address the family alone (Docker's rule).
pub fn direct(bindings: &[PortBinding], routed: Destination) -> BTreeSet<DirectPort> {
    let open = |binding: &PortBinding| {
        let (asked, port, protocol) = (binding.host_address, binding.container_port, binding.protocol);
        routed
            .addresses()
            .filter(move |address| asked.is_none_or(|asked| asked.is_ipv4() == address.is_ipv4()))
            .map(move |address| DirectPort { address, port, protocol })
    };
    bindings.iter().flat_map(open).collect()
}

/// Those of the bindings that have a port of the host's: the others name an address of a family that is routed.
pub fn translated(bindings: Vec<PortBinding>, routed: Destination) -> Vec<PortBinding> {
    let is_direct = |address: IpAddr| routed.address_like(address).is_some();
    bindings.into_iter().filter(|binding| !binding.host_address.is_some_and(is_direct)).collect()
}

/// Chooses the host's ports for these bindings, in order.
///
/// A binding without an address gets the same port on `0.0.0.0` and on `::`, as far as the container has an address of
/// that family; one without a port gets a free one of [`EPHEMERAL_PORTS`]; one with a range gets the first free one of it. Bindings that say the same twice
/// are one. `in_use` knows the ports of other containers and of the host's own programs; two bindings of one call
/// never share a port, so `in_use` need not know of them. It should count a wildcard and a specific address of one
/// family as the same, as the kernel does: see [`overlap`].
pub fn choose(
    bindings: &[PortBinding],
    to: Destination,
    mut in_use: impl FnMut(IpAddr, Protocol, u16) -> bool,
) -> Result<Vec<PublishedPort>, PortsError> {
    let mut chosen: Vec<PublishedPort> = Vec::new();
    // Those with a port first, so that a free choice never takes what another binding insists on.
    let mut order: Vec<(usize, &PortBinding)> = bindings.iter().enumerate().collect();
    order.sort_by_key(|(_, binding)| {
        binding.host_port.map_or(u32::MAX, |ports| u32::from(ports.last() - ports.first()))
    });
    let mut seen = BTreeSet::new();
    let mut by_binding: Vec<(usize, Vec<PublishedPort>)> = Vec::new();
    for (position, binding) in order.into_iter().filter(|(_, binding)| seen.insert((*binding).clone())) {
        let addresses = host_addresses(binding, to)?;
        let free = |port: u16, in_use: &mut dyn FnMut(IpAddr, Protocol, u16) -> bool| {
            addresses.iter().all(|address| {
                let ours = chosen.iter().any(|other| {
                    other.protocol == binding.protocol
                        && other.host_port == port
                        && overlap(other.host_address, *address)
                });
                !ours && !in_use(*address, binding.protocol, port)
            })
        };
        let port = match binding.host_port {
            Some(ports) => ports.ports().find(|port| free(*port, &mut in_use)),
            None => EPHEMERAL_PORTS.clone().find(|port| free(*port, &mut in_use)),
        };
        let (first, last) =
            binding.host_port.map_or((*EPHEMERAL_PORTS.start(), *EPHEMERAL_PORTS.end()), |p| (p.first(), p.last()));
        let Some(address) = addresses.first().copied() else { continue };
        let port = port.ok_or(if first == last {
            PortsError::Allocated { address, port: first }
        } else {
            PortsError::RangeAllocated { address, first, last }
        })?;
        let ports: Vec<_> = addresses
            .iter()
            .map(|host_address| PublishedPort {
                container_port: binding.container_port,
                protocol: binding.protocol,
                host_address: *host_address,
                host_port: port,
            })
            .collect();
        chosen.extend(&ports);
        by_binding.push((position, ports));
    }
    by_binding.sort_by_key(|(position, _)| *position);
    Ok(by_binding.into_iter().flat_map(|(_, ports)| ports).collect())
}

/// Whether a packet to one can be a packet to the other: equal, or one is the wildcard of the other's family.
pub fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

fn host_addresses(binding: &PortBinding, to: Destination) -> Result<Vec<IpAddr>, PortsError> {
    let is_had = |address: &IpAddr| to.address_like(*address).is_some();
    match binding.host_address {
        None => Ok([Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].into_iter().filter(is_had).collect()),
        Some(address) if is_had(&address) => Ok(vec![address]),
        Some(address) => Err(PortsError::NotOfFamily { address, port: binding.container_port }),
    }
}

#[cfg(test)]
mod tests {
    use dozen_model::PortRange;
    use proptest::prelude::*;

    use super::*;

    fn binding(address: &str, ports: &str, container_port: u16) -> PortBinding {
        PortBinding {
            container_port,
            protocol: Protocol::Tcp,
            host_address: (!address.is_empty()).then(|| address.parse().unwrap()),
            host_port: (!ports.is_empty()).then(|| ports.parse::<PortRange>().unwrap()),
        }
    }

    fn container(ipv4: bool, ipv6: bool) -> Destination {
        Destination {
            ipv4: ipv4.then_some(Ipv4Addr::new(172, 17, 0, 2)),
            ipv6: ipv6.then(|| "fd00::2".parse().unwrap()),
        }
    }

    fn check(bindings: &[PortBinding], ipv6: bool, in_use: &[&str]) -> Result<Vec<String>, String> {
        check_to(bindings, container(true, ipv6), in_use)
    }

    fn check_to(bindings: &[PortBinding], to: Destination, in_use: &[&str]) -> Result<Vec<String>, String> {
        let in_use: Vec<std::net::SocketAddr> = in_use.iter().map(|text| text.parse().unwrap()).collect();
        choose(bindings, to, |address, _, port| {
            in_use.iter().any(|other| other.port() == port && overlap(other.ip(), address))
        })
        .map(|ports| {
            let show = |p: PublishedPort| format!("{}:{}->{}", host(p.host_address), p.host_port, p.container_port);
            ports.into_iter().map(show).collect()
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn ports_are_chosen_as_docker_does() {
        let both = Ok(vec!["0.0.0.0:8080->80".into(), "[::]:8080->80".into()]);
        assert_eq!(check(&[binding("", "8080", 80)], true, &[]), both);
        assert_eq!(check(&[binding("", "8080", 80)], false, &[]), Ok(vec!["0.0.0.0:8080->80".into()]));
        assert_eq!(check(&[binding("127.0.0.1", "8080", 80)], true, &[]), Ok(vec!["127.0.0.1:8080->80".into()]));
        assert_eq!(
            check(&[binding("", "", 80)], true, &["0.0.0.0:32768", "[::]:32769"]),
            Ok(vec!["0.0.0.0:32770->80".into(), "[::]:32770->80".into()]),
            "the same free port for both families",
        );
        assert_eq!(
            check(&[binding("", "8000-8002", 80), binding("", "8000-8002", 81)], false, &["192.0.2.2:8000"]),
            Ok(vec!["0.0.0.0:8001->80".into(), "0.0.0.0:8002->81".into()]),
        );
        assert_eq!(
            check(&[binding("", "", 80), binding("", "32768", 81)], false, &[]),
            Ok(vec!["0.0.0.0:32769->80".into(), "0.0.0.0:32768->81".into()]),
            "a free choice leaves what another binding insists on",
        );
        assert_eq!(
            check(&[binding("", "8080", 80), binding("", "8080", 80)], false, &[]),
            Ok(vec!["0.0.0.0:8080->80".into()]),
        );
    }

    #[test]
    fn a_container_of_ipv6_alone_has_ports_of_ipv6_alone() {
        let alone = container(false, true);
        assert_eq!(check_to(&[binding("", "8080", 80)], alone, &[]), Ok(vec!["[::]:8080->80".into()]));
        // The other family's port is nobody's business.
        let beside = ["0.0.0.0:8080"];
        assert_eq!(check_to(&[binding("::", "8080", 80)], alone, &beside), Ok(vec!["[::]:8080->80".into()]));
        assert_eq!(
            check_to(&[binding("0.0.0.0", "8080", 80)], alone, &[]),
            Err("cannot publish 80 on 0.0.0.0: the network has no IPv4".into())
        );
        assert_eq!(check_to(&[binding("", "8080", 80)], container(false, false), &[]), Ok(vec![]));
    }

    #[test]
    fn a_family_that_is_routed_has_the_containers_own_ports() {
        let bindings = [binding("", "8080", 80), binding("0.0.0.0", "8081", 81), binding("::1", "8082", 82)];
        let check = |routed: Destination, want_direct: &[&str], want_translated: &[&str]| {
            let shown: Vec<String> =
                direct(&bindings, routed).iter().map(|it| format!("{} {}", it.address, it.port)).collect();
            assert_eq!(shown, want_direct);
            let to = container(routed.ipv4.is_none(), routed.ipv6.is_none());
            assert_eq!(check_to(&translated(bindings.to_vec(), routed), to, &[]).unwrap(), want_translated);
        };
        check(
            container(false, false),
            &[],
            &["0.0.0.0:8080->80", "[::]:8080->80", "0.0.0.0:8081->81", "[::1]:8082->82"],
        );
        check(container(false, true), &["fd00::2 80", "fd00::2 82"], &["0.0.0.0:8080->80", "0.0.0.0:8081->81"]);
        let four = ["172.17.0.2 80", "172.17.0.2 81"];
        check(container(true, false), &four, &["[::]:8080->80", "[::1]:8082->82"]);
        check(container(true, true), &[&four[..], &["fd00::2 80", "fd00::2 82"]].concat(), &[]);
    }

    #[test]
    fn a_port_in_use_is_refused_in_dockers_words() {
        for (bindings, ipv6, in_use, want) in [
            (
                vec![binding("", "8080", 80)],
                true,
                vec!["0.0.0.0:8080"],
                "Bind for 0.0.0.0:8080 failed: port is already allocated",
            ),
            (
                vec![binding("::1", "8080", 80)],
                true,
                vec!["[::]:8080"],
                "Bind for [::1]:8080 failed: port is already allocated",
            ),
            (
                vec![binding("", "8080", 80), binding("", "8080", 81)],
                true,
                vec![],
                "Bind for 0.0.0.0:8080 failed: port is already allocated",
            ),
            (
                vec![binding("127.0.0.1", "1-2", 80)],
                true,
                vec!["127.0.0.1:1", "127.0.0.1:2"],
                "Bind for 127.0.0.1:1-2 failed: all ports are allocated",
            ),
            (vec![binding("::1", "8080", 80)], false, vec![], "cannot publish 80 on ::1: the network has no IPv6"),
        ] {
            assert_eq!(check(&bindings, ipv6, &in_use), Err(want.into()));
        }
    }

    fn any_binding() -> impl Strategy<Value = PortBinding> {
        let address = prop_oneof![Just(""), Just("0.0.0.0"), Just("127.0.0.1"), Just("::"), Just("::1")];
        (address, proptest::option::of((1u16..20, 0u16..5)), 1u16..5, any::<bool>()).prop_map(
            |(address, ports, container_port, udp)| {
                let ports = ports.map_or(String::new(), |(first, more)| format!("{first}-{}", first + more));
                let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                PortBinding { protocol, ..binding(address, &ports, container_port) }
            },
        )
    }

    proptest! {
        #[test]
        fn no_port_is_given_twice_and_every_binding_gets_one(
            bindings in proptest::collection::vec(any_binding(), 0..8),
            used in proptest::collection::btree_set(1u16..25, 0..8),
        ) {
            if let Ok(ports) = choose(&bindings, container(true, true), |_, _, port| used.contains(&port)) {
                for (index, one) in ports.iter().enumerate() {
                    prop_assert!(!used.contains(&one.host_port));
                    for other in &ports[index + 1..] {
                        let clash = one.protocol == other.protocol && one.host_port == other.host_port
                            && overlap(one.host_address, other.host_address);
                        prop_assert!(!clash, "{one:?} {other:?}");
                    }
                }
                for binding in &bindings {
                    let found = ports.iter().any(|port| {
                        port.container_port == binding.container_port && port.protocol == binding.protocol
                            && binding.host_port.is_none_or(|range| range.ports().any(|p| p == port.host_port))
                    });
                    prop_assert!(found);
                }
            }
        }
    }
}
