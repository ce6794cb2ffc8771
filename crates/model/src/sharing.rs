//! What a container shares with the host or with another container, and what it is told beside that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

/// Namespaces that are not the container's own, groups, values of the kernel and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharingSpec {
    /// Whose processes it sees.
    pub pid: PidMode,
    /// Whose message queues, semaphores and shared memory it has (ipc_namespaces(7)).
    pub ipc: IpcMode,
    /// `--uts host`: the host's name is its own (uts_namespaces(7)).
    pub host_uts: bool,
    /// `--cgroupns host`: it sees where its cgroup lies (cgroup_namespaces(7)).
    pub host_cgroups: bool,
    /// `--group-add`: further groups of its processes, by number.
    pub groups: Vec<u32>,
    /// Values of the kernel (sysctl(8)) in its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// The OCI specification's; nothing but hooks reads them.
    pub annotations: BTreeMap<String, String>,
    /// Containers whose mounts it has, as they were named; the mounts are among its own.
    pub volumes_from: Vec<String>,
}

/// `--pid`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Those of a container that runs.
    Container(ContainerId),
}

/// `--ipc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// The host's, with its /dev/shm.
    Host,
    /// Its own, and no /dev/shm.
    None,
}
