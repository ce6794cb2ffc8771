//! Our table as the kernel holds it: its rules put as a whole, its elements added and removed one by one.
//!
//! Besides ports it records, in two sets, which interfaces' forwarding we turned on: the record then lives exactly
//! as long as the settings do, whatever dies in between.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::Protocol;

use super::frame::Frame;
use super::ruleset::{Chain, NFPROTO_IPV4, NFPROTO_IPV6, Rules};
use crate::conntrack::Flow;
use crate::netlink::{APPEND, Attributes, Batch, CREATE, DUMP, Refusal, Socket, attribute, attributes, received, text};

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table (with NAT since Linux 5.2).
const FAMILY: u8 = 1;
pub(super) const MESSAGE: [u8; 4] = [FAMILY, 0, 0, 0];

pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
pub(super) const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
pub(super) const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;

/// `NFNLGRP_NFTABLES`, as a bit: what anybody changes.
pub(crate) const EVENTS: u32 = 1 << (7 - 1);

const SET_IS_MAP: u32 = 8;
/// `NFT_SET_INTERVAL | NFT_SET_CONCAT` (Linux 5.6).
const SET_OF_RANGES: u32 = 4 | 0x80;
const LIST_ELEMENT: u16 = 1;
/// An attribute holds less than 64 KiB; an element of ours takes less than 100 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

// How nft(8) names types: 6 bits each, concatenated (libnftables' enum datatypes). The kernel only keeps them.
const TYPE_FAMILY: u32 = 2;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_INTERFACE: u32 = 41;

/// The sets and maps of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Map {
    /// IPv4 address, protocol, port → container.
    Published4At,
    /// Protocol, port on any IPv4 address → container.
    Published4,
    /// As for IPv4.
    Published6At,
    /// As for IPv4.
    Published6,
    /// Interfaces whose IPv4 forwarding we turned on.
    Opened4,
    /// Interfaces whose IPv6 forwarding we turned on; `all` for every one.
    Opened6,
    /// Interfaces whose `accept_ra` we raised from 1 to 2.
    Advertised,
    /// Our bridges.
    Bridges,
    /// Those of them that are internal.
    Internal,
    /// A bridge and itself: its containers reach each other.
    Within,
    /// A bridge and its subnet.
    Subnets4,
    /// As for IPv4.
    Subnets6,
    /// The subnets of all bridges, each after its family.
    Sources4,
    /// As for IPv4.
    Sources6,
    /// Those of them that are hidden behind the host's address.
    Masqueraded4,
    /// As for IPv4.
    Masqueraded6,
}

impl Map {
    pub(crate) const ALL: [Self; 16] = [
        Self::Published4At,
        Self::Published4,
        Self::Published6At,
        Self::Published6,
        Self::Opened4,
        Self::Opened6,
        Self::Advertised,
        Self::Bridges,
        Self::Internal,
        Self::Within,
        Self::Subnets4,
        Self::Subnets6,
        Self::Sources4,
        Self::Sources6,
        Self::Masqueraded4,
        Self::Masqueraded6,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Published4At => "published4_at",
            Self::Published4 => "published4",
            Self::Published6At => "published6_at",
            Self::Published6 => "published6",
            Self::Opened4 => "opened4",
            Self::Opened6 => "opened6",
            Self::Advertised => "advertised",
            Self::Bridges => "bridges",
            Self::Internal => "internal",
            Self::Within => "within",
            Self::Subnets4 => "subnets4",
            Self::Subnets6 => "subnets6",
            Self::Sources4 => "sources4",
            Self::Sources6 => "sources6",
            Self::Masqueraded4 => "masqueraded4",
            Self::Masqueraded6 => "masqueraded6",
        }
    }

    pub(super) fn flags(self) -> u32 {
        match self {
            _ if self.value().is_some() => SET_IS_MAP,
            _ if !self.ranges().is_empty() => SET_OF_RANGES,
            _ => 0,
        }
    }

    /// The lengths in bytes of the parts of a key, for a set whose elements are ranges; empty for the others.
    fn ranges(self) -> &'static [u32] {
        match self {
            Self::Subnets4 => &[16, 4],
            Self::Subnets6 => &[16, 16],
            Self::Sources4 | Self::Masqueraded4 => &[1, 4],
            Self::Sources6 | Self::Masqueraded6 => &[1, 16],
            _ => &[],
        }
    }

    /// Whether it says something about bridges.
    pub(crate) fn is_of_bridges(self) -> bool {
        matches!(self, Self::Bridges | Self::Internal | Self::Within) || !self.ranges().is_empty()
    }

    /// The type and length of a key.
    pub(super) fn key(self) -> (u32, u32) {
        match self {
            Self::Published4At => (concatenated(&[TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT]), 12),
            Self::Published6At => (concatenated(&[TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT]), 24),
            Self::Published4 | Self::Published6 => (concatenated(&[TYPE_PROTOCOL, TYPE_PORT]), 8),
            Self::Opened4 | Self::Opened6 | Self::Advertised | Self::Bridges | Self::Internal => (TYPE_INTERFACE, 16),
            Self::Within => (concatenated(&[TYPE_INTERFACE, TYPE_INTERFACE]), 32),
            Self::Subnets4 => (concatenated(&[TYPE_INTERFACE, TYPE_IPV4]), 20),
            Self::Subnets6 => (concatenated(&[TYPE_INTERFACE, TYPE_IPV6]), 32),
            Self::Sources4 | Self::Masqueraded4 => (concatenated(&[TYPE_FAMILY, TYPE_IPV4]), 8),
            Self::Sources6 | Self::Masqueraded6 => (concatenated(&[TYPE_FAMILY, TYPE_IPV6]), 20),
        }
    }

    /// The type and length of a value; `None` for a set.
    pub(super) fn value(self) -> Option<(u32, u32)> {
        match self {
            Self::Published4At | Self::Published4 => Some((concatenated(&[TYPE_IPV4, TYPE_PORT]), 8)),
            Self::Published6At | Self::Published6 => Some((concatenated(&[TYPE_IPV6, TYPE_PORT]), 20)),
            _ => None,
        }
    }
}

fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}

/// What a packet must be addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PublishedKey {
    /// Unspecified stands for every address of its family.
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl PublishedKey {
    /// Whether the flow was sent to this port of the host.
    pub(crate) fn is_destination_of(&self, flow: &Flow) -> bool {
        self.protocol == Protocol::Udp
            && self.port == flow.destination_port
            && crate::ports::overlap(self.address, flow.destination)
    }
}

/// An element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) map: Map,
    key: Vec<u8>,
    /// The last key of a range; empty for a single one.
    last: Vec<u8>,
    value: Vec<u8>,
}

impl Element {
    /// What is addressed to `key` goes to the container's address and port, of the same family.
    pub(crate) fn published(key: &PublishedKey, container: IpAddr, container_port: u16) -> Self {
        let mut encoded = Vec::with_capacity(24);
        if !key.address.is_unspecified() {
            put_address(&mut encoded, key.address);
        }
        encoded.extend_from_slice(&[protocol_number(key.protocol), 0, 0, 0]);
        put_port(&mut encoded, key.port);
        let mut value = Vec::with_capacity(20);
        put_address(&mut value, container);
        put_port(&mut value, container_port);
        let map = match (key.address, key.address.is_unspecified()) {
            (IpAddr::V4(_), true) => Map::Published4,
            (IpAddr::V4(_), false) => Map::Published4At,
            (IpAddr::V6(_), true) => Map::Published6,
            (IpAddr::V6(_), false) => Map::Published6At,
        };
        Self { map, key: encoded, last: Vec::new(), value }
    }

    /// The interface is in the set.
    pub(crate) fn interface(map: Map, name: &str) -> Self {
        Self { map, key: interface_key(name), last: Vec::new(), value: Vec::new() }
    }

    /// The bridge may forward to itself.
    pub(crate) fn within(name: &str) -> Self {
        let key = [interface_key(name), interface_key(name)].concat();
        Self { map: Map::Within, key, last: Vec::new(), value: Vec::new() }
    }

    /// The subnet is the bridge's: an element of [`Map::Subnets4`] or [`Map::Subnets6`].
    pub(crate) fn subnet(bridge: &str, first: IpAddr, last: IpAddr) -> Self {
        let map = if first.is_ipv4() { Map::Subnets4 } else { Map::Subnets6 };
        Self::range(map, &interface_key(bridge), first, last)
    }

    /// The subnet is in the set, which is of its family.
    pub(crate) fn source(map: Map, first: IpAddr, last: IpAddr) -> Self {
        let family = if first.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
        Self::range(map, &[family, 0, 0, 0], first, last)
    }

    fn range(map: Map, before: &[u8], first: IpAddr, last: IpAddr) -> Self {
        let key = |address| {
            let mut key = before.to_vec();
            put_address(&mut key, address);
            key
        };
        Self { map, key: key(first), last: key(last), value: Vec::new() }
    }

    /// The name, of an element of a set of interfaces.
    pub(crate) fn interface_name(&self) -> String {
        text(&self.key)
    }

    /// What this element of a map of ports says: key, and the container's address and port.
    pub(crate) fn parse_published(&self) -> Option<(PublishedKey, IpAddr, u16)> {
        let (address, rest): (IpAddr, &[u8]) = match self.map {
            Map::Published4At => (parse_address(self.key.get(..4)?)?, &self.key[4..]),
            Map::Published6At => (parse_address(self.key.get(..16)?)?, &self.key[16..]),
            Map::Published4 => (Ipv4Addr::UNSPECIFIED.into(), &self.key),
            Map::Published6 => (Ipv6Addr::UNSPECIFIED.into(), &self.key),
            _ => return None,
        };
        let protocol = match rest.first()? {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return None,
        };
        let port = parse_port(rest.get(4..6)?)?;
        let split = if address.is_ipv4() { 4 } else { 16 };
        let container = parse_address(self.value.get(..split)?)?;
        Some((PublishedKey { address, protocol, port }, container, parse_port(self.value.get(split..split + 2)?)?))
    }
}

fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}

/// Every part of a concatenation fills whole words of four bytes.
fn put_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
    }
}

fn parse_port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The number in the IP header.
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// A table by its name. Each method is one transaction: all of it happens or nothing.
#[derive(Debug, Clone)]
pub(crate) struct Table(pub(crate) String);

impl Table {
    /// Makes the table what it is to be, whatever it was; `present` are the elements that it has.
    ///
    /// One whose frame is right is never absent or empty for a packet: see [`Frame`].
    pub(crate) fn put(
        &self,
        socket: &mut Socket,
        rules: &Rules,
        present: &[Element],
        elements: &[Element],
    ) -> Result<(), Refusal> {
        let chains = rules.chains();
        if Frame::read(self, socket)? == Some(Frame::wanted(&chains)) {
            match self.refill(socket, &chains, present, elements) {
                // Somebody else changes the table at this moment.
                Err(refusal) => tracing::debug!(%refusal, "making the table anew"),
                Ok(()) => return Ok(()),
            }
        }
        self.replace(socket, &chains, elements)
    }

    /// Gives every chain its rules anew, and changes those elements that are not as they should be.
    fn refill(
        &self,
        socket: &mut Socket,
        chains: &[Chain],
        present: &[Element],
        elements: &[Element],
    ) -> Result<(), Refusal> {
        let mut batch = begin();
        for chain in chains {
            if chain.base.is_some() {
                // For its policy.
                self.message(&mut batch, "set a chain of", NEW_CHAIN, CREATE, |a| self.chain(a, chain));
            }
            self.message(&mut batch, "empty a chain of", DELETE_RULE, 0, |a| {
                a.text(1, &self.0);
                a.text(2, chain.name);
            });
        }
        self.rules(&mut batch, chains);
        let (remove, add) = difference(present, elements);
        self.elements(&mut batch, "remove an element from", DELETE_ELEMENT, 0, &remove);
        self.elements(&mut batch, "add an element to", NEW_ELEMENT, CREATE, &add);
        commit(socket, batch)
    }

    /// Puts these rules and elements in the place of whatever the table was.
    fn replace(&self, socket: &mut Socket, chains: &[Chain], elements: &[Element]) -> Result<(), Refusal> {
        let mut batch = begin();
        // Created first, because deleting what is not there is an error.
        self.message(&mut batch, "make", NEW_TABLE, CREATE, |a| a.text(1, &self.0));
        self.message(&mut batch, "replace", DELETE_TABLE, 0, |a| a.text(1, &self.0));
        self.message(&mut batch, "make", NEW_TABLE, CREATE, |a| a.text(1, &self.0));
        for (number, map) in (1..).zip(Map::ALL) {
            self.message(&mut batch, "make a set of", NEW_SET, CREATE, |a| self.set(a, map, number));
        }
        for chain in chains {
            self.message(&mut batch, "make a chain of", NEW_CHAIN, CREATE, |a| self.chain(a, chain));
        }
        self.rules(&mut batch, chains);
        self.elements(&mut batch, "add an element to", NEW_ELEMENT, CREATE, elements);
        commit(socket, batch)
    }

    /// Removes, then adds. An element that is to be removed and isn't there, or to be added and is there with
    /// another value, refuses the whole.
    pub(crate) fn change(&self, socket: &mut Socket, remove: &[Element], add: &[Element]) -> Result<(), Refusal> {
        if remove.is_empty() && add.is_empty() {
            return Ok(());
        }
        let mut batch = begin();
        self.elements(&mut batch, "remove an element from", DELETE_ELEMENT, 0, remove);
        self.elements(&mut batch, "add an element to", NEW_ELEMENT, CREATE, add);
        commit(socket, batch)
    }

    /// Every element of every set and map; none when there is no table.
    pub(crate) fn read(&self, socket: &mut Socket) -> Result<Vec<Element>, Refusal> {
        let mut all = Vec::new();
        for map in Map::ALL {
            let mut batch = Batch::default();
            self.message(&mut batch, "read", GET_ELEMENT, DUMP, |a| {
                a.text(1, &self.0);
                a.text(2, map.name());
            });
            match socket.dump(&batch, |kind, payload| (kind == NEW_ELEMENT).then(|| parse_elements(map, payload))) {
                Ok(found) => all.extend(found.into_iter().flatten()),
                Err(refusal) if refusal.is(libc::ENOENT) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(all)
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self, socket: &mut Socket) -> Result<bool, Refusal> {
        let mut batch = Batch::default();
        self.message(&mut batch, "look for", GET_TABLE, 0, |a| a.text(1, &self.0));
        batch.acknowledge_newest();
        match socket.dump(&batch, |_, _| None::<()>) {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is(libc::ENOENT) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether these [`EVENTS`] say that it was deleted; that includes our own [`Self::put`].
    pub(crate) fn is_deleted_in(&self, events: &[u8]) -> bool {
        let name = |payload: &[u8]| payload.get(4..).and_then(|rest| attribute(rest, 1)).map(text);
        received(events).any(|event| event.kind == DELETE_TABLE && name(event.payload).as_ref() == Some(&self.0))
    }

    /// Whether these [`EVENTS`] say that chains or rules of another table have changed.
    pub(crate) fn others_change_in(&self, events: &[u8]) -> bool {
        let of_rules = |kind| matches!(kind, NEW_CHAIN | NEW_RULE | DELETE_RULE);
        received(events).filter(|event| of_rules(event.kind)).any(|event| {
            let table = event.payload.get(4..).and_then(|rest| attribute(rest, 1)).map(text);
            table.is_some_and(|table| table != self.0)
        })
    }

    /// Removes the table; fine when there is none.
    pub(crate) fn delete(&self, socket: &mut Socket) -> Result<(), Refusal> {
        let mut batch = begin();
        self.message(&mut batch, "delete", DELETE_TABLE, 0, |a| a.text(1, &self.0));
        match commit(socket, batch) {
            Err(refusal) if refusal.is(libc::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }

    fn message(
        &self,
        batch: &mut Batch,
        doing: &str,
        kind: u16,
        flags: u16,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        batch.message(format!("{doing} the nftables table inet {}", self.0), kind, flags, &MESSAGE, attributes);
    }

    fn rules(&self, batch: &mut Batch, chains: &[Chain]) {
        for chain in chains {
            for rule in &chain.rules {
                self.message(batch, "add a rule to", NEW_RULE, CREATE | APPEND, |a| {
                    a.text(1, &self.0);
                    a.text(2, chain.name);
                    a.nest(4, |a| rule.iter().for_each(|expression| expression.encode(a)));
                });
            }
        }
    }

    fn set(&self, a: &mut Attributes<'_>, map: Map, number: u32) {
        let (key_type, key_length) = map.key();
        a.text(1, &self.0);
        a.text(2, map.name());
        a.u32_be(3, map.flags());
        a.u32_be(4, key_type);
        a.u32_be(5, key_length);
        if let Some((value_type, value_length)) = map.value() {
            a.u32_be(6, value_type);
            a.u32_be(7, value_length);
        }
        if !map.ranges().is_empty() {
            // NFTA_SET_DESC: NFTA_SET_DESC_CONCAT, a list of NFTA_SET_FIELD_LEN.
            a.nest(9, |a| {
                a.nest(2, |a| {
                    map.ranges().iter().for_each(|length| a.nest(LIST_ELEMENT, |a| a.u32_be(1, *length)));
                });
            });
        }
        a.u32_be(10, number);
        if key_type == TYPE_INTERFACE {
            // For nft alone, which would otherwise show the names as numbers: the key is in the host's byte order.
            a.bytes(13, &[0, 4, 1, 0, 0, 0]);
        }
    }

    fn chain(&self, a: &mut Attributes<'_>, chain: &Chain) {
        a.text(1, &self.0);
        a.text(3, chain.name);
        if let Some(base) = &chain.base {
            a.nest(4, |a| {
                a.u32_be(1, base.hook);
                a.u32_be(2, base.priority.cast_unsigned());
            });
            // NF_ACCEPT: what no rule of ours decides is not ours.
            a.u32_be(5, 1);
            a.text(7, base.kind);
        }
    }

    fn elements(&self, batch: &mut Batch, doing: &str, kind: u16, flags: u16, elements: &[Element]) {
        for map in Map::ALL {
            let of_map: Vec<_> = elements.iter().filter(|element| element.map == map).collect();
            for chunk in of_map.chunks(ELEMENTS_PER_MESSAGE) {
                self.message(batch, doing, kind, flags, |a| {
                    a.text(1, &self.0);
                    a.text(2, map.name());
                    a.nest(3, |a| {
                        for element in chunk {
                            a.nest(LIST_ELEMENT, |a| {
                                a.nest(1, |a| a.bytes(1, &element.key));
                                if !element.last.is_empty() {
                                    // NFTA_SET_ELEM_KEY_END.
                                    a.nest(10, |a| a.bytes(1, &element.last));
                                }
                                if kind == NEW_ELEMENT && !element.value.is_empty() {
                                    a.nest(2, |a| a.bytes(1, &element.value));
                                }
                            });
                        }
                    });
                });
            }
        }
    }
}

/// What to remove and what to add, so that what is present becomes what is wanted.
pub(crate) fn difference(present: &[Element], wanted: &[Element]) -> (Vec<Element>, Vec<Element>) {
    let only = |these: &[Element], those: &[Element]| -> Vec<Element> {
        let those: BTreeSet<&Element> = those.iter().collect();
        these.iter().filter(|element| !those.contains(element)).cloned().collect()
    };
    (only(present, wanted), only(wanted, present))
}

fn parse_elements(map: Map, payload: &[u8]) -> Vec<Element> {
    let list = payload.get(4..).and_then(|rest| attribute(rest, 3)).unwrap_or(&[]);
    let value = |element, kind| attribute(element, kind).and_then(|data| attribute(data, 1)).map(<[u8]>::to_vec);
    attributes(list)
        .filter(|(kind, _)| *kind == LIST_ELEMENT)
        .filter_map(|(_, element)| {
            let or_none = |kind| value(element, kind).unwrap_or_default();
            Some(Element { map, key: value(element, 1)?, last: or_none(10), value: or_none(2) })
        })
        .collect()
}

/// The names of other engines' tables.
pub(crate) fn other_tables(socket: &mut Socket, ours: &Table) -> Result<Vec<Table>, Refusal> {
    let mut batch = Batch::default();
    batch.message("list the nftables tables", GET_TABLE, DUMP, &MESSAGE, |_| {});
    let names = socket.dump(&batch, |kind, payload| {
        (kind == NEW_TABLE).then(|| payload.get(4..).and_then(|rest| attribute(rest, 1)).map(text)).flatten()
    })?;
    let is_engine = |name: &String| *name == "dozen" || name.starts_with("dozen-");
    Ok(names.into_iter().filter(|name| is_engine(name) && *name != ours.0).map(Table).collect())
}

pub(super) fn begin() -> Batch {
    let mut batch = Batch::default();
    batch.message("begin an nftables transaction", BATCH_BEGIN, 0, &batch_message(), |_| {});
    batch
}

pub(super) fn commit(socket: &mut Socket, mut batch: Batch) -> Result<(), Refusal> {
    // The acknowledgement of the last change comes after the commit; the end itself gets one only since Linux 6.10.
    batch.acknowledge_newest();
    let acknowledged = u32::try_from(batch.len() - 1).expect("a batch is small");
    batch.message("commit an nftables transaction", BATCH_END, 0, &batch_message(), |_| {});
    socket.run_acknowledged(&batch, acknowledged)
}

/// `struct nfgenmsg` whose `res_id` names the subsystem.
fn batch_message() -> [u8; 4] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_says_what_it_was_made_of() {
        for (address, container) in [
            ("0.0.0.0", "172.17.0.2"),
            ("192.0.2.2", "172.17.0.2"),
            ("127.0.0.1", "172.17.0.2"),
            ("::", "fd00::2"),
            ("2001:db8::1", "fd00::2"),
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let key = PublishedKey { address: address.parse().unwrap(), protocol, port: 8080 };
                let element = Element::published(&key, container.parse().unwrap(), 80);
                assert_eq!(element.parse_published(), Some((key, container.parse().unwrap(), 80)));
                assert_eq!(u32::try_from(element.key.len()).unwrap(), element.map.key().1);
                assert_eq!(u32::try_from(element.value.len()).unwrap(), element.map.value().unwrap().1);
            }
        }
        assert_eq!(Element::interface(Map::Opened4, "eth0").interface_name(), "eth0");
        assert_eq!(Element::interface(Map::Opened4, "eth0").parse_published(), None);
    }

    #[test]
    fn keys_are_concatenated_word_by_word() {
        let key = PublishedKey { address: "192.0.2.2".parse().unwrap(), protocol: Protocol::Tcp, port: 8080 };
        let element = Element::published(&key, "172.17.0.2".parse().unwrap(), 80);
        assert_eq!(element.key, [192, 0, 2, 2, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(element.value, [172, 17, 0, 2, 0, 80, 0, 0]);
    }
}
