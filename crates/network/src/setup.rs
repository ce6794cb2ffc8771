//! How a bridge comes to be: its addresses, the link itself, its settings.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::GatewayMode;

use crate::address::{self, BridgeAddresses, Ipv4Subnet};
use crate::bridge::{BridgeConfig, IPV6_PREFIX_LENGTH, NetworkConfig};
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::host::{Host, locked};
use crate::link::{self, InterfaceAddress, Link};
use crate::netlink::{Batch, Socket};
use crate::sysctl;

/// The addresses that the bridge has, had before, or can have, in this order.
pub(crate) fn choose_addresses(
    route: &mut Socket,
    config: &NetworkConfig,
    bridge: &str,
) -> Result<BridgeAddresses, NetworkError> {
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
    taken.extend(&config.avoid);
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
    let previous =
        config.previous.as_ref().and_then(|previous| Some((previous.ipv4_gateway?, previous.ipv4_prefix_length)));
    // Containers on the bridge keep it where it is, whatever the host does by now.
    let kept = on_bridge
        .filter(|_| has_ports)
        .or_else(|| config.ipv4.or(previous).or(on_bridge).filter(|(gateway, length)| free(gateway, *length)));
    let (ipv4_gateway, ipv4_prefix_length) = match (kept, config.ipv4) {
        (Some(kept), _) => kept,
        (None, Some((address, prefix_length))) => {
            let subnet = Ipv4Subnet::containing(address, prefix_length);
            return Err(NetworkError::SubnetTaken { bridge: bridge.to_owned(), subnet });
        }
        (None, None) => {
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
        ipv4_gateway: Some(ipv4_gateway),
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
        let machine = machine_id();
        let subnet = address::unique_local_subnet(&machine, &config.instance);
        Ipv6Addr::from_bits(subnet.to_bits() | 1)
    })))
}

/// What tells this machine from others; random where it does not say.
pub(crate) fn machine_id() -> Vec<u8> {
    fs::read("/etc/machine-id").ok().filter(|id| !id.is_empty()).unwrap_or_else(|| {
        let mut random = vec![0; 16];
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        random
    })
}

/// The IPv4 subnets that the host has an address in or a route to.
pub(crate) fn occupied(route: &mut Socket) -> Result<Vec<Ipv4Subnet>, NetworkError> {
    let addresses = link::addresses(route)?.into_iter().filter_map(|address| match address.address {
        IpAddr::V4(ipv4) => Some(Ipv4Subnet::containing(ipv4, address.prefix_length)),
        IpAddr::V6(_) => None,
    });
    let mut taken: Vec<Ipv4Subnet> = addresses.collect();
    taken.extend(link::routed_subnets(route)?.into_iter().map(|(_, subnet)| subnet));
    Ok(taken)
}

/// Makes the bridge unless it is there, and gives it its IPv4 address if it is to have one; its index.
pub(crate) fn ensure_bridge(route: &mut Socket, config: &BridgeConfig) -> Result<u32, NetworkError> {
    let addresses = &config.addresses;
    let present = link::links(route)?.into_values().find(|link| link.name == addresses.name);
    if present.as_ref().is_some_and(|link| link.kind.as_deref() != Some("bridge")) {
        return Err(NetworkError::NotABridge(addresses.name.clone()));
    }
    let mut batch = Batch::default();
    link::create_bridge(&mut batch, &addresses.name, addresses.mac(), config.mtu);
    match route.run(&mut batch) {
        Err(refusal) if !refusal.is(libc::EEXIST) => return Err(refusal.into()),
        _ => {}
    }
    failpoint("network.open.bridge");
    let index = rustix::net::netdevice::name_to_index(route.descriptor(), &addresses.name)
        .map_err(|error| NetworkError::Namespace { what: "find the bridge just made", source: error.into() })?;
    let stale: Vec<_> = link::addresses(route)?
        .into_iter()
        .filter(|a| a.index == index && a.address.is_ipv4() && !config.inhibit_ipv4)
        .filter(|a| Some(a.address) != config.ipv4_of_bridge().map(IpAddr::V4))
        .collect();
    let mut batch = Batch::default();
    for address in stale {
        link::delete_address(&mut batch, index, address.address, address.prefix_length);
    }
    // One that was there before may have another.
    config.mtu.inspect(|mtu| link::set_mtu(&mut batch, index, *mtu));
    link::bring_up(&mut batch, index);
    if let Some(gateway) = config.ipv4_of_bridge() {
        link::add_address(&mut batch, index, gateway.into(), addresses.ipv4_prefix_length);
    }
    route.run(&mut batch)?;
    failpoint("network.open.addresses");
    Ok(index)
}

/// The bridge's own settings. `route_localnet` comes last: the table guards it by now.
pub(crate) fn settle(host: &Host, config: &BridgeConfig, index: u32) -> Result<(), NetworkError> {
    let BridgeConfig { addresses, .. } = config;
    let bridge = &addresses.name;
    if let Some(gateway) = config.ipv6_of_bridge() {
        sysctl::ensure(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")?;
        // No container tells the host its routes.
        for setting in ["accept_ra", "autoconf", "accept_redirects"] {
            sysctl::ensure(&format!("ipv6/conf/{bridge}/{setting}"), "0")?;
        }
        if !sysctl::is_one("ipv6/conf/all/forwarding") {
            sysctl::ensure(&format!("ipv6/conf/{bridge}/force_forwarding"), "1")?;
        }
        let mut batch = Batch::default();
        link::add_address(&mut batch, index, gateway.into(), addresses.ipv6_prefix_length);
        locked(&host.route).run(&mut batch)?;
    } else {
        sysctl::ensure(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1")?;
    }
    sysctl::ensure(&format!("ipv4/conf/{bridge}/accept_redirects"), "0")?;
    let is_isolated = config.gateway_mode_ipv4 == GatewayMode::Isolated;
    if is_isolated {
        // Nobody on it speaks to the host by another of its addresses either: there is no way back to them. Frames between
        // containers are not asked for it. (IPv6 is off here altogether.)
        sysctl::ensure(&format!("ipv4/conf/{bridge}/rp_filter"), "1")?;
    }
    // Without IPv4, whatever a container gives itself leads nowhere.
    let routes = if addresses.ipv4_gateway.is_some() && !is_isolated { "1" } else { "0" };
    sysctl::ensure(&format!("ipv4/conf/{bridge}/forwarding"), routes)?;
    sysctl::ensure(&format!("ipv4/conf/{bridge}/route_localnet"), routes)?;
    failpoint("network.open.settings");
    Ok(())
}
