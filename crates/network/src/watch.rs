//! Waits for what others change on the host: addresses that its interfaces get (an uplink that comes up after the
//! engine has to forward too), and our firewall table, which `nft flush ruleset` takes along with everybody else's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::net::RecvFlags;

use crate::error::NetworkError;
use crate::firewall;
use crate::host::Host;
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
    /// Looks once at first, then whenever an interface other than our bridges got a global address, or the table went.
    pub(crate) fn start(host: Arc<Host>) -> Result<Self, NetworkError> {
        let cannot = |source: io::Error| NetworkError::Namespace { what: "watch the host's network", source };
        let mut addresses = Socket::route_events(ADDRESS_EVENTS)?;
        let mut tables = Socket::netfilter_events(firewall::EVENTS)?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| cannot(error.into()))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let work = move || {
            let (mut addressed, mut flushed, mut others) = (true, true, false);
            loop {
                if addressed && let Err(error) = host.refresh() {
                    tracing::warn!(%error, "cannot turn on forwarding for a new address of the host's");
                }
                if flushed && let Err(error) = host.mend_table() {
                    tracing::error!(%error, "cannot make the firewall table again: published ports do not answer");
                }
                if others {
                    host.open_others_again();
                }
                let wait = |descriptor| PollFd::new(descriptor, PollFlags::IN);
                let mut waits = [wait(addresses.descriptor()), wait(tables.descriptor()), wait(&*stopped)];
                let woken = rustix::event::poll(&mut waits, None);
                if !waits[2].revents().is_empty() {
                    return;
                }
                addressed = woken.is_ok() && heard(&mut addresses, |events| news_of(events, &host));
                others = false;
                flushed = woken.is_ok()
                    && heard(&mut tables, |events| {
                        others |= host.table.others_change_in(events);
                        host.table.is_deleted_in(events)
                    });
                // It is also so when some were lost.
                others |= flushed;
            }
        };
        let thread = thread::Builder::new().name("dozen-network".to_owned()).stack_size(STACK_BYTES).spawn(work);
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

fn news_of(events: &[u8], host: &Host) -> bool {
    link::new_addresses(events).any(|address| address.global && !host.is_own(address.index))
}

/// Reads every event that waits; whether one of them is of interest. When some were lost, it may have been.
fn heard(events: &mut Socket, mut of_interest: impl FnMut(&[u8]) -> bool) -> bool {
    let mut found = false;
    loop {
        match events.datagram(RecvFlags::DONTWAIT) {
            Ok(datagram) => found |= of_interest(datagram),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => found = true,
            Err(_) => return found,
        }
    }
}
