//! Network namespaces: each is made by a thread of its own, which moves into it, sets it up and ends.
//!
//! No namespace is bound to a path. It lives as long as its descriptor or a process in it, and the kernel takes its
//! links along when it goes; deleting a veth by hand would make us wait some 20 ms for what the kernel does alone.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use rustix::thread::UnshareFlags;

use crate::address::Endpoint;
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::link;
use crate::netlink::{Batch, Socket};
use crate::sysctl;

/// The thread does nothing deep; the default of 2 MiB would only be mapped and unmapped.
const STACK_BYTES: usize = 256 * 1024;

/// A fresh network namespace with nothing but a loopback interface, which is up: `--network none`.
pub fn new_loopback_namespace() -> Result<OwnedFd, NetworkError> {
    in_fresh_namespace(|socket| {
        let mut batch = Batch::default();
        link::bring_up(&mut batch, link::LOOPBACK_INDEX);
        Ok(socket.run(&mut batch)?)
    })
}

/// A fresh network namespace with loopback and `eth0` up, addressed and routed as the endpoint says.
///
/// `connect` runs on the new namespace's thread: it makes the link, given the namespace.
pub(crate) fn new_endpoint_namespace(
    endpoint: &Endpoint,
    connect: impl FnOnce(&OwnedFd) -> Result<(), NetworkError> + Send,
) -> Result<OwnedFd, NetworkError> {
    in_fresh_namespace(|socket| {
        // Before the link exists, because it takes these over when it is made. Another container may not become
        // this one's router by announcing itself as one (CVE-2020-13401 was of that kind).
        if endpoint.ipv6.is_some() {
            sysctl::write("ipv6/conf/default/accept_ra", "0")?;
        } else {
            sysctl::write("ipv6/conf/default/disable_ipv6", "1")?;
        }
        let namespace = socket.namespace().map_err(cannot("find the new network namespace"))?;
        connect(&namespace)?;
        let index = rustix::net::netdevice::name_to_index(socket.descriptor().as_fd(), "eth0")
            .map_err(|error| cannot("find eth0 in the new network namespace")(error.into()))?;
        let mut batch = Batch::default();
        link::bring_up(&mut batch, link::LOOPBACK_INDEX);
        link::bring_up(&mut batch, index);
        let gateway = IpAddr::V4(endpoint.ipv4_gateway);
        link::add_address(&mut batch, index, endpoint.ipv4.into(), endpoint.ipv4_prefix_length);
        link::add_default_route(&mut batch, index, gateway);
        if let (Some(address), Some(gateway)) = (endpoint.ipv6, endpoint.ipv6_gateway) {
            link::add_address(&mut batch, index, address.into(), endpoint.ipv6_prefix_length);
            link::add_default_route(&mut batch, index, gateway.into());
        }
        socket.run(&mut batch)?;
        failpoint("network.attach.addresses");
        Ok(())
    })
}

/// Makes a namespace, runs `set_up` in it with a routing socket of its own, and returns its descriptor.
fn in_fresh_namespace(
    set_up: impl FnOnce(&mut Socket) -> Result<(), NetworkError> + Send,
) -> Result<OwnedFd, NetworkError> {
    let work = || {
        // SAFETY: CLONE_NEWNET concerns this thread alone, shares no descriptor table or memory anew, and the thread
        // ends without returning to code that expects the former namespace.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|error| cannot("make a network namespace")(error.into()))?;
        let mut socket = Socket::route()?;
        set_up(&mut socket)?;
        socket.namespace().map_err(cannot("find the new network namespace"))
    };
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
pub(crate) fn number_of(namespace: &OwnedFd) -> i32 {
    namespace.as_raw_fd()
}
