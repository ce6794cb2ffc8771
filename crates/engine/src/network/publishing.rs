//! Published ports: which the container gets, where they lead, and that the keeper holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use dozen_keeper::{PortFailure, PortReservation};
use dozen_model::{ContainerId, ContainerSpec, PortBinding, Protocol, error_chain};
use dozen_network::{Destination, DirectPort, PublishedPort, ports};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::places::{self, WayOut};
use super::{Network, keeper_failed, locked};
use crate::EngineError;
use crate::container::oci;
use crate::container::snapshot::RunEndpoint;
use crate::failpoint::failpoint;

/// What each container has published.
pub(super) type Published = BTreeMap<ContainerId, Publication>;

/// A container's ports, and where they lead: nowhere while it is on no network that leads out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Publication {
    /// Where ports of the host's lead.
    pub(super) to: Destination,
    /// Where ports are reached as they are.
    pub(super) routed: Destination,
    /// The ports of the host's.
    pub(super) ports: Vec<PublishedPort>,
}

/// The ports of a container that are reached at its own addresses.
pub fn direct_ports(spec: &ContainerSpec, endpoints: &[RunEndpoint]) -> BTreeSet<DirectPort> {
    direct(&oci::wanted_ports(spec), endpoints)
}

/// The same of ports that are wanted.
pub(super) fn direct(wanted: &[PortBinding], endpoints: &[RunEndpoint]) -> BTreeSet<DirectPort> {
    let way = places::way_out(endpoints);
    ports::direct(&way.bound(wanted), way.routed())
}

impl Network {
    /// Chooses host ports, holds them through the keeper, and opens them in the firewall's maps. They lead to the
    /// container by the networks that have its default routes; without one, none is published.
    pub(crate) fn publish(
        &self,
        id: &ContainerId,
        endpoints: &[RunEndpoint],
        wanted: &[PortBinding],
    ) -> Result<Vec<PublishedPort>, EngineError> {
        let way = places::way_out(endpoints);
        if wanted.is_empty() || way == WayOut::default() {
            return Ok(Vec::new());
        }
        let (to, routed) = (way.destination(), way.routed());
        let direct = direct(wanted, endpoints);
        let wanted = ports::translated(way.bound(wanted), routed);
        let host = self.host(&mut locked(&self.bridges))?;
        let mut all = locked(&self.published);
        let taken: BTreeSet<(Protocol, IpAddr, u16)> = all
            .values()
            .flat_map(|one| &one.ports)
            .map(|port| (port.protocol, port.host_address, port.host_port))
            .collect();
        let in_use = |address: IpAddr, protocol: Protocol, port: u16| {
            let overlaps =
                |(p, a, n): &(Protocol, IpAddr, u16)| (*p, *n) == (protocol, port) && ports::overlap(*a, address);
            taken.iter().any(overlaps) || !can_bind(address, port, protocol)
        };
        let published = ports::choose(&wanted, to, in_use)?;
        all.insert(id.clone(), Publication { to, routed, ports: published.clone() });
        failpoint("publish.before");
        let opened = self.hold(&all, Some(id)).and_then(|()| {
            failpoint("publish.held");
            Ok(host.publish(to, &published, &direct)?)
        });
        failpoint("publish.after");
        if let Err(error) = opened {
            all.remove(id);
            if let Err(undo) = self.hold(&all, None) {
                tracing::error!(error = error_chain(&undo), "cannot give back ports");
            }
            return Err(error);
        }
        Ok(published)
    }

    /// The ports of a container that runs and has one more place, the last of these. Without a way out it began with none,
    /// as [`Self::publish`] gives none then: they are chosen with the first place that leads out. `None` if this is not it.
    pub(crate) fn publish_at_last(
        &self,
        id: &ContainerId,
        endpoints: &[RunEndpoint],
        ports: &[PublishedPort],
        wanted: &[PortBinding],
    ) -> Result<Option<Vec<PublishedPort>>, EngineError> {
        let leads_out = |places: &[RunEndpoint]| places::way_out(places) != WayOut::default();
        let had_way = endpoints.split_last().is_some_and(|(_, before)| leads_out(before));
        if had_way || !ports.is_empty() || !leads_out(endpoints) {
            return Ok(None);
        }
        self.publish(id, endpoints, wanted).map(Some)
    }

    /// Leads a running container's ports to it by another of its networks, and opens those that are wanted at the addresses
    /// that it has by now.
    pub(crate) fn move_ports(
        &self,
        id: &ContainerId,
        endpoints: &[RunEndpoint],
        ports: &[PublishedPort],
        wanted: &[PortBinding],
    ) -> Result<(), EngineError> {
        let mut all = locked(&self.published);
        let before = all.get(id).cloned().unwrap_or_default();
        // Without a way to it the ports stay its own, for the next network that leads out.
        let way = places::way_out(endpoints);
        let to = if ports.is_empty() { Destination::default() } else { way.destination() };
        let after = Publication { to, routed: way.routed(), ports: ports.to_vec() };
        if after == before {
            return Ok(());
        }
        let host = self.host(&mut locked(&self.bridges))?;
        host.unpublish(before.to, &reachable(before.to, ports), before.routed)?;
        host.publish(after.to, &reachable(after.to, ports), &direct(wanted, endpoints))?;
        all.insert(id.clone(), after);
        self.hold(&all, None)
    }

    /// Gives back addresses and ports of a run that is over. Goes on past a failure; the first is reported.
    pub(crate) fn release(
        &self,
        id: &ContainerId,
        endpoints: &[RunEndpoint],
        ports: &[PublishedPort],
    ) -> Result<(), EngineError> {
        let result = self.unpublish(id, endpoints, ports);
        self.give_back(endpoints);
        result
    }

    /// The opposite of [`Self::publish`]. Goes on past a failure; the first is reported.
    pub(crate) fn unpublish(
        &self,
        id: &ContainerId,
        endpoints: &[RunEndpoint],
        ports: &[PublishedPort],
    ) -> Result<(), EngineError> {
        let way = places::way_out(endpoints);
        if ports.is_empty() && way.routed() == Destination::default() {
            return Ok(());
        }
        failpoint("unpublish.before");
        let mut all = locked(&self.published);
        let (to, routed) = match all.get(id) {
            Some(publication) => (publication.to, publication.routed),
            None => (way.destination(), way.routed()),
        };
        let host = self.host(&mut locked(&self.bridges));
        let result = host.and_then(|host| Ok(host.unpublish(to, &reachable(to, ports), routed)?));
        failpoint("unpublish.after");
        all.remove(id);
        let result = result.and(self.hold(&all, None));
        failpoint("unhold.after");
        result
    }

    /// Tells the keeper which ports to hold: all of them, each time, so that nothing is forgotten. An error if one of
    /// this container's cannot be had; that another's cannot (it was taken while no keeper was there) is logged.
    pub(super) fn hold(&self, all: &Published, of: Option<&ContainerId>) -> Result<(), EngineError> {
        let ports = all.iter().flat_map(|(id, one)| one.ports.iter().map(|port| held(id, one.to, port))).collect();
        let failures = self.keeper.hold(ports).map_err(keeper_failed)?;
        let (own, others): (Vec<_>, Vec<_>) =
            failures.into_iter().partition(|failure| of.is_some_and(|id| id.as_str() == failure.container_id));
        for PortFailure { container_id, host_address, host_port, .. } in others {
            tracing::error!(container = container_id, "port {host_port} of {host_address} is not held: another has it");
        }
        let Some(PortFailure { host_address, host_port, errno, .. }) = own.first() else { return Ok(()) };
        let why = match own[0].is_in_use() {
            true => "port is already allocated".to_owned(),
            false => std::io::Error::from_raw_os_error(*errno).to_string(),
        };
        Err(EngineError::Conflict {
            message: format!(
                "driver failed programming external connectivity on endpoint: Bind for {host_address}:{host_port} failed: {why}"
            ),
            hint: Some("choose another host port or address, or stop what listens there".into()),
        })
    }
}

/// IPv6's loopback cannot be translated to another address: the keeper forwards it, to the container's IPv4 address where
/// it has one.
fn held(id: &ContainerId, to: Destination, port: &PublishedPort) -> PortReservation {
    let forwarded = match port.host_address {
        IpAddr::V6(address) => address.is_unspecified() || address.is_loopback(),
        IpAddr::V4(_) => false,
    };
    PortReservation {
        container_id: id.to_string(),
        host_address: port.host_address,
        host_port: port.host_port,
        protocol: port.protocol,
        forward_to: to
            .ipv4
            .map(IpAddr::V4)
            .or(to.ipv6.map(IpAddr::V6))
            .filter(|_| forwarded)
            .map(|address| SocketAddr::new(address, port.container_port)),
    }
}

/// Whether the host's address and port are free at this moment; the keeper's own bind decides. `::` is IPv6 alone: what is
/// on IPv4 is another question.
pub(super) fn can_bind(address: IpAddr, port: u16, protocol: Protocol) -> bool {
    let try_it = || -> rustix::io::Result<()> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = match protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if protocol == Protocol::Tcp {
            // Connections that are over do not count.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
        if protocol == Protocol::Tcp {
            rustix::net::listen(&socket, 1)?;
        }
        Ok(())
    };
    try_it().is_ok()
}

/// A port of an address of the host's leads nowhere if no network that leads out gives the container one of that family.
pub(super) fn reachable(to: Destination, ports: &[PublishedPort]) -> Vec<PublishedPort> {
    ports.iter().filter(|port| to.address_like(port.host_address).is_some()).copied().collect()
}
