//! The host's side of the network: the table, the forwarding, and what goes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dozen_model::Protocol;

use crate::address::BridgeAddresses;
use crate::bridge::{DEFAULT_BRIDGE, TAGGED_BRIDGE};
use crate::conntrack;
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::firewall::{Element, PublishedKey, Rules, Table, difference, other_tables};
use crate::forwarding::{self, Opened};
use crate::link;
use crate::netlink::Socket;

/// A container's address and port.
pub(crate) type Target = (IpAddr, u16);

/// What the bridge and its watcher share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) addresses: BridgeAddresses,
    pub(crate) index: u32,
    pub(crate) table: Table,
    pub(crate) route: Mutex<Socket>,
    pub(crate) published: Mutex<Published>,
}

/// The nftables socket and what its table holds; one lock, so that they cannot differ.
/// Who needs [`Host::route`] too takes this one first.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) socket: Socket,
    pub(crate) ports: BTreeMap<PublishedKey, Target>,
    pub(crate) opened: Opened,
}

impl Published {
    pub(crate) fn of(socket: Socket, elements: &[Element]) -> Self {
        let ports = elements.iter().filter_map(Element::parse_published);
        Self {
            socket,
            ports: ports.map(|(key, address, port)| (key, (address, port))).collect(),
            opened: Opened::of(elements),
        }
    }
}

impl Host {
    /// What forwarding is ours to turn off: none while another engine is there, which then has it in its record.
    pub(crate) fn hand_over(&self, socket: &mut Socket, known: &Opened) -> Result<Opened, NetworkError> {
        let mut opened = Opened::of(&self.table.read(socket)?);
        opened.join(known.clone());
        if opened.is_empty() {
            return Ok(opened);
        }
        let Some(heir) = other_tables(socket, &self.table)?.into_iter().next() else { return Ok(opened) };
        // With the switch for all of IPv6, the heir's next start adds the rule that goes with it.
        heir.change(socket, &[], &opened.elements())?;
        Ok(Opened::default())
    }

    /// Makes the table what it must be now, then turns forwarding on where it is needed: in this order, so that no
    /// packet is forwarded that only the new rules drop, and nothing is turned on that no record tells of.
    pub(crate) fn set_up_table(&self) -> Result<(), NetworkError> {
        self.look_again(true)
    }

    /// Sees to it that every interface which has to forward does; leaves alone what is right of the table, and rules
    /// that an administrator changed.
    pub(crate) fn refresh(&self) -> Result<(), NetworkError> {
        self.look_again(false)
    }

    fn look_again(&self, whole: bool) -> Result<(), NetworkError> {
        let (ipv4, ipv6) = self.uplinks()?;
        let ipv6 = self.addresses.ipv6_gateway.is_some().then_some(ipv6);
        let mut published = locked(&self.published);
        let Published { socket, ports, opened } = &mut *published;
        let present = self.table.read(socket)?;
        let recorded = Opened::of(&present);
        // Another engine that went away may have left its record to us.
        let mut before = recorded.clone();
        before.join(opened.clone());
        let plan = forwarding::plan(&before, &ipv4, ipv6.as_ref(), forwarding::has_ipv6_per_interface()?)?;
        let rules = |opened: &Opened| Rules {
            bridge: self.addresses.name.clone(),
            ipv4: self.addresses.ipv4_subnet(),
            ipv6: self.addresses.ipv6_subnet(),
            ipv6_forwarding_is_ours: opened.ipv6.contains(forwarding::ALL_INTERFACES),
        };
        let wanted = rules(&plan.opened);
        let mut whole = whole || wanted != rules(&before);
        let anew = whole || plan.opened != before;
        if anew && !whole {
            let (remove, add) = difference(&recorded.elements(), &plan.opened.elements());
            match self.table.change(socket, &remove, &add) {
                // Somebody took a part of the table away.
                Err(refusal) if refusal.is(libc::ENOENT) => whole = true,
                outcome => outcome?,
            }
        }
        if whole {
            let mut elements = plan.opened.elements();
            elements.extend(ports.iter().map(|(key, target)| element(key, *target)));
            self.table.put(socket, &wanted, &present, &elements)?;
        }
        if anew {
            failpoint("network.open.table");
        }
        opened.clone_from(&plan.opened);
        forwarding::carry_out(&plan)?;
        failpoint("network.open.forwarding");
        Ok(())
    }

    /// Makes the table again from what we know, should somebody have deleted it: `nft flush ruleset` does, and with it
    /// every restart of nftables.service. A table that is there stays as it is, whatever the administrator did to it.
    pub(crate) fn mend_table(&self) -> Result<(), NetworkError> {
        if self.table.is_there(&mut locked(&self.published).socket)? {
            return Ok(());
        }
        tracing::warn!("somebody deleted the firewall table inet {}: making it again", self.table.0);
        failpoint("network.mend.before");
        self.set_up_table()?;
        failpoint("network.mend.table");
        let mut published = locked(&self.published);
        let Published { socket, ports, .. } = &mut *published;
        let ports: Vec<_> = ports.iter().map(|(key, target)| (*key, *target)).collect();
        self.forget_misled_flows(socket, &ports)?;
        // What containers sent out meanwhile kept its source, and would keep it for as long as it flows.
        let (ipv4, ipv6) = (self.addresses.ipv4_subnet(), self.addresses.ipv6_subnet());
        let ours = |address| match address {
            IpAddr::V4(address) => ipv4.contains(address),
            IpAddr::V6(address) => ipv6.is_some_and(|subnet| address.to_bits() >> 64 == subnet.to_bits() >> 64),
        };
        conntrack::forget(socket, |flow| {
            ours(flow.source) && flow.answered_to == flow.source && !ours(flow.destination)
        })?;
        Ok(())
    }

    /// Deletes the UDP flows that began before these ports led to where they lead: they still go to the host itself, or
    /// to a container that is gone.
    pub(crate) fn forget_misled_flows(
        &self,
        socket: &mut Socket,
        ports: &[(PublishedKey, Target)],
    ) -> Result<(), NetworkError> {
        if !ports.iter().any(|(key, _)| key.protocol == Protocol::Udp) {
            return Ok(());
        }
        let local = self.local_addresses()?;
        conntrack::forget(socket, |flow| {
            local(flow.destination)
                && ports.iter().any(|(key, target)| key.is_destination_of(flow) && flow.answers != target.0)
        })?;
        Ok(())
    }

    /// The interfaces that are no engine's and have a global IPv4 address; those that have a global IPv6 address.
    fn uplinks(&self) -> Result<(BTreeSet<String>, BTreeSet<String>), NetworkError> {
        let mut route = locked(&self.route);
        let links = link::links(&mut route)?;
        let addresses = link::addresses(&mut route)?;
        let with = |ipv4: bool| {
            addresses
                .iter()
                .filter(|a| a.global && a.address.is_ipv4() == ipv4)
                .filter_map(|a| links.get(&a.index))
                .filter(|link| link.index != link::LOOPBACK_INDEX && !is_engines(&link.name))
                .map(|link| link.name.clone())
                .collect()
        };
        Ok((with(true), with(false)))
    }

    /// Whether an address is one of the host's own.
    pub(crate) fn local_addresses(&self) -> Result<impl Fn(IpAddr) -> bool + use<>, NetworkError> {
        let own: BTreeSet<IpAddr> =
            link::addresses(&mut locked(&self.route))?.into_iter().map(|address| address.address).collect();
        Ok(move |address: IpAddr| address.is_loopback() || own.contains(&address))
    }
}

pub(crate) fn element(key: &PublishedKey, target: Target) -> Element {
    Element::published(key, target.0, target.1)
}

fn is_engines(interface: &str) -> bool {
    interface == DEFAULT_BRIDGE || interface.starts_with(TAGGED_BRIDGE)
}

/// A panic elsewhere leaves nothing half done that the next caller could not live with: each change is one request.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
