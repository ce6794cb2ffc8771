//! The runtime on the real kernel, as root, each container in a process of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod attacks;
mod bundle;
mod cgroups;
mod command_line;
mod container;
mod hooks;
mod joined_mounts;
mod labels;
mod mounts;
mod namespaces;
mod notify;
mod oracle;
mod process;
mod seccomp;
mod shared_cgroups;
mod starts;
