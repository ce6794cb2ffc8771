//! What all owners share: roots, ledger, and the services.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use dozen_image::{ImageStore, Use};
use dozen_ledger::Ledger;
use dozen_model::{ContainerId, ContainerSpec, ImageId, MountSource, VolumeName, error_chain};
use dozen_monitor::protocol::{ExitRecord, Reply, Request};
use dozen_runtime::Cgroup;
use jiff::Timestamp;

use crate::build::NamedBuilds;
use crate::build::agents::Agents;
use crate::build::caches::Caches;
use crate::build::flights::Flights;
use crate::collection::{Watch, is_moved_by};
use crate::container::exec::Execs;
use crate::container::logs::Logs;
use crate::container::secrets::Secrets;
use crate::container::snapshot::{ExitStatus, Snapshot};
use crate::container::stats::Samplers;
use crate::container::view::Views;
use crate::engine::images_of;
use crate::events::{Event, EventKind, EventLog};
use crate::farewell::Farewell;
use crate::monitor_link::MonitorLink;
use crate::network::Network;
use crate::own_registry::OwnRegistry;
use crate::pull::Pulls;
use crate::push::Packings;
use crate::recover::roots_lock::RootsLock;
use crate::registry::Registry;
use crate::volumes::{Claim, Volume, Volumes};
use crate::{EngineConfig, EngineError};

/// Why a run has ended whose monitor has left no record.
pub(crate) const MONITOR_DIED: &str = "the container's monitor died";

/// How long it takes until a monitor that lives and cannot be reached is tried again.
const MONITOR_RETRY: Duration = Duration::from_millis(100);

pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    /// This engine's id, made at its first start.
    pub(crate) id: String,
    /// Which boot of the machine this is; `None` where the kernel does not say.
    pub(crate) boot: Option<String>,
    /// Set once the machine goes down, and the engine takes its containers along.
    pub(crate) farewell: Farewell,
    /// The cgroup below which containers and monitors live: `/dozen`, or one by the roots.
    pub(crate) cgroup: String,
    pub(crate) ledger: Ledger,
    pub(crate) images: ImageStore,
    pub(crate) network: Network,
    pub(crate) volumes: Volumes,
    pub(crate) registry: Registry,
    pub(crate) execs: Execs,
    pub(crate) events: EventLog,
    pub(crate) logs: Logs,
    pub(crate) views: Arc<Views>,
    /// What containers are told that nobody else is to know.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) samplers: Samplers,
    /// Told once this process has begun to serve one, or could not.
    pub(crate) own_registry: OnceLock<OwnRegistry>,
    /// Images that are being pulled.
    pub(crate) pulls: Pulls,
    /// Layers that are being compressed for pushes.
    pub(crate) packings: Packings,
    /// Steps of builds that are being done.
    pub(crate) builds: Flights,
    /// SSH agents of clients that are about to build.
    pub(crate) agents: Arc<Agents>,
    /// Builds that go on and have an id.
    pub(crate) named_builds: NamedBuilds,
    /// Cache mounts that steps of builds have.
    pub(crate) caches: Arc<Caches>,
    /// What collects when the disk fills up.
    pub(crate) collection: Watch,
    /// Images of containers that are being made, which are not in the registry yet.
    pub(crate) images_in_use: Mutex<Vec<ImageId>>,
    /// Held for as long as this engine lives: no other may use its roots.
    pub(crate) _roots_lock: RootsLock,
}

/// The cgroup of an engine's monitors and keeper, which has nothing in it but them: no limit is theirs, and whoever ends
/// the engine does not end them.
pub(crate) fn monitors_in(engine_cgroup: &str) -> String {
    format!("{engine_cgroup}/monitors")
}

/// The directory of the data root in which nothing is.
pub(crate) const NOTHING: &str = "nothing";

impl Shared {
    /// A container's directory on the data root.
    pub(crate) fn data_directory(&self, id: &ContainerId) -> PathBuf {
        self.config.data_root.join("containers").join(id.as_str())
    }

    /// A container's directory on the run root. Short, because a socket's path has 108 bytes (unix(7)).
    pub(crate) fn run_directory(&self, id: &ContainerId) -> PathBuf {
        self.config.run_root.join("c").join(id.short())
    }

    /// A container's cgroup. What it lies in is not ours, and stays, if the container says where.
    pub(crate) fn container_cgroup(&self, id: &ContainerId, spec: &ContainerSpec) -> String {
        let parent = spec.resources.cgroup_parent.as_ref().map_or(self.cgroup.as_str(), |parent| parent.path());
        format!("{parent}/{id}")
    }

    /// The cgroup of this engine's monitors and keeper.
    pub(crate) fn monitor_cgroup(&self) -> String {
        monitors_in(&self.cgroup)
    }

    /// The directories of the layers that a container stands on, the topmost first. Of no layers one in which nothing is:
    /// an overlay has one at least (overlayfs.rst).
    pub(crate) fn lower_directories(&self, spec: &ContainerSpec) -> Result<Vec<PathBuf>, EngineError> {
        let mut all = match &spec.build_step {
            Some(step) => self.images.directories_of(&step.layers)?,
            None => self.images.lower_directories(&spec.image)?,
        };
        if all.is_empty() {
            all.push(self.config.data_root.join(NOTHING));
        }
        Ok(all)
    }

    /// Runs blocking work off the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            // A panic is a fault of ours. Here the request fails; a release build ends (`panic = "abort"`), since nothing
            // half done is to go on, and the next engine takes everything up.
            Err(EngineError::System { action: "finish a task".into(), source: std::io::Error::other(error) })
        })
    }

    /// How a run ended whose monitor is gone: by its record, or, without one, for this reason. Then the container is not
    /// left half alive.
    pub(crate) async fn last_word(&self, id: &ContainerId, started: Timestamp, lost: &str) -> Last {
        let directory = self.data_directory(id);
        let read = move || {
            let context = EngineError::system(|| format!("read the exit record in {}", directory.display()));
            dozen_monitor::exit::read(&directory).map_err(context)
        };
        let record = self.blocking(read).await;
        // A monitor that has written its record has left nothing; others may have written it for one that hung.
        self.sweep(id).await;
        match record {
            Ok(Some(record)) => return Last::of(record, started),
            Ok(None) => {}
            Err(error) => tracing::error!(container = id.short(), error = error_chain(&error), "no exit record"),
        }
        let status = ExitStatus {
            exit_code: 255,
            started,
            finished: Timestamp::now(),
            out_of_memory: false,
            error: Some(lost.to_owned()),
        };
        Last { status, oom_kills: 0 }
    }

    /// Connects to a container's monitor for as long as there is one; `None` once it is gone. That a connection fails
    /// proves nothing, the engine may be short of descriptors: the monitor's lock does.
    ///
    /// # Errors
    /// It is there and does not answer.
    pub(crate) async fn watch_monitor(&self, id: &ContainerId) -> Result<Option<(MonitorLink, Reply)>, EngineError> {
        let run_directory = self.run_directory(id);
        loop {
            match MonitorLink::request(&run_directory, &Request::Watch).await {
                Ok(watched) => return Ok(Some(watched)),
                Err(error) => {
                    let directory = run_directory.clone();
                    let alive = self.blocking(move || Ok(dozen_monitor::client::is_alive(&directory))).await;
                    if !alive.unwrap_or(true) {
                        return Ok(None);
                    }
                    if matches!(error, EngineError::MonitorHangs { .. }) {
                        return Err(error);
                    }
                    tracing::warn!(container = id.short(), error = error_chain(&error), "cannot reach a monitor yet");
                    tokio::time::sleep(MONITOR_RETRY).await;
                }
            }
        }
    }

    /// Ends a monitor that hangs; what was its container's is to be swept.
    pub(crate) async fn kill_monitor(&self, id: &ContainerId) {
        let run_directory = self.run_directory(id);
        let kill = move || {
            let context = EngineError::system(|| format!("kill the monitor at {}", run_directory.display()));
            dozen_monitor::client::kill(&run_directory).map_err(context)
        };
        if let Err(error) = self.blocking(kill).await {
            tracing::error!(
                container = id.short(),
                error = error_chain(&error),
                "a monitor hangs and cannot be killed"
            );
        }
    }

    /// Ends whatever is left of a container without a monitor.
    pub(crate) async fn sweep(&self, id: &ContainerId) {
        let Some(entry) = self.registry.get(id) else { return };
        let cgroup = self.container_cgroup(id, &entry.snapshot().spec);
        let swept = self
            .blocking(move || {
                let Some(cgroup) = Cgroup::open(&cgroup)? else { return Ok(()) };
                cgroup.kill()?;
                Ok(cgroup.delete()?)
            })
            .await;
        if let Err(error) = swept {
            tracing::error!(container = id.short(), error = error_chain(&error), "cannot sweep a container's cgroup");
        }
    }

    /// The engine's own cgroups, which are empty once neither monitor nor keeper is left in them.
    pub(crate) fn remove_cgroups(&self) -> Result<(), EngineError> {
        for name in [self.monitor_cgroup(), self.cgroup.clone()] {
            if let Some(cgroup) = Cgroup::open(&name)? {
                cgroup.delete()?;
            }
        }
        Ok(())
    }

    /// Tells the world about a container, with the attributes that Docker gives.
    pub(crate) fn announce(&self, snapshot: &Snapshot, action: &str, more: impl IntoIterator<Item = (String, String)>) {
        let mut attributes = snapshot.spec.labels.clone();
        attributes.insert("name".into(), snapshot.name.to_string());
        attributes.insert("image".into(), snapshot.spec.image_name.clone());
        attributes.extend(more);
        self.emit(EventKind::Container, action, snapshot.id.to_string(), attributes);
    }

    pub(crate) fn emit(&self, kind: EventKind, action: &str, id: String, attributes: BTreeMap<String, String>) {
        self.events.emit(Event { time: Timestamp::now(), kind, action: action.to_owned(), id, attributes });
        if is_moved_by(kind, action) {
            self.collection.wake();
        }
    }

    /// That the container's volumes are mounted in it (`mount`), or not any more (`unmount`): those of `names`, each as often
    /// as it is mounted.
    pub(crate) fn announce_volumes(&self, action: &str, snapshot: &Snapshot, names: &[VolumeName]) {
        for mount in &snapshot.spec.mounts {
            let MountSource::Volume { name, .. } = &mount.source else { continue };
            if !names.contains(name) {
                continue;
            }
            let mut attributes = BTreeMap::from([
                ("driver".to_owned(), "local".to_owned()),
                ("container".into(), snapshot.id.to_string()),
            ]);
            if action == "mount" {
                attributes.extend([
                    ("destination".to_owned(), mount.target.display().to_string()),
                    ("read/write".to_owned(), (!mount.read_only).to_string()),
                    // Of a volume there is none, and Docker says so.
                    ("propagation".to_owned(), String::new()),
                ]);
            }
            self.emit(EventKind::Volume, action, name.to_string(), attributes);
        }
    }

    /// Containers that have the volume.
    pub(crate) fn volume_users(&self, name: &VolumeName) -> Vec<ContainerId> {
        let uses = |snapshot: &Snapshot| {
            snapshot
                .spec
                .mounts
                .iter()
                .any(|mount| matches!(&mount.source, MountSource::Volume { name: used, .. } if used == name))
        };
        self.registry.snapshots().iter().filter(|snapshot| uses(snapshot)).map(|snapshot| snapshot.id.clone()).collect()
    }

    /// Who uses an image; a running container before a stopped one. For the image store's questions.
    pub(crate) fn image_user(&self, image: &ImageId) -> Option<Use> {
        let snapshots = self.registry.snapshots();
        let mut users = snapshots.iter().filter(|snapshot| images_of(&snapshot.spec).any(|used| used == image));
        let Some(first) = users.next() else {
            let being_made = self.images_being_used().contains(image);
            return being_made.then(|| Use { container_short: "a new one".to_owned(), running: false });
        };
        let running = [first].into_iter().chain(users).find(|user| user.phase.run().is_some());
        let user = running.unwrap_or(first);
        Some(Use { container_short: user.id.short().to_owned(), running: user.phase.run().is_some() })
    }

    /// Blocks. Whether it was removed. The claim is the caller's on this volume.
    pub(crate) fn remove_volume_if_unused(&self, name: &VolumeName, _claim: &Claim) -> Result<bool, EngineError> {
        if !self.volume_users(name).is_empty() {
            return Ok(false);
        }
        self.volumes.check_no_snapshots(name)?;
        let removed = self.volumes.remove(name)?;
        if removed {
            self.emit(
                EventKind::Volume,
                "destroy",
                name.to_string(),
                BTreeMap::from([("driver".into(), "local".into())]),
            );
        }
        Ok(removed)
    }

    /// The same if the volume is the one that was seen.
    pub(crate) fn prune_volume(&self, seen: &Volume, claim: &Claim) -> Result<bool, EngineError> {
        if !self.volumes.is_still(seen, claim) {
            return Ok(false);
        }
        self.remove_volume_if_unused(&seen.name, claim)
    }

    pub(crate) fn images_being_used(&self) -> MutexGuard<'_, Vec<ImageId>> {
        self.images_in_use.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What is known of a run that is over.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) status: ExitStatus,
    /// How many were killed for want of memory.
    pub(crate) oom_kills: u64,
}

impl Last {
    /// What the monitor wrote, as the engine keeps it.
    pub(crate) fn of(record: ExitRecord, started: Timestamp) -> Self {
        let status = ExitStatus {
            exit_code: record.exit_code,
            started,
            finished: record.finished_at.parse().unwrap_or_else(|_| Timestamp::now()),
            out_of_memory: record.out_of_memory,
            error: record.error,
        };
        // Older monitors did not count.
        Self { oom_kills: record.oom_kills.max(u64::from(record.out_of_memory)), status }
    }
}
