//! Who uses a volume at the moment: containers that run, and visitors who look into it.
//!
//! What is to be mounted on a volume's directory is mounted by the first of them and unmounted after the last. Whether it is
//! mounted the kernel knows and nobody else, and who runs is in the ledger: so an engine that starts after another was
//! killed anywhere finds both, and unmounts what nobody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dozen_model::{ContainerId, VolumeName, error_chain};

use super::filling;
use super::local::LocalOptions;
use crate::EngineError;
use crate::failpoint::failpoint;

/// Somebody who uses volumes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum User {
    Container(ContainerId),
    Visitor(u64),
}

/// All who use volumes, by volume.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    table: Mutex<Table>,
    opened: Condvar,
    /// The engine's id.
    engine: String,
}

/// How long who wants to use a volume waits for those who have closed it.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Table {
    volumes: BTreeMap<VolumeName, Use>,
    visitors: u64,
}

#[derive(Debug, Default)]
struct Use {
    users: BTreeSet<User>,
    /// It is being copied, or exchanged: nobody may begin to use it.
    is_closed: bool,
    /// Of a volume that is a file system: held by who mounts or unmounts it, which may wait for a server. It is kept for
    /// as long as the volume is there: two who wait for different gates would undo each other's work.
    gate: Option<Arc<Mutex<PathBuf>>>,
}

/// Somebody looks into a volume, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Visit {
    uses: Arc<Uses>,
    user: User,
}

/// Nobody begins to use a volume for as long as this is held.
#[derive(Debug)]
pub(crate) struct Closed {
    uses: Arc<Uses>,
    name: VolumeName,
}

impl Uses {
    pub(super) fn of_engine(engine: &str) -> Self {
        Self { engine: engine.to_owned(), ..Self::default() }
    }

    /// From now on they use it. What is to be mounted on `place` is there then. Again by the same user is nothing new.
    /// Blocks.
    pub(super) fn begin(
        &self,
        name: &VolumeName,
        user: &User,
        local: Option<&LocalOptions>,
        place: &Path,
    ) -> Result<(), EngineError> {
        let gate = {
            let (mut table, give_up) = (self.lock(), Instant::now() + PATIENCE);
            while table.volumes.get(name).is_some_and(|entry| entry.is_closed) {
                let Some(left) = give_up.checked_duration_since(Instant::now()) else {
                    return Err(EngineError::Conflict {
                        message: format!("volume {name} is being copied or restored"),
                        hint: Some("try again when that is over".to_owned()),
                    });
                };
                table = self.opened.wait_timeout(table, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            }
            let entry = table.volumes.entry(name.clone()).or_default();
            entry.users.insert(user.clone());
            local.map(|local| (local, entry.gate.get_or_insert_with(|| Arc::new(Mutex::new(place.into()))).clone()))
        };
        let Some((local, gate)) = gate else { return Ok(()) };
        let _passing = lock(&gate);
        let mount = || {
            if dozen_runtime::is_mount_point(place)? {
                return Ok(());
            }
            failpoint("volume_mount.before");
            local.mount(place)?;
            failpoint("volume_mount.after");
            filling::recover(place, &self.engine);
            Ok(())
        };
        mount().inspect_err(|_| {
            if let Some(entry) = self.lock().volumes.get_mut(name) {
                entry.users.remove(user);
            }
        })
    }

    /// Which they use.
    pub(super) fn of(&self, user: &User) -> Vec<VolumeName> {
        let table = self.lock();
        let used = table.volumes.iter().filter(|(_, entry)| entry.users.contains(user));
        used.map(|(name, _)| name.clone()).collect()
    }

    /// They use none any more. What nobody uses is unmounted. Goes on past a failure; the first is reported.
    pub(super) fn end(&self, user: &User) -> Result<(), EngineError> {
        let used: Vec<_> = {
            let table = self.lock();
            let used = table.volumes.iter().filter(|(_, entry)| entry.users.contains(user));
            used.map(|(name, entry)| (name.clone(), entry.gate.clone())).collect()
        };
        let mut result = Ok(());
        for (name, gate) in used {
            let place = gate.as_deref().map(lock);
            let is_last = {
                let mut table = self.lock();
                let Some(entry) = table.volumes.get_mut(&name) else { continue };
                entry.users.remove(user);
                let is_last = entry.users.is_empty();
                table.forget_if_idle(&name);
                is_last
            };
            if let Some(place) = place.filter(|_| is_last) {
                failpoint("volume_unmount.before");
                result = result.and(dozen_runtime::unmount(&place).map(drop).map_err(EngineError::from));
                failpoint("volume_unmount.after");
            }
        }
        result
    }

    /// Of an engine that starts: who runs uses it. What nobody uses and an earlier engine has left mounted is unmounted.
    pub(super) fn adopt(
        &self,
        running: impl IntoIterator<Item = (VolumeName, ContainerId)>,
        places: impl IntoIterator<Item = (VolumeName, PathBuf)>,
    ) {
        let mut table = self.lock();
        for (name, place) in places {
            table.volumes.entry(name).or_default().gate = Some(Arc::new(Mutex::new(place)));
        }
        for (name, id) in running {
            table.volumes.entry(name).or_default().users.insert(User::Container(id));
        }
        let idle = table.volumes.values().filter(|entry| entry.users.is_empty());
        for place in idle.filter_map(|entry| entry.gate.as_deref()) {
            let place = lock(place);
            match dozen_runtime::unmount(&place) {
                Ok(false) => {}
                Ok(true) => tracing::info!(path = %place.display(), "unmounted a volume that nobody uses"),
                Err(error) => {
                    tracing::error!(path = %place.display(), error = error_chain(&error), "cannot unmount a volume");
                }
            }
        }
    }

    /// Somebody looks into it.
    pub(super) fn visit(
        self: &Arc<Self>,
        name: &VolumeName,
        local: Option<&LocalOptions>,
        place: &Path,
    ) -> Result<Visit, EngineError> {
        let user = {
            let mut table = self.lock();
            table.visitors += 1;
            User::Visitor(table.visitors)
        };
        self.begin(name, &user, local, place)?;
        Ok(Visit { uses: self.clone(), user })
    }

    /// Nobody may begin to use it from now on, for who has a claim on it. Beside it, who uses it already.
    pub(super) fn close(self: &Arc<Self>, name: &VolumeName) -> (Closed, BTreeSet<User>) {
        let mut table = self.lock();
        let entry = table.volumes.entry(name.clone()).or_default();
        entry.is_closed = true;
        (Closed { uses: self.clone(), name: name.clone() }, entry.users.clone())
    }

    /// The volume is going: it is not mounted any more, whoever looks into it.
    pub(super) fn forget(&self, name: &VolumeName) -> Result<(), EngineError> {
        let gate = self.lock().volumes.remove(name).and_then(|entry| entry.gate);
        let Some(place) = gate.as_deref().map(lock) else { return Ok(()) };
        Ok(dozen_runtime::unmount(&place).map(drop)?)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Table {
    fn forget_if_idle(&mut self, name: &VolumeName) {
        let is_idle = |entry: &Use| entry.users.is_empty() && !entry.is_closed && entry.gate.is_none();
        if self.volumes.get(name).is_some_and(is_idle) {
            self.volumes.remove(name);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Err(error) = self.uses.end(&self.user) {
            tracing::error!(error = error_chain(&error), "cannot unmount a volume; the next engine does");
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut table = self.uses.lock();
        if let Some(entry) = table.volumes.get_mut(&self.name) {
            entry.is_closed = false;
        }
        table.forget_if_idle(&self.name);
        self.uses.opened.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> VolumeName {
        "data".parse().unwrap()
    }

    #[test]
    fn who_uses_a_volume_keeps_it_open_and_leaves_nothing() {
        let uses = Arc::new(Uses::default());
        let (one, place) = (User::Container(ContainerId::random()), Path::new("/nowhere"));
        uses.begin(&name(), &one, None, place).unwrap();
        uses.begin(&name(), &one, None, place).unwrap();
        let visit = uses.visit(&name(), None, place).unwrap();
        assert_eq!(uses.close(&name()).1.len(), 2);
        drop(visit);
        assert_eq!(uses.close(&name()).1, BTreeSet::from([one.clone()]));
        uses.end(&one).unwrap();
        let (closed, users) = uses.close(&name());
        assert!(users.is_empty());
        std::thread::scope(|scope| {
            let begun = scope.spawn(|| uses.begin(&name(), &one, None, place));
            drop(closed);
            begun.join().unwrap().unwrap();
        });
        uses.end(&one).unwrap();
        assert!(uses.lock().volumes.is_empty());
    }

    #[test]
    fn a_file_system_is_mounted_for_as_long_as_somebody_uses_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("_data");
        std::fs::create_dir(&place).unwrap();
        let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let local = LocalOptions::new(&options).unwrap().unwrap();
        let ids = [0, 1].map(|_| ContainerId::random());
        let users = ids.clone().map(User::Container);
        dozen_runtime::overlay::with_own_mounts(|| {
            let uses = Arc::new(Uses::default());
            for user in &users {
                uses.begin(&name(), user, Some(&local), &place).unwrap();
            }
            std::fs::write(place.join("shared"), "").unwrap();
            uses.end(&users[0]).unwrap();
            assert!(place.join("shared").exists(), "it is one file system for both");
            // Another engine, that knows who runs.
            let next = Arc::new(Uses::default());
            next.adopt([(name(), ids[1].clone())], [(name(), place.clone())]);
            assert!(place.join("shared").exists());
            next.end(&users[1]).unwrap();
            assert!(!dozen_runtime::is_mount_point(&place).unwrap());
            // One that was killed has left it mounted.
            uses.begin(&name(), &users[0], Some(&local), &place).unwrap();
            let next = Arc::new(Uses::default());
            next.adopt([], [(name(), place.clone())]);
            assert!(!dozen_runtime::is_mount_point(&place).unwrap());
            let visit = next.visit(&name(), Some(&local), &place).unwrap();
            next.forget(&name()).unwrap();
            assert!(!dozen_runtime::is_mount_point(&place).unwrap());
            drop(visit);
            Ok(())
        })
        .unwrap();
    }
}
