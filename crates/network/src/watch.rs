//! Waits for addresses that the host's interfaces get: an uplink that comes up after the engine has to forward too.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::net::RecvFlags;

use crate::error::NetworkError;
use crate::link;
use crate::netlink::Socket;

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const ADDRESS_EVENTS: u32 = 0x10 | 0x100;
const STACK_BYTES: usize = 256 * 1024;

/// A thread in the network namespace of the one that started it; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Watcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Calls `changed` once at first, then whenever an interface other than `bridge` got a global address.
    pub(crate) fn start(
        bridge: u32,
        changed: impl Fn() -> Result<(), NetworkError> + Send + 'static,
    ) -> Result<Self, NetworkError> {
        let cannot = |source: io::Error| NetworkError::Namespace { what: "watch the host's addresses", source };
        let mut events = Socket::route_events(ADDRESS_EVENTS)?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| cannot(error.into()))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let work = move || {
            let mut look = true;
            loop {
                if look && let Err(error) = changed() {
                    tracing::warn!(%error, "cannot turn on forwarding for a new address of the host's");
                }
                let mut wait = [PollFd::new(events.descriptor(), PollFlags::IN), PollFd::new(&*stopped, PollFlags::IN)];
                let woken = rustix::event::poll(&mut wait, None);
                if !wait[1].revents().is_empty() {
                    return;
                }
                look = woken.is_ok() && drain(&mut events, bridge);
            }
        };
        let thread = thread::Builder::new().name("dozen-uplinks".to_owned()).stack_size(STACK_BYTES).spawn(work);
        Ok(Self { stop, thread: Some(thread.map_err(cannot)?) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // An eventfd takes eight bytes and refuses them only when its count would overflow (eventfd(2)).
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads every event that waits; whether one of them is of interest. When some were lost, it may have been.
fn drain(events: &mut Socket, bridge: u32) -> bool {
    let mut found = false;
    loop {
        match events.datagram(RecvFlags::DONTWAIT) {
            Ok(datagram) => found |= link::new_addresses(datagram).any(|a| a.global && a.index != bridge),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => found = true,
            Err(_) => return found,
        }
    }
}
