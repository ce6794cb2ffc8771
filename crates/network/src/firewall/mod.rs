//! Our nftables table: encoding, rules, and the elements that change with every published port.

mod expression;
mod fate;
pub mod foreign;
mod frame;
pub mod names;
pub(crate) mod opening;
mod ruleset;
mod table;

pub(crate) use ruleset::Rules;
pub(crate) use table::{EVENTS, Element, Map, PublishedKey, Table, difference, other_tables};
