//! The parts of an nftables rule, as the kernel takes them (include/uapi/linux/netfilter/nf_tables.h).
//!
//! A rule is a list of expressions that load values into registers, compare them and end in a verdict.
//! Registers: 16 bytes each (`REGISTER_1` and on), or the same space in words of four (`WORD_0` is its start).

use crate::netlink::Attributes;

pub(crate) const REGISTER_1: u32 = 1;
/// `NFT_REG32_00`: the first word of [`REGISTER_1`].
pub(crate) const WORD_0: u32 = 8;
const REGISTER_VERDICT: u32 = 0;

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// What `meta` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    InputInterface = 6,
    OutputInterface = 7,
    Family = 15,
    Transport = 16,
}

/// What a rule ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(&'static str),
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta {
        key: Meta,
        register: u32,
    },
    /// Bytes of the network header.
    Network {
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Bytes of the transport header.
    Transport {
        offset: u32,
        length: u32,
        register: u32,
    },
    Compare {
        equal: bool,
        value: Vec<u8>,
    },
    Mask {
        mask: Vec<u8>,
    },
    /// Stops the rule unless the key is in the set; of a map, its value goes to [`REGISTER_1`].
    Lookup {
        set: &'static str,
        map: bool,
    },
    /// Stops the rule if the key in [`REGISTER_1`] is in the set.
    NotIn {
        set: &'static str,
    },
    /// The kind of the destination address: local, unicast, ….
    DestinationKind,
    /// The interface by which the source would be answered, if it is the one that the packet came in by; else 0.
    WayBack,
    ConnectionState,
    ConnectionStatus,
    /// Translates the destination to the address in [`REGISTER_1`] and the port in the given one.
    TranslateDestination {
        family: u8,
        port: u32,
    },
    Masquerade,
    Verdict(Verdict),
}

impl Expression {
    /// Writes it as an element of a rule's list.
    pub(crate) fn encode(&self, list: &mut Attributes<'_>) {
        list.nest(LIST_ELEMENT, |a| match self {
            Self::Meta { key, register } => named(a, "meta", |a| {
                a.u32_be(1, *register);
                a.u32_be(2, *key as u32);
            }),
            Self::Network { offset, length, register } => payload(a, 1, *offset, *length, *register),
            Self::Transport { offset, length, register } => payload(a, 2, *offset, *length, *register),
            Self::Compare { equal, value } => named(a, "cmp", |a| {
                a.u32_be(1, REGISTER_1);
                a.u32_be(2, u32::from(!*equal));
                a.nest(3, |a| a.bytes(DATA_VALUE, value));
            }),
            Self::Mask { mask } => named(a, "bitwise", |a| {
                a.u32_be(1, REGISTER_1);
                a.u32_be(2, REGISTER_1);
                a.u32_be(3, u32::try_from(mask.len()).expect("a register has 16 bytes"));
                a.nest(4, |a| a.bytes(DATA_VALUE, mask));
                a.nest(5, |a| a.bytes(DATA_VALUE, &[0; 16][..mask.len()]));
            }),
            Self::Lookup { set, map } => named(a, "lookup", |a| {
                a.text(1, set);
                a.u32_be(2, REGISTER_1);
                if *map {
                    a.u32_be(3, REGISTER_1);
                }
            }),
            // NFTA_LOOKUP_FLAGS: NFT_LOOKUP_F_INV.
            Self::NotIn { set } => named(a, "lookup", |a| {
                a.text(1, set);
                a.u32_be(2, REGISTER_1);
                a.u32_be(5, 1);
            }),
            // NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR.
            Self::DestinationKind => named(a, "fib", |a| {
                a.u32_be(1, REGISTER_1);
                a.u32_be(2, 3);
                a.u32_be(3, 2);
            }),
            // NFT_FIB_RESULT_OIF of NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF.
            Self::WayBack => named(a, "fib", |a| {
                a.u32_be(1, REGISTER_1);
                a.u32_be(2, 1);
                a.u32_be(3, 1 | 8);
            }),
            Self::ConnectionState => connection(a, 0),
            Self::ConnectionStatus => connection(a, 2),
            Self::TranslateDestination { family, port } => named(a, "nat", |a| {
                a.u32_be(1, 1);
                a.u32_be(2, u32::from(*family));
                a.u32_be(3, REGISTER_1);
                a.u32_be(5, *port);
            }),
            Self::Masquerade => named(a, "masq", |_| {}),
            Self::Verdict(verdict) => named(a, "immediate", |a| {
                a.u32_be(1, REGISTER_VERDICT);
                a.nest(2, |a| {
                    a.nest(DATA_VERDICT, |a| {
                        let code: i32 = match verdict {
                            Verdict::Drop => 0,
                            Verdict::Accept => 1,
                            Verdict::Jump(_) => -3,
                            Verdict::Return => -5,
                        };
                        a.u32_be(1, code.cast_unsigned());
                        if let Verdict::Jump(chain) = verdict {
                            a.text(2, chain);
                        }
                    });
                });
            }),
        });
    }
}

fn named(attributes: &mut Attributes<'_>, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
    attributes.text(EXPRESSION_NAME, name);
    attributes.nest(EXPRESSION_DATA, data);
}

fn payload(attributes: &mut Attributes<'_>, base: u32, offset: u32, length: u32, register: u32) {
    named(attributes, "payload", |a| {
        a.u32_be(1, register);
        a.u32_be(2, base);
        a.u32_be(3, offset);
        a.u32_be(4, length);
    });
}

fn connection(attributes: &mut Attributes<'_>, key: u32) {
    named(attributes, "ct", |a| {
        a.u32_be(1, REGISTER_1);
        a.u32_be(2, key);
    });
}
