//! Linux isolation: from an OCI spec to a process, and the home of `unsafe`.
//!
//! [`create`] makes one process with one clone3(2): it is the container's process 1 from its first
//! instruction, there is nobody in between. It builds its own root, drops what it may not have, and waits;
//! [`Created::start`] lets it execute the wanted program. [`exec`] brings a further process into a running
//! container. [`run_cli`] is the same behind the standard command line of OCI runtimes.
//!
//! The calling process must have a single thread (the child of a clone must not inherit a lock that another
//! thread holds) and becomes undumpable: what it clones is visible to a container before it has executed
//! anything (CVE-2019-5736).
//!
//! Deciding stands apart from doing: `plan` turns a spec into plain data and refuses by name what is not
//! built, `seccomp` compiles filters, `user` reads passwd files; `child`, `mounts`, `cgroup` touch the system.

mod about;
mod agent;
mod capability;
mod cgroup;
mod child;
mod cli;
mod create;
pub mod default_spec;
mod delegation;
pub mod detach;
mod device_filter;
mod error;
mod exec;
mod failpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hooks;
mod id_map;
mod init;
mod labels;
mod message;
mod mounts;
mod namespace;
mod net_devices;
pub mod overlay;
mod own_binary;
mod plan;
mod process;
mod reading;
pub mod rest;
mod scheduling;
mod seccomp;
mod sys;
mod terminal;
mod threshold;
mod user;

pub use cgroup::{
    Amount, Cgroup, CgroupLayout, CgroupStats, CpuStats, CpusetStats, IoEntry, IoStats, MemoryStats, OomWatch,
    PidsStats, machine_goes_down,
};
pub use cli::run_cli;
pub use create::{CreateOptions, Created, Root, Running, Stdio, WindowSize, create};
pub use error::RuntimeError;
pub use exec::{ExecOptions, ExecProcess, exec};
pub use failpoint::{COMMAND_FAILPOINTS, FAILPOINTS, HOOK_FAILPOINTS, JOIN_FAILPOINTS, THRESHOLD_FAILPOINTS};
pub use id_map::{network_namespace_of, user_namespace};
pub use mounts::can_be_idmapped;
pub use mounts::view::{ViewedBind, ViewedSource, view};
pub use mounts::volume::{FileSystem, is_mount_point, is_unknown_file_system, unmount};
pub use oci_spec::runtime::Spec;
pub use own_binary::own_binary;
pub use plan::{FROM_NAMESPACE, OWNER, check_place};
pub use seccomp::check_profile;
pub use sys::as_user;
pub use user::user_in;
