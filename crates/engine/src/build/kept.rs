//! What is kept from one build for the next, as people look at it: steps with their layers, and cache mounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_image::CachedStep;
use dozen_model::Digest;
use jiff::Timestamp;

use super::caches;
use super::caches::rows::{self, CacheRow};
use crate::shared::Shared;
use crate::{Engine, EngineError};

/// Digits of a layer's or a key's digest in an id.
const ID_DIGITS: usize = 25;

/// One thing that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Of its own.
    pub id: String,
    /// For people: `RUN make`; of a mount: its name.
    pub description: String,
    /// Bytes that it takes of the disk; those of a shared one are an image's, too.
    pub size_bytes: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When a build last wanted it.
    pub last_used: Timestamp,
    /// How often a build has found it since it was made.
    pub uses: u64,
    /// A build that goes on has it, and it stays.
    pub in_use: bool,
    /// An image has the same layer: without this entry it is there as before.
    pub is_shared: bool,
    pub(super) layer: Option<Digest>,
    pub(super) what: What,
}

/// What it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// A layer, or nothing, by the keys of the steps that made it.
    Steps(Vec<Digest>),
    /// A cache mount.
    Mount(CacheRow),
}

impl CacheEntry {
    /// BuildKit's word for its kind.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Steps(_) => "regular",
            What::Mount(_) => "exec.cachemount",
        }
    }

    /// Of steps: what they have made.
    pub(crate) fn layer(&self) -> Option<&Digest> {
        self.layer.as_ref()
    }

    /// Of a cache mount: how Dockerfiles call it.
    pub fn mount_name(&self) -> Option<&str> {
        match &self.what {
            What::Steps(_) => None,
            What::Mount(row) => Some(&row.place.name),
        }
    }
}

/// How sizes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sizes {
    /// In blocks of the disk: every layer is walked.
    Measured,
    /// Of layers, what the ledger says that their files hold.
    Noted,
}

impl Engine {
    /// All that is kept, the oldest first. Everything is walked: it takes its time.
    pub async fn build_cache(&self) -> Result<Vec<CacheEntry>, EngineError> {
        let shared = self.shared.clone();
        self.shared.blocking(move || entries(&shared, Sizes::Measured)).await
    }

    /// The cache mounts among it.
    pub async fn build_cache_mounts(&self) -> Result<Vec<CacheEntry>, EngineError> {
        let shared = self.shared.clone();
        let mounts = move || Ok(rows::all(&shared.ledger)?.into_iter().map(|row| of_mount(&shared, row)).collect());
        self.shared.blocking(mounts).await
    }
}

/// All that is kept, with the sizes that were noted. Blocks.
pub(crate) fn noted_entries(shared: &Arc<Shared>) -> Result<Vec<CacheEntry>, EngineError> {
    entries(shared, Sizes::Noted)
}

/// All that is kept, the oldest first. Blocks.
pub(super) fn entries(shared: &Arc<Shared>, sizes: Sizes) -> Result<Vec<CacheEntry>, EngineError> {
    let mut steps = shared.images.cached_steps();
    if sizes == Sizes::Measured {
        let measured = shared.images.measured_steps();
        let of = |step: &CachedStep| step.layer.as_ref().and_then(|layer| measured.get(layer).copied()).unwrap_or(0);
        steps.iter_mut().for_each(|step| step.size_bytes = of(step));
    }
    let mut entries = of_steps(steps);
    entries.extend(rows::all(&shared.ledger)?.into_iter().map(|row| of_mount(shared, row)));
    entries.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    Ok(entries)
}

fn of_mount(shared: &Shared, row: CacheRow) -> CacheEntry {
    let time = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    CacheEntry {
        id: row.directory.clone(),
        description: format!("cached mount {}", row.place.name),
        size_bytes: shared.caches.size_bytes(&row.directory, &caches::path(shared, &row.directory)),
        created: time(row.created_s),
        last_used: time(row.last_used_s),
        // Who made it did not find it.
        uses: row.uses.saturating_sub(1),
        in_use: shared.caches.is_used(&row.place),
        is_shared: false,
        layer: None,
        what: What::Mount(row),
    }
}

/// Steps that have made the same layer are one thing: it goes with the last of them.
fn of_steps(steps: Vec<CachedStep>) -> Vec<CacheEntry> {
    let mut by_result: BTreeMap<Digest, Vec<CachedStep>> = BTreeMap::new();
    for step in steps {
        by_result.entry(step.layer.as_ref().unwrap_or(&step.key).clone()).or_default().push(step);
    }
    let entry = |(result, mut steps): (Digest, Vec<CachedStep>)| {
        steps.sort_by(|one, other| (one.last_used, &one.key).cmp(&(other.last_used, &other.key)));
        let last = steps.last()?;
        Some(CacheEntry {
            id: result.hex().chars().take(ID_DIGITS).collect(),
            description: last.description.clone(),
            size_bytes: last.size_bytes,
            created: steps.iter().map(|step| step.created).min()?,
            last_used: last.last_used,
            uses: steps.iter().map(|step| step.uses).sum(),
            in_use: last.is_held,
            is_shared: last.is_shared,
            layer: last.layer.clone(),
            what: What::Steps(steps.into_iter().map(|step| step.key).collect()),
        })
    };
    by_result.into_iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256([byte; 32])
    }

    fn step(key: u8, layer: Option<u8>, last_used_s: i64, description: &str) -> CachedStep {
        CachedStep {
            key: digest(key),
            layer: layer.map(digest),
            description: description.to_owned(),
            size_bytes: layer.map_or(0, |_| 10),
            created: Timestamp::from_second(i64::from(key)).unwrap(),
            last_used: Timestamp::from_second(last_used_s).unwrap(),
            uses: 2,
            is_shared: false,
            is_held: layer == Some(9),
        }
    }

    #[test]
    fn steps_of_one_layer_are_one_entry() {
        let steps = vec![
            step(3, Some(7), 50, "COPY a"),
            step(2, Some(7), 60, "COPY b"),
            step(4, None, 1, "RUN true"),
            step(5, Some(9), 2, "RUN x"),
        ];
        let entries = of_steps(steps);
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| {
                let What::Steps(keys) = &entry.what else { panic!("{entry:?}") };
                let seconds = (entry.created.as_second(), entry.last_used.as_second());
                (&*entry.description, entry.size_bytes, seconds, entry.uses, entry.in_use, keys.len())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("RUN true", 0, (4, 1), 2, false, 1),
                ("COPY b", 10, (2, 60), 4, false, 2),
                ("RUN x", 10, (5, 2), 2, true, 1)
            ]
        );
        assert_eq!((entries[1].id.as_str(), entries[1].kind()), (&digest(7).hex()[..25], "regular"));
    }
}
