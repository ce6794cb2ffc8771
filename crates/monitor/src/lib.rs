//! The monitor: one small process per running container. It is the parent of the container's process 1 and of
//! every exec'd process, owns their streams, writes the log, serves attached clients, and records the exit. It
//! outlives the engine; any engine finds it by its socket and its lock.
//!
//! - [`protocol`]: what engine and monitor say to each other.
//! - [`client`]: the engine's side of it.
//! - [`main`]: the process.
//!
//! Inside: `start` is the sequence up to the running process, `monitor` the loop that follows, over `session` (a
//! process and its streams) and `connection` (a client); the folder `monitor` has what the loop does on each event.
//! `container` is the runtime under it, behind the trait in [`isolate`]. [`log`], [`frame`] and [`outbox`] decide and are
//! pure.

pub mod client;
mod connection;
mod container;
pub mod exit;
mod failpoint;
mod failure;
pub mod frame;
pub mod isolate;
mod lock;
pub mod log;
mod monitor;
pub mod outbox;
mod packet;
pub mod protocol;
mod session;
mod signals;
mod start;
mod watched;

use std::process::ExitCode;

pub use failpoint::FAILPOINTS;

/// `dozen monitor [CGROUP]`, with standard input one end of the start pair (see [`protocol`]), to be born in that
/// cgroup of version 2: the one that the request names too.
///
/// Detaches itself: the process that was spawned ends at once. Must be called while the process has one thread.
pub fn main(cgroup: Option<&str>) -> ExitCode {
    start::main(&mut container::Container::default(), cgroup)
}

/// [`main`] with another runtime under it, for tests of the monitor alone.
#[doc(hidden)]
pub fn main_with(isolate: &mut dyn isolate::Isolate) -> ExitCode {
    start::main(isolate, None)
}
