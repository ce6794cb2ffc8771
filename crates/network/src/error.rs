//! What can go wrong on the host's network.

use std::io;
use std::net::IpAddr;

use dozen_model::{Classified, ErrorKind};

use crate::address::Ipv4Subnet;
use crate::netlink::Refusal;

/// A failure of the network's.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused a request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A kernel setting under /proc/sys could not be read or written.
    #[error("cannot {action} the kernel setting {name}")]
    Setting {
        /// `read` or `set`.
        action: &'static str,
        /// As sysctl(8) names it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A network namespace could not be made.
    #[error("cannot {what}")]
    Namespace {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Every subnet that may be used overlaps a route or an address of the host.
    #[error("no subnet is free for the bridge {bridge}: every address pool overlaps a route or an address of the host")]
    NoFreeSubnet {
        /// The bridge.
        bridge: String,
    },
    /// The subnet that the user chose for the bridge overlaps something else.
    #[error("the bridge {bridge} cannot have {subnet}: it overlaps a route, an address of the host or another network")]
    SubnetTaken {
        /// The bridge.
        bridge: String,
        /// Its subnet.
        subnet: Ipv4Subnet,
    },
    /// Every address of the subnet is in use.
    #[error("no address is free on the bridge {bridge}: all {usable} of {subnet} are in use")]
    AddressesExhausted {
        /// The bridge.
        bridge: String,
        /// Its subnet.
        subnet: String,
        /// How many containers it can have.
        usable: u128,
    },
    /// An endpoint's address is not the bridge's to give, or has another owner.
    #[error("the address {address} on the bridge {bridge} is in use or outside its subnet")]
    AddressTaken {
        /// The bridge.
        bridge: String,
        /// The address.
        address: IpAddr,
    },
    /// As [`Self::NoFreeSubnet`], for a network of the user's (Docker's words).
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    PoolsExhausted,
    /// The address that a container asked for has an owner (Docker's words).
    #[error("Address already in use")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The address that a container asked for is of no subnet of the network (Docker's words).
    #[error("no configured subnet or ip-range contain the IP address {address}")]
    OutsideSubnets {
        /// The address.
        address: IpAddr,
    },
    /// A further address is one of those that the network gives out.
    #[error("the address {address} is of the network's own subnet, and no link-local one")]
    InSubnet {
        /// The address.
        address: IpAddr,
    },
    /// An IPv6 address is asked for on an interface that has no IPv6.
    #[error("an IPv6 address is asked for, and the interface has no IPv6")]
    Ipv6Disabled,
    /// An interface of a container's has no such kernel setting (Docker's words).
    #[error("/proc/sys/net/{path} is not a sysctl file")]
    NoSuchSetting {
        /// Below /proc/sys/net.
        path: String,
    },
    /// The kernel refuses the value of an interface's setting.
    #[error("unable to write {value:?} to '/proc/sys/net/{path}'")]
    InterfaceSetting {
        /// Below /proc/sys/net.
        path: String,
        /// What it should be.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tag of an engine is not one.
    #[error("invalid network tag {0:?}: want up to 8 lower-case letters and digits")]
    InvalidInstance(String),
    /// The name of the bridge belongs to an interface that is none.
    #[error("the interface {0} is not a bridge")]
    NotABridge(String),
    /// The name of a network's bridge belongs to an interface of somebody else's.
    #[error("the interface {0} is there, and is not this network's")]
    InterfaceTaken(String),
    /// The interface that a network lies on is not there (Docker's words).
    #[error("-o parent interface does not exist on the host: {name}")]
    NoParent {
        /// The interface.
        name: String,
    },
    /// The kernel has no such links.
    #[error("this kernel has no {kind} interfaces")]
    NotInKernel {
        /// The kernel's word.
        kind: &'static str,
    },
    /// A port is published on an address of a family of which the container has none.
    #[error("cannot publish a port on {address}: the container has no address of that kind")]
    NotOfFamily {
        /// The host's address.
        address: IpAddr,
    },
}

impl Classified for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) | Self::Setting { .. } | Self::Namespace { .. } => ErrorKind::Internal,
            Self::NoFreeSubnet { .. } | Self::AddressesExhausted { .. } | Self::PoolsExhausted => ErrorKind::Exhausted,
            Self::SubnetTaken { .. }
            | Self::AddressTaken { .. }
            | Self::AddressInUse { .. }
            | Self::NotABridge(_)
            | Self::InterfaceTaken(_) => ErrorKind::Conflict,
            Self::InvalidInstance(_)
            | Self::NotOfFamily { .. }
            | Self::OutsideSubnets { .. }
            | Self::NoParent { .. }
            | Self::InSubnet { .. }
            | Self::Ipv6Disabled
            | Self::NoSuchSetting { .. }
            | Self::InterfaceSetting { .. } => ErrorKind::Invalid,
            Self::NotInKernel { .. } => ErrorKind::NotBuilt,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) if refusal.is(libc::EPERM) => {
                Some("the engine needs CAP_NET_ADMIN: run it as root".to_owned())
            }
            Self::Refused(refusal) if refusal.is(libc::EOPNOTSUPP) || refusal.is(libc::ENOENT) => Some(
                "the kernel may lack a part: dozen needs bridge, veth, nf_tables with NAT and fib (Linux 5.6 or later)"
                    .to_owned(),
            ),
            Self::NoFreeSubnet { .. } => Some("give the engine an address pool of its own".to_owned()),
            Self::SubnetTaken { .. } => Some("choose another one: bip in the engine's configuration".to_owned()),
            Self::PoolsExhausted => Some("give the network a subnet of its own: --subnet".to_owned()),
            Self::AddressInUse { address } => Some(format!("another container of the network has {address}")),
            Self::AddressesExhausted { .. } => {
                Some("remove containers, or give the engine a larger address pool".to_owned())
            }
            Self::InSubnet { .. } => Some("ask for it with --ip or --ip6".to_owned()),
            Self::Ipv6Disabled => {
                Some("connect to a network with IPv6, and leave net.ipv6.conf.IFNAME.disable_ipv6 alone".to_owned())
            }
            Self::NoParent { .. } => Some("see `ip link` for those that are there".to_owned()),
            Self::NotInKernel { kind } => Some(format!("load it if it is a module: modprobe {kind}")),
            Self::NotABridge(name) | Self::InterfaceTaken(name) => {
                Some(format!("rename or remove it: ip link delete {name}"))
            }
            _ => None,
        }
    }
}
