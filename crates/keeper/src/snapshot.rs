//! What the keeper is to hold, and what to do to get there from what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use dozen_model::Protocol;
use serde::{Deserialize, Serialize};

/// Version of snapshot and protocol. Raised when an older keeper could misunderstand a newer engine.
pub const VERSION: u32 = 1;

/// `<run_root>/keeper.json`: everything that the keeper is to hold beside listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`] of the engine that wrote it.
    pub version: u32,
    /// Host ports, each at most once.
    pub ports: Vec<PortReservation>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { version: VERSION, ports: Vec::new() }
    }
}

/// A host port that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReservation {
    /// For whom.
    pub container_id: String,
    /// The host's address; `0.0.0.0` and `::` stand for all of IPv4 and all of IPv6.
    pub host_address: IpAddr,
    /// The host's port, never 0.
    pub host_port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Do not only reserve it: what comes to `[::1]`, which the kernel does not translate, is carried to this address.
    /// The host's address is `[::1]` itself or `[::]`.
    #[serde(default)]
    pub forward_to: Option<SocketAddr>,
}

/// A port that could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFailure {
    /// For whom.
    pub container_id: String,
    /// The host's address.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Why, as errno(3): EADDRINUSE for one that is taken, EADDRNOTAVAIL for an address that is not the host's.
    pub errno: i32,
}

impl PortFailure {
    /// The port is in use by another program or container.
    pub fn is_in_use(&self) -> bool {
        self.errno == libc::EADDRINUSE
    }
}

impl PortReservation {
    /// Its failure, for this reason.
    pub(crate) fn failure(&self, errno: i32) -> PortFailure {
        PortFailure {
            container_id: self.container_id.clone(),
            host_address: self.host_address,
            host_port: self.host_port,
            protocol: self.protocol,
            errno,
        }
    }

    /// What makes it one: a host has each only once.
    pub(crate) fn key(&self) -> PortKey {
        // Wildcard addresses sort first: beside a listening [::1] the kernel refuses [::], the other way round not.
        PortKey(self.protocol, self.host_port, self.host_address)
    }
}

/// Protocol, port and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortKey(pub Protocol, pub u16, pub IpAddr);

/// How to get from what is held to what is wanted: close, then open in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// No longer wanted, or wanted otherwise: for another container, to another address.
    pub close: Vec<PortKey>,
    /// New.
    pub open: Vec<PortReservation>,
    /// Wanted twice.
    pub refused: Vec<PortFailure>,
}

/// Compares.
pub fn plan(held: &BTreeMap<PortKey, PortReservation>, wanted: &[PortReservation]) -> Plan {
    let mut plan = Plan::default();
    let mut by_key: BTreeMap<PortKey, &PortReservation> = BTreeMap::new();
    // Whoever holds a port keeps it; among newcomers the first one gets it.
    let holders_first = wanted
        .iter()
        .filter(|port| held.get(&port.key()) == Some(port))
        .chain(wanted.iter().filter(|port| held.get(&port.key()) != Some(port)));
    for port in holders_first {
        match by_key.get(&port.key()) {
            Some(other) if *other == port => {}
            Some(_) => plan.refused.push(port.failure(libc::EADDRINUSE)),
            None => {
                by_key.insert(port.key(), port);
            }
        }
    }
    let kept: BTreeSet<PortKey> =
        held.iter().filter(|(key, port)| by_key.get(key) == Some(port)).map(|(key, _)| *key).collect();
    plan.close.extend(held.keys().filter(|key| !kept.contains(key)));
    plan.open.extend(by_key.iter().filter(|(key, _)| !kept.contains(key)).map(|(_, port)| (*port).clone()));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(container: &str, address: &str, host_port: u16) -> PortReservation {
        PortReservation {
            container_id: container.to_owned(),
            host_address: address.parse().unwrap(),
            host_port,
            protocol: Protocol::Tcp,
            forward_to: None,
        }
    }

    #[test]
    fn plans() {
        let (a, b, other) = (port("a", "0.0.0.0", 80), port("a", "::", 80), port("b", "0.0.0.0", 80));
        let held = |ports: &[PortReservation]| ports.iter().map(|port| (port.key(), port.clone())).collect();
        let cases = [
            (vec![], vec![b.clone(), a.clone()], vec![], vec![a.clone(), b.clone()], vec![]),
            (vec![a.clone()], vec![a.clone()], vec![], vec![], vec![]),
            (vec![a.clone(), b.clone()], vec![b.clone()], vec![a.key()], vec![], vec![]),
            (vec![a.clone()], vec![other.clone()], vec![a.key()], vec![other.clone()], vec![]),
            (vec![a.clone()], vec![other.clone(), a.clone()], vec![], vec![], vec![other.failure(libc::EADDRINUSE)]),
            (vec![], vec![a.clone(), other.clone()], vec![], vec![a.clone()], vec![other.failure(libc::EADDRINUSE)]),
        ];
        for (have, wanted, close, open, refused) in cases {
            assert_eq!(plan(&held(&have), &wanted), Plan { close, open, refused });
        }
    }

    #[test]
    fn wildcards_come_before_addresses() {
        assert!(port("a", "::", 80).key() < port("a", "::1", 80).key());
        assert!(port("a", "0.0.0.0", 80).key() < port("a", "127.0.0.1", 80).key());
    }
}
