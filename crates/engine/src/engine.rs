//! The engine as the API sees it: finds containers, makes them, and passes on to the services.

mod images;
pub(crate) use self::images::{emit_image, emit_pull, emit_push, emit_removals};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_model::{
    ContainerId, ContainerName, ContainerSpec, ExecId, ImageId, MountSource, NetworkMode, VolumeName, error_chain,
};
use dozen_network::BridgeAddresses;
use jiff::Timestamp;

pub use self::images::ImportOptions;
use crate::build::sweep;
use crate::collection;
use crate::container::Container;
use crate::container::artifact_files;
use crate::container::cdi;
use crate::container::exec::Exec;
use crate::container::ids;
use crate::container::lifecycle::Wish;
use crate::container::mounts;
use crate::container::oci;
use crate::container::owner::{Entry, Owner};
use crate::container::restart::Restarts;
use crate::container::snapshot::{Phase, Snapshot};
use crate::container::user_namespace;
use crate::events::{EventKind, EventStream, EventsQuery};
use crate::failpoint::failpoint;
use crate::rows::{self, ContainerRow, NotInserted, VolumeRow};
use crate::shared::Shared;
use crate::volumes::{Claim, Volume, VolumeSpec};
use crate::{EngineConfig, EngineError, names, recover};

/// How many made-up names are tried before giving up: by then a number follows, and none is ever taken.
const NAME_ATTEMPTS: u32 = 64;

/// A request for a container.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// `None`: the engine makes one up.
    pub name: Option<ContainerName>,
    /// What it shall be, the image's configuration merged in.
    pub spec: ContainerSpec,
    /// How many users and groups of its own it is to have, in place of what the spec says of its user namespace.
    pub own_ids: Option<u32>,
}

/// Facts for `info`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "plain")]
pub struct EngineInfo {
    pub id: String,
    pub data_root: PathBuf,
    pub containers_running: usize,
    pub containers_paused: usize,
    pub containers_stopped: usize,
    pub images: usize,
    /// 1 or 2.
    pub cgroup_version: u8,
    pub warnings: Vec<String>,
    /// Devices that can be asked for by name (CDI): `vendor.com/class=name`.
    pub named_devices: Vec<String>,
}

/// A running engine; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

impl Engine {
    /// Opens the data root, finishes or undoes what a crash interrupted, and adopts what runs.
    pub async fn open(config: EngineConfig) -> Result<Self, EngineError> {
        let opened = tokio::task::spawn_blocking(move || recover::open(config)).await;
        let (shared, rows) = opened.unwrap_or(Err(EngineError::ShuttingDown))?;
        recover::adopt(&shared, rows);
        let sweeping = shared.clone();
        tokio::spawn(async move { sweep::sweep(&sweeping).await });
        collection::begin(&shared);
        Ok(Self { shared })
    }

    /// The API's listening socket, held by the keeper, so that it outlives this process. Blocks.
    /// It is root's and, if one is named, this group's.
    pub fn listener(&self, path: &Path, group: Option<u32>) -> Result<std::os::fd::OwnedFd, EngineError> {
        self.shared.network.listener(path, group)
    }

    /// For an engine that goes down in order: if nothing runs, bridge, firewall table, keeper and cgroups go too, and
    /// nothing is left on the host but the data root. What runs keeps all of them. Blocks.
    pub fn retire(&self) -> Result<(), EngineError> {
        let idle = |snapshot: &Arc<Snapshot>| {
            !matches!(snapshot.phase, Phase::Starting { .. } | Phase::Running(_) | Phase::Removing { .. })
        };
        let busy = !self.containers().iter().all(idle);
        if busy {
            return Ok(());
        }
        let network = self.shared.network.retire();
        network.and(self.shared.remove_cgroups())
    }

    /// Makes a container; durable once answered. The second value holds warnings.
    pub async fn create(&self, request: CreateRequest) -> Result<(Container, Vec<String>), EngineError> {
        let shared = self.shared.clone();
        let claim = self.shared.volumes.claim(volumes_of(&request.spec)).await;
        let (entry, warnings) = self.shared.blocking(move || create(&shared, request, &claim)).await?;
        Ok((Container::new(entry, self.shared.clone()), warnings))
    }

    /// By name, id or unique beginning of an id.
    pub fn container(&self, name: &str) -> Result<Container, EngineError> {
        Ok(Container::new(self.shared.registry.find(name)?, self.shared.clone()))
    }

    /// All of them, newest first.
    pub fn containers(&self) -> Vec<Arc<Snapshot>> {
        self.shared.registry.snapshots()
    }

    /// An exec by its id.
    pub fn exec(&self, id: &str) -> Result<Exec, EngineError> {
        let missing = || EngineError::NoSuchExec(id.to_owned());
        let id: ExecId = id.parse().map_err(|_| missing())?;
        let container = self.shared.execs.container_of(&id).and_then(|container| self.shared.registry.get(&container));
        let container = Container::new(container.ok_or_else(missing)?, self.shared.clone());
        Ok(Exec { id, container })
    }

    /// Execs of a container, for its inspect.
    pub fn execs_of(&self, container: &ContainerId) -> Vec<ExecId> {
        self.shared.execs.of(container)
    }

    /// Remembered and coming events. `until` is the reader's to watch.
    pub fn events(&self, query: EventsQuery) -> EventStream {
        self.shared.events.subscribe(query.since)
    }

    /// That all of a kind that nobody needs have been removed, which made so much room on the disk.
    pub fn announce_prune(&self, kind: EventKind, reclaimed_bytes: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed_bytes.to_string())]);
        self.shared.emit(kind, "prune", String::new(), attributes);
    }

    /// Facts.
    pub async fn info(&self) -> EngineInfo {
        let containers = self.containers();
        let running = containers.iter().filter(|snapshot| snapshot.phase.run().is_some()).count();
        let paused = containers.iter().filter(|snapshot| snapshot.phase.is_paused()).count();
        let shared = self.shared.clone();
        let images = self.shared.blocking(move || Ok(shared.images.list()?.len())).await.unwrap_or(0);
        let directories = self.settings().cdi_directories.clone();
        let named_devices = self
            .shared
            .blocking(move || Ok(cdi::names(&directories.iter().map(PathBuf::as_path).collect::<Vec<_>>())))
            .await
            .unwrap_or_default();
        // An engine that has had no container on its bridge does not make one to be asked about it.
        let warnings = match self.bridge() {
            Some(_) => {
                let shared = self.shared.clone();
                self.shared.blocking(move || shared.network.firewall_warnings()).await.unwrap_or_default()
            }
            None => Vec::new(),
        };
        EngineInfo {
            id: self.shared.id.clone(),
            data_root: self.shared.config.data_root.clone(),
            containers_running: running - paused,
            containers_paused: paused,
            containers_stopped: containers.len() - running,
            images,
            cgroup_version: dozen_runtime::Cgroup::version(),
            warnings,
            named_devices,
        }
    }

    /// The default bridge, once a container has needed it.
    pub fn bridge(&self) -> Option<BridgeAddresses> {
        self.shared.network.addresses()
    }

    /// Makes a volume; one of that name that is there already is given as it is.
    pub async fn create_volume(&self, spec: VolumeSpec) -> Result<Volume, EngineError> {
        let shared = self.shared.clone();
        // A container that is being made may be about to make one of that name.
        let claim = self.shared.volumes.claim([spec.name.clone()]).await;
        self.shared.blocking(move || create_volume(&shared, spec, &claim)).await
    }

    /// All of them, by name.
    pub fn volumes(&self) -> Vec<Volume> {
        self.shared.volumes.list()
    }

    /// One of them.
    pub fn volume(&self, name: &str) -> Result<Volume, EngineError> {
        self.shared.volumes.find(name)
    }

    /// Removes it with its content; a conflict while a container has it. `force`: none of that name is fine.
    pub async fn remove_volume(&self, name: &VolumeName, force: bool) -> Result<(), EngineError> {
        let (shared, name) = (self.shared.clone(), name.clone());
        let claim = self.shared.volumes.claim([name.clone()]).await;
        self.shared
            .blocking(move || {
                if shared.remove_volume_if_unused(&name, &claim)? || force && shared.volume_users(&name).is_empty() {
                    return Ok(());
                }
                match shared.volume_users(&name).first() {
                    Some(user) => Err(EngineError::Conflict {
                        message: format!("remove {name}: volume is in use - [{user}]"),
                        hint: Some(format!("dozen rm {} first", user.short())),
                    }),
                    None => Err(EngineError::NoSuchVolume(name.to_string())),
                }
            })
            .await
    }

    /// Removes a volume that is still the one that was seen, and that no container has; false: it stays. One of that name may
    /// have been made anew meanwhile.
    pub async fn prune_volume(&self, seen: Volume) -> Result<bool, EngineError> {
        let shared = self.shared.clone();
        let claim = self.shared.volumes.claim([seen.name.clone()]).await;
        self.shared.blocking(move || shared.prune_volume(&seen, &claim)).await
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Containers that have the volume.
    pub fn volume_users(&self, name: &VolumeName) -> Vec<ContainerId> {
        self.shared.volume_users(name)
    }
}

/// Volumes, directory, rows. Those come last: only what is whole has one.
///
/// All in one piece of blocking work, owner included: a client that goes away in the middle changes nothing of it.
fn create(shared: &Arc<Shared>, request: CreateRequest, claim: &Claim) -> Result<(Entry, Vec<String>), EngineError> {
    let CreateRequest { name, spec, own_ids } = request;
    oci::check(&spec)?;
    mounts::check_sources(&spec.mounts)?;
    if own_ids.is_some() || spec.user_namespace.ids().is_some() {
        user_namespace::check(shared, &spec)?;
    }
    let pool = shared.config.settings.get().containers.users.pool;
    let ids = own_ids.map(|count| ids::Wanted::new(count, pool, &shared.id));
    let ports = oci::wanted_ports(&spec);
    shared.ledger.check_room()?;
    let publishes = matches!(spec.network, NetworkMode::Bridge | NetworkMode::Network(_)) && !ports.is_empty();
    let images: Vec<ImageId> = images_of(&spec).cloned().collect();
    shared.images_being_used().extend(images.iter().cloned());
    let created = create_and_register(shared, name, spec, ids, claim);
    let mut in_use = shared.images_being_used();
    for image in images {
        if let Some(position) = in_use.iter().position(|other| *other == image) {
            in_use.swap_remove(position);
        }
    }
    drop(in_use);
    let entry = created?;
    shared.announce(&entry.snapshot(), "create", None);
    // A warning that cannot be made is not missed; the start says what is wrong with the bridge.
    let warnings = match publishes {
        true => match shared.network.past_the_host(&entry.snapshot().spec.places()) {
            Some(warning) => vec![warning],
            None => shared.network.firewall_warnings().unwrap_or_default(),
        },
        false => Vec::new(),
    };
    Ok((entry, warnings))
}

fn create_and_register(
    shared: &Arc<Shared>,
    name: Option<ContainerName>,
    spec: ContainerSpec,
    ids: Option<ids::Wanted>,
    claim: &Claim,
) -> Result<Entry, EngineError> {
    // From here on whoever removes images sees that it is used; who was faster has it gone by now.
    images_of(&spec).try_for_each(|image| shared.images.find_after_changes(image).map(drop))?;
    let mut made = Vec::new();
    match create_whole(shared, name, spec, ids, &mut made, claim) {
        Ok(snapshot) => {
            shared.volumes.accept(made.clone());
            made.iter().for_each(|row| emit_volume(shared, &row.name));
            Ok(Owner::spawn(shared.clone(), snapshot, Wish::None))
        }
        Err(error) => {
            shared.volumes.discard(&made);
            Err(error)
        }
    }
}

fn create_whole(
    shared: &Arc<Shared>,
    name: Option<ContainerName>,
    spec: ContainerSpec,
    ids: Option<ids::Wanted>,
    made: &mut Vec<VolumeRow>,
    claim: &Claim,
) -> Result<Snapshot, EngineError> {
    let mut volumes: BTreeMap<&VolumeName, Volume> = BTreeMap::new();
    for mount in &spec.mounts {
        let MountSource::Volume { name, anonymous, copy_up, subpath, new } = &mount.source else { continue };
        // It may be mounted twice.
        if !volumes.contains_key(name) {
            let (labels, options) = (new.labels.clone(), new.options.clone());
            let wanted = VolumeSpec { name: name.clone(), labels, anonymous: *anonymous, options };
            let (volume, row) = shared.volumes.prepare(wanted, claim)?;
            made.extend(row);
            volumes.insert(name, volume);
        }
        // What a part of it is to hold is for who has made that part.
        if *copy_up && subpath.is_none() {
            let volume = &volumes[name];
            // Nothing is mounted for nothing.
            let _visit = match volume.options.is_empty() {
                true => None,
                false if !shared.images.has_directory(&spec.image, &mount.target)? => continue,
                false => Some(shared.volumes.visit(volume)?),
            };
            let prepared = made.iter().any(|row| row.name == *name);
            let copy = |into: &Path| Ok(shared.images.copy_up(&spec.image, &mount.target, into)?);
            shared.volumes.fill(name, prepared, claim, copy)?;
        }
    }
    failpoint("create.volumes");
    let (id, created) = (ContainerId::random(), Timestamp::now());
    let directory = shared.data_directory(&id);
    let phase = Phase::Created { last_failure: None };
    failpoint("create.begin");
    recover::make_container_directory(&directory)?;
    failpoint("create.directory");
    if let Err(error) = artifact_files::hold(shared, &spec, &directory) {
        discard(&directory);
        return Err(error);
    }
    let wish = Wish::None;
    let row = |name: ContainerName| {
        let (spec, phase, wish) = (spec.clone(), phase.clone(), wish.clone());
        ContainerRow {
            id: id.clone(),
            name,
            created,
            spec,
            phase,
            wish,
            restarts: Restarts::default(),
            failing_streak: 0,
        }
    };
    let inserted = match name {
        Some(name) => {
            let inserted = rows::insert_container(&shared.ledger, row(name.clone()), made.clone(), ids.clone());
            inserted.map_err(EngineError::from).and_then(|inserted| match inserted {
                Ok(spec) => Ok((name, spec)),
                Err(NotInserted::NameTaken(holder)) => {
                    Err(EngineError::NameInUse { name: name.to_string(), holder: holder.to_string() })
                }
                Err(NotInserted::NoIds) => Err(no_ids(ids.as_ref())),
            })
        }
        None => insert_with_made_up_name(shared, &id, row, made, ids.as_ref()),
    };
    failpoint("create.row");
    match inserted {
        Ok((name, spec)) => {
            let (spec, restarts) = (Arc::new(spec), Restarts::default());
            Ok(Snapshot {
                id,
                name,
                spec,
                created,
                phase,
                restarts,
                health: None,
                last_exit: None,
                exits: 0,
                is_restarting: false,
                directory,
            })
        }
        Err(error) => {
            discard(&directory);
            Err(error)
        }
    }
}

fn discard(directory: &Path) {
    if let Err(undo) = crate::volumes::remove_tree(directory) {
        tracing::error!(error = error_chain(&undo), "cannot undo a container's directory");
    }
}

fn insert_with_made_up_name(
    shared: &Shared,
    id: &ContainerId,
    row: impl Fn(ContainerName) -> ContainerRow,
    volumes: &[VolumeRow],
    ids: Option<&ids::Wanted>,
) -> Result<(ContainerName, ContainerSpec), EngineError> {
    let seed = u64::from_str_radix(&id.as_str()[..15], 16).expect("an id is hexadecimal");
    for attempt in 0..NAME_ATTEMPTS {
        let name = names::propose(seed, attempt);
        if !shared.registry.is_name_free(&name) {
            continue;
        }
        match rows::insert_container(&shared.ledger, row(name.clone()), volumes.to_vec(), ids.cloned())? {
            Ok(spec) => return Ok((name, spec)),
            Err(NotInserted::NameTaken(_)) => {}
            Err(NotInserted::NoIds) => return Err(no_ids(ids)),
        }
    }
    Err(EngineError::Conflict { message: "no free name was found".into(), hint: Some("give one with --name".into()) })
}

fn no_ids(wanted: Option<&ids::Wanted>) -> EngineError {
    wanted.expect("who wants no ids is not refused them").exhausted()
}

fn create_volume(shared: &Shared, spec: VolumeSpec, claim: &Claim) -> Result<Volume, EngineError> {
    let (volume, new) = shared.volumes.create(spec, claim)?;
    if new {
        emit_volume(shared, &volume.name);
    }
    Ok(volume)
}

fn emit_volume(shared: &Shared, volume: &VolumeName) {
    shared.emit(EventKind::Volume, "create", volume.to_string(), BTreeMap::from([("driver".into(), "local".into())]));
}

/// The one that it is made from, if it is made from an image's layers, and those that it mounts.
pub(crate) fn images_of(spec: &ContainerSpec) -> impl Iterator<Item = &ImageId> {
    let mounted = spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Image { id, .. } => Some(id),
        _ => None,
    });
    let own = spec.build_step.is_none().then_some(&spec.image);
    own.into_iter().chain(mounted)
}

/// Those that it mounts.
pub(crate) fn volumes_of(spec: &ContainerSpec) -> impl Iterator<Item = VolumeName> {
    spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { name, .. } => Some(name.clone()),
        _ => None,
    })
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", self.shared.config.data_root.display())
    }
}
