//! What of the build cache goes: decided as BuildKit decides it (buildkit, cache/manager.go), then done.

use std::collections::HashSet;
use std::sync::Arc;

use dozen_model::{Digest, error_chain};
use jiff::Timestamp;

use super::caches;
use super::kept::{CacheEntry, Sizes, What, entries};
use crate::events::EventKind;
use crate::shared::Shared;
use crate::{Engine, EngineError};

/// What may go, and how much is to stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachePrune {
    /// Also what images have, too: that frees nothing.
    pub all: bool,
    /// Only what no build has wanted since.
    pub unused_since: Option<Timestamp>,
    /// Only ids with this in them.
    pub id: Option<String>,
    /// Only this kind: `regular`, `exec.cachemount`.
    pub kind: Option<String>,
    /// Only what is described so.
    pub description: Option<String>,
    /// Only what is, or is not, in use. What is in use stays.
    pub in_use: Option<bool>,
    /// Only what is, or is not, shared; each holds.
    pub is_shared: Vec<bool>,
    /// Nothing at all, whatever else is said: what has no labels is asked for one.
    pub nothing: bool,
    /// So much stays, in bytes, whatever the other two say. 0: none, as for these.
    pub reserved_bytes: u64,
    /// No more than this stays.
    pub max_used_bytes: u64,
    /// As much goes as it takes to have so much of the disk free.
    pub min_free_bytes: u64,
}

/// What has gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedCache {
    /// Of each entry.
    pub ids: Vec<String>,
    /// How much room that made.
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Removes what may go, and tells the world, as Docker does (event `prune` of type `builder`).
    pub async fn prune_build_cache(&self, wanted: CachePrune) -> Result<PrunedCache, EngineError> {
        let shared = self.shared.clone();
        let pruned = self.shared.blocking(move || prune(&shared, &wanted, Sizes::Measured)).await?;
        self.announce_prune(EventKind::Builder, pruned.reclaimed_bytes);
        Ok(pruned)
    }
}

/// Blocks.
pub(super) fn prune(shared: &Arc<Shared>, wanted: &CachePrune, sizes: Sizes) -> Result<PrunedCache, EngineError> {
    let entries = entries(shared, sizes)?;
    let disk = rustix::fs::statvfs(&shared.config.data_root);
    let disk = disk.map_err(EngineError::system(|| format!("look at {}", shared.config.data_root.display())))?;
    let chosen = choose(&entries, wanted, disk.f_bavail.saturating_mul(disk.f_frsize));
    remove_entries(shared, &chosen)
}

/// What goes, in order: what was wanted last the longest time ago, and of the same time what was never found again. If
/// something is to stay, no more than it takes.
fn choose<'a>(entries: &'a [CacheEntry], wanted: &CachePrune, free_bytes: u64) -> Vec<&'a CacheEntry> {
    let mut left: u64 = entries.iter().filter(|entry| !entry.is_shared).map(|entry| entry.size_bytes).sum();
    let kept = wanted.kept_bytes(left, free_bytes);
    let mut candidates: Vec<&CacheEntry> = entries.iter().filter(|entry| wanted.takes(entry)).collect();
    // Of one build, what was done last goes first: the others may be found without it.
    candidates.sort_by_key(|entry| (entry.last_used, entry.uses, std::cmp::Reverse(entry.created), &entry.id));
    let mut chosen = Vec::new();
    for entry in candidates {
        if kept.is_some_and(|kept| left <= kept) {
            break;
        }
        left -= if entry.is_shared { 0 } else { entry.size_bytes.min(left) };
        chosen.push(entry);
    }
    chosen
}

impl CachePrune {
    /// How much is to stay; `None`: nothing has to.
    fn kept_bytes(&self, total_bytes: u64, free_bytes: u64) -> Option<u64> {
        if (self.reserved_bytes, self.max_used_bytes, self.min_free_bytes) == (0, 0, 0) {
            return None;
        }
        let most = (self.max_used_bytes > 0).then_some(self.max_used_bytes);
        let missing = self.min_free_bytes.saturating_sub(free_bytes);
        let for_free = (self.min_free_bytes > 0).then(|| total_bytes.saturating_sub(missing));
        let kept = most.into_iter().chain(for_free).min().unwrap_or(0);
        Some(kept.max(self.reserved_bytes))
    }

    fn takes(&self, entry: &CacheEntry) -> bool {
        let is_free = !self.nothing && !entry.in_use && (self.all || !entry.is_shared);
        is_free
            && self.unused_since.is_none_or(|since| entry.last_used < since)
            && self.id.as_ref().is_none_or(|id| entry.id.contains(id.as_str()))
            && self.kind.as_ref().is_none_or(|kind| entry.kind() == kind)
            && self.description.as_ref().is_none_or(|description| entry.description == *description)
            && self.in_use.is_none_or(|in_use| entry.in_use == in_use)
            && self.is_shared.iter().all(|is_shared| entry.is_shared == *is_shared)
    }
}

/// What a build has begun to use meanwhile stays.
pub(crate) fn remove_entries(shared: &Arc<Shared>, chosen: &[&CacheEntry]) -> Result<PrunedCache, EngineError> {
    let steps = chosen.iter().flat_map(|entry| entry.keys().iter().map(|key| (key.clone(), entry.last_used)));
    let keys: Vec<(Digest, Timestamp)> = steps.collect();
    let forgotten: HashSet<Digest> = match keys.as_slice() {
        [] => HashSet::new(),
        keys => shared.images.forget_steps(keys)?.into_iter().collect(),
    };
    let mut pruned = PrunedCache::default();
    for entry in chosen {
        let is_gone = match &entry.what {
            What::Steps(keys) => keys.iter().any(|key| forgotten.contains(key)),
            What::Mount(row) => caches::remove(shared, row).unwrap_or_else(|error| {
                // The others are not to stay for it.
                tracing::error!(cache = row.place.name, error = error_chain(&error), "a cache mount was not pruned");
                false
            }),
        };
        if is_gone {
            pruned.ids.push(entry.id.clone());
            // An image may have got its layer since.
            let stays = entry.layer().is_some_and(|layer| shared.images.has_layer(layer));
            pruned.reclaimed_bytes += if entry.is_shared || stays { 0 } else { entry.size_bytes };
        }
    }
    Ok(pruned)
}

impl CacheEntry {
    fn keys(&self) -> &[Digest] {
        match &self.what {
            What::Steps(keys) => keys,
            What::Mount(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::caches::Place;
    use super::super::caches::rows::CacheRow;
    use super::*;

    fn entry(id: &str, size_bytes: u64, last_used_s: i64, uses: u64) -> CacheEntry {
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        CacheEntry {
            id: id.to_owned(),
            description: format!("RUN {id}"),
            size_bytes,
            created: time(1),
            last_used: time(last_used_s),
            uses,
            in_use: false,
            is_shared: false,
            layer: None,
            what: What::Steps(Vec::new()),
        }
    }

    fn entries() -> Vec<CacheEntry> {
        let mount = CacheRow {
            place: Place { name: "pip".into(), number: 0 },
            directory: "mount".into(),
            created_s: 1,
            last_used_s: 20,
            uses: 3,
        };
        vec![
            entry("new", 100, 90, 0),
            entry("old", 30, 10, 5),
            entry("never", 40, 10, 0),
            CacheEntry { in_use: true, ..entry("busy", 50, 5, 0) },
            CacheEntry { is_shared: true, ..entry("of-image", 1000, 1, 1) },
            CacheEntry {
                what: What::Mount(mount),
                description: "cached mount pip".into(),
                ..entry("mount", 60, 20, 2)
            },
        ]
    }

    #[test]
    fn what_goes_is_decided_by_use_and_space() {
        let everything = ["never", "old", "mount", "new"];
        let p = CachePrune::default;
        let time = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let text = |text: &str| Some(text.to_owned());
        // Of 280 bytes that are not shared.
        let table: &[(CachePrune, u64, &[&str])] = &[
            (p(), 0, &everything),
            (CachePrune { all: true, ..p() }, 0, &["of-image", "never", "old", "mount", "new"]),
            (CachePrune { unused_since: time(20), ..p() }, 0, &["never", "old"]),
            (CachePrune { id: text("ol"), ..p() }, 0, &["old"]),
            (CachePrune { kind: text("exec.cachemount"), ..p() }, 0, &["mount"]),
            (CachePrune { kind: text("source.local"), ..p() }, 0, &[]),
            (CachePrune { description: text("RUN new"), ..p() }, 0, &["new"]),
            (CachePrune { in_use: Some(true), ..p() }, 0, &[]),
            (CachePrune { in_use: Some(false), ..p() }, 0, &everything),
            (CachePrune { is_shared: vec![true], all: true, ..p() }, 0, &["of-image"]),
            (CachePrune { is_shared: vec![true, false], all: true, ..p() }, 0, &[]),
            (CachePrune { nothing: true, all: true, ..p() }, 0, &[]),
            // So much stays.
            (CachePrune { reserved_bytes: 280, ..p() }, 0, &[]),
            (CachePrune { reserved_bytes: 279, ..p() }, 0, &["never"]),
            (CachePrune { reserved_bytes: 230, ..p() }, 0, &["never", "old"]),
            (CachePrune { max_used_bytes: 151, ..p() }, 0, &["never", "old", "mount"]),
            (CachePrune { max_used_bytes: 100, reserved_bytes: 240, ..p() }, 0, &["never"]),
            (CachePrune { all: true, max_used_bytes: 240, ..p() }, 0, &["of-image", "never"]),
            // What is in use counts, and stays.
            (CachePrune { max_used_bytes: 1, ..p() }, 0, &everything),
            (CachePrune { min_free_bytes: 100, ..p() }, 100, &[]),
            (CachePrune { min_free_bytes: 100, ..p() }, 50, &["never", "old"]),
            (CachePrune { min_free_bytes: 100, max_used_bytes: 250, ..p() }, 500, &["never"]),
            (CachePrune { min_free_bytes: 100, reserved_bytes: 240, ..p() }, 0, &["never"]),
            (CachePrune { min_free_bytes: 1 << 40, ..p() }, 0, &everything),
        ];
        let entries = entries();
        for (wanted, free_bytes, expected) in table {
            let chosen = choose(&entries, wanted, *free_bytes);
            let ids: Vec<&str> = chosen.iter().map(|entry| entry.id.as_str()).collect();
            assert_eq!(ids, *expected, "{wanted:?}, {free_bytes} free");
        }
    }
}
