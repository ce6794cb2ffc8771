//! Who is who: containers by id, name and beginning of an id. Held only for look-ups, never through work.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use dozen_model::{ContainerId, ContainerName};

use crate::EngineError;
use crate::container::owner::Entry;
use crate::container::snapshot::Snapshot;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<ContainerId, Entry>,
    by_name: HashMap<ContainerName, ContainerId>,
}

impl Registry {
    pub(crate) fn insert(&self, container: Entry) {
        let snapshot = container.snapshot();
        let mut inner = self.lock();
        inner.by_name.insert(snapshot.name.clone(), snapshot.id.clone());
        inner.by_id.insert(snapshot.id.clone(), container);
    }

    pub(crate) fn remove(&self, id: &ContainerId) {
        let mut inner = self.lock();
        inner.by_id.remove(id);
        inner.by_name.retain(|_, holder| holder != id);
    }

    pub(crate) fn rename(&self, id: &ContainerId, name: ContainerName) {
        let mut inner = self.lock();
        inner.by_name.retain(|_, holder| holder != id);
        inner.by_name.insert(name, id.clone());
    }

    pub(crate) fn is_name_free(&self, name: &ContainerName) -> bool {
        !self.lock().by_name.contains_key(name)
    }

    /// By whole id, then name (with or without Docker's leading slash), then unique beginning of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Entry, EngineError> {
        let inner = self.lock();
        let missing = || EngineError::NoSuchContainer(text.to_owned());
        if let Some(container) = text.parse().ok().and_then(|id: ContainerId| inner.by_id.get(&id)) {
            return Ok(container.clone());
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(id) = name.parse().ok().and_then(|name: ContainerName| inner.by_name.get(&name)) {
            return Ok(inner.by_id[id].clone());
        }
        if text.is_empty() {
            return Err(missing());
        }
        let mut matching = inner.by_id.iter().filter(|(id, _)| id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(EngineError::Ambiguous(text.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Option<Entry> {
        self.lock().by_id.get(id).cloned()
    }

    /// Those that were made before it, the oldest first.
    pub(crate) fn made_before(&self, snapshot: &Snapshot) -> Vec<Entry> {
        let entries: Vec<Entry> = self.lock().by_id.values().cloned().collect();
        let mut earlier: Vec<_> = entries.into_iter().map(|entry| (entry.snapshot().created, entry)).collect();
        earlier.retain(|(created, _)| *created < snapshot.created);
        earlier.sort_by_key(|(created, _)| *created);
        earlier.into_iter().map(|(_, entry)| entry).collect()
    }

    /// All snapshots, newest first.
    pub(crate) fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let mut snapshots: Vec<_> = self.lock().by_id.values().map(Entry::snapshot).collect();
        snapshots.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        snapshots
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
