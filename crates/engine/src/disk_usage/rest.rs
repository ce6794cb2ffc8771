//! What lies below the data root beside images, what containers have written, volumes, and what builds keep. With it, all that
//! is counted together is what du(1) says of the data root.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dozen_image::disk_bytes;
use dozen_model::run_root::{LOCK_NAME, LOG_NAME};
use dozen_model::{ContainerId, VolumeName};
use dozen_monitor::log::settings::LogFormat;

use crate::build::caches;
use crate::container::artifact_files;
use crate::own_registry;
use crate::shared::{NOTHING, Shared};
use crate::volumes::read_directory;
use crate::{Engine, EngineError};

/// The ledger's file. Beside it lie its write-ahead log, that one's index, and the reserve, whose names begin with its.
const LEDGER: &str = "state.db";
/// The file system's own, where the data root is one by itself (mklost+found(8)).
const LOST_AND_FOUND: &str = "lost+found";

/// Bytes of the disk in what has no line of its own with Docker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineUsage {
    /// Containers' logs, with those that were rotated away.
    pub logs: BTreeMap<ContainerId, u64>,
    /// What is on its way, and goes if it does not arrive: layers of pulls, pushes and loads, files of builds that go on; and
    /// what was removed and is not deleted yet. By its path below the data root.
    pub unfinished: BTreeMap<PathBuf, u64>,
    /// The ledger with its write-ahead log and its reserve.
    pub ledger_bytes: u64,
    /// What else is kept of containers, the engine's log, and the directories that all lies in.
    pub records_bytes: u64,
    /// What has no row: nobody misses it. By its path below the data root.
    pub unowned: BTreeMap<PathBuf, u64>,
}

impl Engine {
    /// See [`EngineUsage`].
    pub async fn engine_usage(&self) -> Result<EngineUsage, EngineError> {
        let shared = self.shared().clone();
        self.shared().blocking(move || measure(&shared)).await
    }
}

/// Blocks.
fn measure(shared: &Shared) -> Result<EngineUsage, EngineError> {
    let root = &shared.config.data_root;
    let strays = shared.images.strays()?;
    let mut usage = EngineUsage { records_bytes: own_bytes(root), ..EngineUsage::default() };
    for name in read_directory(root)? {
        let path = root.join(&name);
        match name.to_str() {
            Some("containers") => usage.containers(shared, &path)?,
            Some("volumes") => usage.volumes(shared, &path)?,
            Some("cache-mounts") => usage.cache_mounts(shared, &path)?,
            Some("tmp" | "builds") => {
                usage.records_bytes += own_bytes(&path);
                for name in read_directory(&path)? {
                    usage.unfinished(root, &path.join(name));
                }
            }
            // What is in them is the images', and the steps', but for what has no row.
            Some("content" | "layers") => usage.records_bytes += own_bytes(&path),
            // It has a line of its own.
            Some(own_registry::DIRECTORY) if own_registry::is_used(&path) => {}
            Some(own_registry::DIRECTORY | NOTHING | LOCK_NAME | LOG_NAME | LOST_AND_FOUND) => {
                usage.records_bytes += disk_bytes(&path);
            }
            Some(ledger) if ledger.starts_with(LEDGER) => usage.ledger_bytes += disk_bytes(&path),
            _ => usage.unowned(root, &path),
        }
    }
    for path in strays {
        usage.unowned(root, &path);
    }
    Ok(usage)
}

/// A directory is listed before it is asked whose each entry is: what comes meanwhile is not seen. What goes loses its row
/// before its files, so what has the name of something, and no row, is unfinished.
impl EngineUsage {
    fn containers(&mut self, shared: &Shared, directory: &Path) -> Result<(), EngineError> {
        self.records_bytes += own_bytes(directory);
        let names = read_directory(directory)?;
        let known: BTreeSet<ContainerId> =
            shared.registry.snapshots().iter().map(|snapshot| snapshot.id.clone()).collect();
        for name in names {
            let path = directory.join(&name);
            match name.to_str().and_then(|name| name.parse::<ContainerId>().ok()) {
                Some(id) if known.contains(&id) => self.container(id, &path),
                Some(_) => self.unfinished(&shared.config.data_root, &path),
                None => self.unowned(&shared.config.data_root, &path),
            }
        }
        Ok(())
    }

    fn container(&mut self, id: ContainerId, directory: &Path) {
        self.records_bytes += own_bytes(directory);
        // It may go at this moment.
        for name in read_directory(directory).unwrap_or_default() {
            let path = directory.join(&name);
            if name == "upper" {
                self.records_bytes += own_bytes(&path);
            } else if name == artifact_files::DIRECTORY {
                // The files have a line of their own, whoever has links to them.
                self.records_bytes += own_bytes(&path);
                let mounts = read_directory(&path).unwrap_or_default();
                self.records_bytes += mounts.iter().map(|mount| own_bytes(&path.join(mount))).sum::<u64>();
            } else if is_log(&name) {
                *self.logs.entry(id.clone()).or_default() += disk_bytes(&path);
            } else {
                self.records_bytes += disk_bytes(&path);
            }
        }
    }

    fn volumes(&mut self, shared: &Shared, directory: &Path) -> Result<(), EngineError> {
        self.records_bytes += own_bytes(directory);
        let names = read_directory(directory)?;
        let volumes = shared.volumes.list();
        for name in names {
            let path = directory.join(&name);
            let Some(volume) = volumes.iter().find(|volume| volume.name.as_str() == name) else {
                match name.to_str().is_some_and(|name| name.parse::<VolumeName>().is_ok()) {
                    true => self.unfinished(&shared.config.data_root, &path),
                    false => self.unowned(&shared.config.data_root, &path),
                }
                continue;
            };
            self.records_bytes += own_bytes(&path);
            for part in read_directory(&path).unwrap_or_default() {
                let path = path.join(&part);
                match part.to_str() {
                    // Another file system is mounted there, perhaps a server's that does not answer.
                    Some("_data") if !volume.options.is_empty() => {}
                    Some("_data" | "_snapshots") => self.records_bytes += own_bytes(&path),
                    _ => self.unfinished(&shared.config.data_root, &path),
                }
            }
        }
        Ok(())
    }

    fn cache_mounts(&mut self, shared: &Shared, directory: &Path) -> Result<(), EngineError> {
        self.records_bytes += own_bytes(directory);
        let names = read_directory(directory)?;
        let rows = caches::rows::all(&shared.ledger)?;
        for name in names {
            let path = directory.join(&name);
            match name.to_str() {
                Some(name) if rows.iter().any(|row| row.directory == name) => {}
                Some(name) if name.starts_with('.') || caches::is_name(name) => {
                    self.unfinished(&shared.config.data_root, &path)
                }
                _ => self.unowned(&shared.config.data_root, &path),
            }
        }
        Ok(())
    }

    fn unfinished(&mut self, root: &Path, path: &Path) {
        self.unfinished.insert(below(root, path), disk_bytes(path));
    }

    fn unowned(&mut self, root: &Path, path: &Path) {
        self.unowned.insert(below(root, path), disk_bytes(path));
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

/// The log's own file, or what was rotated away of it.
fn is_log(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    [LogFormat::Json, LogFormat::Compact].iter().any(|format| name.starts_with(format.file_name().as_bytes()))
}

/// Without what is in it.
fn own_bytes(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}
