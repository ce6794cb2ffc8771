//! The keeper: one small process per engine that outlives it and holds what must answer while the engine is
//! dead: the API's listening socket, the reservations of published host ports, the `[::1]` forwards, the names that
//! containers ask for.
//!
//! It decides nothing. What it holds follows from a [`Snapshot`] that the engine writes to
//! `<run_root>/keeper.json` by rename; on [`Keeper::apply`], and when it starts, the keeper opens what is new there,
//! closes what is gone, and answers with the ports that it could not have.
//!
//! ```text
//! engine                                   keeper (`dozen keeper RUN_ROOT CGROUP`)
//!   │ Keeper::connect_or_spawn ──────────────▶│ detaches, goes to its cgroup, locks keeper.lock,
//!   │                                         │ loads keeper.json, listens on keeper.sock,
//!   │                                         │ says that it is ready
//!   ├─ listener(path, mode, group) ──────────▶│ binds the API's socket the first time
//!   │◀───────────── a copy of the descriptor ─┤
//!   ├─ apply(snapshot) ──────────────────────▶│ reads keeper.json
//!   │◀──────── ports that could not be bound ─┤
//!   ├─ name(zones) ──────────────────────────▶│ reads names.json
//!   │◀──────────── containers that cannot ask ─┤
//!   ├─ upgrade (a program) ──────────────────▶│ becomes that program, with all that it holds (`handover`)
//! ```

mod begin;
mod client;
mod datagram;
mod error;
mod failpoint;
mod forward;
mod handover;
mod listener;
mod names;
mod port;
mod protocol;
mod server;
mod signals;
mod snapshot;

pub use begin::main;
pub use client::Keeper;
pub use error::KeeperError;
pub use failpoint::FAILPOINTS;
pub use names::NameFailure;
pub use snapshot::{PortFailure, PortReservation, Snapshot, VERSION};
