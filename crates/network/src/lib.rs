//! Networks: bridges with addresses of their own, kept apart from each other, veth pairs into containers' namespaces,
//! outgoing NAT and published ports. [`HostNetwork`] is what an engine has once, [`BridgeNetwork`] is one network.
//!
//! All of it by netlink, encoded here and sent in batches over blocking sockets (`netlink`): a container's start
//! takes a handful of system calls and no other program. What is decided without the kernel is plain code: which
//! subnet (`address`), which address (`pool`), which port ([`ports`]), what a container's files say ([`files`], [`resolv_conf`]),
//! what the firewall's rules are (`firewall`).

mod address;
mod bridge;
mod conntrack;
mod error;
mod failpoint;
pub mod files;
mod firewall;
mod forwarding;
mod host;
mod host_network;
mod link;
mod namespace;
mod netlink;
mod parent;
mod pool;
pub mod ports;
pub mod reach;
pub mod resolv_conf;
mod setup;
mod sysctl;
mod watch;

pub use address::{
    BridgeAddresses, Destination, Endpoint, EndpointLink, Ipv4Subnet, Ipv6Subnet, MacAddress, MacAddressError,
    default_pools,
};
pub use bridge::{BridgeConfig, BridgeNetwork, EndpointWish, NetworkConfig};
pub use error::NetworkError;
pub use failpoint::FAILPOINTS;
pub use firewall::foreign as firewall_check;
pub use firewall::names as name_translation;
pub use firewall::opening::Unopened;
pub use host_network::HostNetwork;
pub use namespace::{Gateways, Plug, new_loopback_namespace, new_namespace, plug, set_gateways, unplug};
pub use netlink::Refusal;
pub use parent::{IpvlanFlag, IpvlanMode, MacvlanMode, ParentLink, ParentMode};
pub use ports::{DirectPort, PortsError, PublishedPort};
