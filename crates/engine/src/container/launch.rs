//! Bringing a container up, and giving back what a run held. Blocking; each step's undo stands beside it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use dozen_model::{Classified, ContainerId, ErrorKind, NetworkMode, error_chain};
use dozen_monitor::client::{self, PendingStart};
use dozen_monitor::protocol::{self, StartRequest};
use dozen_runtime::Root;
use jiff::Timestamp;

use crate::EngineError;
use crate::container::files;
use crate::container::logs;
use crate::container::mounts;
use crate::container::oci;
use crate::container::sharing;
use crate::container::snapshot::{Run, Snapshot};
use crate::container::upper;
use crate::container::user_namespace::{self, Entered};
use crate::engine::volumes_of;
use crate::failpoint::failpoint;
use crate::network::objects;
use crate::shared::Shared;
use crate::volumes::User;

/// A created process that waits for the go-ahead, and what its run holds.
pub(crate) struct Prepared {
    pub(crate) pending: PendingStart,
    pub(crate) run: Run,
}

/// A monitor, network, files, process. Whatever fails, nothing of it is left.
pub(crate) fn prepare(shared: &Arc<Shared>, snapshot: &Snapshot) -> Result<Prepared, EngineError> {
    failpoint("launch.before");
    upper::check_is_there(snapshot)?;
    shared.views.wait_until_closed(snapshot)?;
    let mut run = Run {
        pid: 0,
        started: Timestamp::now(),
        boot: shared.boot.clone(),
        endpoints: Vec::new(),
        ports: Vec::new(),
        is_paused: false,
        oom_kills: 0,
    };
    let prepared = prepare_with(shared, snapshot, &mut run);
    if prepared.is_err()
        && let Err(error) = release(shared, &snapshot.id, &run)
    {
        tracing::error!(container = snapshot.id.short(), error = error_chain(&error), "cannot undo a failed start");
    }
    prepared.map(|pending| Prepared { pending, run })
}

fn prepare_with(shared: &Arc<Shared>, snapshot: &Snapshot, run: &mut Run) -> Result<PendingStart, EngineError> {
    // It gets ready while we do the rest, and knows of nothing until it is asked.
    let monitor = client::spawn_idle(&shared.config.program, &shared.monitor_cgroup(), Stdio::null())?;
    failpoint("launch.spawned");
    let directory = &snapshot.directory;
    let run_directory = shared.run_directory(&snapshot.id);
    make_directory(&run_directory)?;
    dozen_monitor::exit::remove(directory)
        .map_err(EngineError::system(|| format!("remove the last run's exit record from {}", directory.display())))?;
    let user = User::Container(snapshot.id.clone());
    volumes_of(&snapshot.spec).try_for_each(|name| shared.volumes.begin_use(&name, &user))?;
    shared.announce_volumes("mount", snapshot, &shared.volumes.used_by(&user));
    failpoint("launch.volumes");
    let mount_origins = mounts::origins(shared, snapshot)?;

    let entered = user_namespace::begin(shared, snapshot)?;
    let namespace = join_network(shared, snapshot, run, entered.as_ref())?;
    objects::announce_places(shared, &snapshot.spec.network, &run.endpoints, "connect", &snapshot.id);
    failpoint("launch.network");
    files::write(shared, snapshot, &run.endpoints, &shared.network.host_gateway())?;
    failpoint("launch.files");

    if snapshot.spec.resources.cgroup_parent.is_some() {
        dozen_runtime::Cgroup::make_parent_of(&shared.container_cgroup(&snapshot.id, &snapshot.spec))?;
    }
    let joined = sharing::join(shared, &snapshot.spec)?;
    let mut spec = oci::spec(shared, snapshot, &mount_origins)?;
    sharing::apply(&mut spec, &snapshot.spec, &joined);
    if let Some(entered) = &entered {
        entered.apply(&mut spec);
    }
    let request = StartRequest {
        version: protocol::VERSION,
        id: snapshot.id.to_string(),
        data_directory: directory.clone(),
        run_directory,
        spec: Box::new(spec),
        root: Root::Overlay {
            lower: shared.lower_directories(&snapshot.spec)?,
            upper: directory.join("upper"),
            work: directory.join("work"),
        },
        cgroup: shared.container_cgroup(&snapshot.id, &snapshot.spec),
        monitor_cgroup: shared.monitor_cgroup(),
        user: snapshot.spec.process.user.clone(),
        group_names: snapshot.spec.sharing.group_names().cloned().collect(),
        stdin_open: snapshot.spec.process.stdin != dozen_model::StdinMode::Closed,
        stdin_once: snapshot.spec.process.stdin == dozen_model::StdinMode::Once,
        init: snapshot.spec.init,
        log: logs::settings(snapshot)?,
        network_namespace_attached: namespace.is_some(),
        secret_environment: shared.secrets.of(&snapshot.id),
    };
    let mut pending = monitor.ask(&request, namespace.as_ref().map(AsFd::as_fd))?;
    failpoint("launch.asked");
    run.pid = pending.wait_created()?;
    drop((joined, entered));
    failpoint("launch.created");
    // Before it may run: the first thing that it does may be to look for its database.
    shared.network.names.refresh(snapshot, run)?;
    run.started = Timestamp::now();
    Ok(pending)
}

/// The namespace to start in, if it is not the host's: a new one on its networks, an empty one, or another container's.
fn join_network(
    shared: &Shared,
    snapshot: &Snapshot,
    run: &mut Run,
    entered: Option<&Entered>,
) -> Result<Option<OwnedFd>, EngineError> {
    // Of a user namespace, which has to be its owner.
    let new = || entered.map(Entered::new_network).transpose();
    match &snapshot.spec.network {
        NetworkMode::Host => Ok(None),
        NetworkMode::None => Ok(Some(dozen_network::new_loopback_namespace(new()?)?)),
        NetworkMode::Container(other) => namespace_of(shared, other).map(Some),
        NetworkMode::Bridge | NetworkMode::Network(_) => {
            let (endpoints, namespace) = shared.network.attach(&snapshot.id, &snapshot.spec.places(), new()?)?;
            run.endpoints = endpoints;
            let wanted = oci::wanted_ports(&snapshot.spec);
            run.ports = shared.network.publish(&snapshot.id, &run.endpoints, &wanted)?;
            Ok(Some(namespace))
        }
    }
}

/// The network namespace of a running container, found by its process and checked against its cgroup, so that a
/// process id that was given to someone else in between is not believed.
pub(super) fn namespace_of(shared: &Shared, id: &ContainerId) -> Result<OwnedFd, EngineError> {
    let entry = shared.registry.get(id).ok_or_else(|| EngineError::NoSuchContainer(id.to_string()))?;
    let snapshot = entry.snapshot();
    let not_running = || EngineError::Conflict {
        message: format!("cannot join network of a non running container: {}", snapshot.id),
        hint: Some(format!("dozen start {}", snapshot.name)),
    };
    let run = snapshot.phase.run().ok_or_else(not_running)?;
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", run.pid)).map_err(|_| not_running())?;
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", run.pid)).map_err(|_| not_running())?;
    if cgroups.lines().any(|line| line.contains(id.as_str())) { Ok(namespace.into()) } else { Err(not_running()) }
}

/// Gives back addresses, ports and volumes. Goes on past a failure; the first is reported.
pub(crate) fn release(shared: &Shared, id: &ContainerId, run: &Run) -> Result<(), EngineError> {
    failpoint("release.before");
    let forgotten = shared.network.names.forget(id);
    let result = shared.network.release(id, &run.endpoints, &run.ports).and(forgotten);
    let user = User::Container(id.clone());
    let used = shared.volumes.used_by(&user);
    let result = result.and(shared.volumes.end_use(&user));
    if let Some(snapshot) = shared.registry.get(id).map(|entry| entry.snapshot()) {
        objects::announce_places(shared, &snapshot.spec.network, &run.endpoints, "disconnect", id);
        shared.announce_volumes("unmount", &snapshot, &used);
    }
    failpoint("release.after");
    result
}

/// Docker's State.ExitCode after a failed start: the shell's 127 and 126, or 128.
pub(crate) fn docker_exit_code(error: &EngineError) -> i32 {
    if error.kind() != ErrorKind::Invalid {
        return 128;
    }
    let message = error.to_string();
    let says = |words: &str| message.contains(words);
    if says("not found") || says("no such file or directory") {
        return 127;
    }
    // execve(2) permits no program whose file capabilities lie outside of the bounding set (capabilities(7)).
    let is_forbidden = says("exec: ") && says("operation not permitted");
    if says("permission denied") || says("is a directory") || is_forbidden { 126 } else { 128 }
}

pub(crate) fn make_directory(path: &Path) -> Result<(), EngineError> {
    std::fs::create_dir_all(path).map_err(EngineError::system(|| format!("make the directory {}", path.display())))
}

#[cfg(test)]
mod tests {
    use dozen_monitor::protocol::Failure;

    use super::*;

    #[test]
    fn exit_codes_of_a_failed_start() {
        use ErrorKind::{Internal, Invalid};
        for (kind, message, exit_code) in [
            (Invalid, "exec: \"nope\": executable file not found in $PATH", 127),
            (Invalid, "exec: \"/nope\": no such file or directory", 127),
            (Invalid, "exec: \"/etc/passwd\": permission denied", 126),
            (Invalid, "exec: \"/etc\": is a directory", 126),
            (Invalid, "exec: \"/bin/ping\": operation not permitted", 126),
            (Internal, "mount proc on /proc: operation not permitted", 128),
            (Internal, "open /dev/pts: permission denied", 128),
        ] {
            let failure = Failure { kind, message: message.to_owned(), hint: None };
            assert_eq!(docker_exit_code(&failure.into()), exit_code, "{message}");
        }
    }
}
