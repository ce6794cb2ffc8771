//! Our table as the kernel holds it: its rules put as a whole, its elements added and removed one by one.
//!
//! Besides ports it records, in two sets, which interfaces' forwarding we turned on: the record then lives exactly
//! as long as the settings do, whatever dies in between.

use std::collections::BTreeSet;

use super::element::Element;
use super::frame::Frame;
use super::ruleset::{Chain, Rules};
use super::set::{Map, TYPE_INTERFACE};
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

const LIST_ELEMENT: u16 = 1;
/// An attribute holds less than 64 KiB; an element of ours takes less than 100 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

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
