//! A machine in a box for end-to-end tests: a fresh network, mount and cgroup namespace with an uplink to a neighbour,
//! in which an engine runs with roots of its own and is used as people use it.
//!
//! ```no_run
//! let machine = dozen_testbox::Machine::new();
//! let engine = machine.engine();
//! engine.load("busybox");
//! assert_eq!(engine.dozen(&["run", "--rm", "busybox", "echo", "hello"]).text(), "hello\n");
//! ```
//!
//! ```text
//!   neighbour (a network namespace)        machine (network, mount, cgroup namespace)
//!   198.51.100.1, 2001:db8:b0::1 ── veth ── eth0 198.51.100.2, 2001:db8:b0::2     engine, keeper, monitors
//! ```
//!
//! Nothing of it outlives the test: the box's processes all live in its own cgroup, and when the [`Machine`] is dropped
//! (or the test process dies, which closes a pipe) all of them are killed. Dropping a machine from which something
//! cannot be removed fails the test. Needs root.

// A library for tests: a failure of the box itself is a failed test, said by a panic.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod cgroup;
mod daemon;
mod disk;
mod engine;
mod gate;
mod machine;
mod random;
mod screen;
mod tools;
mod wait;

pub use daemon::Daemon;
pub use disk::Counted;
pub use engine::Engine;
pub use gate::Gate;
pub use machine::{MACHINE_ADDRESS, Machine, NEIGHBOUR_ADDRESS, Side};
pub use random::{Random, number, seed};
pub use screen::Screen;
pub use tools::{Done, docker_program, dozen_program, image_archive, node_program, peers_root, python_program};
pub use wait::{next_second, patience, until};
