//! What a container shares: namespaces of the host and of other containers.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_model::{ContainerId, ContainerSpec, IpcMode, NetworkMode, PidMode, UserNamespace};
use dozen_runtime::{FROM_NAMESPACE, Spec};
use oci_spec::runtime::{Linux, LinuxNamespaceBuilder, LinuxNamespaceType, MountBuilder};
use rustix::fs::{Mode, OFlags};

use crate::EngineError;
use crate::container::snapshot::Snapshot;
use crate::shared::Shared;

/// Namespaces of others, held open until the container has joined them.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pid: Option<OwnedFd>,
    /// And the mount namespace in which its /dev/shm is.
    ipc: Option<[OwnedFd; 2]>,
}

/// Those without which it cannot start, and which end after it.
pub(crate) fn joined_by(spec: &ContainerSpec) -> impl Iterator<Item = &ContainerId> {
    let network = if let NetworkMode::Container(other) = &spec.network { Some(other) } else { None };
    let processes = if let PidMode::Container(other) = &spec.sharing.pid { Some(other) } else { None };
    let memory = if let IpcMode::Container(other) = &spec.sharing.ipc { Some(other) } else { None };
    let users = if let UserNamespace::Container { id, .. } = &spec.user_namespace { Some(id) } else { None };
    network.into_iter().chain(processes).chain(memory).chain(users)
}

/// Opens what is joined. Blocks.
pub(crate) fn join(shared: &Shared, asked: &ContainerSpec) -> Result<Joined, EngineError> {
    let pid = match &asked.sharing.pid {
        PidMode::Container(other) => {
            let other = snapshot_of(shared, other)?;
            let [pid] = namespaces_of(&other, ["pid"], "PID")?;
            Some(pid)
        }
        PidMode::Private | PidMode::Host => None,
    };
    let ipc = match &asked.sharing.ipc {
        IpcMode::Container(other) => {
            let other = snapshot_of(shared, other)?;
            if matches!(other.spec.sharing.ipc, IpcMode::Private | IpcMode::None) {
                return Err(EngineError::Invalid {
                    message: format!(
                        "container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                        other.id
                    ),
                    hint: None,
                });
            }
            Some(namespaces_of(&other, ["ipc", "mnt"], "IPC")?)
        }
        _ => None,
    };
    Ok(Joined { pid, ipc })
}

pub(super) fn snapshot_of(shared: &Shared, id: &ContainerId) -> Result<Arc<Snapshot>, EngineError> {
    let entry = shared.registry.get(id).ok_or_else(|| EngineError::NoSuchContainer(id.to_string()))?;
    Ok(entry.snapshot())
}

/// Namespaces of a running container, found by its process and checked against its cgroup. All is looked up below one
/// descriptor, which goes on meaning that process and no other with its number.
pub(super) fn namespaces_of<const N: usize>(
    snapshot: &Snapshot,
    kinds: [&str; N],
    word: &str,
) -> Result<[OwnedFd; N], EngineError> {
    let not_running = || EngineError::Conflict {
        message: format!("cannot join {word} of a non running container: {}", snapshot.id),
        hint: Some(format!("dozen start {}", snapshot.name)),
    };
    let run = snapshot.phase.run().ok_or_else(not_running)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = rustix::fs::open(format!("/proc/{}", run.pid), flags, Mode::empty()).map_err(|_| not_running())?;
    let open = |name: &str| {
        let file = rustix::fs::openat(&process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        file.map_err(|_| not_running())
    };
    let namespaces = kinds.iter().map(|kind| open(&format!("ns/{kind}"))).collect::<Result<Vec<_>, _>>()?;
    let cgroups = std::io::read_to_string(File::from(open("cgroup")?)).map_err(|_| not_running())?;
    if !cgroups.lines().any(|line| line.contains(snapshot.id.as_str())) {
        return Err(not_running());
    }
    namespaces.try_into().map_err(|_| not_running())
}

/// Changes the specification of a container that has everything of its own. Pure but for the number of this process.
pub(crate) fn apply(spec: &mut Spec, asked: &ContainerSpec, joined: &Joined) {
    let sharing = &asked.sharing;
    if let Some(linux) = spec.linux_mut() {
        match &sharing.pid {
            PidMode::Private => {}
            PidMode::Host => share(linux, LinuxNamespaceType::Pid, None),
            PidMode::Container(_) => share(linux, LinuxNamespaceType::Pid, joined.pid.as_ref().map(path_of)),
        }
        match &sharing.ipc {
            IpcMode::Private | IpcMode::None | IpcMode::Shareable => {}
            IpcMode::Host => share(linux, LinuxNamespaceType::Ipc, None),
            IpcMode::Container(_) => {
                share(linux, LinuxNamespaceType::Ipc, joined.ipc.as_ref().map(|[ipc, _]| path_of(ipc)));
            }
        }
        if sharing.host_uts {
            share(linux, LinuxNamespaceType::Uts, None);
        }
        if sharing.host_cgroups {
            share(linux, LinuxNamespaceType::Cgroup, None);
        }
        if !sharing.sysctls.is_empty() {
            let mut sysctls = linux.sysctl().clone().unwrap_or_default();
            sysctls.extend(sharing.sysctls.clone());
            linux.set_sysctl(Some(sysctls));
        }
    }
    if sharing.host_uts {
        spec.set_hostname(None).set_domainname(None);
    }
    share_memory(spec, asked, joined);
    if !sharing.annotations.is_empty() {
        spec.set_annotations(Some(sharing.annotations.clone().into_iter().collect()));
    }
    if let Some(process) = spec.process_mut()
        && sharing.group_numbers().next().is_some()
    {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(sharing.group_numbers().collect()));
        process.set_user(user);
    }
}

/// The monitor opens it while we hold it: nobody else has this path meanwhile.
pub(super) fn path_of(namespace: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()))
}

/// No namespace of its own of this kind: the host's, or that at a path.
pub(super) fn share(linux: &mut Linux, kind: LinuxNamespaceType, path: Option<PathBuf>) {
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| namespace.typ() != kind);
    if let Some(path) = path {
        let joined = LinuxNamespaceBuilder::default().typ(kind).path(path).build();
        namespaces.push(joined.expect("a namespace has its kind"));
    }
    linux.set_namespaces(Some(namespaces));
}

/// /dev/shm and /dev/mqueue go with the namespace, where the user has put nothing of their own.
fn share_memory(spec: &mut Spec, asked: &ContainerSpec, joined: &Joined) {
    let places: &[&str] = match asked.sharing.ipc {
        IpcMode::Private | IpcMode::Shareable => return,
        IpcMode::Host => &["/dev/shm", "/dev/mqueue"],
        // What is mounted on /dev/mqueue is that of the namespace.
        IpcMode::None | IpcMode::Container(_) => &["/dev/shm"],
    };
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for place in places.iter().map(Path::new) {
        if asked.mounts.iter().any(|mount| mount.target == place) {
            continue;
        }
        let Some(at) = mounts.iter().position(|mount| mount.destination() == place) else { continue };
        match (&asked.sharing.ipc, &joined.ipc) {
            (IpcMode::Host, _) if place.exists() => {
                let options = ["rbind", "rprivate", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
                let bind = MountBuilder::default().typ("bind").destination(place).source(place).options(options);
                mounts[at] = bind.build().expect("a mount has its destination");
            }
            (IpcMode::Container(_), Some([_, mounts_of_other])) => {
                // Looked up there, as that container sees it; what it has made read-only stays so.
                let there = format!("{FROM_NAMESPACE}={}", path_of(mounts_of_other).display());
                let mut options = ["bind", "rprivate", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
                options.push(there);
                let bind = MountBuilder::default().typ("bind").destination(place).source(place).options(options);
                mounts[at] = bind.build().expect("a mount has its destination");
            }
            _ => drop(mounts.remove(at)),
        }
    }
    spec.set_mounts(Some(mounts));
}
