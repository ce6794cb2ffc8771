//! Networks of the user's own, and a container's places on them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::container::ContainerSpec;
use crate::id::NetworkId;
use crate::interface_sysctl::InterfaceSysctl;
use crate::network::NetworkMode;

/// The default bridge's name.
pub const DEFAULT_NETWORK: &str = "bridge";

/// What a network is asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// It leads nowhere else.
    pub internal: bool,
    /// Docker's word for what only Swarm minds.
    pub attachable: bool,
    /// Containers have IPv4 addresses.
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// Containers have IPv6 addresses.
    pub ipv6: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as they were given.
    pub options: BTreeMap<String, String>,
    /// How its containers are linked.
    #[serde(default)]
    pub driver: NetworkDriver,
    /// What the options mean for a bridge, and of any driver the size of packets.
    pub bridge: BridgeOptions,
    /// Subnets and what belongs to them, as they were asked for: at most one of each family.
    pub subnets: Vec<SubnetSpec>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            internal: false,
            attachable: false,
            ipv4: true,
            ipv6: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            driver: NetworkDriver::default(),
            bridge: BridgeOptions::default(),
            subnets: Vec::new(),
        }
    }
}

/// Networks that were made before there were some without IPv4 have it.
fn yes() -> bool {
    true
}

/// How a network's containers are linked: to a bridge of the host's, or each to an interface of the host's itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkDriver {
    /// By a pair of interfaces to a bridge.
    #[default]
    Bridge,
    /// As an interface with a hardware address of its own, on the parent's wire.
    Macvlan {
        /// The host's interface.
        parent: Parent,
        /// Who reaches whom.
        mode: MacvlanMode,
    },
    /// As an interface that shares the parent's hardware address.
    Ipvlan {
        /// The host's interface.
        parent: Parent,
        /// At which layer it is told whose a packet is.
        mode: IpvlanMode,
        /// Who reaches whom.
        flag: IpvlanFlag,
    },
}

impl NetworkDriver {
    /// Docker's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
        }
    }

    /// The host's interface that containers' interfaces lie on.
    pub fn parent(&self) -> Option<&Parent> {
        match self {
            Self::Bridge => None,
            Self::Macvlan { parent, .. } | Self::Ipvlan { parent, .. } => Some(parent),
        }
    }

    /// The same on another interface; a bridge has none.
    pub fn on(self, parent: Parent) -> Self {
        match self {
            Self::Bridge => Self::Bridge,
            Self::Macvlan { mode, .. } => Self::Macvlan { parent, mode },
            Self::Ipvlan { mode, flag, .. } => Self::Ipvlan { parent, mode, flag },
        }
    }
}

/// The interface that a network's interfaces lie on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// One that is the host's.
    Interface(String),
    /// That of a VLAN (802.1Q) on an interface of the host's, which the engine makes and removes: `eth0.10`.
    Vlan {
        /// The host's interface.
        of: String,
        /// The VLAN's id, 1 to 4094.
        id: u16,
    },
    /// None was named: one that leads nowhere, which the engine makes and removes (Docker's dummy link).
    Nowhere,
}

impl Parent {
    /// The interface's name, for the network of this id: as Docker calls them.
    pub fn interface(&self, network: &NetworkId) -> String {
        match self {
            Self::Interface(name) => name.clone(),
            Self::Vlan { of, id } => format!("{of}.{id}"),
            Self::Nowhere => format!("dm-{}", network.short()),
        }
    }
}

/// `macvlan_mode` (ip-link(8)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MacvlanMode {
    /// The containers of one parent reach each other.
    #[default]
    Bridge,
    /// They do not.
    Private,
    /// They do if the switch on the wire sends their frames back.
    Vepa,
    /// One container has the parent to itself, with its hardware address.
    Passthru,
}

impl MacvlanMode {
    /// By Docker's word; nothing is a bridge.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "" | "bridge" => Some(Self::Bridge),
            "private" => Some(Self::Private),
            "vepa" => Some(Self::Vepa),
            "passthru" => Some(Self::Passthru),
            _ => None,
        }
    }
}

/// `ipvlan_mode` (Documentation/networking/ipvlan.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpvlanMode {
    /// The containers are on the parent's wire.
    #[default]
    L2,
    /// The parent routes for them; nobody hears broadcasts.
    L3,
    /// As `L3`, and the host's firewall sees what they send and are sent.
    L3s,
}

impl IpvlanMode {
    /// By Docker's word; nothing is `l2`.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "" | "l2" => Some(Self::L2),
            "l3" => Some(Self::L3),
            "l3s" => Some(Self::L3s),
            _ => None,
        }
    }
}

/// `ipvlan_flag`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpvlanFlag {
    /// The containers of one parent reach each other.
    #[default]
    Bridge,
    /// They do not.
    Private,
    /// They do if the switch on the wire sends their frames back.
    Vepa,
}

impl IpvlanFlag {
    /// By Docker's word; nothing is a bridge.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "" | "bridge" => Some(Self::Bridge),
            "private" => Some(Self::Private),
            "vepa" => Some(Self::Vepa),
            _ => None,
        }
    }
}

/// Options of the bridge driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeOptions {
    /// `com.docker.network.bridge.name`; `None`: one that follows from the id.
    pub interface: Option<String>,
    /// `com.docker.network.bridge.enable_icc`: its containers reach each other.
    pub between_containers: bool,
    /// `com.docker.network.bridge.enable_ip_masquerade`: what leaves it is hidden behind the host's address.
    pub masquerade: bool,
    /// `com.docker.network.bridge.host_binding_ipv4`: where ports are published that name no address of the host's. An IPv6
    /// address too, whatever the name says.
    pub host_binding: Option<IpAddr>,
    /// `com.docker.network.driver.mtu`, in bytes.
    pub mtu: Option<u32>,
    /// `com.docker.network.bridge.inhibit_ipv4`: the bridge gets no IPv4 address from us; somebody else is the gateway.
    #[serde(default)]
    pub inhibit_ipv4: bool,
    /// `com.docker.network.container_iface_prefix`: what its interfaces inside are called before their number; `None`: `eth`.
    #[serde(default)]
    pub interface_prefix: Option<String>,
    /// `com.docker.network.bridge.gateway_mode_ipv4`.
    #[serde(default)]
    pub gateway_mode_ipv4: GatewayMode,
    /// `com.docker.network.bridge.gateway_mode_ipv6`.
    #[serde(default)]
    pub gateway_mode_ipv6: GatewayMode,
}

/// How containers of a bridge and the world outside reach each other, for one family of addresses (docs.docker.com, "Port
/// publishing and mapping").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Published ports are ports of the host's; what leaves is hidden behind the host's address.
    #[default]
    Nat,
    /// The same, and who has a route to a container reaches every port of it.
    NatUnprotected,
    /// Nothing is translated: published ports are reached at the container's own address by who has a route to it.
    Routed,
    /// The host has no address on the bridge: for internal networks.
    Isolated,
}

impl GatewayMode {
    /// By Docker's word.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "nat" => Some(Self::Nat),
            "nat-unprotected" => Some(Self::NatUnprotected),
            "routed" => Some(Self::Routed),
            "isolated" => Some(Self::Isolated),
            _ => None,
        }
    }
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            interface: None,
            between_containers: true,
            masquerade: true,
            host_binding: None,
            mtu: None,
            inhibit_ipv4: false,
            interface_prefix: None,
            gateway_mode_ipv4: GatewayMode::Nat,
            gateway_mode_ipv6: GatewayMode::Nat,
        }
    }
}

/// A subnet that was asked for. Addresses are of one family, and in the subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// Its first address.
    pub network: IpAddr,
    /// Length of its prefix.
    pub prefix_length: u8,
    /// The host in it; `None`: its second address.
    pub gateway: Option<IpAddr>,
    /// The part of it that containers get their addresses from, as first address and length of the prefix.
    pub range: Option<(IpAddr, u8)>,
    /// Addresses that are others', by the names that the user gave them.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A container's place on a network, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The network's id.
    pub network: NetworkId,
    /// The network's name. Should its id be gone, one of this name takes its place, as with Docker.
    pub network_name: String,
    /// Further names of the container on this network.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4: Option<Ipv4Addr>,
    /// A fixed address.
    pub ipv6: Option<Ipv6Addr>,
    /// A fixed hardware address, as `02:42:ac:11:00:02`.
    pub mac: Option<String>,
    /// The network of the highest priority has the default route; of several, the first by name.
    pub gateway_priority: i64,
    /// Docker's DriverOpts, as they were given: the next two are what they mean.
    #[serde(default)]
    pub driver_options: BTreeMap<String, String>,
    /// `com.docker.network.endpoint.ifname`: what its interface is called inside.
    #[serde(default)]
    pub interface: Option<String>,
    /// `com.docker.network.endpoint.sysctls`.
    #[serde(default)]
    pub sysctls: Vec<InterfaceSysctl>,
    /// Further addresses of the interface, which nobody else knows of.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
}

impl EndpointSpec {
    /// A place on this network with nothing else asked.
    pub fn on(network: NetworkId, network_name: impl Into<String>) -> Self {
        Self {
            network,
            network_name: network_name.into(),
            aliases: Vec::new(),
            ipv4: None,
            ipv6: None,
            mac: None,
            gateway_priority: 0,
            driver_options: BTreeMap::new(),
            interface: None,
            sysctls: Vec::new(),
            link_local: Vec::new(),
        }
    }

    /// On the default bridge.
    pub fn default_bridge() -> Self {
        Self::on(NetworkId::predefined(DEFAULT_NETWORK), DEFAULT_NETWORK)
    }
}

impl ContainerSpec {
    /// Its places on networks, in the order of its interfaces: none where it has no network of its own.
    pub fn places(&self) -> Vec<EndpointSpec> {
        match (&self.endpoints, &self.network) {
            (Some(endpoints), _) => endpoints.clone(),
            // From before a container could have several.
            (None, NetworkMode::Bridge) => vec![EndpointSpec::default_bridge()],
            (None, _) => Vec::new(),
        }
    }
}
