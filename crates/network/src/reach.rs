//! Who can reach a published port, decided from what was read of the host: its interfaces, what our table translates, and
//! what other people's chains drop.
//!
//! It is about this machine: what a router or a firewall elsewhere does with a packet cannot be known here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::Protocol;

use crate::firewall_check::DroppingChain;
use crate::ports::PublishedPort;

/// Where a packet to this address, protocol and port is led: to whose address and port. An unspecified address stands
/// for all of its family.
pub type Translations = BTreeMap<(IpAddr, Protocol, u16), (IpAddr, u16)>;

/// Who is behind an interface of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Loopback.
    Machine,
    /// A network of ours: containers.
    Containers,
    /// A network of ours that leads nowhere.
    InternalNetwork,
    /// Anybody else.
    Others,
}

/// An address of one of the host's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix.
    pub prefix_length: u8,
    /// Neither link-local nor host-local.
    pub is_global: bool,
    /// Who is behind it.
    pub behind: Behind,
    /// What comes in by it is forwarded.
    pub forwards: bool,
}

/// A network next to this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbourhood {
    /// The interface that leads to it.
    pub interface: String,
    /// Its subnet, as first address and length of the prefix.
    pub subnet: (IpAddr, u8),
    /// It is one of our networks.
    pub of_containers: bool,
}

/// Who can reach a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Nobody.
    Nobody(Trouble),
    /// Programs on this machine, outside of containers; `None` if that is what was asked for.
    Machine(Option<Trouble>),
    /// They, and these networks, at least one: and who has a route through them to this machine.
    Networks(BTreeSet<Neighbourhood>),
    /// As [`Self::Networks`], and one of the addresses is one of the Internet's.
    Everybody(BTreeSet<Neighbourhood>),
}

/// Why not more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The container is on no network that leads out.
    #[error("the container is on no network that leads out")]
    NoWay,
    /// The keeper has not got it.
    #[error("it is not held on the host: another program may have it")]
    NotHeld,
    /// Our table does not lead there.
    #[error("the firewall table does not lead to the container")]
    NotTranslated,
    /// No interface has the address.
    #[error("no interface of this machine has the address")]
    NoSuchAddress,
    /// What comes in by the interfaces is not forwarded.
    #[error("forwarding is off: {0}")]
    NotForwarded(String),
    /// A chain of somebody else's drops it.
    #[error("{chain}; to let it through: {}", .commands.join("; "))]
    Dropped {
        /// The chain, in words.
        chain: String,
        /// What opens it.
        commands: Vec<String>,
    },
}

/// What is known of one published port.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The port.
    pub port: &'a PublishedPort,
    /// The container's addresses on the network that its ports are led to by.
    pub container: &'a [IpAddr],
    /// Somebody holds it on the host: the keeper, as far as we know.
    pub is_held: bool,
    /// What the kernel's table says.
    pub translations: &'a Translations,
    /// All interfaces.
    pub interfaces: &'a [Interface],
    /// What drops what the container's bridge forwards.
    pub dropping: &'a [DroppingChain],
}

/// Who can reach it.
pub fn reach(facts: Facts<'_>) -> Reach {
    let Facts { port, container, is_held, translations, interfaces, dropping } = facts;
    let PublishedPort { host_address, host_port, protocol, container_port } = *port;
    if container.is_empty() {
        return Reach::Nobody(Trouble::NoWay);
    }
    if !is_held {
        return Reach::Nobody(Trouble::NotHeld);
    }
    // The kernel cannot translate [::1]: the keeper carries it.
    if host_address == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        return Reach::Machine(None);
    }
    let leads = translations.get(&(host_address, protocol, host_port));
    if !leads.is_some_and(|(address, to)| container.contains(address) && *to == container_port) {
        return match host_address {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Reach::Machine(Some(Trouble::NotTranslated)),
            _ => Reach::Nobody(Trouble::NotTranslated),
        };
    }
    if host_address.is_loopback() {
        return Reach::Machine(None);
    }
    let is_there = host_address.is_unspecified() || interfaces.iter().any(|known| known.address == host_address);
    if !is_there {
        return Reach::Nobody(Trouble::NoSuchAddress);
    }
    if let Some(chain) = dropping.iter().find(|chain| chain.is_about(host_address.is_ipv4()) && !chain.published_pass) {
        return Reach::Machine(Some(Trouble::Dropped { chain: chain.to_string(), commands: chain.commands.clone() }));
    }
    let (open, shut): (Vec<&Interface>, Vec<_>) =
        interfaces.iter().filter(|known| can_address(known, host_address)).partition(|known| known.forwards);
    let networks: BTreeSet<Neighbourhood> = open.iter().map(|known| neighbourhood(known)).collect();
    if networks.is_empty() {
        let names: BTreeSet<&str> = shut.iter().map(|known| known.name.as_str()).collect();
        let trouble = Trouble::NotForwarded(Vec::from_iter(names).join(", "));
        return Reach::Machine((!shut.is_empty()).then_some(trouble));
    }
    match open.iter().any(|known| known.behind == Behind::Others && is_of_the_internet(known.address)) {
        true => Reach::Everybody(networks),
        false => Reach::Networks(networks),
    }
}

/// Whether who is behind the interface may send to that address of the host's. Containers reach each of them, by their
/// default route; others that of their own network.
fn can_address(known: &Interface, host_address: IpAddr) -> bool {
    if known.address.is_ipv4() != host_address.is_ipv4() || !known.is_global {
        return false;
    }
    match known.behind {
        Behind::Machine | Behind::InternalNetwork => false,
        Behind::Containers => true,
        Behind::Others => host_address.is_unspecified() || known.address == host_address,
    }
}

fn neighbourhood(known: &Interface) -> Neighbourhood {
    let Interface { name, address, prefix_length, behind, .. } = known;
    let first = match address {
        IpAddr::V4(ipv4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(*prefix_length)).unwrap_or(0);
            Ipv4Addr::from_bits(ipv4.to_bits() & mask).into()
        }
        IpAddr::V6(ipv6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(*prefix_length)).unwrap_or(0);
            Ipv6Addr::from_bits(ipv6.to_bits() & mask).into()
        }
    };
    let of_containers = *behind == Behind::Containers;
    Neighbourhood { interface: name.clone(), subnet: (first, *prefix_length), of_containers }
}

/// An address that the rest of the world may have a route to (RFC 6890): not one of those for private use, of a carrier's
/// (RFC 6598) or of one link. Of IPv6 those are 2000::/3 (RFC 4291, 2.4).
fn is_of_the_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ipv4) => {
            let [a, b, ..] = ipv4.octets();
            let of_a_carrier = a == 100 && b & 0xc0 == 64;
            !(ipv4.is_private() || ipv4.is_loopback() || ipv4.is_link_local() || of_a_carrier)
        }
        IpAddr::V6(ipv6) => ipv6.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, address: &str, behind: Behind) -> Interface {
        let (address, prefix_length) = address.split_once('/').unwrap();
        Interface {
            name: name.into(),
            address: address.parse().unwrap(),
            prefix_length: prefix_length.parse().unwrap(),
            is_global: !address.starts_with("fe80"),
            behind,
            forwards: name != "shut0",
        }
    }

    fn all() -> Vec<Interface> {
        vec![
            interface("lo", "127.0.0.1/8", Behind::Machine),
            interface("up0", "192.168.7.9/24", Behind::Others),
            interface("up0", "fe80::1/64", Behind::Others),
            interface("shut0", "10.9.0.1/16", Behind::Others),
            interface("dozen0", "172.17.0.1/16", Behind::Containers),
            interface("dz-inside", "172.18.0.1/16", Behind::InternalNetwork),
        ]
    }

    fn chain(family: &'static str, published_pass: bool) -> DroppingChain {
        let rest = ("filter".to_owned(), "FORWARD".to_owned(), vec!["open sesame".to_owned()]);
        DroppingChain {
            family,
            table: rest.0,
            opening: rest.1.clone(),
            chain: rest.1,
            by_policy: true,
            published_pass,
            commands: rest.2,
        }
    }

    #[track_caller]
    fn check(address: &str, interfaces: &[Interface], dropping: &[DroppingChain], want: &str) {
        let port = PublishedPort {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: address.parse().unwrap(),
            host_port: 8080,
        };
        let container: [IpAddr; 2] = ["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let to = if port.host_address.is_ipv4() { container[0] } else { container[1] };
        let translations = Translations::from([((port.host_address, Protocol::Tcp, 8080), (to, 80))]);
        let facts = Facts {
            port: &port,
            container: &container,
            is_held: true,
            translations: &translations,
            interfaces,
            dropping,
        };
        assert_eq!(words(reach(facts)), want, "{address}");
    }

    fn words(reach: Reach) -> String {
        let names = |networks: BTreeSet<Neighbourhood>| -> String {
            networks.iter().map(|n| format!(" {}={}/{}", n.interface, n.subnet.0, n.subnet.1)).collect()
        };
        match reach {
            Reach::Nobody(trouble) => format!("nobody: {trouble}"),
            Reach::Machine(None) => "machine".to_owned(),
            Reach::Machine(Some(trouble)) => format!("machine: {trouble}"),
            Reach::Networks(networks) => format!("networks{}", names(networks)),
            Reach::Everybody(networks) => format!("everybody{}", names(networks)),
        }
    }

    #[test]
    fn who_is_next_to_the_address_reaches_it() {
        check("0.0.0.0", &all(), &[], "networks dozen0=172.17.0.0/16 up0=192.168.7.0/24");
        check("192.168.7.9", &all(), &[], "networks dozen0=172.17.0.0/16 up0=192.168.7.0/24");
        check("172.17.0.1", &all(), &[], "networks dozen0=172.17.0.0/16");
        check("127.0.0.1", &all(), &[], "machine");
        check("127.9.9.9", &all(), &[], "machine");
        check("::1", &all(), &[], "machine");
        check("192.168.7.8", &all(), &[], "nobody: no interface of this machine has the address");
        check("::", &all(), &[], "machine");
        check("0.0.0.0", &all()[3..4], &[], "machine: forwarding is off: shut0");
        check("0.0.0.0", &[interface("up0", "9.9.9.9/24", Behind::Others)], &[], "everybody up0=9.9.9.0/24");
        check("0.0.0.0", &[interface("up0", "100.64.9.9/24", Behind::Others)], &[], "networks up0=100.64.9.0/24");
        check("::", &[interface("up0", "2001:db8::9/64", Behind::Others)], &[], "everybody up0=2001:db8::/64");
        check("::", &[interface("up0", "fd01::9/64", Behind::Others)], &[], "networks up0=fd01::/64");
    }

    #[test]
    fn what_drops_it_leaves_this_machine() {
        let dropped = "machine: the firewall chain ip filter FORWARD drops forwarded packets by policy; to let it \
                       through: open sesame";
        check("0.0.0.0", &all(), &[chain("ip", false)], dropped);
        check("127.0.0.1", &all(), &[chain("ip", false)], "machine");
        check("0.0.0.0", &all()[1..2], &[chain("ip6", false)], "networks up0=192.168.7.0/24");
        check("0.0.0.0", &all()[1..2], &[chain("inet", true)], "networks up0=192.168.7.0/24");
    }

    #[test]
    fn what_is_not_there_nobody_reaches() {
        let port = PublishedPort {
            container_port: 80,
            protocol: Protocol::Udp,
            host_address: Ipv4Addr::UNSPECIFIED.into(),
            host_port: 53,
        };
        let container: [IpAddr; 1] = ["172.17.0.2".parse().unwrap()];
        let other: IpAddr = "172.17.0.3".parse().unwrap();
        let translations = Translations::from([((port.host_address, Protocol::Udp, 53), (other, 80))]);
        let (interfaces, dropping) = (all(), []);
        let facts = Facts {
            port: &port,
            container: &container,
            is_held: true,
            translations: &translations,
            interfaces: &interfaces,
            dropping: &dropping,
        };
        let elsewhere = "nobody: the firewall table does not lead to the container";
        assert_eq!(words(reach(facts)), elsewhere);
        assert_eq!(words(reach(Facts { translations: &Translations::new(), ..facts })), elsewhere);
        assert_eq!(words(reach(Facts { container: &[], ..facts })), format!("nobody: {}", Trouble::NoWay));
        assert_eq!(words(reach(Facts { is_held: false, ..facts })), format!("nobody: {}", Trouble::NotHeld));
    }
}
