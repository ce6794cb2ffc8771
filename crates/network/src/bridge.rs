//! One network: a bridge with subnets of its own, or an interface of the host's, and containers' places on it.
//!
//! What happens, in order: [`HostNetwork::bridge`] makes or adopts the bridge, or [`HostNetwork::on_parent`] the interface
//! that the network lies on; [`take`](BridgeNetwork::take) finds a
//! container's addresses, [`crate::new_namespace`] or [`crate::plug`] link it. [`release`](BridgeNetwork::release) gives
//! the addresses back; the link itself goes with the namespace. After a restart: [`restore`](BridgeNetwork::restore).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dozen_model::{ContainerId, GatewayMode, InterfaceSysctl};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;

use crate::address::{BridgeAddresses, Endpoint, EndpointLink, Ipv4Subnet, Ipv6Subnet, MacAddress};
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::host::locked;
use crate::host_network::HostNetwork;
use crate::link;
use crate::namespace;
use crate::netlink::{Batch, Socket};
use crate::parent::{self, ParentLink, ParentMode};
use crate::pool::{AddressPool, Ipv6Pool};

/// How long `take` waits for a link to go when every address rests. The kernel takes some 20 ms.
const LINK_GONE_TIMEOUT: Duration = Duration::from_secs(2);
/// `RTMGRP_LINK`.
const LINK_EVENTS: u32 = 1;
pub(crate) const IPV6_PREFIX_LENGTH: u8 = 64;

/// What the default network of one engine is asked to be.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    /// Empty for the engine that is alone: bridge `dozen0`, table `dozen`. Otherwise a tag of up to 8 lower-case
    /// letters and digits: bridge `dz-TAG`, table `dozen-TAG`.
    pub instance: String,
    /// Subnets to choose from, as (address, prefix length); empty for [`crate::default_pools`].
    pub address_pools: Vec<(Ipv4Addr, u8)>,
    /// Subnets of other networks, which need not be there yet.
    pub avoid: Vec<Ipv4Subnet>,
    /// Whether containers get IPv6 too: a unique local /64, behind the host's address as IPv4 is.
    pub ipv6: bool,
    /// The bridge's address and its subnet's prefix length, where the user has chosen them.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// As [`BridgeConfig::ipv4_range`].
    pub ipv4_range: Option<Ipv4Subnet>,
    /// As [`BridgeConfig::mtu`].
    pub mtu: Option<u32>,
    /// Its containers do not reach each other.
    pub isolated: bool,
    /// What this engine used before; kept if nothing of the host's stands in its way by now.
    pub previous: Option<BridgeAddresses>,
}

/// A network, all of it decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The bridge's name and its addresses.
    pub addresses: BridgeAddresses,
    /// It leads nowhere else.
    pub internal: bool,
    /// What leaves it is hidden behind the host's address.
    pub masquerade: bool,
    /// Its containers reach each other.
    pub between_containers: bool,
    /// Largest packet in bytes; `None`: the kernel's 1500.
    pub mtu: Option<u32>,
    /// The bridge gets no IPv4 address from us: somebody else on it is the gateway, and an address that somebody has given
    /// it stays.
    pub inhibit_ipv4: bool,
    /// How its IPv4 addresses and the world outside reach each other.
    pub gateway_mode_ipv4: GatewayMode,
    /// As for IPv4.
    pub gateway_mode_ipv6: GatewayMode,
    /// The part of the subnet that containers get their addresses from; `None`: all of it.
    pub ipv4_range: Option<Ipv4Subnet>,
    /// As for IPv4.
    pub ipv6_range: Option<Ipv6Subnet>,
    /// Addresses that only those get who ask for them.
    pub kept: BTreeSet<IpAddr>,
}

impl BridgeConfig {
    /// The bridge's own IPv4 address, if it is to have one.
    pub(crate) fn ipv4_of_bridge(&self) -> Option<Ipv4Addr> {
        let is_had = !self.inhibit_ipv4 && self.gateway_mode_ipv4 != GatewayMode::Isolated;
        self.addresses.ipv4_gateway.filter(|_| is_had)
    }

    /// As for IPv4.
    pub(crate) fn ipv6_of_bridge(&self) -> Option<Ipv6Addr> {
        self.addresses.ipv6_gateway.filter(|_| self.gateway_mode_ipv6 != GatewayMode::Isolated)
    }
    /// As the default network is.
    pub fn plain(addresses: BridgeAddresses) -> Self {
        Self {
            addresses,
            internal: false,
            masquerade: true,
            between_containers: true,
            mtu: None,
            inhibit_ipv4: false,
            gateway_mode_ipv4: GatewayMode::Nat,
            gateway_mode_ipv6: GatewayMode::Nat,
            ipv4_range: None,
            ipv6_range: None,
            kept: BTreeSet::new(),
        }
    }
}

/// What a container asks of its place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointWish {
    /// The name of the interface inside; empty for `eth0`.
    pub inside: String,
    /// `None`: any.
    pub ipv4: Option<Ipv4Addr>,
    /// `None`: any.
    pub ipv6: Option<Ipv6Addr>,
    /// `None`: one that follows from the IPv4 address, or from the IPv6 address where that is the only one.
    pub mac: Option<MacAddress>,
    /// As [`Endpoint::sysctls`]. Where they turn IPv6 off there is no IPv6 address.
    pub sysctls: Vec<InterfaceSysctl>,
    /// As [`Endpoint::link_local`].
    pub link_local: Vec<IpAddr>,
}

/// A network whose bridge is there, or the interface that it lies on.
#[derive(Debug)]
pub struct BridgeNetwork {
    on: Arc<HostNetwork>,
    config: BridgeConfig,
    attachment: Attachment,
    /// `None` without IPv4.
    pool: Option<Mutex<AddressPool>>,
    /// `None` without IPv6.
    pool6: Option<Mutex<Ipv6Pool>>,
}

/// What containers are linked to.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// A bridge of ours.
    Bridge {
        /// Its index.
        index: u32,
    },
    /// An interface of the host's.
    Parent {
        /// It is looked for each time: an interface that goes and comes has another index.
        parent: ParentLink,
        mode: ParentMode,
    },
}

impl BridgeNetwork {
    pub(crate) fn new(on: Arc<HostNetwork>, config: BridgeConfig, attachment: Attachment) -> Self {
        let addresses = &config.addresses;
        let kept4 = config.kept.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let kept6 = config.kept.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        });
        let pool = addresses.ipv4_subnet().zip(addresses.ipv4_gateway).map(|(subnet, gateway)| {
            Mutex::new(AddressPool::new(subnet, gateway).within(config.ipv4_range, kept4.collect()))
        });
        let pool6 = Ipv6Pool::of(addresses, config.ipv6_range, kept6.collect()).map(Mutex::new);
        Self { on, config, attachment, pool, pool6 }
    }

    /// Its bridge's name; `None` of one that lies on an interface of the host's.
    pub fn bridge_name(&self) -> Option<&str> {
        match self.attachment {
            Attachment::Bridge { .. } => Some(&self.config.addresses.name),
            Attachment::Parent { .. } => None,
        }
    }

    /// The bridge's name and addresses.
    pub fn addresses(&self) -> &BridgeAddresses {
        &self.config.addresses
    }

    /// Finds a container's addresses; they are its own until they are released.
    pub fn take(&self, container_id: &ContainerId, wish: &EndpointWish) -> Result<Endpoint, NetworkError> {
        let addresses = &self.config.addresses;
        let interface = interface_name(container_id);
        let disables_ipv6 = InterfaceSysctl::disable_ipv6(&wish.sysctls);
        self.refuse_link_local(wish, disables_ipv6)?;
        let ipv4 = self.take_ipv4(wish.ipv4)?;
        let give_back = || {
            if let (Some(pool), Some(ipv4)) = (&self.pool, ipv4) {
                locked(pool).release(ipv4, &interface);
            }
        };
        let ipv6 = match (disables_ipv6, wish.ipv6) {
            (Some(true), None) => Ok(None),
            (Some(true), Some(_)) => Err(NetworkError::Ipv6Disabled),
            (_, wanted) => self.take_ipv6(wanted, ipv4),
        };
        let ipv6 = ipv6.inspect_err(|_| give_back())?;
        let mac = match (wish.mac, ipv4, ipv6) {
            (Some(mac), _, _) => mac,
            (None, Some(ipv4), _) => MacAddress::beside(ipv4),
            (None, None, Some(ipv6)) => MacAddress::beside_ipv6(ipv6),
            (None, None, None) if disables_ipv6 == Some(true) => return Err(NetworkError::Ipv6Disabled),
            (None, None, None) => return Err(self.exhausted()),
        };
        Ok(Endpoint {
            interface,
            inside: if wish.inside.is_empty() { "eth0".to_owned() } else { wish.inside.clone() },
            mac,
            ipv4,
            ipv4_prefix_length: if ipv4.is_some() { addresses.ipv4_prefix_length } else { 0 },
            ipv4_gateway: addresses.ipv4_gateway.filter(|_| ipv4.is_some()),
            ipv6,
            ipv6_prefix_length: if ipv6.is_some() { addresses.ipv6_prefix_length } else { 0 },
            ipv6_gateway: addresses.ipv6_gateway.filter(|_| ipv6.is_some()),
            internal: self.config.internal,
            link: match &self.attachment {
                Attachment::Bridge { .. } => EndpointLink::Bridge,
                Attachment::Parent { mode, .. } => mode.endpoint_link(),
            },
            routed_ipv4: self.config.gateway_mode_ipv4 == GatewayMode::Routed,
            routed_ipv6: self.config.gateway_mode_ipv6 == GatewayMode::Routed,
            sysctls: wish.sysctls.clone(),
            link_local: wish.link_local.clone(),
        })
    }

    /// Addresses that nobody keeps account of must not be those that somebody else on the network has or will have.
    fn refuse_link_local(&self, wish: &EndpointWish, disables_ipv6: Option<bool>) -> Result<(), NetworkError> {
        for address in wish.link_local.iter().copied() {
            if self.config.addresses.contains(address) {
                return Err(NetworkError::InSubnet { address });
            }
            let has_ipv6 = disables_ipv6.map_or(self.pool6.is_some(), |disables| !disables);
            if address.is_ipv6() && !has_ipv6 {
                return Err(NetworkError::Ipv6Disabled);
            }
        }
        Ok(())
    }

    /// Links the namespace, and has `settle` give the link its addresses.
    pub(crate) fn connect(
        &self,
        endpoint: &mut Endpoint,
        namespace: BorrowedFd<'_>,
        mut settle: impl FnMut(&Endpoint) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        match &self.attachment {
            Attachment::Bridge { index } => {
                self.connect_to_bridge(*index, endpoint, namespace)?;
                settle(endpoint)
            }
            Attachment::Parent { parent, mode } => {
                let route = &self.on.host.route;
                let link = parent::ensure(&mut locked(route), parent)?;
                let child = parent::Wanted { parent: &link, mode: *mode, mtu: self.config.mtu };
                parent::connect(route, &child, endpoint, namespace::number_of(namespace), settle)
            }
        }
    }

    /// The link's name on the host becomes another if it is taken: once in 65536 runs of one container, if its last run is
    /// still going.
    fn connect_to_bridge(
        &self,
        index: u32,
        endpoint: &mut Endpoint,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetworkError> {
        let mut tries = 3;
        loop {
            let mut batch = Batch::default();
            let veth = link::Veth {
                name: &endpoint.interface,
                inside: &endpoint.inside,
                bridge: index,
                mac: endpoint.mac,
                mtu: self.config.mtu,
            };
            link::create_veth(&mut batch, &veth, namespace::number_of(namespace));
            if self.on.hairpin {
                link::hairpin(&mut batch, &endpoint.interface);
            }
            if !self.config.between_containers {
                link::isolate(&mut batch, &endpoint.interface);
            }
            tries -= 1;
            match locked(&self.on.host.route).run(&mut batch) {
                Err(refusal) if refusal.is(libc::EEXIST) && tries > 0 => {
                    let digits: String = endpoint.interface.chars().skip(2).take(6).collect();
                    endpoint.interface = interface_of(&digits);
                }
                outcome => {
                    outcome?;
                    failpoint("network.attach.link");
                    return Ok(());
                }
            }
        }
    }

    /// After a restart: the addresses of a container that runs are its own.
    pub fn restore(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let taken = |address| NetworkError::AddressTaken { bridge: self.config.addresses.name.clone(), address };
        let reserve4 = |address| self.pool.as_ref().is_some_and(|pool| locked(pool).reserve(address));
        let reserve6 = |address| self.pool6.as_ref().is_some_and(|pool| locked(pool).reserve(address));
        if let Some(ipv4) = endpoint.ipv4
            && !reserve4(ipv4)
        {
            return Err(taken(ipv4.into()));
        }
        if let Some(ipv6) = endpoint.ipv6
            && !reserve6(ipv6)
        {
            return Err(taken(ipv6.into()));
        }
        Ok(())
    }

    /// Gives the endpoint's addresses back; they are used again once the kernel has taken its link away.
    pub fn release(&self, endpoint: &Endpoint) {
        if let (Some(pool), Some(ipv6)) = (&self.pool6, endpoint.ipv6) {
            locked(pool).release(ipv6);
        }
        if let (Some(pool), Some(ipv4)) = (&self.pool, endpoint.ipv4) {
            locked(pool).release(ipv4, &endpoint.interface);
        }
    }

    fn take_ipv4(&self, wanted: Option<Ipv4Addr>) -> Result<Option<Ipv4Addr>, NetworkError> {
        match (&self.pool, wanted) {
            (None, None) => Ok(None),
            (Some(pool), None) => self.take_address(pool)?.map(Some).ok_or_else(|| self.exhausted()),
            (_, Some(wanted)) if !self.config.addresses.contains(wanted.into()) => {
                Err(NetworkError::OutsideSubnets { address: wanted.into() })
            }
            (Some(pool), Some(wanted)) if locked(pool).reserve(wanted) => Ok(Some(wanted)),
            (_, Some(wanted)) => Err(NetworkError::AddressInUse { address: wanted.into() }),
        }
    }

    /// Beside an IPv4 address none is had where none is free.
    fn take_ipv6(&self, wanted: Option<Ipv6Addr>, beside: Option<Ipv4Addr>) -> Result<Option<Ipv6Addr>, NetworkError> {
        let addresses = &self.config.addresses;
        match (&self.pool6, wanted) {
            (None, None) => Ok(None),
            (Some(pool), None) => {
                let beside = beside.and_then(|ipv4| addresses.ipv6_beside(ipv4));
                Ok(locked(pool).take(beside))
            }
            (_, Some(wanted)) if !addresses.contains(wanted.into()) => {
                Err(NetworkError::OutsideSubnets { address: wanted.into() })
            }
            (Some(pool), Some(wanted)) if locked(pool).reserve(wanted) => Ok(Some(wanted)),
            (_, Some(wanted)) => Err(NetworkError::AddressInUse { address: wanted.into() }),
        }
    }

    /// `None` if all are in use.
    fn take_address(&self, all: &Mutex<AddressPool>) -> Result<Option<Ipv4Addr>, NetworkError> {
        let mut pool = locked(all);
        if let Some(address) = pool.take() {
            return Ok(Some(address));
        }
        // Listening comes before the first look, so that no event falls between the two.
        let mut events = Socket::route_events(LINK_EVENTS)?;
        let deadline = Instant::now() + LINK_GONE_TIMEOUT;
        while pool.has_resting() {
            let links = link::links(&mut locked(&self.on.host.route))?;
            pool.wake(&links.into_values().map(|link| link.name).collect());
            if let Some(address) = pool.take() {
                return Ok(Some(address));
            }
            drop(pool);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait_for_event(&mut events, left);
            pool = locked(all);
        }
        Ok(None)
    }

    /// Locks the pools.
    fn exhausted(&self) -> NetworkError {
        let BridgeConfig { addresses, ipv4_range, ipv6_range, .. } = &self.config;
        let bridge = addresses.name.clone();
        let (subnet, usable) = match (ipv4_range.or(addresses.ipv4_subnet()), ipv6_range.or(addresses.ipv6_subnet())) {
            (Some(subnet), _) => {
                (subnet.to_string(), self.pool.as_ref().map_or(0, |pool| u128::from(locked(pool).size())))
            }
            (None, Some(subnet)) => (subnet.to_string(), self.pool6.as_ref().map_or(0, |pool| locked(pool).size())),
            (None, None) => ("no subnet".to_owned(), 0),
        };
        NetworkError::AddressesExhausted { bridge, subnet, usable }
    }
}

/// `dz`, six digits of the container's id for those who read `ip link`, and four that differ each time: the link of
/// the container's last run may still be going, and it may have several.
fn interface_name(container_id: &ContainerId) -> String {
    interface_of(&container_id.as_str()[..6])
}

fn interface_of(digits: &str) -> String {
    let mut random = [0u8; 2];
    // Should the kernel have no randomness, the name is merely less unlikely to be taken.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("dz{digits}x{:04x}", u16::from_ne_bytes(random))
}

/// Deletes a link by its name in the socket's namespace; fine when there is none.
pub(crate) fn delete_link(route: &mut Socket, name: &str) -> Result<(), NetworkError> {
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
