//! What a chain of somebody else's does with a packet that none of its conditions is about: the rules without a
//! condition decide, in order, and through jumps.

use std::collections::BTreeMap;

use crate::netlink::{attribute, attributes, number_be, text};

/// A rule, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It decides nothing: counts, logs.
    Pass,
    /// It has a condition that is not judged here.
    Maybe,
    Accept,
    /// Accepts the packets of connections whose destination was translated, and no others: `ct status dnat accept`.
    AcceptTranslated,
    /// Drops or rejects.
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// Whose fate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    /// The first of a connection that goes where it was sent to: what a container sends out.
    Plain,
    /// The first of a connection to a published port.
    Translated,
}

/// Where a packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Dropped,
    /// The chain's end decides: its policy, or who jumped.
    Open,
}

/// The kernel allows no more jumps within each other (`NFT_JUMP_STACK_SIZE`), and no circles.
const DEEPEST: usize = 16;

/// Follows a packet through the chain.
pub(super) fn fate(chains: &BTreeMap<String, Vec<Step>>, chain: &str, packet: Packet) -> Fate {
    follow(chains, chain, packet, DEEPEST)
}

fn follow(chains: &BTreeMap<String, Vec<Step>>, chain: &str, packet: Packet, deeper: usize) -> Fate {
    let into = |next: &String| match deeper.checked_sub(1) {
        Some(deeper) => follow(chains, next, packet, deeper),
        None => Fate::Open,
    };
    for step in chains.get(chain).into_iter().flatten() {
        let fate = match step {
            Step::AcceptTranslated if packet == Packet::Translated => Fate::Accepted,
            Step::Pass | Step::Maybe | Step::AcceptTranslated => Fate::Open,
            Step::Accept => Fate::Accepted,
            Step::Drop => Fate::Dropped,
            Step::Return => return Fate::Open,
            Step::Goto(next) => return into(next),
            Step::Jump(next) => into(next),
        };
        if fate != Fate::Open {
            return fate;
        }
    }
    Fate::Open
}

/// Reads the attributes of an `NFT_MSG_NEWRULE`: its chain, and what it does. Whatever expression is not known to be
/// without a condition has one.
pub(super) fn parse(rule: &[u8]) -> Option<(String, Step)> {
    let chain = text(attribute(rule, 2)?);
    let expressions = attribute(rule, 4).unwrap_or(&[]);
    let mut about_translated = Vec::new();
    for (_, expression) in attributes(expressions) {
        let (name, data) = (text(attribute(expression, 1)?), attribute(expression, 2).unwrap_or(&[]));
        if let Some(part) = TranslatedPart::of(&name, data) {
            about_translated.push(part);
            continue;
        }
        if about_translated == TranslatedPart::ALL && name == "immediate" && verdict(data) == Step::Accept {
            return Some((chain, Step::AcceptTranslated));
        }
        if !about_translated.is_empty() && name != "counter" {
            return Some((chain, Step::Maybe));
        }
        let step = match name.as_str() {
            "counter" | "log" | "notrack" => continue,
            "immediate" => verdict(data),
            "reject" => Step::Drop,
            // An extension of iptables', by its name (NFTA_TARGET_NAME).
            "target" => match attribute(data, 1).map(text).as_deref() {
                Some("REJECT") => Step::Drop,
                Some("LOG" | "NFLOG") => continue,
                _ => Step::Maybe,
            },
            _ => Step::Maybe,
        };
        return Some((chain, step));
    }
    Some((chain, Step::Pass))
}

/// The three expressions of `ct status dnat`: load the status, keep one bit of it, compare that with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TranslatedPart {
    Load,
    Keep,
    IsSet,
}

impl TranslatedPart {
    const ALL: [Self; 3] = [Self::Load, Self::Keep, Self::IsSet];
    /// `IPS_DST_NAT`.
    const STATUS_DNAT: u32 = 1 << 5;
    /// `NFT_CT_STATUS`.
    const CT_STATUS: u32 = 2;
    /// `NFT_CMP_NEQ`.
    const UNEQUAL: u32 = 1;

    fn of(name: &str, data: &[u8]) -> Option<Self> {
        let value = |kind| attribute(data, kind).and_then(|nest| attribute(nest, 1));
        let number = |kind| attribute(data, kind).and_then(number_be);
        match name {
            "ct" if number(2) == Some(Self::CT_STATUS) => Some(Self::Load),
            "bitwise" if value(4) == Some(&Self::STATUS_DNAT.to_ne_bytes()) => Some(Self::Keep),
            "cmp" if number(2) == Some(Self::UNEQUAL) && value(3) == Some(&[0; 4]) => Some(Self::IsSet),
            _ => None,
        }
    }
}

fn verdict(immediate: &[u8]) -> Step {
    let Some(verdict) = attribute(immediate, 2).and_then(|data| attribute(data, 2)) else { return Step::Maybe };
    let chain = || attribute(verdict, 2).map(text).unwrap_or_default();
    match attribute(verdict, 1).and_then(number_be).map(u32::cast_signed) {
        Some(0) => Step::Drop,
        Some(1) => Step::Accept,
        Some(-3) => Step::Jump(chain()),
        Some(-4) => Step::Goto(chain()),
        Some(-5) => Step::Return,
        _ => Step::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Batch, received};

    /// `iptables -A FORWARD -j REJECT`, as `nft --debug=netlink list ruleset` shows it: a counter, then iptables' own.
    #[test]
    fn a_rule_of_iptables_is_read() {
        for (target, want) in [("REJECT", Step::Drop), ("LOG", Step::Pass), ("TEE", Step::Maybe)] {
            let mut batch = Batch::default();
            batch.message("", 0, 0, &[], |a| {
                a.text(2, "FORWARD");
                a.nest(4, |a| {
                    a.nest(1, |a| a.text(1, "counter"));
                    a.nest(1, |a| {
                        a.text(1, "target");
                        a.nest(2, |a| a.text(1, target));
                    });
                });
            });
            let message = received(batch.bytes()).next().unwrap();
            assert_eq!(parse(message.payload), Some(("FORWARD".to_owned(), want)));
        }
    }

    #[test]
    fn the_first_rule_without_a_condition_decides() {
        use Step::{Accept, Drop, Pass, Return};
        let jump = |name: &str| Step::Jump(name.to_owned());
        let goto = |name: &str| Step::Goto(name.to_owned());
        for (chains, want) in [
            (vec![vec![]], Fate::Open),
            (vec![vec![Pass, Drop]], Fate::Dropped),
            (vec![vec![Pass, Accept, Drop]], Fate::Accepted),
            (vec![vec![Return, Drop]], Fate::Open),
            (vec![vec![jump("1")], vec![Pass, Drop]], Fate::Dropped),
            (vec![vec![jump("1"), Drop], vec![Return, Accept]], Fate::Dropped),
            (vec![vec![jump("1"), Drop], vec![Accept]], Fate::Accepted),
            (vec![vec![goto("1"), Drop], vec![Pass]], Fate::Open),
            (vec![vec![jump("1")], vec![jump("2"), Accept], vec![goto("3"), Accept], vec![Drop]], Fate::Dropped),
            (vec![vec![jump("not there"), Drop]], Fate::Dropped),
            (vec![vec![jump("0"), Drop]], Fate::Dropped),
        ] {
            let named = chains.iter().enumerate().map(|(index, steps)| (index.to_string(), steps.clone())).collect();
            assert_eq!(fate(&named, "0", Packet::Plain), want, "{chains:?}");
        }
    }

    #[test]
    fn what_is_published_may_pass_where_the_rest_does_not() {
        let chains = BTreeMap::from([("a".to_owned(), vec![Step::Maybe, Step::AcceptTranslated, Step::Drop])]);
        assert_eq!(fate(&chains, "a", Packet::Translated), Fate::Accepted);
        assert_eq!(fate(&chains, "a", Packet::Plain), Fate::Dropped);
    }
}
