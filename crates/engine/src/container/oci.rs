//! From what was asked of a container to the runtime's specification of it. Pure, but for the sources of mounts,
//! which the caller has looked up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use dozen_model::{ContainerSpec, Mount as AskedMount, MountSource, NetworkMode, PortBinding};
use dozen_runtime::Spec;
use dozen_runtime::default_spec::{self, DefaultSpec};
use oci_spec::runtime::{BoxBuilder, Mount, MountBuilder, ProcessBuilder, RootBuilder};

use crate::EngineError;
use crate::container::mounts::{Origin, user_mounts};
use crate::container::snapshot::Snapshot;
use crate::container::{files, resources};
use crate::shared::Shared;

/// What Docker puts where the image and the user name no PATH.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As Docker sets them in a network namespace of the container's own: any port may be bound, and `ping` works,
/// without a capability (ip-sysctl.rst).
const SYSCTLS: [(&str, &str); 2] = [("net.ipv4.ip_unprivileged_port_start", "0"), PING_GROUPS];
/// All groups.
pub(super) const PING_GROUPS: (&str, &str) = ("net.ipv4.ping_group_range", "0 2147483647");

/// The whole specification. `mount_origins` has one of each mount of the container's spec.
pub(crate) fn spec(shared: &Shared, snapshot: &Snapshot, mount_origins: &[Origin]) -> Result<Spec, EngineError> {
    let asked = &snapshot.spec;
    let mut spec = default_spec::docker(&defaults(asked))?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let directory = files::directory(shared, snapshot);
    mounts.extend(files::BOUND.iter().map(|(name, target)| bound_file(directory.join(name), target)));
    mounts.extend(asked.mounts.iter().zip(mount_origins).flat_map(|(mount, origin)| user_mounts(mount, origin)));
    // A user's mount takes the place of a default one; a mount above another comes before it.
    let mounts = ordered(mounts);
    let process = spec.process().clone().unwrap_or_default();
    let process = ProcessBuilder::default()
        .terminal(asked.process.terminal)
        .args(asked.process.arguments().cloned().collect::<Vec<_>>())
        .env(environment(shared, snapshot, std::iter::empty()))
        .cwd(if asked.process.working_directory.is_empty() { "/" } else { &asked.process.working_directory })
        .user(process.user().clone())
        .no_new_privileges(asked.isolation.no_new_privileges);
    let defaults = spec.process().as_ref();
    let mut process = process.build().expect("every field of a process has a default");
    if let Some((rows, columns)) = asked.process.terminal_size {
        let size = BoxBuilder::default().height(rows).width(columns).build();
        process.set_console_size(Some(size.expect("a size has both sides")));
    }
    process.set_capabilities(defaults.and_then(|process| process.capabilities().clone()));
    process.set_rlimits(defaults.and_then(|process| process.rlimits().clone()));
    process.set_oom_score_adj(defaults.and_then(|process| process.oom_score_adj()));
    spec.set_process(Some(process));
    spec.set_mounts(Some(mounts));
    spec.set_hostname((asked.network != NetworkMode::Host).then(|| files::hostname(shared, snapshot)));
    spec.set_domainname(asked.domainname.clone());
    let root = RootBuilder::default().path("rootfs").readonly(asked.isolation.read_only_root).build();
    spec.set_root(Some(root.expect("a root has its path")));
    if let Some(linux) = spec.linux_mut() {
        if has_own_network(asked) {
            linux.set_sysctl(Some(SYSCTLS.map(|(name, value)| (name.to_owned(), value.to_owned())).into()));
        }
        linux.set_cgroups_path(Some(PathBuf::from(shared.container_cgroup(&snapshot.id, asked))));
    }
    resources::apply(&mut spec, &asked.resources, &shared.config.settings.get().cdi_directories)?;
    Ok(spec)
}

fn has_own_network(asked: &ContainerSpec) -> bool {
    matches!(asked.network, NetworkMode::Bridge | NetworkMode::None | NetworkMode::Network(_))
}

/// Refuses, before anything is made, what could not be started later.
pub(crate) fn check(asked: &ContainerSpec) -> Result<(), EngineError> {
    let places =
        asked.mounts.iter().flat_map(|mount| mount.places().into_iter().map(move |(target, _)| (mount, target)));
    let places: Vec<(&AskedMount, PathBuf)> = places.collect();
    let mut taken: HashMap<&Path, usize> = HashMap::new();
    places.iter().for_each(|(_, target)| *taken.entry(target).or_default() += 1);
    for (mount, target) in &places {
        dozen_runtime::check_place(target)?;
        if *target == Path::new("/proc") && !matches!(mount.source, MountSource::Bind { .. }) {
            return Err(EngineError::Invalid {
                message: "only a procfs can be mounted on /proc".into(),
                hint: Some("give the volume another place".into()),
            });
        }
        // The names of an artifact's files are a stranger's.
        if taken[target.as_path()] > 1 && matches!(mount.source, MountSource::Artifact(_)) {
            let message = format!("Duplicate mount point: {}", target.display());
            return Err(EngineError::Invalid { message, hint: Some("give one of the two another place".into()) });
        }
    }
    resources::check(&asked.resources)?;
    Ok(default_spec::docker(&defaults(asked)).map(drop)?)
}

fn defaults(asked: &ContainerSpec) -> DefaultSpec<'_> {
    DefaultSpec {
        privileged: asked.isolation.privileged,
        capabilities: &asked.isolation.capabilities,
        seccomp: &asked.isolation.seccomp,
        unmasked_system_paths: asked.isolation.unmasked_system_paths,
        host_network: asked.network == NetworkMode::Host,
        shm_size_bytes: asked.shm_size_bytes,
    }
}

/// The environment as Docker orders it: PATH, HOSTNAME, TERM, then what was asked, then what an exec adds; a later
/// name wins.
pub(crate) fn environment<'a>(
    shared: &Shared,
    snapshot: &'a Snapshot,
    more: impl Iterator<Item = &'a String>,
) -> Vec<String> {
    let process = &snapshot.spec.process;
    let mut environment = vec![DEFAULT_PATH.to_owned()];
    // A build's steps are told nothing that the Dockerfile does not say, as with BuildKit.
    if snapshot.spec.build_step.is_none() {
        environment.push(format!("HOSTNAME={}", files::hostname(shared, snapshot)));
    }
    environment.extend(process.terminal.then(|| "TERM=xterm".to_owned()));
    let name_of = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut places: HashMap<String, usize> =
        environment.iter().enumerate().map(|(place, entry)| (name_of(entry), place)).collect();
    for entry in process.environment.iter().chain(more) {
        match places.entry(name_of(entry)) {
            Entry::Occupied(place) => environment[*place.get()].clone_from(entry),
            Entry::Vacant(place) => {
                place.insert(environment.len());
                environment.push(entry.clone());
            }
        }
    }
    environment
}

/// What is to be published: what was asked for, and with `-P` every exposed port that is not.
pub(crate) fn wanted_ports(asked: &ContainerSpec) -> Vec<PortBinding> {
    let mut wanted = asked.ports.clone();
    if asked.publish_all {
        for (port, protocol) in &asked.exposed_ports {
            if !asked.ports.iter().any(|binding| (binding.container_port, binding.protocol) == (*port, *protocol)) {
                wanted.push(PortBinding {
                    container_port: *port,
                    protocol: *protocol,
                    host_address: None,
                    host_port: None,
                });
            }
        }
    }
    wanted
}

fn bound_file(source: PathBuf, target: &str) -> Mount {
    mount("bind", Some(source), target.into(), vec!["rbind".into(), "rprivate".into()])
}

pub(crate) fn mount(kind: &str, source: Option<PathBuf>, target: PathBuf, options: Vec<String>) -> Mount {
    let builder = MountBuilder::default().typ(kind).destination(target).options(options);
    let builder = match source {
        Some(source) => builder.source(source),
        None => builder,
    };
    builder.build().expect("a mount has its destination")
}

/// The last mount on a target wins, and targets nearer to the root come first; else the order stays.
fn ordered(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut kept: Vec<Mount> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        kept.retain(|earlier| earlier.destination() != mount.destination());
        kept.push(mount);
    }
    kept.sort_by_key(|mount| mount.destination().components().count());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_on_a_target_wins_and_parents_come_first() {
        let at = |path: &str, kind: &str| mount(kind, None, path.into(), vec![]);
        let mounts =
            ordered(vec![at("/a/b", "bind"), at("/dev/shm", "tmpfs"), at("/a", "bind"), at("/dev/shm", "bind")]);
        let summary: Vec<_> =
            mounts.iter().map(|m| (m.destination().to_str().unwrap(), m.typ().as_deref().unwrap())).collect();
        assert_eq!(summary, [("/a", "bind"), ("/a/b", "bind"), ("/dev/shm", "bind")]);
    }
}
