//! The ledger: one SQLite file that owns every file, container, image and volume of an engine.
//!
//! One thread writes. Whoever wants a change sends a closure, which runs in a transaction of its own;
//! the caller is answered once the transaction is durable in the [`Durability`] that it asked for.
//! Changes that wait at the same moment are committed together, each in a savepoint of its own, so
//! that eight starts at a time cost one sync and not eight. Reading goes through [`Ledger::read`],
//! on the same thread and in order: whoever was answered sees what it wrote.
//!
//! A full disk stops what is new and not what is over: space is kept in reserve for
//! [`Ledger::write_essential`], and while it is used up [`Ledger::check_room`] refuses.

pub mod boot;
mod error;
mod migration;
mod reserve;
mod writer;

pub use error::LedgerError;
pub use migration::{Migration, SCHEMA_VERSION_ORIGIN};
pub use rusqlite;
pub use writer::{Durability, Ledger};
