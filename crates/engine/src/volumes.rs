//! Named and anonymous volumes: directories that outlive containers.

mod archive;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use dozen_ledger::Ledger;
use dozen_model::{VolumeName, error_chain};
use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;

use crate::EngineError;
use crate::failpoint::failpoint;
use crate::rows::{self, VolumeRow};

/// Beside a volume's content while it is filled.
const FILLING: &str = "_filling";
const FILLED: &str = "_filled";

/// What a volume is asked to be. Only the local driver without options is built.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct VolumeSpec {
    pub name: VolumeName,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
}

/// A volume that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct Volume {
    pub name: VolumeName,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
    pub created: Timestamp,
    /// The directory on the host whose content it is.
    pub mountpoint: PathBuf,
}

/// All volumes of an engine, below one directory: `<name>/_data`, as Docker lays them.
///
/// A volume is its row. A directory without a row is garbage, a row without a directory gets an empty one.
/// All calls block but [`Volumes::claim`], which comes before those that change something.
///
/// A volume that is there and empty is filled beside itself: in `_filling`, which is then renamed `_filled` and emptied
/// into `_data`, name by name. What a crash leaves of the first is thrown away, of the second carried on: nobody ever takes
/// a half for the whole, and a container that has the volume mounted keeps the very directory that it has.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    ledger: Ledger,
    rows: Mutex<BTreeMap<VolumeName, VolumeRow>>,
    claims: Mutex<BTreeMap<VolumeName, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to make, fill or remove some volumes, for as long as it is held: whoever makes a container holds one from
/// the look-up of its volumes until the registry knows that it has them. Others go on with other volumes meanwhile.
#[derive(Debug)]
pub struct Claim {
    _held: Vec<OwnedMutexGuard<()>>,
}

impl Volumes {
    /// Reads the rows and makes directories and rows agree.
    pub(crate) fn open(directory: PathBuf, ledger: Ledger) -> Result<Self, EngineError> {
        std::fs::create_dir_all(&directory)
            .map_err(EngineError::system(|| format!("make the directory of volumes {}", directory.display())))?;
        let rows: BTreeMap<_, _> = rows::volumes(&ledger)?.into_iter().map(|row| (row.name.clone(), row)).collect();
        let volumes = Self { directory, ledger, rows: Mutex::new(rows), claims: Mutex::default() };
        volumes.collect_garbage()?;
        for name in volumes.lock().keys() {
            let path = volumes.mountpoint(name);
            let ready = make_directory(&path).and_then(|()| volumes.finish_filling(name));
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
            return Ok((self.volume(row), false));
        }
        let row =
            VolumeRow { name: spec.name, labels: spec.labels, anonymous: spec.anonymous, created: Timestamp::now() };
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
        let known = self.lock().get(&spec.name).map(|row| self.volume(row));
        if let Some(volume) = known {
            // It could not be made when the engine opened, or someone has taken it away.
            make_directory(&volume.mountpoint)?;
            return Ok((volume, None));
        }
        let row =
            VolumeRow { name: spec.name, labels: spec.labels, anonymous: spec.anonymous, created: Timestamp::now() };
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

    /// Gives an empty volume what `copy` copies into the directory that it is given, and nothing if it says that there is
    /// nothing. A volume that is `prepared` is nobody's yet, and filled in place.
    pub(crate) fn fill(
        &self,
        name: &VolumeName,
        prepared: bool,
        _claim: &Claim,
        copy: impl FnOnce(&Path) -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        let (directory, data) = (self.directory.join(name.as_str()), self.mountpoint(name));
        self.finish_filling(name)?;
        if !read_directory(&data)?.is_empty() {
            return Ok(());
        }
        // Nothing can be renamed into another file system, which someone has mounted there.
        let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev());
        let mounted = device(&directory).ok() != device(&data).ok();
        if prepared || mounted {
            return copy(&data).map(drop);
        }
        let filling = directory.join(FILLING);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&filling);
        made.map_err(EngineError::system(|| format!("make {}", filling.display())))?;
        failpoint("volume.filling");
        match copy(&filling) {
            Ok(true) => {}
            other => {
                remove_tree(&filling)?;
                return other.map(drop);
            }
        }
        failpoint("volume.copied");
        let renamed = std::fs::rename(&filling, directory.join(FILLED));
        renamed.map_err(EngineError::system(|| format!("rename {}", filling.display())))?;
        failpoint("volume.filled");
        self.finish_filling(name)?;
        failpoint("volume.poured");
        Ok(())
    }

    /// What an interrupted filling has left: nothing of it, or all.
    fn finish_filling(&self, name: &VolumeName) -> Result<(), EngineError> {
        let directory = self.directory.join(name.as_str());
        remove_tree(&directory.join(FILLING))?;
        let filled = directory.join(FILLED);
        match std::fs::symlink_metadata(&filled) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(EngineError::system(|| format!("look at {}", filled.display())))?,
        };
        dozen_image::pour(&filled, &self.mountpoint(name))?;
        remove_tree(&filled)
    }

    /// The container is there, and with it the rows of the volumes that were prepared for it.
    pub(crate) fn accept(&self, prepared: Vec<VolumeRow>) {
        self.lock().extend(prepared.into_iter().map(|row| (row.name.clone(), row)));
    }

    /// The container is not to be: neither are they.
    pub(crate) fn discard(&self, prepared: &[VolumeRow]) {
        for row in prepared {
            let path = self.directory.join(row.name.as_str());
            warn_and_go_on("cannot undo a volume", &path, remove_tree(&path));
        }
    }

    /// Whether there was one. The caller, who has a claim on it, has made sure that no container has it.
    pub(crate) fn remove(&self, name: &VolumeName) -> Result<bool, EngineError> {
        if !self.lock().contains_key(name) {
            return Ok(false);
        }
        // The row goes first, power-safe: a crash after it leaves garbage, never a volume without its data.
        failpoint("unvolume.before");
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
            warn_and_go_on("cannot delete a volume's directory; the next start tries again", &path, remove_tree(&path));
        }
    }

    /// The directory whose content is the volume's.
    pub(crate) fn mountpoint(&self, name: &VolumeName) -> PathBuf {
        self.directory.join(name.as_str()).join("_data")
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
            mountpoint: self.mountpoint(&row.name),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeName, VolumeRow>> {
        self.rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
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
