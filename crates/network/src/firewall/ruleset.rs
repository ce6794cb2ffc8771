//! The rules of our table: fixed text. Bridges, their subnets, and ports are elements of its sets and maps, so that a
//! network more or less changes no rule.
//!
//! As `nft` would write it:
//! ```text
//! chain guard { type filter hook prerouting priority raw
//!   iifname . ip saddr @subnets4 ip daddr != 127.0.0.0/8 accept
//!                                                      the rules below are not about these, which are nearly all
//!                                                      that a container sends: they need not be asked for each packet
//!   iifname != "lo" ip daddr 127.0.0.0/8 drop          route_localnet on our bridges must not let a container,
//!   iifname != "lo" ip saddr 127.0.0.0/8 drop          or a neighbour, speak to or as the host's own loopback
//!   iifname @bridges ip saddr != 0.0.0.0 fib saddr . iif oif 0 drop
//!                                                      a container speaks as nobody outside its own network, but for
//!                                                      whom the host has a route to it
//!   iifname != "lo" iifname != @bridges meta nfproto . ip saddr @sources4 fib saddr . iif oif 0 drop
//!                                                      and nobody outside as a container
//!   meta nfproto ipv6 iifname @isolated6 accept         here IPv6 comes no further than to containers, whose frames are
//!                                                       seen where br_netfilter is at work: the host has none there
//!   …the last two for ipv6, where a container may not speak as the host either (IPv4 knows that by itself)
//! }
//! chain prerouting { type nat hook prerouting priority dstnat;  fib daddr type local jump published }
//! chain output     { type nat hook output     priority dstnat;  fib daddr type local jump published }
//! chain published {
//!   meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @published4_at
//!   meta nfproto ipv4 dnat ip to            meta l4proto . th dport map @published4
//!   ip6 daddr ::1 return                                [::1] cannot be translated: the keeper forwards it
//!   …the same for ipv6
//! }
//! chain postrouting { type nat hook postrouting priority srcnat
//!   oifname . ip saddr @subnets4 ct status dnat masquerade                 a container that calls a published port
//!   oifname . ip saddr @subnets4 accept                                    of its own network; else nothing is hidden
//!   meta nfproto . ip saddr @masqueraded4 masquerade                       what leaves the network
//!   oifname @bridges ip saddr 127.0.0.0/8 masquerade                       the host that calls 127.0.0.1:port
//!   …the first three for ipv6
//! }
//! chain forward { type filter hook forward priority filter; policy accept
//!   oifname @bridges ct state established,related accept
//!   iifname . oifname @within accept                    within one network, unless its containers are to be apart
//!   iifname @internal drop                              an internal network reaches nothing else, ports included
//!   oifname @bridges ct status dnat accept
//!   oifname @bridges ip daddr . meta l4proto . th dport @direct4 accept     a port that is published as it is
//!   meta nfproto ipv4 oifname @routed4 meta l4proto icmp accept             and pings to its container
//!   meta nfproto ipv4 iifname != @bridges iifname != "dozen0" iifname != "dz-*" oifname @unprotected4 accept
//!                                                       every port, from outside, where somebody wants that
//!   …the last three for ipv6
//!   oifname @bridges drop                               what is not published is not reachable, even by a route, from
//!                                                       another network or from outside
//!   iifname @bridges accept
//!   iifname "dozen0" accept; iifname "dz-*" accept; the same for oifname     other engines' tables decide on theirs
//!   meta nfproto ipv4 iifname @opened4 drop             forwarding that only we turned on is for containers only
//!   meta nfproto ipv6 iifname @opened6 drop
//!   meta nfproto ipv6 drop                              (only if we turned it on for all interfaces)
//! }
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use super::expression::{Expression, Meta, REGISTER_1, Verdict, WORD_0};
use super::set::Map;
use crate::address::Ipv4Subnet;

pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;
const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
/// `IPS_DST_NAT`: the connection's destination was translated.
const STATUS_DNAT: u32 = 1 << 5;
/// The bits of `ct state` for established and related.
const STATE_ESTABLISHED_RELATED: u32 = 2 | 4;
const RTN_LOCAL: u32 = 2;
/// Words of four bytes that an interface's name fills.
const INTERFACE_WORDS: u32 = 4;

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The kernel has IPv6.
    pub(crate) ipv6: bool,
    /// We turned IPv6 forwarding on for every interface: the kernel has no other way before 6.17.
    pub(crate) ipv6_forwarding_is_ours: bool,
}

/// A chain with its rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Vec<Expression>>,
}

/// Where a chain hangs in the packet's way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) kind: &'static str,
    pub(crate) hook: u32,
    pub(crate) priority: i32,
}

impl Rules {
    /// The chains; one that is jumped to comes before the one that jumps.
    pub(crate) fn chains(&self) -> Vec<Chain> {
        vec![
            base("guard", "filter", HOOK_PREROUTING, -300, self.guard()),
            Chain { name: "published", base: None, rules: self.published() },
            base("prerouting", "nat", HOOK_PREROUTING, -100, vec![to_published()]),
            base("output", "nat", HOOK_OUTPUT, -100, vec![to_published()]),
            base("postrouting", "nat", HOOK_POSTROUTING, 100, self.postrouting()),
            base("forward", "filter", HOOK_FORWARD, 0, self.forward()),
        ]
    }

    fn guard(&self) -> Vec<Vec<Expression>> {
        let from_us = || member(Meta::InputInterface, Map::Bridges);
        let from_elsewhere = || {
            let input = Expression::Meta { key: Meta::InputInterface, register: REGISTER_1 };
            let not_ours = vec![input, Expression::NotIn { set: Map::Bridges.name() }];
            [interface(Meta::InputInterface, false, "lo"), not_ours].concat()
        };
        let no_way_back = || vec![Expression::WayBack, equal([0; 4]), Expression::Verdict(Verdict::Drop)];
        let anyone = Ipv4Subnet::containing(Ipv4Addr::UNSPECIFIED, 32);
        let elsewhere = Expression::Compare { equal: false, value: vec![127] };
        let to_elsewhere = vec![Expression::Network { offset: 16, length: 1, register: REGISTER_1 }, elsewhere];
        let mut rules = vec![[of_subnet(Meta::InputInterface, NFPROTO_IPV4), to_elsewhere, accept()].concat()];
        rules.extend(loopback_alone());
        rules.push([from_us(), but(from_ipv4(anyone)), no_way_back()].concat());
        rules.push([from_elsewhere(), from_any_of(NFPROTO_IPV4, Map::Sources4), no_way_back()].concat());
        if self.ipv6 {
            let isolated = member(Meta::InputInterface, Map::Isolated6);
            rules.push([family(NFPROTO_IPV6), isolated, accept()].concat());
            rules.push([from_us(), but(from_link_local()), no_way_back()].concat());
            rules.push([from_elsewhere(), from_any_of(NFPROTO_IPV6, Map::Sources6), no_way_back()].concat());
        }
        rules
    }

    fn published(&self) -> Vec<Vec<Expression>> {
        let mut rules = vec![translate(NFPROTO_IPV4, true), translate(NFPROTO_IPV4, false)];
        if self.ipv6 {
            let mut loopback = family(NFPROTO_IPV6);
            loopback.push(Expression::Network { offset: 24, length: 16, register: REGISTER_1 });
            loopback.push(equal(Ipv6Addr::LOCALHOST.octets()));
            loopback.push(Expression::Verdict(Verdict::Return));
            rules.extend([loopback, translate(NFPROTO_IPV6, true), translate(NFPROTO_IPV6, false)]);
        }
        rules
    }

    fn postrouting(&self) -> Vec<Vec<Expression>> {
        let of_family = |protocol, masqueraded| {
            [
                [of_subnet(Meta::OutputInterface, protocol), translated(), vec![Expression::Masquerade]].concat(),
                [of_subnet(Meta::OutputInterface, protocol), accept()].concat(),
                [from_any_of(protocol, masqueraded), vec![Expression::Masquerade]].concat(),
            ]
        };
        let arriving = member(Meta::OutputInterface, Map::Bridges);
        let mut rules = Vec::from(of_family(NFPROTO_IPV4, Map::Masqueraded4));
        rules.push([arriving, from_ipv4(loopback()), vec![Expression::Masquerade]].concat());
        if self.ipv6 {
            rules.extend(of_family(NFPROTO_IPV6, Map::Masqueraded6));
        }
        rules
    }

    fn forward(&self) -> Vec<Vec<Expression>> {
        let to_us = || member(Meta::OutputInterface, Map::Bridges);
        let from_us = |set| member(Meta::InputInterface, set);
        let opened = |protocol, set| [family(protocol), member(Meta::InputInterface, set), drop_it()].concat();
        let within = vec![
            Expression::Meta { key: Meta::InputInterface, register: WORD_0 },
            Expression::Meta { key: Meta::OutputInterface, register: WORD_0 + INTERFACE_WORDS },
            Expression::Lookup { set: Map::Within.name(), map: false },
        ];
        // Packets of another engine's containers: its own table decides on them.
        let engines = [Meta::InputInterface, Meta::OutputInterface].into_iter().flat_map(|key| {
            let default = interface(key, true, crate::host::DEFAULT_BRIDGE);
            [[default, accept()].concat(), [begins_with(key, crate::host::TAGGED_BRIDGE), accept()].concat()]
        });
        let mut rules = vec![
            [to_us(), established(), accept()].concat(),
            [within, accept()].concat(),
            [from_us(Map::Internal), drop_it()].concat(),
            [to_us(), translated(), accept()].concat(),
        ];
        rules.extend([NFPROTO_IPV4, NFPROTO_IPV6].into_iter().flat_map(without_translation));
        rules.push([to_us(), drop_it()].concat());
        rules.push([from_us(Map::Bridges), accept()].concat());
        rules.extend(engines);
        rules.push(opened(NFPROTO_IPV4, Map::Opened4));
        rules.push(opened(NFPROTO_IPV6, Map::Opened6));
        if self.ipv6_forwarding_is_ours {
            rules.push([family(NFPROTO_IPV6), drop_it()].concat());
        }
        rules
    }
}

fn base(name: &'static str, kind: &'static str, hook: u32, priority: i32, rules: Vec<Vec<Expression>>) -> Chain {
    Chain { name, base: Some(Base { kind, hook, priority }), rules }
}

fn loopback_alone() -> Vec<Vec<Expression>> {
    let rule = |offset| {
        let mut rule = interface(Meta::InputInterface, false, "lo");
        rule.extend(family(NFPROTO_IPV4));
        rule.push(Expression::Network { offset, length: 1, register: REGISTER_1 });
        rule.push(equal([127]));
        rule.push(Expression::Verdict(Verdict::Drop));
        rule
    };
    vec![rule(16), rule(12)]
}

fn to_published() -> Vec<Expression> {
    vec![Expression::DestinationKind, equal(RTN_LOCAL.to_ne_bytes()), Expression::Verdict(Verdict::Jump("published"))]
}

/// Looks the packet's destination up, with its address or by protocol and port alone, and translates it.
fn translate(protocol: u8, with_address: bool) -> Vec<Expression> {
    let (map, offset, length) = match (protocol, with_address) {
        (NFPROTO_IPV4, true) => (Map::Published4At, 16, 4),
        (NFPROTO_IPV4, false) => (Map::Published4, 16, 4),
        (_, true) => (Map::Published6At, 24, 16),
        (_, false) => (Map::Published6, 24, 16),
    };
    let words = length / 4;
    let mut rule = family(protocol);
    let mut next = WORD_0;
    if with_address {
        rule.push(Expression::Network { offset, length, register: next });
        next += words;
    }
    rule.push(Expression::Meta { key: Meta::Transport, register: next });
    rule.push(Expression::Transport { offset: 2, length: 2, register: next + 1 });
    rule.push(Expression::Lookup { set: map.name(), map: true });
    rule.push(Expression::TranslateDestination { family: protocol, port: WORD_0 + words });
    rule
}

/// What may be forwarded to containers by their own addresses.
fn without_translation(protocol: u8) -> [Vec<Expression>; 3] {
    let (offset, length, direct, routed, unprotected, icmp) = match protocol {
        NFPROTO_IPV4 => (16, 4, Map::Direct4, Map::Routed4, Map::Unprotected4, libc::IPPROTO_ICMP),
        _ => (24, 16, Map::Direct6, Map::Routed6, Map::Unprotected6, libc::IPPROTO_ICMPV6),
    };
    let words = length / 4;
    let port = vec![
        Expression::Network { offset, length, register: WORD_0 },
        Expression::Meta { key: Meta::Transport, register: WORD_0 + words },
        Expression::Transport { offset: 2, length: 2, register: WORD_0 + words + 1 },
        Expression::Lookup { set: direct.name(), map: false },
    ];
    let icmp = u8::try_from(icmp).expect("a protocol is a byte");
    let ping = vec![Expression::Meta { key: Meta::Transport, register: REGISTER_1 }, equal([icmp])];
    let input = Expression::Meta { key: Meta::InputInterface, register: REGISTER_1 };
    let from_no_container = [
        vec![input, Expression::NotIn { set: Map::Bridges.name() }],
        interface(Meta::InputInterface, false, crate::host::DEFAULT_BRIDGE),
        but(begins_with(Meta::InputInterface, crate::host::TAGGED_BRIDGE)),
    ];
    let to = |set| member(Meta::OutputInterface, set);
    [
        [family(protocol), to(Map::Bridges), port, accept()].concat(),
        [family(protocol), to(routed), ping, accept()].concat(),
        [family(protocol), from_no_container.concat(), to(unprotected), accept()].concat(),
    ]
}

fn family(protocol: u8) -> Vec<Expression> {
    vec![Expression::Meta { key: Meta::Family, register: REGISTER_1 }, equal([protocol])]
}

fn interface(key: Meta, is: bool, name: &str) -> Vec<Expression> {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    vec![Expression::Meta { key, register: REGISTER_1 }, Expression::Compare { equal: is, value }]
}

fn begins_with(key: Meta, prefix: &str) -> Vec<Expression> {
    vec![Expression::Meta { key, register: REGISTER_1 }, equal(prefix.as_bytes())]
}

fn from_ipv4(subnet: Ipv4Subnet) -> Vec<Expression> {
    let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(subnet.prefix_length())).unwrap_or(0));
    let mut rule = family(NFPROTO_IPV4);
    rule.push(Expression::Network { offset: 12, length: 4, register: REGISTER_1 });
    rule.push(Expression::Mask { mask: mask.octets().to_vec() });
    rule.push(equal(subnet.network().octets()));
    rule
}

/// The interface is in the set.
fn member(key: Meta, set: Map) -> Vec<Expression> {
    vec![Expression::Meta { key, register: REGISTER_1 }, Expression::Lookup { set: set.name(), map: false }]
}

/// The source is of the subnet of the bridge that the packet comes from, or goes to.
fn of_subnet(key: Meta, protocol: u8) -> Vec<Expression> {
    let set = if protocol == NFPROTO_IPV4 { Map::Subnets4 } else { Map::Subnets6 };
    let mut rule = family(protocol);
    rule.push(Expression::Meta { key, register: WORD_0 });
    rule.push(source(protocol, WORD_0 + INTERFACE_WORDS));
    rule.push(Expression::Lookup { set: set.name(), map: false });
    rule
}

/// The source is of one of these subnets. The family stands before it because a set of ranges wants two parts
/// (`NFT_PIPAPO_MIN_FIELDS`), or has each range as two elements.
fn from_any_of(protocol: u8, set: Map) -> Vec<Expression> {
    let mut rule = family(protocol);
    rule.push(Expression::Meta { key: Meta::Family, register: WORD_0 });
    rule.push(source(protocol, WORD_0 + 1));
    rule.push(Expression::Lookup { set: set.name(), map: false });
    rule
}

fn source(protocol: u8, register: u32) -> Expression {
    let (offset, length) = if protocol == NFPROTO_IPV4 { (12, 4) } else { (8, 16) };
    Expression::Network { offset, length, register }
}

fn accept() -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Accept)]
}

fn drop_it() -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Drop)]
}

/// fe80::/10 (RFC 4291, 2.5.6).
fn from_link_local() -> Vec<Expression> {
    let mut rule = family(NFPROTO_IPV6);
    rule.push(Expression::Network { offset: 8, length: 16, register: REGISTER_1 });
    let prefix = |bits: u16| Ipv6Addr::new(bits, 0, 0, 0, 0, 0, 0, 0).octets();
    rule.push(Expression::Mask { mask: prefix(0xffc0).to_vec() });
    rule.push(equal(prefix(0xfe80)));
    rule
}

/// The opposite of a match whose last comparison decides.
fn but(mut matches: Vec<Expression>) -> Vec<Expression> {
    if let Some(Expression::Compare { equal, .. }) = matches.last_mut() {
        *equal = !*equal;
    }
    matches
}

fn loopback() -> Ipv4Subnet {
    Ipv4Subnet::containing(Ipv4Addr::LOCALHOST, 8)
}

fn established() -> Vec<Expression> {
    any_bit_of(Expression::ConnectionState, STATE_ESTABLISHED_RELATED)
}

fn translated() -> Vec<Expression> {
    any_bit_of(Expression::ConnectionStatus, STATUS_DNAT)
}

fn any_bit_of(load: Expression, bits: u32) -> Vec<Expression> {
    let mask = Expression::Mask { mask: bits.to_ne_bytes().to_vec() };
    vec![load, mask, Expression::Compare { equal: false, value: vec![0; 4] }]
}

fn equal(value: impl AsRef<[u8]>) -> Expression {
    Expression::Compare { equal: true, value: value.as_ref().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_between_other_interfaces_is_dropped_only_if_we_turned_forwarding_on() {
        let mut rules = Rules { ipv6: true, ipv6_forwarding_is_ours: false };
        let before = rules.forward();
        rules.ipv6_forwarding_is_ours = true;
        let after = rules.forward();
        let last = [family(NFPROTO_IPV6), vec![Expression::Verdict(Verdict::Drop)]].concat();
        assert_eq!(after, [before, vec![last]].concat());
    }

    #[test]
    fn without_ipv6_no_rule_translates_it() {
        let rules = Rules { ipv6: false, ipv6_forwarding_is_ours: false };
        assert_eq!((rules.published().len(), rules.postrouting().len()), (2, 4));
    }
}
