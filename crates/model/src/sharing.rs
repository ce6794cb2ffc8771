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
    /// `--group-add`: further groups of its processes.
    pub groups: Vec<FurtherGroup>,
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

/// A further group of a container's processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FurtherGroup {
    /// By number.
    Number(u32),
    /// By a name of the container's own /etc/group, looked up when it starts.
    Name(String),
}

impl SharingSpec {
    /// Further groups that are given by number.
    pub fn group_numbers(&self) -> impl Iterator<Item = u32> {
        self.groups
            .iter()
            .filter_map(|group| if let FurtherGroup::Number(number) = group { Some(*number) } else { None })
    }

    /// Further groups that are given by name.
    pub fn group_names(&self) -> impl Iterator<Item = &String> {
        self.groups.iter().filter_map(|group| if let FurtherGroup::Name(name) = group { Some(name) } else { None })
    }
}

/// `--ipc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// The host's, with its /dev/shm.
    Host,
    /// Its own, and no /dev/shm.
    None,
    /// Its own, which others may join.
    Shareable,
    /// That of a container that runs, with its /dev/shm.
    Container(ContainerId),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As engines wrote it that knew numbers only.
    #[test]
    fn a_row_of_an_older_dozen_is_read() {
        let old: SharingSpec = serde_json::from_str(r#"{"ipc":"host","groups":[7,8]}"#).unwrap();
        assert_eq!((old.ipc.clone(), old.group_numbers().collect::<Vec<_>>()), (IpcMode::Host, vec![7, 8]));
        let mut new = old;
        new.ipc = IpcMode::Container("a".repeat(64).parse().unwrap());
        new.groups.push(FurtherGroup::Name("audio".to_owned()));
        let row = serde_json::to_string(&new).unwrap();
        assert!(row.contains(r#""groups":[7,8,"audio"]"#), "{row}");
        assert_eq!(serde_json::from_str::<SharingSpec>(&row).unwrap(), new);
    }
}
