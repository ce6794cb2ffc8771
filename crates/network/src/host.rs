//! The host's side of all networks: the table, the forwarding, and what goes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dozen_model::{GatewayMode, Protocol};

use crate::bridge::BridgeConfig;
use crate::conntrack;
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::firewall::opening::{self, Unopened};
use crate::firewall::{Element, Map, PublishedKey, Rules, Table, difference, other_tables};
use crate::forwarding::{self, Opened};
use crate::link;
use crate::netlink::Socket;
use crate::ports::DirectPort;

/// The default bridge of the engine without a tag.
pub(crate) const DEFAULT_BRIDGE: &str = "dozen0";
/// What the names of the other engines' bridges begin with, and those of networks of one's own.
pub(crate) const TAGGED_BRIDGE: &str = "dz-";

/// A container's address and port.
pub(crate) type Target = (IpAddr, u16);

/// What the bridges and the watcher share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) table: Table,
    /// The kernel has IPv6.
    pub(crate) ipv6: bool,
    pub(crate) route: Mutex<Socket>,
    pub(crate) published: Mutex<Published>,
    /// Somebody asked for rules of ours in other people's chains. Locked while they are looked through.
    pub(crate) opens_others: Mutex<bool>,
}

/// The nftables socket and what its table holds; one lock, so that they cannot differ.
/// Who needs [`Host::route`] too takes this one first.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) socket: Socket,
    pub(crate) ports: BTreeMap<PublishedKey, Target>,
    /// What is reached without translation.
    pub(crate) direct: BTreeSet<DirectPort>,
    pub(crate) opened: Opened,
    /// By name.
    pub(crate) bridges: BTreeMap<String, Member>,
    /// What an earlier engine's table says of bridges: it is so until they are opened, or known to be gone.
    pub(crate) inherited: BTreeSet<Element>,
    /// The table has been put right by this engine.
    pub(crate) is_set_up: bool,
}

/// A bridge of ours.
#[derive(Debug)]
pub(crate) struct Member {
    /// `None` while it is being made.
    pub(crate) index: Option<u32>,
    pub(crate) config: BridgeConfig,
}

impl Member {
    /// What the table says of it.
    pub(crate) fn elements(&self) -> Vec<Element> {
        let BridgeConfig { addresses, internal, masquerade, between_containers, .. } = &self.config;
        let BridgeConfig { gateway_mode_ipv4, gateway_mode_ipv6, .. } = self.config;
        let ipv4 = addresses.ipv4_subnet().map(|subnet| (IpAddr::V4(subnet.network()), IpAddr::V4(subnet.last())));
        let ipv6 = addresses.ipv6_subnet().map(|subnet| (IpAddr::V6(subnet.network()), IpAddr::V6(subnet.last())));
        let mut elements = vec![Element::interface(Map::Bridges, &addresses.name)];
        if *internal {
            elements.push(Element::interface(Map::Internal, &addresses.name));
        }
        if *between_containers {
            elements.push(Element::within(&addresses.name));
        }
        if gateway_mode_ipv6 == GatewayMode::Isolated && addresses.ipv6_gateway.is_some() {
            elements.push(Element::interface(Map::Isolated6, &addresses.name));
        }
        for (first, last) in ipv4.into_iter().chain(ipv6) {
            let is_ipv4 = first.is_ipv4();
            elements.push(Element::subnet(&addresses.name, first, last));
            elements.push(Element::source(if is_ipv4 { Map::Sources4 } else { Map::Sources6 }, first, last));
            let of_family = |ipv4, ipv6| if is_ipv4 { ipv4 } else { ipv6 };
            let mode = if is_ipv4 { gateway_mode_ipv4 } else { gateway_mode_ipv6 };
            if *internal {
                continue;
            }
            if *masquerade && mode != GatewayMode::Routed {
                let set = of_family(Map::Masqueraded4, Map::Masqueraded6);
                elements.push(Element::source(set, first, last));
            }
            let opened = match mode {
                GatewayMode::Routed => Some(of_family(Map::Routed4, Map::Routed6)),
                GatewayMode::NatUnprotected => Some(of_family(Map::Unprotected4, Map::Unprotected6)),
                GatewayMode::Nat | GatewayMode::Isolated => None,
            };
            elements.extend(opened.map(|set| Element::interface(set, &addresses.name)));
        }
        elements
    }
}

impl Published {
    pub(crate) fn of(socket: Socket, elements: &[Element]) -> Self {
        let ports = elements.iter().filter_map(Element::parse_published);
        Self {
            socket,
            ports: ports.map(|(key, address, port)| (key, (address, port))).collect(),
            direct: elements.iter().filter_map(Element::parse_direct).collect(),
            opened: Opened::of(elements),
            bridges: BTreeMap::new(),
            inherited: elements.iter().filter(|element| element.map.is_of_bridges()).cloned().collect(),
            is_set_up: false,
        }
    }

    /// What the table is to say of bridges.
    fn of_bridges(&self) -> BTreeSet<Element> {
        let made = self.bridges.values().filter(|member| member.index.is_some()).flat_map(Member::elements);
        made.chain(self.inherited.iter().cloned()).collect()
    }

    /// The names of the bridges that are ours.
    pub(crate) fn bridge_names(&self) -> BTreeSet<String> {
        let inherited = self.inherited.iter().filter(|e| e.map == Map::Bridges).map(Element::interface_name);
        self.bridges.keys().cloned().chain(inherited).collect()
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
        let mut published = locked(&self.published);
        let (ipv4, ipv6) = self.uplinks(&published.bridge_names())?;
        let routes_ipv6 = published.bridges.values().any(|bridge| bridge.config.addresses.ipv6_gateway.is_some());
        let ipv6 = routes_ipv6.then_some(ipv6);
        let of_bridges = published.of_bridges();
        let Published { socket, ports, direct, opened, is_set_up, .. } = &mut *published;
        let present = self.table.read(socket)?;
        let recorded = Opened::of(&present);
        // Another engine that went away may have left its record to us.
        let mut before = recorded.clone();
        before.join(opened.clone());
        let plan = forwarding::plan(&before, &ipv4, ipv6.as_ref(), forwarding::has_ipv6_per_interface()?)?;
        let rules = |opened: &Opened| Rules {
            ipv6: self.ipv6,
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
            elements.extend(direct.iter().map(Element::direct));
            elements.extend(of_bridges);
            self.table.put(socket, &wanted, &present, &elements)?;
            *is_set_up = true;
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
        {
            let mut published = locked(&self.published);
            if !published.is_set_up || self.table.is_there(&mut published.socket)? {
                return Ok(());
            }
        }
        tracing::warn!("somebody deleted the firewall table inet {}: making it again", self.table.0);
        failpoint("network.mend.before");
        self.set_up_table()?;
        failpoint("network.mend.table");
        let mut published = locked(&self.published);
        let Published { socket, ports, bridges, .. } = &mut *published;
        let ports: Vec<_> = ports.iter().map(|(key, target)| (*key, *target)).collect();
        self.forget_misled_flows(socket, &ports)?;
        // What containers sent out meanwhile kept its source, and would keep it for as long as it flows.
        let ours = |address| bridges.values().any(|bridge| bridge.config.addresses.contains(address));
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
    fn uplinks(&self, bridges: &BTreeSet<String>) -> Result<(BTreeSet<String>, BTreeSet<String>), NetworkError> {
        let mut route = locked(&self.route);
        let links = link::links(&mut route)?;
        let addresses = link::addresses(&mut route)?;
        let with = |ipv4: bool| {
            addresses
                .iter()
                .filter(|a| a.global && a.address.is_ipv4() == ipv4)
                .filter_map(|a| links.get(&a.index))
                .filter(|link| link.index != link::LOOPBACK_INDEX && !is_engines(&link.name))
                .filter(|link| !bridges.contains(&link.name))
                .map(|link| link.name.clone())
                .collect()
        };
        Ok((with(true), with(false)))
    }

    /// The bridge is a member from here on: the table knows it, its packets are forwarded.
    pub(crate) fn admit(&self, name: &str, index: u32) -> Result<(), NetworkError> {
        let change = {
            let mut published = locked(&self.published);
            let Published { socket, bridges, inherited, is_set_up, .. } = &mut *published;
            let Some(member) = bridges.get_mut(name) else { return Ok(()) };
            member.index = Some(index);
            let elements: BTreeSet<Element> = member.elements().into_iter().collect();
            // What an earlier engine's table said of it, and is so no more, goes when all are known.
            let add: Vec<Element> = elements.difference(inherited).cloned().collect();
            if *is_set_up { Some(self.table.change(socket, &[], &add)) } else { None }
        };
        match change {
            Some(Ok(())) => failpoint("network.more.elements"),
            // Somebody flushed the host's firewall.
            Some(Err(refusal)) if !refusal.is(libc::ENOENT) => return Err(refusal.into()),
            _ => self.set_up_table()?,
        }
        self.refresh()?;
        self.open_others_again();
        Ok(())
    }

    /// Opens other people's chains, or takes our rules from them: from here on, for bridges that come too.
    pub(crate) fn open_others(&self, is_asked: bool) -> Result<Vec<Unopened>, NetworkError> {
        let mut opens = locked(&self.opens_others);
        *opens = is_asked;
        let bridges = locked(&self.published).bridge_names();
        let outcome = match is_asked {
            true => opening::open(&self.table, &bridges),
            false => opening::close(&self.table, &BTreeSet::new()).map(|()| Vec::new()),
        };
        failpoint("network.others.rules");
        outcome
    }

    /// As [`Self::open_others`] for what has changed since, if it was asked for. What fails is logged.
    pub(crate) fn open_others_again(&self) {
        let opens = locked(&self.opens_others);
        if !*opens {
            return;
        }
        let bridges = locked(&self.published).bridge_names();
        match opening::open(&self.table, &bridges) {
            Ok(unopened) => unopened.iter().for_each(|Unopened { chain, refusal }| {
                tracing::warn!(%refusal, "cannot open the firewall: {chain}");
            }),
            Err(error) => tracing::warn!(%error, "cannot open the host's firewall for a bridge"),
        }
    }

    /// Takes our rules about bridges that are gone from other people's chains.
    pub(crate) fn tidy_others(&self, keep: &BTreeSet<String>) -> Result<(), NetworkError> {
        let _opens = locked(&self.opens_others);
        opening::close(&self.table, keep)
    }

    /// Undoes [`Self::admit`], and forgets the bridge.
    pub(crate) fn dismiss(&self, name: &str) -> Result<(), NetworkError> {
        let mut published = locked(&self.published);
        let Some(member) = published.bridges.remove(name) else { return Ok(()) };
        if !published.is_set_up || member.index.is_none() {
            return Ok(());
        }
        self.remove_all(&mut published.socket, &member.elements())?;
        failpoint("network.remove.elements");
        let keep = published.bridge_names();
        drop(published);
        self.tidy_others(&keep)
    }

    /// Removes elements, also those that are not all there.
    pub(crate) fn remove_all(&self, socket: &mut Socket, gone: &[Element]) -> Result<(), NetworkError> {
        match self.table.change(socket, gone, &[]) {
            // Somebody flushed the table: what is there still goes one by one.
            Err(refusal) if refusal.is(libc::ENOENT) => {
                for one in gone {
                    match self.table.change(socket, std::slice::from_ref(one), &[]) {
                        Err(refusal) if !refusal.is(libc::ENOENT) => return Err(refusal.into()),
                        _ => {}
                    }
                }
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Whether the interface is a bridge of ours.
    pub(crate) fn is_own(&self, index: u32) -> bool {
        locked(&self.published).bridges.values().any(|member| member.index == Some(index))
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

pub(crate) fn is_engines(interface: &str) -> bool {
    interface == DEFAULT_BRIDGE || interface.starts_with(TAGGED_BRIDGE)
}

/// A panic elsewhere leaves nothing half done that the next caller could not live with: each change is one request.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
