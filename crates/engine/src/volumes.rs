//! Named and anonymous volumes: directories that outlive containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use dozen_ledger::Ledger;
use dozen_model::{VolumeName, error_chain};
use jiff::Timestamp;

use crate::EngineError;
use crate::failpoint::failpoint;
use crate::rows::{self, VolumeRow};

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
/// All calls block.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    ledger: Ledger,
    rows: Mutex<BTreeMap<VolumeName, VolumeRow>>,
}

impl Volumes {
    /// Reads the rows and makes directories and rows agree.
    pub(crate) fn open(directory: PathBuf, ledger: Ledger) -> Result<Self, EngineError> {
        std::fs::create_dir_all(&directory)
            .map_err(EngineError::system(|| format!("make the directory of volumes {}", directory.display())))?;
        let rows: BTreeMap<_, _> = rows::volumes(&ledger)?.into_iter().map(|row| (row.name.clone(), row)).collect();
        let volumes = Self { directory, ledger, rows: Mutex::new(rows) };
        volumes.collect_garbage()?;
        for name in volumes.lock().keys() {
            make_directory(&volumes.mountpoint(name))?;
        }
        Ok(volumes)
    }

    pub(crate) fn list(&self) -> Vec<Volume> {
        self.lock().values().map(|row| self.volume(row)).collect()
    }

    pub(crate) fn find(&self, name: &str) -> Result<Volume, EngineError> {
        let parsed = name.parse::<VolumeName>().map_err(|_| EngineError::NoSuchVolume(name.to_owned()))?;
        self.lock().get(&parsed).map(|row| self.volume(row)).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))
    }

    /// The volume, and whether it is new.
    pub(crate) fn create(&self, spec: VolumeSpec) -> Result<(Volume, bool), EngineError> {
        if let Some(row) = self.lock().get(&spec.name) {
            return Ok((self.volume(row), false));
        }
        let row =
            VolumeRow { name: spec.name, labels: spec.labels, anonymous: spec.anonymous, created: Timestamp::now() };
        // Row first: a crash between the two leaves a volume whose directory the next start makes.
        match rows::insert_volume(&self.ledger, row.clone()) {
            Ok(()) => {}
            // Someone was faster with the same name: theirs is as good.
            Err(error) => {
                return match self.lock().get(&row.name) {
                    Some(theirs) => Ok((self.volume(theirs), false)),
                    None => Err(error.into()),
                };
            }
        }
        failpoint("volume.row");
        make_directory(&self.mountpoint(&row.name))?;
        failpoint("volume.directory");
        let volume = self.volume(&row);
        self.lock().insert(row.name.clone(), row);
        Ok((volume, true))
    }

    /// The volume, for a container that is being made. If it is new it has a directory and no row yet: that comes with
    /// the container's, so that a crash in between leaves garbage and no volume that is half filled.
    pub(crate) fn prepare(&self, spec: VolumeSpec) -> Result<(Volume, Option<VolumeRow>), EngineError> {
        if let Some(row) = self.lock().get(&spec.name) {
            return Ok((self.volume(row), None));
        }
        let row =
            VolumeRow { name: spec.name, labels: spec.labels, anonymous: spec.anonymous, created: Timestamp::now() };
        // What an interrupted removal has left is nobody's.
        remove_tree(&self.directory.join(row.name.as_str()))?;
        make_directory(&self.mountpoint(&row.name))?;
        failpoint("volume.prepared");
        Ok((self.volume(&row), Some(row)))
    }

    /// The container is there, and with it the rows of the volumes that were prepared for it.
    pub(crate) fn accept(&self, prepared: Vec<VolumeRow>) {
        self.lock().extend(prepared.into_iter().map(|row| (row.name.clone(), row)));
    }

    /// The container is not to be: neither are they.
    pub(crate) fn discard(&self, prepared: &[VolumeRow]) {
        for row in prepared {
            if let Err(error) = remove_tree(&self.directory.join(row.name.as_str())) {
                tracing::error!(volume = %row.name, error = error_chain(&error), "cannot undo a volume");
            }
        }
    }

    /// Whether there was one. The caller has made sure that no container has it.
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
            if let Err(error) = remove_tree(&self.directory.join(name.as_str())) {
                tracing::error!(volume = %name, error = error_chain(&error), "cannot delete a volume's directory");
            }
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
                remove_tree(&self.directory.join(entry))?;
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

/// Removes a tree, if it is there. Never follows a link out of it (std's walk is by descriptors).
pub(crate) fn remove_tree(path: &Path) -> Result<(), EngineError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::System { action: format!("remove {}", path.display()), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path) -> Volumes {
        let ledger = Ledger::open(&root.join("state.db"), &[rows::MIGRATION]).unwrap();
        Volumes::open(root.join("volumes"), ledger).unwrap()
    }

    fn spec(name: &str) -> VolumeSpec {
        VolumeSpec { name: name.parse().unwrap(), labels: BTreeMap::new(), anonymous: false }
    }

    #[test]
    fn a_volume_outlives_the_engine_and_garbage_does_not() {
        let root = tempfile::tempdir().unwrap();
        let volumes = open(root.path());
        let (volume, new) = volumes.create(spec("data")).unwrap();
        assert!(new);
        std::fs::write(volume.mountpoint.join("file"), "kept").unwrap();
        std::fs::create_dir_all(root.path().join("volumes/orphan/_data")).unwrap();
        drop(volumes);

        let volumes = open(root.path());
        assert_eq!(volumes.list(), std::slice::from_ref(&volume));
        assert_eq!(std::fs::read_to_string(volume.mountpoint.join("file")).unwrap(), "kept");
        assert!(!root.path().join("volumes/orphan").exists());
        assert!(!volumes.create(spec("data")).unwrap().1, "creating it again gives the one that is there");
        assert!(volumes.remove(&volume.name).unwrap());
        assert!(!volumes.remove(&volume.name).unwrap());
        assert!(!root.path().join("volumes/data").exists());
    }

    #[test]
    fn a_row_without_a_directory_gets_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let volumes = open(root.path());
        let (volume, _) = volumes.create(spec("data")).unwrap();
        drop(volumes);
        std::fs::remove_dir_all(root.path().join("volumes/data")).unwrap();
        open(root.path());
        assert!(volume.mountpoint.is_dir());
    }
}
