//! Snapshots of volumes, where the file system shares blocks between files.
//!
//! ```text
//! volumes/NAME/_data              the volume
//! volumes/NAME/_snapshots/SNAP    a snapshot, if there is a row of it
//! volumes/NAME/_copying           one that is being made, or what takes the place of _data or has just left it
//! ```
//!
//! A snapshot is made beside all this, renamed to its place, synced, and then it has a row: what a crash leaves without one
//! is garbage. A restore exchanges two directories (renameat2(2), RENAME_EXCHANGE) and throws away what was there.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dozen_ledger::rusqlite::params;
use dozen_ledger::{Durability, Ledger, LedgerError, Migration};
use dozen_model::{ContainerId, VolumeName};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags};

use super::uses::{Closed, User};
use super::{Claim, Volume, Volumes, read_directory, remove_tree, warn_and_go_on};
use crate::EngineError;
use crate::container::Container;
use crate::container::hold::Hold;
use crate::engine::Engine;
use crate::events::EventKind;
use crate::failpoint::failpoint;
use crate::rows::corrupt;
use crate::shared::Shared;

/// Snapshots, each with the volume that it is of.
pub(crate) const MIGRATION: Migration = Migration(
    "CREATE TABLE volume_snapshots (
         volume TEXT NOT NULL,
         name TEXT NOT NULL,
         created TEXT NOT NULL,
         PRIMARY KEY (volume, name)
     ) STRICT;",
);

const SNAPSHOTS: &str = "_snapshots";
const COPYING: &str = "_copying";

/// What a volume held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSnapshot {
    /// Of which volume.
    pub volume: VolumeName,
    /// Its name, unique among that volume's.
    pub name: VolumeName,
    /// When it was made.
    pub created: Timestamp,
}

impl Engine {
    /// Makes a snapshot of a volume. With `pause`, all who run with it stand still meanwhile, and it is of one moment; else
    /// each file is as it was at one moment, and two files need not be of the same.
    pub async fn snapshot_volume(
        &self,
        volume: &str,
        name: VolumeName,
        pause: bool,
    ) -> Result<VolumeSnapshot, EngineError> {
        let shared = self.shared().clone();
        let volume = shared.volumes.find(volume)?.name;
        let claim = shared.volumes.claim([volume.clone()]).await;
        let closed = shared.volumes.close(&volume);
        let holds = if pause { hold_all(self, &closed.1).await? } else { Vec::new() };
        self.shared()
            .blocking(move || {
                let volume = shared.volumes.find(volume.as_str())?;
                let made = holds
                    .iter()
                    .try_for_each(Hold::stand_still)
                    .and_then(|()| shared.volumes.snapshot(&volume, &name, &claim));
                // All of them, whoever has moved.
                let moved = holds.iter().map(Hold::release).filter(|stood_still| !stood_still).count();
                drop(closed);
                let made = made?;
                if moved > 0 {
                    shared.volumes.remove_snapshot(&made.volume, &made.name, &claim)?;
                    return Err(EngineError::Conflict {
                        message: format!(
                            "snapshot {}: a container was sent a signal, or ended, meanwhile",
                            made.volume
                        ),
                        hint: Some("try again, or with --pause=false".to_owned()),
                    });
                }
                emit(&shared, "snapshot", &made.volume, &made.name);
                Ok(made)
            })
            .await
    }

    /// Those of a volume, the oldest first.
    pub fn volume_snapshots(&self, volume: &str) -> Result<Vec<VolumeSnapshot>, EngineError> {
        let volumes = &self.shared().volumes;
        Ok(volumes.snapshots_of(&volumes.find(volume)?.name))
    }

    /// Removes a snapshot.
    pub async fn remove_volume_snapshot(&self, volume: &str, name: VolumeName) -> Result<(), EngineError> {
        let shared = self.shared().clone();
        let volume = shared.volumes.find(volume)?.name;
        let claim = shared.volumes.claim([volume.clone()]).await;
        self.shared().blocking(move || shared.volumes.remove_snapshot(&volume, &name, &claim)).await
    }

    /// A volume that nobody uses holds again what it held then, all of it at once. The snapshot stays.
    pub async fn restore_volume(&self, volume: &str, name: VolumeName) -> Result<(), EngineError> {
        let shared = self.shared().clone();
        let volume = shared.volumes.find(volume)?.name;
        let claim = shared.volumes.claim([volume.clone()]).await;
        self.shared()
            .blocking(move || {
                let (_closed, users) = shared.volumes.close(&volume);
                if let Some(user) = users.first() {
                    return Err(is_used(&volume, user));
                }
                shared.volumes.restore(&volume, &name, &claim)?;
                emit(&shared, "restore", &volume, &name);
                Ok(())
            })
            .await
    }
}

fn emit(shared: &Shared, action: &str, volume: &VolumeName, name: &VolumeName) {
    let attributes = [("driver".to_owned(), "local".to_owned()), ("snapshot".to_owned(), name.to_string())];
    shared.emit(EventKind::Volume, action, volume.to_string(), attributes.into());
}

fn is_used(volume: &VolumeName, user: &User) -> EngineError {
    let (user, hint) = match user {
        User::Container(id) => (id.to_string(), format!("dozen stop {} first", id.short())),
        User::Visitor(_) => ("somebody copies from or to it".to_owned(), "try again when that is over".to_owned()),
    };
    EngineError::Conflict { message: format!("restore {volume}: volume is in use - [{user}]"), hint: Some(hint) }
}

/// Those who are about to run are waited for: what has begun to use the volume would move else.
async fn hold_all(engine: &Engine, users: &std::collections::BTreeSet<User>) -> Result<Vec<Hold>, EngineError> {
    let containers = users.iter().filter_map(|user| match user {
        User::Container(id) => Some(id),
        User::Visitor(_) => None,
    });
    let mut holds = Vec::new();
    for id in containers {
        if let Some(container) = container(engine, id) {
            container.settled().await;
            holds.extend(container.hold().await?);
        }
    }
    Ok(holds)
}

fn container(engine: &Engine, id: &ContainerId) -> Option<Container> {
    Some(Container::new(engine.shared().registry.get(id)?, engine.shared().clone()))
}

impl Volumes {
    /// For who has a claim on it.
    pub(super) fn close(&self, name: &VolumeName) -> (Closed, std::collections::BTreeSet<User>) {
        self.uses.close(name)
    }

    pub(super) fn snapshots_of(&self, volume: &VolumeName) -> Vec<VolumeSnapshot> {
        let all = self.all_snapshots();
        let of_volume = all.iter().filter(|((of, _), _)| of == volume);
        let mut list: Vec<VolumeSnapshot> = of_volume
            .map(|((volume, name), created)| VolumeSnapshot {
                volume: volume.clone(),
                name: name.clone(),
                created: *created,
            })
            .collect();
        list.sort_by_key(|snapshot| snapshot.created);
        list
    }

    /// Of volumes that have some: how many, and what they hold that the volume does not.
    pub(crate) fn snapshot_usage(&self) -> BTreeMap<VolumeName, (usize, u64)> {
        let mut counts: BTreeMap<VolumeName, usize> = BTreeMap::new();
        for (volume, _) in self.all_snapshots().keys() {
            *counts.entry(volume.clone()).or_default() += 1;
        }
        let measured = counts.into_iter().map(|(volume, count)| {
            let kept = self.directory.join(volume.as_str()).join(SNAPSHOTS);
            let bytes = dozen_image::bytes_beside(&kept, &self.mountpoint(&volume));
            (volume, (count, bytes))
        });
        measured.collect()
    }

    /// A volume that has some is not removed.
    pub(crate) fn check_no_snapshots(&self, volume: &VolumeName) -> Result<(), EngineError> {
        let names: Vec<String> =
            self.snapshots_of(volume).into_iter().map(|snapshot| snapshot.name.to_string()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(EngineError::Conflict {
            message: format!("remove {volume}: volume has snapshots - [{}]", names.join(" ")),
            hint: Some(format!("dozen volume snapshot rm {volume} {}", names.join(" "))),
        })
    }

    fn snapshot(&self, volume: &Volume, name: &VolumeName, _claim: &Claim) -> Result<VolumeSnapshot, EngineError> {
        let key = (volume.name.clone(), name.clone());
        if self.all_snapshots().contains_key(&key) {
            return Err(EngineError::Conflict {
                message: format!("snapshot {}: there is a snapshot {name} already", volume.name),
                hint: Some("choose another name".to_owned()),
            });
        }
        check_shares_blocks(volume)?;
        let parts = Parts::of(volume);
        parts.copy(&volume.mountpoint, "snapshot.begun")?;
        failpoint("snapshot.copied");
        let place = parts.snapshots.join(name.as_str());
        // Of one that was interrupted.
        remove_tree(&place)?;
        make_private(&parts.snapshots)?;
        std::fs::rename(&parts.copying, &place)
            .map_err(EngineError::system(|| format!("rename {}", parts.copying.display())))?;
        failpoint("snapshot.placed");
        let made = VolumeSnapshot { volume: volume.name.clone(), name: name.clone(), created: Timestamp::now() };
        let written = sync(&place).and_then(|()| Ok(insert(&self.ledger, made.clone())?));
        if let Err(error) = written {
            warn_and_go_on("cannot undo a snapshot", &place, remove_tree(&place));
            return Err(error);
        }
        failpoint("snapshot.row");
        self.all_snapshots().insert(key, made.created);
        Ok(made)
    }

    fn remove_snapshot(&self, volume: &VolumeName, name: &VolumeName, _claim: &Claim) -> Result<(), EngineError> {
        let place = self.snapshot_place(volume, name)?;
        delete(&self.ledger, volume.clone(), name.clone())?;
        self.all_snapshots().remove(&(volume.clone(), name.clone()));
        failpoint("unsnapshot.row");
        remove_tree(&place)?;
        failpoint("unsnapshot.after");
        Ok(())
    }

    fn restore(&self, volume: &VolumeName, name: &VolumeName, _claim: &Claim) -> Result<(), EngineError> {
        let place = self.snapshot_place(volume, name)?;
        let volume = self.find(volume.as_str())?;
        check_shares_blocks(&volume)?;
        let parts = Parts::of(&volume);
        parts.copy(&place, "snapshot.begun")?;
        // What the volume holds afterwards is on the disk before it does.
        sync(&parts.copying)?;
        failpoint("restore.copied");
        rustix::fs::renameat_with(CWD, &parts.copying, CWD, &volume.mountpoint, RenameFlags::EXCHANGE)
            .map_err(EngineError::system(|| format!("exchange {}", volume.mountpoint.display())))?;
        failpoint("restore.exchanged");
        sync(&volume.mountpoint)?;
        remove_tree(&parts.copying)?;
        failpoint("restore.after");
        Ok(())
    }

    fn snapshot_place(&self, volume: &VolumeName, name: &VolumeName) -> Result<PathBuf, EngineError> {
        if !self.all_snapshots().contains_key(&(volume.clone(), name.clone())) {
            return Err(dozen_monitor::protocol::Failure {
                kind: dozen_model::ErrorKind::NotFound,
                message: format!("get {volume}: no such snapshot: {name}"),
                hint: Some(format!("dozen volume snapshot ls {volume}")),
            }
            .into());
        }
        Ok(self.directory.join(volume.as_str()).join(SNAPSHOTS).join(name.as_str()))
    }

    /// What a crash has left of a copy, and of snapshots without a row. One that the disk has lost is none any more.
    pub(super) fn finish_snapshots(&self, volume: &VolumeName) -> Result<(), EngineError> {
        let directory = self.directory.join(volume.as_str());
        remove_tree(&directory.join(COPYING))?;
        let place = directory.join(SNAPSHOTS);
        let there = if place.exists() { read_directory(&place)? } else { Vec::new() };
        let known = self.snapshots_of(volume);
        for name in &there {
            if !known.iter().any(|snapshot| *name == *snapshot.name.as_str()) {
                remove_tree(&place.join(name))?;
            }
        }
        for lost in known.iter().filter(|snapshot| !there.iter().any(|name| *name == *snapshot.name.as_str())) {
            tracing::error!(volume = %volume, snapshot = %lost.name, "the disk has lost a snapshot");
            delete(&self.ledger, volume.clone(), lost.name.clone())?;
            self.all_snapshots().remove(&(volume.clone(), lost.name.clone()));
        }
        if place.exists() && read_directory(&place)?.is_empty() {
            remove_tree(&place)?;
        }
        Ok(())
    }

    fn all_snapshots(&self) -> std::sync::MutexGuard<'_, BTreeMap<(VolumeName, VolumeName), Timestamp>> {
        self.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Where what is of a volume.
struct Parts {
    copying: PathBuf,
    snapshots: PathBuf,
}

impl Parts {
    fn of(volume: &Volume) -> Self {
        let directory = volume.mountpoint.parent().unwrap_or(&volume.mountpoint);
        Self { copying: directory.join(COPYING), snapshots: directory.join(SNAPSHOTS) }
    }

    /// Of what fails nothing is left.
    fn copy(&self, from: &Path, begun: &'static str) -> Result<(), EngineError> {
        remove_tree(&self.copying)?;
        make_private(&self.copying)?;
        failpoint(begun);
        dozen_image::share_directory(from, &self.copying).map_err(|error| {
            warn_and_go_on("cannot undo a copy", &self.copying, remove_tree(&self.copying));
            error.into()
        })
    }
}

fn check_shares_blocks(volume: &Volume) -> Result<(), EngineError> {
    let no = |why: String| EngineError::Invalid {
        message: format!("snapshot {}: {why}", volume.name),
        hint: Some(format!("as an archive: dozen volume export {} -o FILE", volume.name)),
    };
    if dozen_runtime::is_mount_point(&volume.mountpoint)? || !volume.options.is_empty() {
        return Err(no("what is mounted there is a file system of its own".to_owned()));
    }
    let directory = volume.mountpoint.parent().unwrap_or(&volume.mountpoint);
    match dozen_image::can_share_blocks(directory)? {
        true => Ok(()),
        false => Err(no(format!(
            "the file system of {} cannot share blocks between files (FICLONE): XFS and btrfs can, ext4 cannot",
            directory.display()
        ))),
    }
}

fn make_private(path: &Path) -> Result<(), EngineError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(EngineError::system(|| format!("make {}", path.display())))
}

fn sync(path: &Path) -> Result<(), EngineError> {
    let sync = || rustix::fs::syncfs(std::fs::File::open(path)?).map_err(std::io::Error::from);
    sync().map_err(EngineError::system(|| format!("sync {}", path.display())))
}

fn insert(ledger: &Ledger, snapshot: VolumeSnapshot) -> Result<(), LedgerError> {
    ledger.check_room()?;
    ledger.write(Durability::Power, move |connection| {
        connection.execute(
            "INSERT INTO volume_snapshots (volume, name, created) VALUES (?1, ?2, ?3)",
            params![snapshot.volume.as_str(), snapshot.name.as_str(), snapshot.created.to_string()],
        )?;
        Ok(())
    })
}

fn delete(ledger: &Ledger, volume: VolumeName, name: VolumeName) -> Result<(), LedgerError> {
    ledger.write_essential(Durability::Power, move |connection| {
        let statement = "DELETE FROM volume_snapshots WHERE volume = ?1 AND name = ?2";
        connection.execute(statement, [volume.as_str(), name.as_str()])?;
        Ok(())
    })
}

/// All of them.
pub(super) fn rows(ledger: &Ledger) -> Result<BTreeMap<(VolumeName, VolumeName), Timestamp>, LedgerError> {
    ledger.read(|connection| {
        let mut statement = connection.prepare("SELECT volume, name, created FROM volume_snapshots")?;
        let text = |row: &dozen_ledger::rusqlite::Row<'_>, column: usize| row.get::<_, String>(column);
        let rows = statement.query_map([], |row| Ok([text(row, 0)?, text(row, 1)?, text(row, 2)?]))?;
        rows.map(|row| {
            let [volume, name, created] = row?;
            let parsed = |text: &str| text.parse().map_err(|error| corrupt("a snapshot's name", error));
            let created = created.parse().map_err(|error| corrupt("a snapshot's time", error))?;
            Ok(((parsed(&volume)?, parsed(&name)?), created))
        })
        .collect()
    })
}
