//! The Docker Engine API, 1.24 to 1.51, over HTTP/1 on a unix socket.
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
mod routes;
mod server;
mod shims;
mod sizes;
mod stream;
mod time;

pub use server::serve;
