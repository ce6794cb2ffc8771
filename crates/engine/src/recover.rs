//! What an engine does first: opens everything, throws away what no row owns, and puts an owner to each container.

mod roots;
pub(crate) mod roots_lock;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use dozen_image::ImageStore;
use dozen_ledger::{Ledger, boot};
use dozen_model::{ContainerId, VolumeName, error_chain};
use dozen_runtime::Cgroup;

use self::roots_lock::RootsLock;
use crate::container::change::{self, SPEC_BEFORE};
use crate::container::exec::Execs;
use crate::container::ids;
use crate::container::logs::Logs;
use crate::container::owner::Owner;
use crate::container::snapshot::{Phase, Snapshot};
use crate::container::stats::Samplers;
use crate::container::{Container, health, restart};
use crate::engine::volumes_of;
use crate::failpoint::failpoint;
use crate::naming::Named;
use crate::network::{HeldPlaces, direct_ports};
use crate::registry::Registry;
use crate::rows::{self, ContainerRow};
use crate::shared::{NOTHING, Shared};
use crate::volumes::{Volumes, read_directory, remove_tree, warn_and_go_on};
use crate::{EngineConfig, EngineError, build};

/// Opens the data root. Blocks. Owners are not started yet.
pub(crate) fn open(config: EngineConfig) -> Result<(Arc<Shared>, Vec<ContainerRow>), EngineError> {
    roots::check(&config)?;
    make_private(&config.data_root)?;
    make_traversable(&config.run_root)?;
    let roots_lock = RootsLock::take(&config)?;
    let migrations = [
        rows::MIGRATION,
        dozen_image::MIGRATION,
        rows::WISHES,
        dozen_image::RECIPES,
        dozen_image::TARGETS,
        SPEC_BEFORE,
        restart::MIGRATION,
        crate::network::rows::NETWORKS,
        health::MIGRATION,
        crate::volumes::OPTIONS,
        crate::volumes::snapshots::MIGRATION,
        ids::MIGRATION,
        dozen_image::BUILD_CACHE,
        build::caches::rows::MIGRATION,
        build::caches::rows::USES,
        build::remote::known::MIGRATION,
        dozen_image::PLACES,
        dozen_image::ARTIFACTS,
        dozen_image::USES,
        dozen_image::SUMS,
    ];
    let ledger = Ledger::open(&config.data_root.join("state.db"), &migrations)?;
    let id = match rows::fact::<String>(&ledger, "id")? {
        Some(id) => id,
        None => {
            let id = ContainerId::random().to_string();
            rows::set_fact(&ledger, "id", &id)?;
            id
        }
    };
    let instance = instance(&config.run_root);
    let cgroup = if instance.is_empty() { "/dozen".to_owned() } else { format!("/dozen-{instance}") };
    let images = ImageStore::open(&config.data_root, ledger.clone())?;
    make_private(&config.data_root.join("volumes"))?;
    make_private(&config.data_root.join(NOTHING))?;
    let volumes = Volumes::open(config.data_root.join("volumes"), &id, ledger.clone())?;
    let network = crate::network::Network::new(&config, instance, crate::shared::monitors_in(&cgroup), ledger.clone())?;
    let mut rows = rows::containers(&ledger)?;
    let events = crate::events::EventLog::open(&config.run_root);
    let shared = Shared {
        config,
        id,
        boot: boot::id(),
        farewell: Default::default(),
        cgroup,
        ledger,
        images,
        network,
        volumes,
        registry: Registry::default(),
        execs: Execs::default(),
        events,
        logs: Logs::default(),
        views: Default::default(),
        samplers: Samplers::default(),
        own_registry: Default::default(),
        pulls: Default::default(),
        packings: Default::default(),
        builds: Default::default(),
        named_builds: Default::default(),
        caches: Default::default(),
        secrets: Default::default(),
        agents: Default::default(),
        collection: Default::default(),
        images_in_use: Mutex::default(),
        _roots_lock: roots_lock,
    };
    failpoint("recover.opened");
    for left in build::site::places(&shared.config.data_root, &shared.config.run_root) {
        warn_and_go_on(
            "what a build has left cannot be removed; the next start tries again",
            &left,
            remove_tree(&left),
        );
    }
    collect_garbage(&shared, &rows)?;
    build::caches::mend(&shared)?;
    failpoint("recover.collected");
    change::settle_interrupted(&shared, &mut rows)?;
    let is_to_move = |row: &&ContainerRow| row.phase.run().is_some_and(|run| !run.is_paused);
    rows.iter().filter(is_to_move).for_each(|row| resume(&shared, row));
    shared.network.adopt(rows.iter().filter_map(held).collect())?;
    shared.volumes.adopt(rows.iter().flat_map(users));
    if let Err(error) = shared.network.names.adopt(rows.iter().filter_map(named).collect()) {
        tracing::error!(error = error_chain(&error), "running containers may not find each other by their names");
    }
    failpoint("recover.adopted");
    Ok((Arc::new(shared), rows))
}

/// Puts an owner to each container, which takes it up where it stands.
pub(crate) fn adopt(shared: &Arc<Shared>, mut rows: Vec<ContainerRow>) {
    // Those that others join before these: they were made before them.
    rows.sort_by_key(|row| row.created);
    for row in rows {
        let wish = row.wish.clone();
        let is_step = row.spec.build_step.is_some();
        let entry = Owner::spawn(shared.clone(), snapshot(shared, row), wish);
        if is_step {
            // Whoever built died with the engine before.
            let container = Container::new(entry, shared.clone());
            tokio::spawn(async move { build::job::remove(&container).await });
        }
    }
    if let Err(error) = shared.images.collect(&|image| shared.image_user(image)) {
        tracing::error!(error = error_chain(&error), "cannot collect removed images");
    }
}

/// What a run that was not seen to end holds of the network.
fn held(row: &ContainerRow) -> Option<HeldPlaces> {
    let (Phase::Running(run) | Phase::Starting { run: Some(run) }) = &row.phase else { return None };
    // Who has been taken from its last network keeps its ports for the next one.
    let holds = !run.endpoints.is_empty() || !run.ports.is_empty();
    holds.then(|| HeldPlaces {
        id: row.id.clone(),
        endpoints: run.endpoints.clone(),
        ports: run.ports.clone(),
        direct: direct_ports(&row.spec, &run.endpoints),
    })
}

/// What volumes a run that was not seen to end uses.
fn users(row: &ContainerRow) -> Vec<(VolumeName, ContainerId)> {
    match row.phase {
        Phase::Running(_) | Phase::Starting { run: Some(_) } => {
            volumes_of(&row.spec).map(|name| (name, row.id.clone())).collect()
        }
        _ => Vec::new(),
    }
}

/// What it is called, and where.
fn named(row: &ContainerRow) -> Option<(ContainerId, Named)> {
    let (Phase::Running(run) | Phase::Starting { run: Some(run) }) = &row.phase else { return None };
    Some((row.id.clone(), Named::of(&row.id, &row.name, &row.spec, run)?))
}

/// An engine that died right when a hold had ended may have left it standing still.
fn resume(shared: &Shared, row: &ContainerRow) {
    let resumed = Cgroup::open(&shared.container_cgroup(&row.id, &row.spec)).and_then(|cgroup| match cgroup {
        Some(cgroup) if cgroup.is_paused()? => cgroup.resume(),
        _ => Ok(()),
    });
    if let Err(error) = resumed {
        tracing::error!(container = row.id.short(), error = error_chain(&error), "a container may stand still");
    }
}

fn snapshot(shared: &Shared, row: ContainerRow) -> Snapshot {
    let last_exit = match &row.phase {
        Phase::Exited(status) => Some(status.clone()),
        _ => row.restarts.last_exit.clone(),
    };
    let is_checked =
        row.phase.run().is_some() && row.spec.health.as_ref().is_some_and(|check| check.command().is_some());
    Snapshot {
        restarts: row.restarts,
        health: is_checked.then(|| Arc::new(health::Health::begun(row.failing_streak))),
        directory: shared.data_directory(&row.id),
        id: row.id,
        name: row.name,
        spec: Arc::new(row.spec),
        created: row.created,
        phase: row.phase,
        last_exit,
        exits: 0,
        is_restarting: false,
    }
}

/// Directories of containers that have no row, and rows whose directory a power cut took.
fn collect_garbage(shared: &Shared, rows: &[ContainerRow]) -> Result<(), EngineError> {
    let containers = shared.config.data_root.join("containers");
    let running = shared.config.run_root.join("c");
    make_private(&containers)?;
    make_private(&running)?;
    let long: HashSet<OsString> = rows.iter().map(|row| row.id.as_str().into()).collect();
    let short: HashSet<OsString> = rows.iter().map(|row| row.id.short().into()).collect();
    for (directory, known) in [(&containers, &long), (&running, &short)] {
        for name in read_directory(directory)?.iter().filter(|name| !known.contains(*name)) {
            tracing::warn!(path = %directory.join(name).display(), "removing what belongs to no container");
            let path = directory.join(name);
            warn_and_go_on("cannot remove it; the next start tries again", &path, remove_tree(&path));
        }
    }
    for row in rows {
        let path = shared.data_directory(&row.id);
        warn_and_go_on("a container's directory cannot be made", &path, make_container_directory(&path));
    }
    Ok(())
}

/// Log, exit record and the writable layer. The layer's root is what the container sees as `/`.
pub(crate) fn make_container_directory(path: &Path) -> Result<(), EngineError> {
    make_private(path)?;
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        let result = std::fs::DirBuilder::new().mode(mode).create(path.join(name));
        match result {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(EngineError::System {
                    action: format!("make {}", path.join(name).display()),
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// For root alone: below lie set-user-id programs of images and containers, and secrets in their environment. It holds
/// for a directory that was there before, too.
fn make_private(path: &Path) -> Result<(), EngineError> {
    make_with_mode(path, 0o700)
}

/// Whoever may use the API's socket has to get to it; what lies beside it is root's.
fn make_traversable(path: &Path) -> Result<(), EngineError> {
    make_with_mode(path, 0o711)
}

fn make_with_mode(path: &Path, mode: u32) -> Result<(), EngineError> {
    let make = || {
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    };
    make().map_err(EngineError::system(|| format!("make the directory {}", path.display())))
}

/// Engines side by side: the one at the usual run root has the plain names, another a tag from its run root's path.
fn instance(run_root: &Path) -> String {
    if run_root == Path::new("/run/dozen") {
        return String::new();
    }
    // FNV-1a: stable across builds, and eight digits of it are enough to tell the engines of one host apart.
    let hash = run_root
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{:08x}", (hash >> 32) as u32 ^ hash as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_side_by_side_have_names_of_their_own() {
        assert_eq!(instance(Path::new("/run/dozen")), "");
        let (a, b) = (instance(Path::new("/tmp/a/run")), instance(Path::new("/tmp/b/run")));
        assert_ne!(a, b);
        assert_eq!((a.len(), instance(Path::new("/tmp/a/run"))), (8, a));
    }
}
