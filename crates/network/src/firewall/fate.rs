//! What a chain of somebody else's does with a packet that none of its conditions is about: the rules without a
//! condition decide, in order, and through jumps.

use std::collections::BTreeMap;

use crate::netlink::{attribute, attributes, number_be, text};

/// A rule, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It has a condition, or decides nothing: counts, logs, marks.
    Pass,
    Accept,
    /// Drops or rejects.
    Drop,
    Return,
    Jump(String),
    Goto(String),
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
pub(super) fn fate(chains: &BTreeMap<String, Vec<Step>>, chain: &str) -> Fate {
    follow(chains, chain, DEEPEST)
}

fn follow(chains: &BTreeMap<String, Vec<Step>>, chain: &str, deeper: usize) -> Fate {
    let into = |next: &String| match deeper.checked_sub(1) {
        Some(deeper) => follow(chains, next, deeper),
        None => Fate::Open,
    };
    for step in chains.get(chain).into_iter().flatten() {
        let fate = match step {
            Step::Pass => Fate::Open,
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
    for (_, expression) in attributes(expressions) {
        let (name, data) = (text(attribute(expression, 1)?), attribute(expression, 2).unwrap_or(&[]));
        let step = match name.as_str() {
            "counter" | "log" | "notrack" => continue,
            "immediate" => verdict(data),
            "reject" => Step::Drop,
            // An extension of iptables', by its name (NFTA_TARGET_NAME).
            "target" => match attribute(data, 1).map(text).as_deref() {
                Some("REJECT") => Step::Drop,
                Some("LOG" | "NFLOG") => continue,
                _ => Step::Pass,
            },
            _ => Step::Pass,
        };
        return Some((chain, step));
    }
    Some((chain, Step::Pass))
}

fn verdict(immediate: &[u8]) -> Step {
    let Some(verdict) = attribute(immediate, 2).and_then(|data| attribute(data, 2)) else { return Step::Pass };
    let chain = || attribute(verdict, 2).map(text).unwrap_or_default();
    match attribute(verdict, 1).and_then(number_be).map(u32::cast_signed) {
        Some(0) => Step::Drop,
        Some(1) => Step::Accept,
        Some(-3) => Step::Jump(chain()),
        Some(-4) => Step::Goto(chain()),
        Some(-5) => Step::Return,
        _ => Step::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Batch, received};

    /// `iptables -A FORWARD -j REJECT`, as `nft --debug=netlink list ruleset` shows it: a counter, then iptables' own.
    #[test]
    fn a_rule_of_iptables_is_read() {
        for (target, want) in [("REJECT", Step::Drop), ("LOG", Step::Pass), ("TEE", Step::Pass)] {
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
            assert_eq!(fate(&named, "0"), want, "{chains:?}");
        }
    }
}
