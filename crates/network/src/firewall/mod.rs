//! Our nftables table: encoding, rules, and the elements that change with every published port.

mod element;
mod expression;
mod fate;
pub mod foreign;
mod frame;
pub mod names;
pub(crate) mod opening;
mod ruleset;
mod set;
mod table;

pub(crate) use element::{Element, PublishedKey};
pub(crate) use ruleset::Rules;
pub(crate) use set::Map;
pub(crate) use table::{EVENTS, Table, difference, other_tables};
