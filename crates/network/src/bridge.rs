//! The default network: a bridge with a subnet of its own, behind the host's addresses.
//!
//! What happens, in order: `open` makes or adopts the bridge, its addresses and the nftables table; `attach` makes a
//! container's namespace with a link to the bridge; `publish` leads ports of the host to it. `unpublish` and `release`
//! undo the two; the link itself goes with the namespace. After a restart: `open`, `restore` for each container that
//! runs, `retain` with all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dozen_model::{ContainerId, Protocol};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;

use crate::address::{self, BridgeAddresses, Endpoint, Ipv4Subnet, MacAddress};
use crate::conntrack;
use crate::error::NetworkError;
use crate::firewall::{Element, PublishedKey, Rules, Table, other_tables};
use crate::forwarding::{self, Opened};
use crate::link::{self, InterfaceAddress, Link};
use crate::namespace;
use crate::netlink::{Batch, Socket};
use crate::pool::AddressPool;
use crate::ports::PublishedPort;
use crate::sysctl;

/// The bridge of the engine without a tag.
pub(crate) const DEFAULT_BRIDGE: &str = "dozen0";
/// What the names of the other engines' bridges begin with.
pub(crate) const TAGGED_BRIDGE: &str = "dz-";
/// How long `attach` waits for a link to go when every address rests. The kernel takes some 20 ms.
const LINK_GONE_TIMEOUT: Duration = Duration::from_secs(2);
/// `RTMGRP_LINK`.
const LINK_EVENTS: u32 = 1;
const IPV6_PREFIX_LENGTH: u8 = 64;

/// What the network of one engine is asked to be.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    /// Empty for the engine that is alone: bridge `dozen0`, table `dozen`. Otherwise a tag of up to 8 lower-case
    /// letters and digits: bridge `dz-TAG`, table `dozen-TAG`.
    pub instance: String,
    /// Subnets to choose from, as (address, prefix length); empty for [`address::default_pools`].
    pub address_pools: Vec<(Ipv4Addr, u8)>,
    /// Whether containers get IPv6 too: a unique local /64, behind the host's address as IPv4 is.
    pub ipv6: bool,
    /// What this engine used before; kept if nothing of the host's stands in its way by now.
    pub previous: Option<BridgeAddresses>,
}

/// The default network of one engine, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct BridgeNetwork {
    addresses: BridgeAddresses,
    index: u32,
    table: Table,
    /// br_netfilter puts bridged packets through the host's rules: see [`link::hairpin`].
    hairpin: bool,
    route: Mutex<Socket>,
    pool: Mutex<AddressPool>,
    published: Mutex<Published>,
}

/// The nftables socket and what its table holds; one lock, so that they cannot differ.
#[derive(Debug)]
struct Published {
    socket: Socket,
    ports: BTreeMap<PublishedKey, Target>,
}

/// A container's address and port.
type Target = (IpAddr, u16);

impl BridgeNetwork {
    /// Makes the bridge and its table, or adopts what an earlier engine of this tag left.
    ///
    /// Running containers notice nothing: the table is replaced in one transaction, its ports included.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let (bridge, table) = names(&config.instance)?;
        let mut route = Socket::route()?;
        let mut netfilter = Socket::netfilter()?;
        let addresses = choose_addresses(&mut route, &config, &bridge)?;
        let index = ensure_bridge(&mut route, &addresses)?;
        let elements = table.read(&mut netfilter)?;
        let ports: BTreeMap<_, _> = elements
            .iter()
            .filter_map(Element::parse_published)
            .map(|(key, address, port)| (key, (address, port)))
            .collect();
        let network = Self {
            hairpin: sysctl_is_one("bridge/bridge-nf-call-iptables")
                || sysctl_is_one("bridge/bridge-nf-call-ip6tables"),
            pool: Mutex::new(AddressPool::new(addresses.ipv4_subnet(), addresses.ipv4_gateway)),
            addresses,
            index,
            table,
            route: Mutex::new(route),
            published: Mutex::new(Published { socket: netfilter, ports }),
        };
        network.set_up_table(&Opened::of(&elements))?;
        network.set_up_bridge()?;
        Ok(network)
    }

    /// The bridge's name and addresses.
    pub fn addresses(&self) -> &BridgeAddresses {
        &self.addresses
    }

    /// Makes a network namespace with loopback and `eth0` up, addresses and default routes set, linked to the bridge.
    ///
    /// The link lives as long as the namespace: as long as the descriptor or a process in it.
    pub fn attach(&self, container_id: &ContainerId) -> Result<(Endpoint, OwnedFd), NetworkError> {
        let ipv4 = self.take_address()?;
        let ipv6 = self.addresses.ipv6_beside(ipv4);
        let endpoint = Endpoint {
            interface: interface_name(container_id),
            mac: MacAddress::beside(ipv4),
            ipv4,
            ipv4_prefix_length: self.addresses.ipv4_prefix_length,
            ipv4_gateway: self.addresses.ipv4_gateway,
            ipv6,
            ipv6_prefix_length: if ipv6.is_some() { IPV6_PREFIX_LENGTH } else { 0 },
            ipv6_gateway: self.addresses.ipv6_gateway,
        };
        let connect = |namespace: &OwnedFd| {
            let mut batch = Batch::default();
            let number = namespace::number_of(namespace);
            link::create_veth(&mut batch, &endpoint.interface, self.index, number, endpoint.mac);
            if self.hairpin {
                link::hairpin(&mut batch, &endpoint.interface);
            }
            Ok(locked(&self.route).run(&mut batch)?)
        };
        match namespace::new_endpoint_namespace(&endpoint, connect) {
            Ok(namespace) => Ok((endpoint, namespace)),
            Err(error) => {
                // The namespace is going, and a link in it with it.
                locked(&self.pool).release(ipv4, &endpoint.interface);
                Err(error)
            }
        }
    }

    /// After a restart: the addresses of a container that runs are its own, and its ports lead to it.
    pub fn restore(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        if !locked(&self.pool).reserve(endpoint.ipv4) {
            let (bridge, address) = (self.addresses.name.clone(), endpoint.ipv4.into());
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
        let mut published = locked(&self.published);
        let Published { socket, ports: present } = &mut *published;
        let remove: Vec<_> = wanted
            .iter()
            .filter_map(|(key, target)| present.get(key).filter(|old| *old != target).map(|old| element(key, *old)))
            .collect();
        let add: Vec<_> = wanted.iter().map(|(key, target)| element(key, *target)).collect();
        self.table.change(socket, &remove, &add)?;
        present.extend(wanted.iter().copied());
        // A flow that began before still goes to the host itself, or to a container that is gone.
        if let Some(udp) = udp_keys(&wanted) {
            let local = self.local_addresses()?;
            conntrack::forget(socket, |flow| {
                local(flow.destination)
                    && udp.iter().any(|(key, target)| matches(key, flow) && flow.answers != target.0)
            })?;
        }
        Ok(())
    }

    /// Undoes [`publish`](Self::publish). What leads to another container by now stays.
    pub fn unpublish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        let wanted = wanted(endpoint, ports)?;
        let mut published = locked(&self.published);
        let Published { socket, ports: present } = &mut *published;
        let ours: Vec<_> = wanted.into_iter().filter(|(key, target)| present.get(key) == Some(target)).collect();
        remove_ports(&self.table, socket, present, &ours)
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
            let mut published = locked(&self.published);
            let Published { socket, ports: present } = &mut *published;
            let gone: Vec<_> = present
                .iter()
                .filter(|(_, target)| !addresses.contains(&target.0))
                .map(|(key, target)| (*key, *target))
                .collect();
            errors.extend(remove_ports(&self.table, socket, present, &gone).err());
        }
        let interfaces: BTreeSet<&str> = running.iter().map(|endpoint| endpoint.interface.as_str()).collect();
        let mut route = locked(&self.route);
        match link::links(&mut route) {
            Ok(links) => {
                let ports = links.values().filter(|link| link.master == Some(self.index));
                for port in ports.filter(|link| !interfaces.contains(link.name.as_str())) {
                    errors.extend(delete_link(&mut route, &port.name).err());
                }
            }
            Err(refusal) => errors.push(refusal.into()),
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Looks again which of the host's interfaces have to forward: to be called when the host's addresses changed.
    pub fn refresh(&self) -> Result<(), NetworkError> {
        let mut published = locked(&self.published);
        let elements = self.table.read(&mut published.socket)?;
        drop(published);
        self.set_up_table(&Opened::of(&elements))
    }

    /// Removes the bridge, the links on it, the table, and turns off the forwarding that we turned on.
    /// Goes on past failures and reports them all. To be called in the namespace that the network was opened in.
    pub fn teardown(&self) -> Result<(), Vec<NetworkError>> {
        let mut errors = Vec::new();
        {
            let mut published = locked(&self.published);
            let Published { socket, ports } = &mut *published;
            match self.hand_over(socket) {
                Ok(opened) => errors.extend(forwarding::undo(&opened)),
                Err(error) => errors.push(error),
            }
            match self.table.delete(socket) {
                Ok(()) => ports.clear(),
                Err(refusal) => errors.push(refusal.into()),
            }
        }
        let mut route = locked(&self.route);
        match link::links(&mut route) {
            Ok(links) => {
                for port in links.values().filter(|link| link.master == Some(self.index)) {
                    errors.extend(delete_link(&mut route, &port.name).err());
                }
            }
            Err(refusal) => errors.push(refusal.into()),
        }
        errors.extend(delete_link(&mut route, &self.addresses.name).err());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// What forwarding is ours to turn off: none while another engine is there, which then has it in its record.
    fn hand_over(&self, socket: &mut Socket) -> Result<Opened, NetworkError> {
        let opened = Opened::of(&self.table.read(socket)?);
        if opened.is_empty() {
            return Ok(opened);
        }
        let Some(heir) = other_tables(socket, &self.table)?.into_iter().next() else { return Ok(opened) };
        // With the switch for all of IPv6, the heir's next start adds the rule that goes with it.
        heir.change(socket, &[], &opened.elements())?;
        Ok(Opened::default())
    }

    /// Replaces the table by what it must be now, then turns forwarding on where it is needed: in this order, so that
    /// no packet is forwarded that only the new table drops, and nothing is turned on that no record tells of.
    fn set_up_table(&self, before: &Opened) -> Result<(), NetworkError> {
        let (ipv4, ipv6) = self.uplinks()?;
        let ipv6 = self.addresses.ipv6_gateway.is_some().then_some(ipv6);
        let plan = forwarding::plan(before, &ipv4, ipv6.as_ref())?;
        let rules = Rules {
            bridge: self.addresses.name.clone(),
            ipv4: self.addresses.ipv4_subnet(),
            ipv6: self.addresses.ipv6_subnet(),
            ipv6_forwarding_is_ours: plan.opened.ipv6.contains(forwarding::ALL_INTERFACES),
        };
        let mut published = locked(&self.published);
        let Published { socket, ports } = &mut *published;
        let mut elements = plan.opened.elements();
        elements.extend(ports.iter().map(|(key, target)| element(key, *target)));
        self.table.replace(socket, &rules, &elements)?;
        forwarding::carry_out(&plan)
    }

    /// The interfaces that are no engine's and have a global IPv4 address; those that have a global IPv6 address.
    fn uplinks(&self) -> Result<(BTreeSet<String>, BTreeSet<String>), NetworkError> {
        let mut route = locked(&self.route);
        let links = link::links(&mut route)?;
        let addresses = link::addresses(&mut route)?;
        let with = |ipv4: bool| {
            addresses
                .iter()
                .filter(|a| a.global && a.address.is_ipv4() == ipv4)
                .filter_map(|a| links.get(&a.index))
                .filter(|link| link.index != link::LOOPBACK_INDEX && !is_engines(&link.name))
                .map(|link| link.name.clone())
                .collect()
        };
        Ok((with(true), with(false)))
    }

    /// The bridge's own settings. `route_localnet` comes last: the table guards it by now.
    fn set_up_bridge(&self) -> Result<(), NetworkError> {
        let bridge = &self.addresses.name;
        if let Some(gateway) = self.addresses.ipv6_gateway {
            sysctl::ensure(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")?;
            // No container tells the host its routes.
            for setting in ["accept_ra", "autoconf", "accept_redirects"] {
                sysctl::ensure(&format!("ipv6/conf/{bridge}/{setting}"), "0")?;
            }
            if !sysctl_is_one("ipv6/conf/all/forwarding") {
                sysctl::ensure(&format!("ipv6/conf/{bridge}/force_forwarding"), "1")?;
            }
            let mut batch = Batch::default();
            link::add_address(&mut batch, self.index, gateway.into(), IPV6_PREFIX_LENGTH);
            locked(&self.route).run(&mut batch)?;
        } else {
            sysctl::ensure(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1")?;
        }
        sysctl::ensure(&format!("ipv4/conf/{bridge}/accept_redirects"), "0")?;
        sysctl::ensure(&format!("ipv4/conf/{bridge}/forwarding"), "1")?;
        sysctl::ensure(&format!("ipv4/conf/{bridge}/route_localnet"), "1")?;
        Ok(())
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
            let links = link::links(&mut locked(&self.route))?;
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
        let subnet = self.addresses.ipv4_subnet();
        Err(NetworkError::AddressesExhausted {
            bridge: self.addresses.name.clone(),
            subnet: subnet.to_string(),
            usable: subnet.usable() - 1,
        })
    }

    /// Whether an address is one of the host's own.
    fn local_addresses(&self) -> Result<impl Fn(IpAddr) -> bool + use<>, NetworkError> {
        let own: BTreeSet<IpAddr> =
            link::addresses(&mut locked(&self.route))?.into_iter().map(|address| address.address).collect();
        Ok(move |address: IpAddr| address.is_loopback() || own.contains(&address))
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

fn is_engines(interface: &str) -> bool {
    interface == DEFAULT_BRIDGE || interface.starts_with(TAGGED_BRIDGE)
}

/// `dz`, six digits of the container's id for those who read `ip link`, and four that differ each time: the link of
/// the container's last run may still be going.
fn interface_name(container_id: &ContainerId) -> String {
    let mut random = [0u8; 2];
    // Should the kernel have no randomness, the name is merely less unlikely to be taken.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("dz{}x{:04x}", &container_id.as_str()[..6], u16::from_ne_bytes(random))
}

/// The addresses that the bridge has, had before, or can have, in this order.
fn choose_addresses(route: &mut Socket, config: &NetworkConfig, bridge: &str) -> Result<BridgeAddresses, NetworkError> {
    let links = link::links(route)?;
    let present = links.values().find(|link| link.name == bridge);
    if let Some(Link { kind, .. }) = present
        && kind.as_deref() != Some("bridge")
    {
        return Err(NetworkError::NotABridge(bridge.to_owned()));
    }
    let index = present.map(|link| link.index);
    let has_ports = links.values().any(|link| link.master.is_some() && link.master == index);
    let addresses = link::addresses(route)?;
    let mut taken: Vec<Ipv4Subnet> = addresses
        .iter()
        .filter(|address| Some(address.index) != index)
        .filter_map(|address| match address.address {
            IpAddr::V4(ipv4) => Some(Ipv4Subnet::containing(ipv4, address.prefix_length)),
            IpAddr::V6(_) => None,
        })
        .collect();
    let routes = link::routed_subnets(route)?;
    taken.extend(routes.into_iter().filter(|(by, _)| by.is_none() || *by != index).map(|(_, subnet)| subnet));
    let free = |gateway: &Ipv4Addr, prefix_length: u8| {
        let subnet = Ipv4Subnet::containing(*gateway, prefix_length);
        subnet.usable() >= 2 && !taken.iter().any(|other| other.overlaps(subnet))
    };
    let own = addresses.iter().filter(|address| Some(address.index) == index && address.global);
    let on_bridge = own.clone().find_map(|address| match address.address {
        IpAddr::V4(ipv4) => Some((ipv4, address.prefix_length)),
        IpAddr::V6(_) => None,
    });
    let previous = config.previous.as_ref().map(|previous| (previous.ipv4_gateway, previous.ipv4_prefix_length));
    // Containers on the bridge keep it where it is, whatever the host does by now.
    let kept = on_bridge
        .filter(|_| has_ports)
        .or_else(|| previous.or(on_bridge).filter(|(gateway, prefix_length)| free(gateway, *prefix_length)));
    let (ipv4_gateway, ipv4_prefix_length) = match kept {
        Some(kept) => kept,
        None => {
            let pools =
                if config.address_pools.is_empty() { address::default_pools() } else { config.address_pools.clone() };
            let subnet = address::choose_subnet(&pools, &taken)
                .ok_or_else(|| NetworkError::NoFreeSubnet { bridge: bridge.to_owned() })?;
            (subnet.address(1), subnet.prefix_length())
        }
    };
    let ipv6_gateway = choose_ipv6(config, own)?;
    Ok(BridgeAddresses {
        name: bridge.to_owned(),
        ipv4_gateway,
        ipv4_prefix_length,
        ipv6_gateway,
        ipv6_prefix_length: IPV6_PREFIX_LENGTH,
    })
}

/// The IPv6 address that the bridge has, had before, or follows from the machine's id; `None` if it is not wanted or
/// the kernel has no IPv6.
fn choose_ipv6<'a>(
    config: &NetworkConfig,
    mut own: impl Iterator<Item = &'a InterfaceAddress>,
) -> Result<Option<Ipv6Addr>, NetworkError> {
    if !config.ipv6 || sysctl::read("ipv6/conf/all/disable_ipv6")?.is_none() {
        return Ok(None);
    }
    let on_bridge = own.find_map(|address| match address.address {
        IpAddr::V6(ipv6) if address.prefix_length == IPV6_PREFIX_LENGTH => Some(ipv6),
        _ => None,
    });
    let previous = config.previous.as_ref().and_then(|previous| previous.ipv6_gateway);
    Ok(Some(on_bridge.or(previous).unwrap_or_else(|| {
        // Without an id (a minimal root may have none) the engine keeps a random choice by `previous`.
        let machine = fs::read("/etc/machine-id").ok().filter(|id| !id.is_empty()).unwrap_or_else(|| {
            let mut random = vec![0; 16];
            let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
            random
        });
        let subnet = address::unique_local_subnet(&machine, &config.instance);
        Ipv6Addr::from_bits(subnet.to_bits() | 1)
    })))
}

/// Makes the bridge unless it is there, and gives it its IPv4 address; its index.
fn ensure_bridge(route: &mut Socket, addresses: &BridgeAddresses) -> Result<u32, NetworkError> {
    let mut batch = Batch::default();
    link::create_bridge(&mut batch, &addresses.name, MacAddress::beside(addresses.ipv4_gateway));
    match route.run(&mut batch) {
        Err(refusal) if !refusal.is(libc::EEXIST) => return Err(refusal.into()),
        _ => {}
    }
    let index = rustix::net::netdevice::name_to_index(route.descriptor(), &addresses.name)
        .map_err(|error| NetworkError::Namespace { what: "find the bridge just made", source: error.into() })?;
    let stale: Vec<_> = link::addresses(route)?
        .into_iter()
        .filter(|a| a.index == index && a.address.is_ipv4() && a.address != IpAddr::V4(addresses.ipv4_gateway))
        .collect();
    let mut batch = Batch::default();
    for address in stale {
        link::delete_address(&mut batch, index, address.address, address.prefix_length);
    }
    link::bring_up(&mut batch, index);
    link::add_address(&mut batch, index, addresses.ipv4_gateway.into(), addresses.ipv4_prefix_length);
    route.run(&mut batch)?;
    Ok(index)
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

fn element(key: &PublishedKey, target: Target) -> Element {
    Element::published(key, target.0, target.1)
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
    for (key, _) in gone {
        present.remove(key);
    }
    if let Some(udp) = udp_keys(gone) {
        conntrack::forget(socket, |flow| {
            udp.iter().any(|(key, target)| matches(key, flow) && flow.answers == target.0)
        })?;
    }
    Ok(())
}

fn udp_keys(ports: &[(PublishedKey, Target)]) -> Option<Vec<(PublishedKey, Target)>> {
    let udp: Vec<_> = ports.iter().filter(|(key, _)| key.protocol == Protocol::Udp).copied().collect();
    (!udp.is_empty()).then_some(udp)
}

/// Whether the flow was sent to this port of the host.
fn matches(key: &PublishedKey, flow: &conntrack::Flow) -> bool {
    key.port == flow.destination_port && crate::ports::overlap(key.address, flow.destination)
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

fn sysctl_is_one(name: &str) -> bool {
    sysctl::read(name).ok().flatten().as_deref() == Some("1")
}

/// A panic elsewhere leaves nothing half done that the next caller could not live with: each change is one request.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
