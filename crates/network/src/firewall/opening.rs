//! Rules of ours in other people's chains, which somebody asked for: `dozen system firewall allow`.
//!
//! Each accepts what a bridge of ours forwards, at the head of a chain that would drop it; what is not published our own
//! table drops all the same. They are those that `iptables -I FORWARD -i BRIDGE -j ACCEPT` makes, so iptables shows them
//! as its own:
//! ```text
//! iifname "dozen0" counter accept comment "dozen dozen0"
//! oifname "dozen0" counter accept comment "dozen dozen0"
//! ```
//! The comment, our table's name and the bridge's, is what they are found again by.

use std::collections::BTreeSet;

use super::expression::{Expression, Meta, REGISTER_1, Verdict};
use super::foreign::{self, DroppingChain};
use super::table::{SUBSYSTEM, Table, begin, commit};
use crate::error::NetworkError;
use crate::netlink::{Attributes, Batch, CREATE, DUMP, Refusal, Socket, attribute, text};

const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
/// How nft(8) keeps a comment: type, length with the closing NUL, text (libnftnl's `NFTNL_UDATA_RULE_COMMENT`).
const COMMENT: u8 = 0;

/// A chain of somebody else's that could not be opened.
#[derive(Debug)]
pub struct Unopened {
    /// The chain, and what opens it by hand.
    pub chain: DroppingChain,
    /// Why.
    pub refusal: Refusal,
}

/// Opens each chain that drops what these bridges forward. What cannot be opened is told, and the rest is opened.
pub(crate) fn open(ours: &Table, bridges: &BTreeSet<String>) -> Result<Vec<Unopened>, NetworkError> {
    let mut socket = Socket::netfilter()?;
    let mut unopened = Vec::new();
    for bridge in bridges {
        for chain in foreign::dropping_chains(bridge)? {
            let mut batch = begin();
            for way in [Meta::InputInterface, Meta::OutputInterface] {
                let label = format!("add a rule to the chain {} {} {}", chain.family, chain.table, chain.opening);
                // Without NLM_F_APPEND it comes first.
                batch.message(label, NEW_RULE, CREATE, &message(family(chain.family)), |a| {
                    a.text(RULE_TABLE, &chain.table);
                    a.text(RULE_CHAIN, &chain.opening);
                    a.nest(RULE_EXPRESSIONS, |a| rule(a, way, bridge));
                    a.bytes(RULE_USERDATA, &comment(ours, bridge));
                });
            }
            if let Err(refusal) = commit(&mut socket, batch) {
                unopened.push(Unopened { chain, refusal });
            }
        }
    }
    Ok(unopened)
}

/// Takes away our rules about all bridges but these. Goes on past a failure; the first is reported.
pub(crate) fn close(ours: &Table, keep: &BTreeSet<String>) -> Result<(), NetworkError> {
    let mut socket = Socket::netfilter()?;
    let mut outcome = Ok(());
    for found in rules(&mut socket, ours)?.into_iter().filter(|found| !keep.contains(&found.bridge)) {
        let mut batch = begin();
        let label = format!("remove a rule of ours from the chain {} {}", found.table, found.chain);
        batch.message(label, DELETE_RULE, 0, &message(found.family), |a| {
            a.text(RULE_TABLE, &found.table);
            a.text(RULE_CHAIN, &found.chain);
            a.bytes(RULE_HANDLE, &found.handle);
        });
        match commit(&mut socket, batch) {
            // Its chain went in between.
            Err(refusal) if !refusal.is(libc::ENOENT) => outcome = outcome.and(Err(refusal.into())),
            _ => {}
        }
    }
    outcome
}

/// A rule of ours in a chain of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    family: u8,
    table: String,
    chain: String,
    /// As the kernel numbers it.
    handle: Vec<u8>,
    bridge: String,
}

fn rules(socket: &mut Socket, ours: &Table) -> Result<Vec<Found>, NetworkError> {
    let mut request = Batch::default();
    request.message("list the firewall's rules", GET_RULE, DUMP, &message(0), |_| {});
    let parse = |payload: &[u8]| {
        let attributes = payload.get(4..)?;
        Some(Found {
            family: payload[0],
            table: text(attribute(attributes, RULE_TABLE)?),
            chain: text(attribute(attributes, RULE_CHAIN)?),
            handle: attribute(attributes, RULE_HANDLE)?.to_vec(),
            bridge: bridge_of(attribute(attributes, RULE_USERDATA)?, ours)?,
        })
    };
    Ok(socket.dump(&request, |kind, payload| (kind == NEW_RULE).then(|| parse(payload)).flatten())?)
}

fn rule(list: &mut Attributes<'_>, way: Meta, bridge: &str) {
    let mut name = bridge.as_bytes().to_vec();
    name.resize(16, 0);
    Expression::Meta { key: way, register: REGISTER_1 }.encode(list);
    Expression::Compare { equal: true, value: name }.encode(list);
    list.nest(LIST_ELEMENT, |a| {
        a.text(1, "counter");
        a.nest(2, |_| {});
    });
    Expression::Verdict(Verdict::Accept).encode(list);
}

fn comment(ours: &Table, bridge: &str) -> Vec<u8> {
    let words = format!("{} {bridge}\0", ours.0);
    let length = u8::try_from(words.len()).expect("the name of a table of ours and that of an interface are short");
    [&[COMMENT, length], words.as_bytes()].concat()
}

/// The bridge that a rule is about, if its comment is one of ours.
fn bridge_of(userdata: &[u8], ours: &Table) -> Option<String> {
    let [COMMENT, length, rest @ ..] = userdata else { return None };
    let words = text(rest.get(..usize::from(*length))?);
    words.split_once(' ').filter(|(table, _)| *table == ours.0).map(|(_, bridge)| bridge.to_owned())
}

/// `struct nfgenmsg`.
fn message(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn family(name: &str) -> u8 {
    match name {
        "ip" => 2,
        "ip6" => 10,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_ours_is_known_by_its_comment() {
        let ours = Table("dozen-a".to_owned());
        let written = comment(&ours, "dz-a");
        assert_eq!(written, b"\0\x0ddozen-a dz-a\0");
        assert_eq!(bridge_of(&written, &ours).as_deref(), Some("dz-a"));
        for other in
            [&b""[..], b"\0", b"\0\x0ddozen-a", b"\0\x06dozen\0", b"\x01\x0ddozen-a dz-a\0", b"\0\x0bdozen dz-a\0"]
        {
            assert_eq!(bridge_of(other, &ours), None);
        }
    }
}
