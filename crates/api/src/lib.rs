//! The Docker Engine API, 1.24 to 1.51, over HTTP/1 on unix sockets and TCP.
//!
//! A request passes through: `server` (connections, and their takeover for attach and exec) → `edge`
//! (versions in the path, the headers that every answer bears) → `routes` (one file per resource, which do
//! nothing but ask the engine) → `convert` (pure: Docker's JSON to the model's types and back). What Docker has
//! and dozen has not is refused by name: endpoints in `routes::refused`, fields in `convert::fields`.
//!
//! The newest version is spoken inside; what older clients expect otherwise stands in `shims`.

// `info` is one JSON literal of some eighty fields.
#![recursion_limit = "256"]

mod convert;
mod edge;
mod error;
mod extract;
mod filters;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod host;
mod leftover;
mod listening;
mod routes;
mod rows;
mod server;
mod shims;
mod sizes;
mod stream;
mod time;
mod web_pages;

pub use listening::{ListeningSockets, Way};
pub use server::serve;

/// Why an engine with these settings could not make containers, in words for the one who wrote them.
///
/// # Errors
/// The default log driver, or one of its options, is refused.
pub fn check_settings(settings: &dozen_settings::Settings) -> Result<(), String> {
    convert::defaults::check(settings).map(drop).map_err(|error| error.message)
}
