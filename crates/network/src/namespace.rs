//! Containers' network namespaces. What is done in one is done by a thread that makes or enters it, and ends.
//!
//! No namespace is bound to a path. It lives as long as its descriptor or a process in it, and the kernel takes its
//! links along when it goes; deleting a veth by hand would make us wait some 20 ms for what the kernel does alone.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::address::Endpoint;
use crate::bridge::BridgeNetwork;
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::link;
use crate::netlink::{Batch, Socket};
use crate::sysctl;

/// The thread does nothing deep; the default of 2 MiB would only be mapped and unmapped.
const STACK_BYTES: usize = 256 * 1024;

/// A container's place on a network, to be linked.
#[derive(Debug)]
pub struct Plug<'a> {
    /// Where to.
    pub network: &'a BridgeNetwork,
    /// As [`BridgeNetwork::take`] gave it; its name on the host changes if that is taken.
    pub endpoint: &'a mut Endpoint,
}

/// The interfaces that have the default routes, by their names inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gateways {
    /// The one for IPv4, and the gateway's address; without one, who is sent to is asked for on the link itself.
    pub ipv4: Option<(String, Option<IpAddr>)>,
    /// The one for IPv6.
    pub ipv6: Option<(String, Option<IpAddr>)>,
}

/// A network namespace with nothing but a loopback interface, which is up: `--network none`. See [`new_namespace`].
pub fn new_loopback_namespace(empty: Option<OwnedFd>) -> Result<OwnedFd, NetworkError> {
    new_namespace(empty, &mut [], &Gateways::default())
}

/// A network namespace with loopback and these links up, addressed and routed as the endpoints say: a fresh one, which
/// belongs to our own user namespace, or `empty`, in which nothing is yet.
///
/// A link lives as long as the namespace: as long as the descriptor or a process in it.
pub fn new_namespace(
    empty: Option<OwnedFd>,
    plugs: &mut [Plug<'_>],
    gateways: &Gateways,
) -> Result<OwnedFd, NetworkError> {
    on_a_thread(|| {
        let mut socket = match &empty {
            Some(empty) => enter(empty.as_fd())?,
            None => {
                // SAFETY: CLONE_NEWNET concerns this thread alone, shares no descriptor table or memory anew, and the
                // thread ends without returning to code that expects the former namespace.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                    .map_err(|error| cannot("make a network namespace")(error.into()))?;
                Socket::route()?
            }
        };
        // Before the links exist, because they take these over when they are made. Another container may not become
        // this one's router by announcing itself as one (CVE-2020-13401 was of that kind).
        if plugs.iter().any(|plug| plug.endpoint.ipv6.is_some()) {
            sysctl::write("ipv6/conf/default/accept_ra", "0")?;
        } else if !plugs.is_empty() {
            sysctl::write("ipv6/conf/default/disable_ipv6", "1")?;
        }
        let namespace = socket.namespace().map_err(cannot("find the new network namespace"))?;
        let mut batch = Batch::default();
        link::bring_up(&mut batch, link::LOOPBACK_INDEX);
        socket.run(&mut batch)?;
        let several = plugs.len() > 1;
        for plug in plugs.iter_mut() {
            link_up(&mut socket, namespace.as_fd(), plug, several)?;
        }
        if !plugs.is_empty() {
            route(&mut socket, gateways)?;
            failpoint("network.attach.addresses");
        }
        Ok(namespace)
    })
}

/// Links a namespace that is there to one more network.
pub fn plug(namespace: BorrowedFd<'_>, mut plug: Plug<'_>, gateways: &Gateways) -> Result<(), NetworkError> {
    on_a_thread(|| {
        let mut socket = enter(namespace)?;
        link_up(&mut socket, namespace, &mut plug, true)?;
        failpoint("network.plug.link");
        route(&mut socket, gateways)?;
        failpoint("network.plug.routes");
        Ok(())
    })
}

/// Moves the default routes; one that is not named stays as it is, and goes with its link.
pub fn set_gateways(namespace: BorrowedFd<'_>, gateways: &Gateways) -> Result<(), NetworkError> {
    on_a_thread(|| route(&mut enter(namespace)?, gateways))
}

/// Takes a link out of a namespace by its name inside; fine when there is none.
pub fn unplug(namespace: BorrowedFd<'_>, inside: &str) -> Result<(), NetworkError> {
    on_a_thread(|| crate::bridge::delete_link(&mut enter(namespace)?, inside))
}

/// The calling thread is in the namespace from here on: one of [`on_a_thread`].
fn enter(namespace: BorrowedFd<'_>) -> Result<Socket, NetworkError> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
        .map_err(|error| cannot("enter a container's network namespace")(error.into()))?;
    Ok(Socket::route()?)
}

/// Makes a link, addresses it and brings it up, from within the namespace.
fn link_up(
    socket: &mut Socket,
    namespace: BorrowedFd<'_>,
    plug: &mut Plug<'_>,
    settle_ipv6: bool,
) -> Result<(), NetworkError> {
    let is_on_bridge = plug.network.bridge_name().is_some();
    plug.network.connect(plug.endpoint, namespace, |endpoint| {
        if is_on_bridge {
            return settle(socket, endpoint, settle_ipv6);
        }
        let index = index_of(socket, &endpoint.interface)?;
        let mut batch = Batch::default();
        link::rename(&mut batch, index, &endpoint.inside);
        if let Err(refusal) = socket.run(&mut batch) {
            crate::bridge::delete_link(socket, &endpoint.interface)?;
            return Err(refusal.into());
        }
        // What is refused is tried again, with another link.
        let settled = settle(socket, endpoint, settle_ipv6);
        if settled.is_err() {
            crate::bridge::delete_link(socket, &endpoint.inside)?;
        }
        settled
    })
}

fn settle(socket: &mut Socket, endpoint: &Endpoint, settle_ipv6: bool) -> Result<(), NetworkError> {
    let index = index_of(socket, &endpoint.inside)?;
    if settle_ipv6 {
        let (disable, inside) = (if endpoint.ipv6.is_some() { "0" } else { "1" }, &endpoint.inside);
        sysctl::write(&format!("ipv6/conf/{inside}/disable_ipv6"), disable)?;
        sysctl::write(&format!("ipv6/conf/{inside}/accept_ra"), "0")?;
    }
    // Before it is up: some say what the kernel does then. IPv6 addresses are had only where none of them turns IPv6 off.
    endpoint.sysctls.iter().try_for_each(|sysctl| sysctl::set_for_interface(sysctl, &endpoint.inside))?;
    let mut batch = Batch::default();
    link::bring_up(&mut batch, index);
    if let Some(address) = endpoint.ipv4 {
        link::add_address(&mut batch, index, address.into(), endpoint.ipv4_prefix_length);
    }
    if let Some(address) = endpoint.ipv6 {
        link::add_address(&mut batch, index, address.into(), endpoint.ipv6_prefix_length);
    }
    for address in endpoint.link_local.iter().copied() {
        // Docker's linkLocalMask and linkLocalMaskIPv6.
        link::add_address(&mut batch, index, address, if address.is_ipv4() { 16 } else { 64 });
    }
    Ok(socket.run(&mut batch)?)
}

fn route(socket: &mut Socket, gateways: &Gateways) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    for (way, ipv4) in [(&gateways.ipv4, true), (&gateways.ipv6, false)] {
        let Some((inside, gateway)) = way else { continue };
        let index = index_of(socket, inside)?;
        match gateway {
            Some(gateway) => link::set_default_route(&mut batch, index, *gateway),
            None => link::set_default_route_to_link(&mut batch, index, ipv4),
        }
    }
    if batch.len() > 0 {
        socket.run(&mut batch)?;
    }
    Ok(())
}

fn index_of(socket: &Socket, interface: &str) -> Result<u32, NetworkError> {
    rustix::net::netdevice::name_to_index(socket.descriptor(), interface)
        .map_err(|error| cannot("find an interface in a container's network namespace")(error.into()))
}

/// A thread of its own changes its namespace without anybody else's.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, NetworkError> + Send) -> Result<T, NetworkError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("dozen-netns".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(cannot("start a thread for a network namespace"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Namespace { what, source }
}

/// The number of the descriptor, as netlink wants it.
pub(crate) fn number_of(namespace: BorrowedFd<'_>) -> i32 {
    namespace.as_raw_fd()
}
