//! The default network: a bridge with a subnet of its own, behind the host's addresses.
//!
//! What happens, in order: `open` makes or adopts the bridge, its addresses and the nftables table; `attach` makes a
//! container's namespace with a link to the bridge; `publish` leads ports of the host to it. `unpublish` and `release`
//! undo the two; the link itself goes with the namespace. After a restart: `open`, `restore` for each container that
//! runs, `retain` with all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dozen_model::{ContainerId, Protocol};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;

use crate::address::{BridgeAddresses, Endpoint, MacAddress};
use crate::conntrack;
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::firewall::{PublishedKey, Table};
use crate::forwarding::{self, Opened};
use crate::host::{Host, Published, Target, element, locked};
use crate::link;
use crate::namespace;
use crate::netlink::{Batch, Socket};
use crate::pool::AddressPool;
use crate::ports::PublishedPort;
use crate::watch::Watcher;
use crate::{setup, sysctl};

/// The bridge of the engine without a tag.
pub(crate) const DEFAULT_BRIDGE: &str = "dozen0";
/// What the names of the other engines' bridges begin with.
pub(crate) const TAGGED_BRIDGE: &str = "dz-";
/// How long `attach` waits for a link to go when every address rests. The kernel takes some 20 ms.
const LINK_GONE_TIMEOUT: Duration = Duration::from_secs(2);
/// `RTMGRP_LINK`.
const LINK_EVENTS: u32 = 1;
pub(crate) const IPV6_PREFIX_LENGTH: u8 = 64;

/// What the network of one engine is asked to be.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    /// Empty for the engine that is alone: bridge `dozen0`, table `dozen`. Otherwise a tag of up to 8 lower-case
    /// letters and digits: bridge `dz-TAG`, table `dozen-TAG`.
    pub instance: String,
    /// Subnets to choose from, as (address, prefix length); empty for [`crate::default_pools`].
    pub address_pools: Vec<(Ipv4Addr, u8)>,
    /// Whether containers get IPv6 too: a unique local /64, behind the host's address as IPv4 is.
    pub ipv6: bool,
    /// What this engine used before; kept if nothing of the host's stands in its way by now.
    pub previous: Option<BridgeAddresses>,
}

/// The default network of one engine, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct BridgeNetwork {
    host: Arc<Host>,
    /// br_netfilter puts bridged packets through the host's rules: see [`link::hairpin`].
    hairpin: bool,
    pool: Mutex<AddressPool>,
    watcher: Mutex<Option<Watcher>>,
}

impl BridgeNetwork {
    /// Makes the bridge and its table, or adopts what an earlier engine of this tag left.
    ///
    /// Running containers and those who call them notice nothing: the table and its ports are there throughout.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let (bridge, table) = names(&config.instance)?;
        let mut route = Socket::route()?;
        let mut netfilter = Socket::netfilter()?;
        let addresses = setup::choose_addresses(&mut route, &config, &bridge)?;
        let index = setup::ensure_bridge(&mut route, &addresses)?;
        let elements = table.read(&mut netfilter)?;
        let host = Arc::new(Host {
            addresses,
            index,
            table,
            route: Mutex::new(route),
            published: Mutex::new(Published::of(netfilter, &elements)),
        });
        host.set_up_table()?;
        let network = Self {
            hairpin: sysctl::is_one("bridge/bridge-nf-call-iptables")
                || sysctl::is_one("bridge/bridge-nf-call-ip6tables"),
            pool: Mutex::new(AddressPool::new(host.addresses.ipv4_subnet(), host.addresses.ipv4_gateway)),
            watcher: Mutex::new(None),
            host,
        };
        setup::settle(&network.host)?;
        // From here on; what changed since `set_up_table` looked is seen by the watcher's own first look.
        *locked(&network.watcher) = Some(Watcher::start(network.host.clone())?);
        Ok(network)
    }

    /// Looks again which of the host's interfaces have to forward. It happens by itself when one gets an address.
    pub fn refresh(&self) -> Result<(), NetworkError> {
        self.host.refresh()
    }

    /// The bridge's name and addresses.
    pub fn addresses(&self) -> &BridgeAddresses {
        &self.host.addresses
    }

    /// Makes a network namespace with loopback and `eth0` up, addresses and default routes set, linked to the bridge.
    ///
    /// The link lives as long as the namespace: as long as the descriptor or a process in it.
    pub fn attach(&self, container_id: &ContainerId) -> Result<(Endpoint, OwnedFd), NetworkError> {
        let ipv4 = self.take_address()?;
        let ipv6 = self.host.addresses.ipv6_beside(ipv4);
        let mut endpoint = Endpoint {
            interface: interface_name(container_id),
            mac: MacAddress::beside(ipv4),
            ipv4,
            ipv4_prefix_length: self.host.addresses.ipv4_prefix_length,
            ipv4_gateway: self.host.addresses.ipv4_gateway,
            ipv6,
            ipv6_prefix_length: if ipv6.is_some() { IPV6_PREFIX_LENGTH } else { 0 },
            ipv6_gateway: self.host.addresses.ipv6_gateway,
        };
        for last_try in [false, false, true] {
            match namespace::new_endpoint_namespace(&endpoint, |namespace| self.connect(&endpoint, namespace)) {
                Ok(namespace) => return Ok((endpoint, namespace)),
                // The name of the link is taken: once in 65536 runs of one container, if its last run is still going.
                Err(NetworkError::Refused(refusal)) if refusal.is(libc::EEXIST) && !last_try => {
                    endpoint.interface = interface_name(container_id);
                }
                Err(error) => {
                    // The namespace is going, and a link in it with it.
                    locked(&self.pool).release(ipv4, &endpoint.interface);
                    return Err(error);
                }
            }
        }
        unreachable!("the last try returns")
    }

    /// Links the namespace to the bridge.
    fn connect(&self, endpoint: &Endpoint, namespace: &OwnedFd) -> Result<(), NetworkError> {
        let mut batch = Batch::default();
        let number = namespace::number_of(namespace);
        link::create_veth(&mut batch, &endpoint.interface, self.host.index, number, endpoint.mac);
        if self.hairpin {
            link::hairpin(&mut batch, &endpoint.interface);
        }
        locked(&self.host.route).run(&mut batch)?;
        failpoint("network.attach.link");
        Ok(())
    }

    /// After a restart: the addresses of a container that runs are its own, and its ports lead to it.
    pub fn restore(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        if !locked(&self.pool).reserve(endpoint.ipv4) {
            let (bridge, address) = (self.host.addresses.name.clone(), endpoint.ipv4.into());
            return Err(NetworkError::AddressTaken { bridge, address });
        }
        self.publish(endpoint, ports)
    }

    /// Leads these ports of the host to the container, all of them or none. What led elsewhere before leads here now:
    /// it is the caller who knows which ports are free.
    pub fn publish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        let wanted = wanted(endpoint, ports)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let mut published = locked(&self.host.published);
        let Published { socket, ports: present, .. } = &mut *published;
        let remove: Vec<_> = wanted
            .iter()
            .filter_map(|(key, target)| present.get(key).filter(|old| *old != target).map(|old| element(key, *old)))
            .collect();
        let add: Vec<_> = wanted.iter().map(|(key, target)| element(key, *target)).collect();
        match self.host.table.change(socket, &remove, &add) {
            // Somebody flushed the host's firewall. What we know is enough to make the table again.
            Err(refusal) if refusal.is(libc::ENOENT) => {
                drop(published);
                self.host.set_up_table()?;
                published = locked(&self.host.published);
                self.host.table.change(&mut published.socket, &remove, &add)?;
            }
            outcome => outcome?,
        }
        failpoint("network.publish.elements");
        let Published { socket, ports: present, .. } = &mut *published;
        present.extend(wanted.iter().copied());
        self.host.forget_misled_flows(socket, &wanted)?;
        failpoint("network.publish.flows");
        Ok(())
    }

    /// Undoes [`publish`](Self::publish). What leads to another container by now stays.
    pub fn unpublish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        let wanted = wanted(endpoint, ports)?;
        let mut published = locked(&self.host.published);
        let Published { socket, ports: present, .. } = &mut *published;
        let ours: Vec<_> = wanted.into_iter().filter(|(key, target)| present.get(key) == Some(target)).collect();
        remove_ports(&self.host.table, socket, present, &ours)
    }

    /// Gives the endpoint's addresses back; they are used again once the kernel has taken its link away.
    pub fn release(&self, endpoint: &Endpoint) {
        locked(&self.pool).release(endpoint.ipv4, &endpoint.interface);
    }

    /// After a restart, when every running container is [restored](Self::restore): removes the ports and the links of
    /// those that are gone. Goes on past failures and reports them all.
    pub fn retain(&self, running: &[Endpoint]) -> Result<(), Vec<NetworkError>> {
        let mut errors = Vec::new();
        let addresses: BTreeSet<IpAddr> =
            running.iter().flat_map(|e| [Some(e.ipv4.into()), e.ipv6.map(IpAddr::V6)]).flatten().collect();
        {
            let mut published = locked(&self.host.published);
            let Published { socket, ports: present, .. } = &mut *published;
            let gone: Vec<_> = present
                .iter()
                .filter(|(_, target)| !addresses.contains(&target.0))
                .map(|(key, target)| (*key, *target))
                .collect();
            errors.extend(remove_ports(&self.host.table, socket, present, &gone).err());
        }
        failpoint("network.retain.ports");
        let interfaces: BTreeSet<&str> = running.iter().map(|endpoint| endpoint.interface.as_str()).collect();
        let mut route = locked(&self.host.route);
        match link::links(&mut route) {
            Ok(links) => {
                let ports = links.values().filter(|link| link.master == Some(self.host.index));
                for port in ports.filter(|link| !interfaces.contains(link.name.as_str())) {
                    errors.extend(delete_link(&mut route, &port.name).err());
                }
            }
            Err(refusal) => errors.push(refusal.into()),
        }
        failpoint("network.retain.links");
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Removes the bridge, the links on it, the table, and turns off the forwarding that we turned on.
    /// Goes on past failures and reports them all. To be called in the namespace that the network was opened in.
    pub fn teardown(&self) -> Result<(), Vec<NetworkError>> {
        let mut errors = Vec::new();
        // First, so that it does not make again what goes.
        drop(locked(&self.watcher).take());
        {
            let mut published = locked(&self.host.published);
            let Published { socket, ports, opened } = &mut *published;
            match self.host.hand_over(socket, opened) {
                Ok(opened) => errors.extend(forwarding::undo(&opened)),
                Err(error) => errors.push(error),
            }
            failpoint("network.teardown.forwarding");
            match self.host.table.delete(socket) {
                Ok(()) => {
                    ports.clear();
                    *opened = Opened::default();
                }
                Err(refusal) => errors.push(refusal.into()),
            }
        }
        failpoint("network.teardown.table");
        let mut route = locked(&self.host.route);
        match link::links(&mut route) {
            Ok(links) => {
                for port in links.values().filter(|link| link.master == Some(self.host.index)) {
                    errors.extend(delete_link(&mut route, &port.name).err());
                }
            }
            Err(refusal) => errors.push(refusal.into()),
        }
        failpoint("network.teardown.links");
        errors.extend(delete_link(&mut route, &self.host.addresses.name).err());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn take_address(&self) -> Result<Ipv4Addr, NetworkError> {
        let mut pool = locked(&self.pool);
        if let Some(address) = pool.take() {
            return Ok(address);
        }
        // Listening comes before the first look, so that no event falls between the two.
        let mut events = Socket::route_events(LINK_EVENTS)?;
        let deadline = Instant::now() + LINK_GONE_TIMEOUT;
        while pool.has_resting() {
            let links = link::links(&mut locked(&self.host.route))?;
            pool.wake(&links.into_values().map(|link| link.name).collect());
            if let Some(address) = pool.take() {
                return Ok(address);
            }
            drop(pool);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait_for_event(&mut events, left);
            pool = locked(&self.pool);
        }
        let subnet = self.host.addresses.ipv4_subnet();
        Err(NetworkError::AddressesExhausted {
            bridge: self.host.addresses.name.clone(),
            subnet: subnet.to_string(),
            usable: subnet.usable() - 1,
        })
    }
}

/// The names of the bridge and of the table.
fn names(instance: &str) -> Result<(String, Table), NetworkError> {
    if instance.is_empty() {
        return Ok((DEFAULT_BRIDGE.to_owned(), Table("dozen".to_owned())));
    }
    let valid = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    if instance.len() > 8 || !instance.bytes().all(valid) {
        return Err(NetworkError::InvalidInstance(instance.chars().take(40).collect()));
    }
    Ok((format!("{TAGGED_BRIDGE}{instance}"), Table(format!("dozen-{instance}"))))
}

/// `dz`, six digits of the container's id for those who read `ip link`, and four that differ each time: the link of
/// the container's last run may still be going.
fn interface_name(container_id: &ContainerId) -> String {
    let mut random = [0u8; 2];
    // Should the kernel have no randomness, the name is merely less unlikely to be taken.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("dz{}x{:04x}", &container_id.as_str()[..6], u16::from_ne_bytes(random))
}

/// What each port means for the table. A wildcard of IPv6 means nothing for a container without IPv6.
fn wanted(endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<Vec<(PublishedKey, Target)>, NetworkError> {
    let mut wanted = Vec::with_capacity(ports.len());
    for port in ports {
        match endpoint.address_like(port.host_address) {
            // [::1] is the keeper's to forward; the kernel cannot translate it.
            Some(_) if port.host_address == IpAddr::V6(Ipv6Addr::LOCALHOST) => {}
            Some(container) => {
                let key = PublishedKey { address: port.host_address, protocol: port.protocol, port: port.host_port };
                wanted.push((key, (container, port.container_port)));
            }
            None => return Err(NetworkError::NoIpv6 { address: port.host_address }),
        }
    }
    Ok(wanted)
}

fn remove_ports(
    table: &Table,
    socket: &mut Socket,
    present: &mut BTreeMap<PublishedKey, Target>,
    gone: &[(PublishedKey, Target)],
) -> Result<(), NetworkError> {
    if gone.is_empty() {
        return Ok(());
    }
    let remove: Vec<_> = gone.iter().map(|(key, target)| element(key, *target)).collect();
    match table.change(socket, &remove, &[]) {
        // Somebody flushed the table: what is there still goes one by one.
        Err(refusal) if refusal.is(libc::ENOENT) => {
            for one in &remove {
                match table.change(socket, std::slice::from_ref(one), &[]) {
                    Err(refusal) if !refusal.is(libc::ENOENT) => return Err(refusal.into()),
                    _ => {}
                }
            }
        }
        outcome => outcome?,
    }
    failpoint("network.unpublish.elements");
    for (key, _) in gone {
        present.remove(key);
    }
    if gone.iter().any(|(key, _)| key.protocol == Protocol::Udp) {
        conntrack::forget(socket, |flow| {
            gone.iter().any(|(key, target)| key.is_destination_of(flow) && flow.answers == target.0)
        })?;
    }
    failpoint("network.unpublish.flows");
    Ok(())
}

fn delete_link(route: &mut Socket, name: &str) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    link::delete_link(&mut batch, name);
    match route.run(&mut batch) {
        // It went by itself in between.
        Err(refusal) if refusal.is(libc::ENODEV) => Ok(()),
        outcome => Ok(outcome?),
    }
}

fn wait_for_event(events: &mut Socket, left: Duration) {
    let timeout = Timespec::try_from(left).ok();
    let mut wait = [PollFd::new(events.descriptor(), PollFlags::IN)];
    // Whatever it says, the caller looks again and minds the deadline.
    let _ = rustix::event::poll(&mut wait, timeout.as_ref());
    while events.receive(RecvFlags::DONTWAIT).is_ok() {}
}
