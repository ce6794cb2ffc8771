//! Named and anonymous volumes: directories that outlive containers.

mod address;
mod archive;
mod filling;
mod local;
pub(crate) mod snapshots;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use dozen_ledger::{Ledger, Migration};
use dozen_model::{ContainerId, VolumeName, error_chain};
use dozen_monitor::protocol::Failure;
use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;

use self::filling::Staging;
use self::local::LocalOptions;
use self::uses::Uses;
pub(crate) use self::uses::{User, Visit};
use crate::EngineError;
use crate::failpoint::failpoint;
use crate::rows::{self, VolumeRow};

/// Options of the local driver.
pub(crate) const OPTIONS: Migration = Migration("ALTER TABLE volumes ADD COLUMN options TEXT NOT NULL DEFAULT '{}'");

/// What a volume is asked to be, by the local driver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct VolumeSpec {
    pub name: VolumeName,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
    /// The driver's: what is mounted on its directory while somebody uses it. None: nothing is.
    pub options: BTreeMap<String, String>,
}

/// A volume that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct Volume {
    pub name: VolumeName,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
    pub created: Timestamp,
    /// As it was asked for.
    pub options: BTreeMap<String, String>,
    /// The directory on the host whose content it is, with options: while somebody uses it.
    pub mountpoint: PathBuf,
}

/// All volumes of an engine, below one directory: `<name>/_data`, as Docker lays them.
///
/// A volume is its row. A directory without a row is garbage, a row without a directory gets an empty one.
/// All calls block but [`Volumes::claim`], which comes before those that change something.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    /// The engine's id.
    engine: String,
    ledger: Ledger,
    rows: Mutex<BTreeMap<VolumeName, VolumeRow>>,
    claims: Mutex<BTreeMap<VolumeName, Arc<tokio::sync::Mutex<()>>>>,
    uses: Arc<Uses>,
    /// By volume and name, and when each was made.
    snapshots: Mutex<BTreeMap<(VolumeName, VolumeName), Timestamp>>,
}

/// The right to make, fill or remove some volumes, for as long as it is held: whoever makes a container holds one from
/// the look-up of its volumes until the registry knows that it has them. Others go on with other volumes meanwhile.
#[derive(Debug)]
pub struct Claim {
    _held: Vec<OwnedMutexGuard<()>>,
}

impl Volumes {
    /// Reads the rows and makes directories and rows agree.
    pub(crate) fn open(directory: PathBuf, engine: &str, ledger: Ledger) -> Result<Self, EngineError> {
        std::fs::create_dir_all(&directory)
            .map_err(EngineError::system(|| format!("make the directory of volumes {}", directory.display())))?;
        let rows: BTreeMap<_, _> = rows::volumes(&ledger)?.into_iter().map(|row| (row.name.clone(), row)).collect();
        let snapshots = Mutex::new(snapshots::rows(&ledger)?);
        let volumes = Self {
            directory,
            engine: engine.to_owned(),
            ledger,
            rows: Mutex::new(rows),
            claims: Mutex::default(),
            uses: Arc::new(Uses::of_engine(engine)),
            snapshots,
        };
        volumes.collect_garbage()?;
        for (name, row) in volumes.lock().iter() {
            let path = volumes.mountpoint(name);
            // What is mounted there may be a server's that does not answer.
            let is_mounted = !row.options.is_empty() && dozen_runtime::is_mount_point(&path).unwrap_or(false);
            let made = if is_mounted { Ok(()) } else { make_directory(&path) };
            // Of another file system, whoever mounts or fills it next sees to that.
            let finished = || if is_mounted { Ok(()) } else { Staging::beside(&path).finish() };
            let ready = made.and_then(|()| finished()).and_then(|()| volumes.finish_snapshots(name));
            warn_and_go_on("a volume cannot be made ready; who uses it tries again", &path, ready);
        }
        Ok(volumes)
    }

    /// Waits until nobody else has a claim on any of them.
    pub(crate) async fn claim(&self, names: impl IntoIterator<Item = VolumeName>) -> Claim {
        // In the order of their names, all of them: two who want the same never wait for each other.
        let wanted: BTreeSet<VolumeName> = names.into_iter().collect();
        let locks: Vec<_> = {
            let mut claims = self.claims.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            claims.retain(|_, lock| Arc::strong_count(lock) > 1);
            wanted.into_iter().map(|name| claims.entry(name).or_default().clone()).collect()
        };
        let mut held = Vec::new();
        for lock in locks {
            held.push(lock.lock_owned().await);
        }
        Claim { _held: held }
    }

    pub(crate) fn list(&self) -> Vec<Volume> {
        self.lock().values().map(|row| self.volume(row)).collect()
    }

    pub(crate) fn find(&self, name: &str) -> Result<Volume, EngineError> {
        let parsed = name.parse::<VolumeName>().map_err(|_| EngineError::NoSuchVolume(name.to_owned()))?;
        self.lock().get(&parsed).map(|row| self.volume(row)).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))
    }

    /// The volume, and whether it is new.
    pub(crate) fn create(&self, spec: VolumeSpec, _claim: &Claim) -> Result<(Volume, bool), EngineError> {
        if let Some(row) = self.lock().get(&spec.name) {
            check_same(row, &spec)?;
            return Ok((self.volume(row), false));
        }
        let row = row_of(spec)?;
        self.make_empty(&row.name)?;
        failpoint("volume.directory");
        if let Err(error) = rows::insert_volume(&self.ledger, row.clone()) {
            self.discard(std::slice::from_ref(&row));
            return Err(error.into());
        }
        failpoint("volume.row");
        let volume = self.volume(&row);
        self.lock().insert(row.name.clone(), row);
        Ok((volume, true))
    }

    /// The volume, for a container that is being made. If it is new it has a directory and no row yet: that comes with
    /// the container's, so that a crash in between leaves garbage and no volume that is half filled.
    pub(crate) fn prepare(&self, spec: VolumeSpec, _claim: &Claim) -> Result<(Volume, Option<VolumeRow>), EngineError> {
        let known = self.lock().get(&spec.name).cloned();
        if let Some(row) = known {
            check_same(&row, &spec)?;
            let volume = self.volume(&row);
            // It could not be made when the engine opened, or someone has taken it away.
            if row.options.is_empty() || !dozen_runtime::is_mount_point(&volume.mountpoint)? {
                make_directory(&volume.mountpoint)?;
            }
            return Ok((volume, None));
        }
        let row = row_of(spec)?;
        self.make_empty(&row.name)?;
        failpoint("volume.prepared");
        Ok((self.volume(&row), Some(row)))
    }

    /// The directory of a new volume. What a removal that was interrupted, or failed, has left there is nobody's, and no
    /// new volume shows it.
    fn make_empty(&self, name: &VolumeName) -> Result<(), EngineError> {
        let directory = self.directory.join(name.as_str());
        remove_tree(&directory)?;
        make_directory(&self.mountpoint(name)).inspect_err(|_| {
            warn_and_go_on("cannot undo a volume", &directory, remove_tree(&directory));
        })
    }

    /// The container is there, and with it the rows of the volumes that were prepared for it.
    pub(crate) fn accept(&self, prepared: Vec<VolumeRow>) {
        self.lock().extend(prepared.into_iter().map(|row| (row.name.clone(), row)));
    }

    /// The container is not to be: neither are they.
    pub(crate) fn discard(&self, prepared: &[VolumeRow]) {
        for row in prepared {
            let path = self.directory.join(row.name.as_str());
            warn_and_go_on("cannot unmount a volume", &path, self.uses.forget(&row.name));
            warn_and_go_on("cannot undo a volume", &path, remove_tree(&path));
        }
    }

    /// Whether it is the one that was seen, and not another of its name.
    pub(crate) fn is_still(&self, seen: &Volume, _claim: &Claim) -> bool {
        self.find(seen.name.as_str()).is_ok_and(|now| now == *seen)
    }

    /// Whether there was one. The caller, who has a claim on it, has made sure that no container has it.
    pub(crate) fn remove(&self, name: &VolumeName) -> Result<bool, EngineError> {
        if !self.lock().contains_key(name) {
            return Ok(false);
        }
        // The row goes first, power-safe: a crash after it leaves garbage, never a volume without its data. What is mounted
        // is nobody's to delete, and gone before.
        failpoint("unvolume.before");
        self.uses.forget(name)?;
        rows::delete_volume(&self.ledger, name.clone())?;
        self.lock().remove(name);
        failpoint("unvolume.row");
        remove_tree(&self.directory.join(name.as_str()))?;
        failpoint("unvolume.after");
        Ok(true)
    }

    /// Their rows have gone with a container's: now the volumes go too. What cannot be deleted is garbage, and collected
    /// when the engine opens.
    pub(crate) fn forget(&self, names: &[VolumeName]) {
        for name in names {
            self.lock().remove(name);
            let path = self.directory.join(name.as_str());
            warn_and_go_on("cannot unmount a volume", &path, self.uses.forget(name));
            warn_and_go_on("cannot delete a volume's directory; the next start tries again", &path, remove_tree(&path));
        }
    }

    /// The directory whose content is the volume's.
    pub(crate) fn mountpoint(&self, name: &VolumeName) -> PathBuf {
        self.directory.join(name.as_str()).join("_data")
    }

    /// From now on, until [`Volumes::end_use`], they use it: what is to be mounted there is. Blocks.
    pub(crate) fn begin_use(&self, name: &VolumeName, user: &User) -> Result<(), EngineError> {
        let volume = self.find(name.as_str())?;
        self.uses.begin(name, user, LocalOptions::new(&volume.options)?.as_ref(), &volume.mountpoint)
    }

    /// Which they use.
    pub(crate) fn used_by(&self, user: &User) -> Vec<VolumeName> {
        self.uses.of(user)
    }

    /// They use no volume any more. Blocks.
    pub(crate) fn end_use(&self, user: &User) -> Result<(), EngineError> {
        self.uses.end(user)
    }

    /// Somebody looks into it for as long as this is held, whether it has a row yet or not. Blocks.
    pub(crate) fn visit(&self, volume: &Volume) -> Result<Visit, EngineError> {
        self.uses.visit(&volume.name, LocalOptions::new(&volume.options)?.as_ref(), &volume.mountpoint)
    }

    /// Of an engine that starts: which volumes have running containers, of all that are found in the ledger.
    pub(crate) fn adopt(&self, running: impl IntoIterator<Item = (VolumeName, ContainerId)>) {
        let rows = self.lock();
        let places = rows.values().filter(|row| !row.options.is_empty());
        self.uses.adopt(running, places.map(|row| (row.name.clone(), self.mountpoint(&row.name))));
    }

    fn collect_garbage(&self) -> Result<(), EngineError> {
        let known = self.lock();
        for entry in read_directory(&self.directory)? {
            let owned = entry
                .to_str()
                .and_then(|name| name.parse::<VolumeName>().ok())
                .is_some_and(|name| known.contains_key(&name));
            if !owned {
                let path = self.directory.join(entry);
                // As it was filled for a container that then did not come to be.
                let unmounted = dozen_runtime::unmount(&path.join("_data")).map(drop).map_err(EngineError::from);
                warn_and_go_on("cannot unmount what belongs to no volume", &path, unmounted);
                warn_and_go_on("cannot remove what belongs to no volume", &path, remove_tree(&path));
            }
        }
        Ok(())
    }

    fn volume(&self, row: &VolumeRow) -> Volume {
        Volume {
            name: row.name.clone(),
            labels: row.labels.clone(),
            anonymous: row.anonymous,
            created: row.created,
            options: row.options.clone(),
            mountpoint: self.mountpoint(&row.name),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeName, VolumeRow>> {
        self.rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn row_of(spec: VolumeSpec) -> Result<VolumeRow, EngineError> {
    let VolumeSpec { name, labels, anonymous, options } = spec;
    let prefixed = |message: String| format!("create {name}: {message}");
    LocalOptions::new(&options).map_err(|error| match error {
        EngineError::Invalid { message, hint } => EngineError::Invalid { message: prefixed(message), hint },
        EngineError::Monitor(failure) => Failure { message: prefixed(failure.message), ..failure }.into(),
        other => other,
    })?;
    Ok(VolumeRow { name, labels, anonymous, created: Timestamp::now(), options })
}

/// Who asks for options is not given a volume with others. Docker would: what it accepts there does not act.
fn check_same(row: &VolumeRow, spec: &VolumeSpec) -> Result<(), EngineError> {
    if spec.options.is_empty() || spec.options == row.options {
        return Ok(());
    }
    Err(EngineError::Conflict {
        message: format!("create {}: conflict: volume name must be unique", row.name),
        hint: Some(format!("it is there with other options: dozen volume inspect {}", row.name)),
    })
}

fn make_directory(path: &Path) -> Result<(), EngineError> {
    std::fs::create_dir_all(path).map_err(EngineError::system(|| format!("make the volume {}", path.display())))
}

/// The names in a directory.
pub(crate) fn read_directory(path: &Path) -> Result<Vec<std::ffi::OsString>, EngineError> {
    let list = || std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    list().map_err(EngineError::system(|| format!("list {}", path.display())))
}

/// Removes a tree, if it is there, as far as that is possible.
pub(crate) fn remove_tree(path: &Path) -> Result<(), EngineError> {
    dozen_image::remove_tree(path).map_err(|left| {
        let within = path.parent().unwrap_or(path);
        let others = if left.others == 0 { String::new() } else { format!(" and {} others below", left.others) };
        EngineError::System {
            action: format!("remove {}{others}", within.join(left.path).display()),
            source: left.error,
        }
    })
}

/// What belongs to nobody, or to one alone, never keeps the engine from opening and serving all the others.
pub(crate) fn warn_and_go_on(what: &'static str, path: &Path, result: Result<(), EngineError>) {
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), error = error_chain(&error), "{what}");
    }
}

#[cfg(test)]
mod tests;
