//! Chains of other people's firewalls that drop what is forwarded, and with it containers' packets.
//!
//! An accept of ours is not final: a packet passes every chain on the hook, and each may drop it (nft(8), "base
//! chains"). What the host's firewall drops stays dropped; the user is told which chain it is and what opens it.
//!
//! Seen here: base chains of nftables, those of iptables-nft included, that drop or reject what none of their rules
//! accepts: by policy, or by a rule without a condition, also in a chain that they jump to. What is there and cannot be
//! judged ([`Look::unjudged`]): the older iptables-legacy, whose tables have no netlink interface, and conditions that
//! happen to be about containers.

use std::collections::BTreeMap;

use super::fate::{self, Fate, Packet, Step};
use crate::error::NetworkError;
use crate::netlink::{Batch, DUMP, Socket, attribute, number_be, text};

const GET_CHAIN: u16 = 10 << 8 | 4;
const NEW_CHAIN: u16 = 10 << 8 | 3;
const GET_RULE: u16 = 10 << 8 | 7;
const NEW_RULE: u16 = 10 << 8 | 6;
const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_INET_INGRESS: u32 = 5;
const POLICY_DROP: u32 = 0;
/// `NFPROTO_NETDEV`: chains on an interface, before all others.
const FAMILY_NETDEV: u8 = 5;
/// The tables that iptables-legacy has made in this network namespace, one a line.
const LEGACY_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// A base chain that drops or rejects forwarded packets unless one of its rules accepts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    /// `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Its policy is drop; else a rule of its own is.
    pub by_policy: bool,
    /// Connections to published ports pass all the same, as with firewalld; what containers send out does not.
    pub published_pass: bool,
    /// The chain that a rule which lets the bridge's packets through belongs in: this one, or the one that Docker keeps
    /// for such rules.
    pub(crate) opening: String,
    /// Commands that let the bridge's packets through.
    pub commands: Vec<String>,
}

impl std::fmt::Display for DroppingChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.by_policy { "by policy" } else { "that none of its rules accepts" };
        write!(f, "the firewall chain {} {} {} drops forwarded packets {how}", self.family, self.table, self.chain)
    }
}

impl DroppingChain {
    /// Whether it sees packets of this family.
    pub fn is_about(&self, ipv4: bool) -> bool {
        match self.family {
            "ip" => ipv4,
            "ip6" => !ipv4,
            _ => true,
        }
    }
}

/// What other people's firewalls do with what a bridge forwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// What drops it.
    pub dropping: Vec<DroppingChain>,
    /// What may drop it, or let it through: rules with conditions that are not judged here.
    pub unjudged: Vec<String>,
}

/// The chains that drop what the bridge forwards, unless a rule of theirs names the bridge: whoever wrote that rule
/// has decided about us.
pub fn dropping_chains(bridge: &str) -> Result<Vec<DroppingChain>, NetworkError> {
    look(bridge).map(|look| look.dropping)
}

/// As [`dropping_chains`], with what cannot be judged.
pub fn look(bridge: &str) -> Result<Look, NetworkError> {
    let mut socket = Socket::netfilter()?;
    let mut request = Batch::default();
    request.message("list the firewall's chains", GET_CHAIN, DUMP, &[0; 4], |_| {});
    let chains = socket.dump(&request, |kind, payload| (kind == NEW_CHAIN).then(|| Seen::parse(payload)).flatten())?;
    let mut found = Look::default();
    for seen in chains.iter().filter(|chain| chain.is_on_the_way() && !is_engines_table(&chain.table)) {
        let Some(family) = family_name(seen.family) else { continue };
        let rules = rules(&mut socket, seen, bridge)?;
        let name = format!("{family} {} {}", seen.table, seen.name);
        if !seen.forwards() {
            if seen.drops_by_policy || rules.of_chains.get(&seen.name).is_some_and(|steps| !steps.is_empty()) {
                found.unjudged.push(format!("{name} sees packets before they are forwarded"));
            }
            continue;
        }
        if rules.name_the_bridge {
            found.unjudged.push(format!("{name}: there are rules about {bridge}"));
            continue;
        }
        if rules.of_chains.values().flatten().any(|step| *step == Step::Maybe) {
            found.unjudged.push(format!("{name} has rules with conditions"));
        }
        let is_dropped = |packet| match fate::fate(&rules.of_chains, &seen.name, packet) {
            Fate::Dropped => true,
            Fate::Open => seen.drops_by_policy,
            Fate::Accepted => false,
        };
        if !is_dropped(Packet::Plain) {
            continue;
        }
        let docker =
            chains.iter().any(|c| (c.family, &c.table) == (seen.family, &seen.table) && c.name == DOCKERS_CHAIN);
        let ufw = chains.iter().any(|c| c.table == seen.table && c.name.starts_with("ufw"));
        found.dropping.push(DroppingChain {
            family,
            table: seen.table.clone(),
            chain: seen.name.clone(),
            by_policy: seen.drops_by_policy,
            published_pass: !is_dropped(Packet::Translated),
            opening: if docker { DOCKERS_CHAIN.to_owned() } else { seen.name.clone() },
            commands: commands(family, &seen.table, &seen.name, bridge, docker, ufw),
        });
    }
    for (file, program) in LEGACY_TABLES.into_iter().zip(["iptables-legacy", "ip6tables-legacy"]) {
        let tables = std::fs::read_to_string(file).unwrap_or_default();
        if !tables.trim().is_empty() {
            let tables: Vec<&str> = tables.split_whitespace().collect();
            found.unjudged.push(format!("{program} has tables of its own: {}", tables.join(", ")));
        }
    }
    Ok(found)
}

/// Docker leaves it to the user, and asks it first.
const DOCKERS_CHAIN: &str = "DOCKER-USER";

/// Ours, and those of other engines of this kind.
fn is_engines_table(table: &str) -> bool {
    table == "dozen" || table.starts_with("dozen-")
}

/// What opens the chain, in the words of the tool that most likely made it.
fn commands(family: &str, table: &str, chain: &str, bridge: &str, docker: bool, ufw: bool) -> Vec<String> {
    if ufw {
        return vec![format!("ufw route allow in on {bridge}"), format!("ufw route allow out on {bridge}")];
    }
    if table == "firewalld" {
        return vec![
            format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge}"),
            "firewall-cmd --reload".to_owned(),
        ];
    }
    let of_iptables = table == "filter" && chain == "FORWARD" && family != "inet";
    if of_iptables {
        let program = if family == "ip" { "iptables" } else { "ip6tables" };
        let chain = if docker { "DOCKER-USER" } else { chain };
        return ["-i", "-o"].map(|way| format!("{program} -I {chain} {way} {bridge} -j ACCEPT")).to_vec();
    }
    ["iifname", "oifname"].map(|way| format!("nft insert rule {family} {table} {chain} {way} {bridge} accept")).to_vec()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    family: u8,
    table: String,
    name: String,
    /// Of a base chain.
    hook: Option<u32>,
    translates: bool,
    drops_by_policy: bool,
}

impl Seen {
    /// It is a base chain on the hook for forwarded packets.
    fn forwards(&self) -> bool {
        self.hook == Some(HOOK_FORWARD) && self.family != FAMILY_NETDEV
    }

    /// What is sent from outside to a container passes it, and may be dropped.
    fn is_on_the_way(&self) -> bool {
        // The hook of a network device's ingress has the number of prerouting.
        let before = matches!(self.hook, Some(HOOK_PREROUTING | HOOK_INET_INGRESS));
        self.forwards() || (before && !self.translates)
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let attributes = payload.get(4..)?;
        let hook = attribute(attributes, 4).and_then(|hook| attribute(hook, 1)).and_then(number_be);
        let policy = attribute(attributes, 5).and_then(number_be);
        Some(Self {
            family: payload[0],
            table: text(attribute(attributes, 1)?),
            name: text(attribute(attributes, 3)?),
            hook,
            translates: attribute(attributes, 7).map(text).as_deref() == Some("nat"),
            drops_by_policy: policy == Some(POLICY_DROP),
        })
    }
}

fn family_name(family: u8) -> Option<&'static str> {
    match family {
        1 => Some("inet"),
        2 => Some("ip"),
        FAMILY_NETDEV => Some("netdev"),
        10 => Some("ip6"),
        // On the family `bridge` the hook sees bridged frames, which containers' traffic to outside is not.
        _ => None,
    }
}

/// The rules of a table.
struct Rules {
    of_chains: BTreeMap<String, Vec<Step>>,
    /// One of them compares something with the bridge's name.
    name_the_bridge: bool,
}

fn rules(socket: &mut Socket, chain: &Seen, bridge: &str) -> Result<Rules, NetworkError> {
    let mut request = Batch::default();
    let label = format!("list the rules of the table {}", chain.table);
    request.message(label, GET_RULE, DUMP, &[chain.family, 0, 0, 0], |a| a.text(1, &chain.table));
    let mut rules = Rules { of_chains: BTreeMap::new(), name_the_bridge: false };
    let found = socket.dump(&request, |kind, payload| {
        let names_it = names(payload, bridge);
        let of_table = kind == NEW_RULE && attribute(payload.get(4..)?, 1).map(text).as_ref() == Some(&chain.table);
        of_table.then(|| fate::parse(&payload[4..]).map(|rule| (rule, names_it))).flatten()
    })?;
    for ((chain, step), names_it) in found {
        rules.of_chains.entry(chain).or_default().push(step);
        rules.name_the_bridge |= names_it;
    }
    Ok(rules)
}

/// Whether a rule has the name somewhere, as `cmp` or a comment of ours holds it: after an attribute's header or a space,
/// and before the NUL that ends it.
fn names(rule: &[u8], bridge: &str) -> bool {
    let needle = [bridge.as_bytes(), &[0]].concat();
    rule.windows(needle.len() + 1).any(|window| matches!(window[0], 0 | b' ') && window[1..] == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_about_the_bridge_that_it_names_and_not_about_one_whose_name_it_ends_with() {
        for (rule, named) in [
            (&b"\x08\0\x01\0dozen0\0\0"[..], true),
            (b"dozen dozen0\0", true),
            (b"\0ozen0\0", false),
            (b"\0mydozen0\0", false),
            (b"\0dozen01\0", false),
        ] {
            assert_eq!(names(rule, "dozen0"), named, "{rule:?}");
        }
    }

    #[test]
    fn the_command_is_of_the_tool_that_made_the_chain() {
        for (family, table, chain, docker, ufw, want) in [
            ("ip", "filter", "FORWARD", false, false, "iptables -I FORWARD -i dozen0 -j ACCEPT"),
            ("ip", "filter", "FORWARD", true, false, "iptables -I DOCKER-USER -i dozen0 -j ACCEPT"),
            ("ip6", "filter", "FORWARD", false, false, "ip6tables -I FORWARD -i dozen0 -j ACCEPT"),
            ("ip", "filter", "FORWARD", false, true, "ufw route allow in on dozen0"),
            (
                "inet",
                "firewalld",
                "filter_FORWARD",
                false,
                false,
                "firewall-cmd --permanent --zone=trusted --add-interface=dozen0",
            ),
            ("inet", "mine", "forward", false, false, "nft insert rule inet mine forward iifname dozen0 accept"),
        ] {
            assert_eq!(commands(family, table, chain, "dozen0", docker, ufw)[0], want);
        }
    }
}
