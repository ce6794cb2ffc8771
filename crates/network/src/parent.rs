//! Networks whose containers lie on an interface of the host's (macvlan, ipvlan), past the host's own network: no bridge,
//! no rule of ours, no published port.
//!
//! Each container has a link of its own in its namespace, made there at once: the host never has it under a name, and it
//! goes with the namespace. The parent is the host's, or a VLAN's sub-interface or a dummy that [`ensure`] makes.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::address::{Endpoint, EndpointLink, MacAddress};
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::host::locked;
use crate::link::{self, Link};
use crate::netlink::{Attributes, Batch, Refusal, Socket};

/// A link that a dying namespace takes along still has its address, and a parent to itself, for some 20 ms.
const LINK_GONE_TIMEOUT: Duration = Duration::from_secs(2);
const LINK_GONE_LOOK: Duration = Duration::from_millis(5);

/// `IFLA_MACVLAN_MODE`.
const MACVLAN_MODE: u16 = 1;
/// `IFLA_IPVLAN_MODE` and `IFLA_IPVLAN_FLAGS`.
const IPVLAN_MODE: u16 = 1;
const IPVLAN_FLAGS: u16 = 2;

/// How containers' links lie on the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentMode {
    /// With a hardware address each.
    Macvlan(MacvlanMode),
    /// With that of the parent.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// `enum macvlan_mode` (include/uapi/linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub enum MacvlanMode {
    Private = 1,
    Vepa = 2,
    Bridge = 4,
    Passthru = 8,
}

/// `enum ipvlan_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub enum IpvlanMode {
    L2 = 0,
    L3 = 1,
    L3s = 2,
}

/// `IPVLAN_F_PRIVATE` and `IPVLAN_F_VEPA`; a bridge is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub enum IpvlanFlag {
    Bridge = 0,
    Private = 1,
    Vepa = 2,
}

impl ParentMode {
    pub(crate) fn endpoint_link(self) -> EndpointLink {
        match self {
            Self::Macvlan(_) | Self::Ipvlan(IpvlanMode::L2, _) => EndpointLink::Parent,
            Self::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _) => EndpointLink::RoutedParent,
        }
    }

    /// Whether containers have the parent's hardware address.
    pub(crate) fn shares_mac(self) -> bool {
        matches!(self, Self::Ipvlan(..) | Self::Macvlan(MacvlanMode::Passthru))
    }

    /// The kernel's word, and what it is to be.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }

    pub(crate) fn encode(self, a: &mut Attributes<'_>) {
        match self {
            Self::Macvlan(mode) => a.u32(MACVLAN_MODE, mode as u32),
            Self::Ipvlan(mode, flag) => {
                a.u16(IPVLAN_MODE, mode as u16);
                a.u16(IPVLAN_FLAGS, flag as u16);
            }
        }
    }
}

/// The interface that containers' links lie on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentLink {
    /// One of the host's.
    Present {
        /// Its name.
        name: String,
    },
    /// Of a VLAN on one of the host's; made if it is not there.
    Vlan {
        /// Its name.
        name: String,
        /// The host's interface.
        of: String,
        /// The VLAN's id, 1 to 4094.
        id: u16,
    },
    /// One that leads nowhere; made if it is not there.
    Dummy {
        /// Its name.
        name: String,
    },
}

impl ParentLink {
    /// The interface's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Present { name } | Self::Vlan { name, .. } | Self::Dummy { name } => name,
        }
    }
}

/// The parent as the kernel has it now, made if it is to be and brought up.
pub(crate) fn ensure(route: &mut Socket, parent: &ParentLink) -> Result<Link, NetworkError> {
    let link = find_or_make(route, parent)?;
    failpoint("network.parent.ready");
    Ok(link)
}

fn find_or_make(route: &mut Socket, parent: &ParentLink) -> Result<Link, NetworkError> {
    let missing = |name: &str| NetworkError::NoParent { name: name.to_owned() };
    let find = |route: &mut Socket, name: &str| -> Result<Option<Link>, NetworkError> {
        Ok(link::links(route)?.into_values().find(|link| link.name == name))
    };
    if let Some(present) = find(route, parent.name())? {
        let fits = match parent {
            ParentLink::Present { .. } => return Ok(present),
            ParentLink::Vlan { .. } => present.kind.as_deref() == Some("vlan"),
            ParentLink::Dummy { .. } => present.kind.as_deref() == Some("dummy"),
        };
        // It may have been made by one that died before it was up.
        let mut batch = Batch::default();
        link::bring_up(&mut batch, present.index);
        route.run(&mut batch)?;
        return if fits { Ok(present) } else { Err(NetworkError::InterfaceTaken(present.name)) };
    }
    let mut batch = Batch::default();
    match parent {
        ParentLink::Present { name } => return Err(missing(name)),
        ParentLink::Vlan { name, of, id } => {
            let of = find(route, of)?.ok_or_else(|| missing(of))?;
            link::create_vlan(&mut batch, name, of.index, *id);
        }
        ParentLink::Dummy { name } => link::create_dummy(&mut batch, name),
    }
    match route.run(&mut batch) {
        Err(refusal) if refusal.is(libc::EEXIST) => {}
        Err(refusal) => return Err(unsupported(refusal, parent)),
        Ok(()) => {}
    }
    find(route, parent.name())?.ok_or_else(|| missing(parent.name()))
}

fn unsupported(refusal: Refusal, parent: &ParentLink) -> NetworkError {
    let kind = match parent {
        ParentLink::Vlan { .. } => "8021q",
        _ => "dummy",
    };
    match refusal.is(libc::EOPNOTSUPP) {
        true => NetworkError::NotInKernel { kind },
        false => refusal.into(),
    }
}

/// What a container's link is to lie on, and how.
pub(crate) struct Wanted<'a> {
    pub(crate) parent: &'a Link,
    pub(crate) mode: ParentMode,
    pub(crate) mtu: Option<u32>,
}

/// Makes the container's link in its namespace, by the name of [`Endpoint::interface`], and has `settle` give it its own
/// and its addresses. What the link of one that is going
/// still has is waited for. `route` is a socket in the host's namespace, which others use too.
pub(crate) fn connect(
    route: &Mutex<Socket>,
    wanted: &Wanted<'_>,
    endpoint: &mut Endpoint,
    namespace: i32,
    mut settle: impl FnMut(&Endpoint) -> Result<(), NetworkError>,
) -> Result<(), NetworkError> {
    let Wanted { parent, mode, mtu } = *wanted;
    let deadline = Instant::now() + LINK_GONE_TIMEOUT;
    let mac = if mode.shares_mac() { None } else { Some(endpoint.mac) };
    if mac.is_none() {
        endpoint.mac = parent.mac.unwrap_or(MacAddress([0; 6]));
    }
    loop {
        let mut batch = Batch::default();
        let child = link::Child { name: &endpoint.interface, parent: parent.index, mac, mtu, mode };
        link::create_child(&mut batch, &child, namespace);
        let made = locked(route).run(&mut batch);
        let linked = match made {
            Err(refusal) if refusal.is(libc::EOPNOTSUPP) => {
                return Err(NetworkError::NotInKernel { kind: mode.kind() });
            }
            Err(refusal) => Err(refusal.into()),
            Ok(()) => {
                failpoint("network.attach.child");
                settle(endpoint)
            }
        };
        match linked {
            Err(error) if may_pass(&error, mode) && Instant::now() < deadline => thread::sleep(LINK_GONE_LOOK),
            outcome => return outcome,
        }
    }
}

/// Whether it is refused for another link that may be on its way out.
fn may_pass(error: &NetworkError, mode: ParentMode) -> bool {
    let NetworkError::Refused(refusal) = error else { return false };
    // A parent that one has to itself is refused as an invalid argument (`macvlan_common_newlink`).
    let has_it_alone = mode == ParentMode::Macvlan(MacvlanMode::Passthru) && refusal.is(libc::EINVAL);
    has_it_alone || refusal.is(libc::EADDRINUSE) || refusal.is(libc::EBUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_decides_whose_hardware_address_and_whose_route_it_is() {
        for (mode, shares_mac, link) in [
            (ParentMode::Macvlan(MacvlanMode::Bridge), false, EndpointLink::Parent),
            (ParentMode::Macvlan(MacvlanMode::Passthru), true, EndpointLink::Parent),
            (ParentMode::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge), true, EndpointLink::Parent),
            (ParentMode::Ipvlan(IpvlanMode::L3, IpvlanFlag::Private), true, EndpointLink::RoutedParent),
            (ParentMode::Ipvlan(IpvlanMode::L3s, IpvlanFlag::Bridge), true, EndpointLink::RoutedParent),
        ] {
            assert_eq!((mode.shares_mac(), mode.endpoint_link()), (shares_mac, link), "{mode:?}");
        }
    }

    #[test]
    fn what_is_going_is_waited_for() {
        let refused = |code| {
            NetworkError::Refused(Refusal {
                what: String::new(),
                detail: None,
                source: std::io::Error::from_raw_os_error(code),
            })
        };
        let bridge = ParentMode::Macvlan(MacvlanMode::Bridge);
        assert!(may_pass(&refused(libc::EADDRINUSE), bridge) && may_pass(&refused(libc::EBUSY), bridge));
        assert!(!may_pass(&refused(libc::EINVAL), bridge) && !may_pass(&refused(libc::EPERM), bridge));
        assert!(may_pass(&refused(libc::EINVAL), ParentMode::Macvlan(MacvlanMode::Passthru)));
    }
}
