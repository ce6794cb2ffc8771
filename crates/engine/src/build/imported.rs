//! What others say that they have done: caches that a caller names (`--cache-from`).
//!
//! They are found by the keys that we calculate, and believed in the builds that name them alone: what is written down of
//! them has another key ([`key::of_imported`]), so no other build finds it, and it takes the place of nothing of ours. A
//! layer is fetched when something needs its files, and then it is what its digest says. One that cannot be had is
//! forgotten, and the build begins anew without it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dozen_build::key;
use dozen_image::{HeldLayers, ImageStore, KeptStep, StepLayer};
use dozen_model::Digest;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::BuildEvent;
use super::failure::StepError;
use super::inline::Inside;
use super::job::Job;
use super::stored::StoredLayer;

/// A step that was done, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStep {
    /// What it is known by.
    pub key: Digest,
    /// What it made; `None`: it changed nothing.
    pub layer: Option<Digest>,
    /// When it was done.
    pub created: Timestamp,
    /// For people.
    pub description: String,
    /// It is part of the image, and not only of what that is made from.
    pub is_of_image: bool,
}

/// Letters of a description that somebody else has written.
const DESCRIPTION_LETTERS: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Imported {
    steps: Mutex<HashMap<Digest, CacheStep>>,
    /// Layers that steps were found to have made and that are not here, or were not.
    promised: Mutex<HashMap<Digest, Promise>>,
    /// Where in registries layers lie.
    stored: Mutex<HashMap<Digest, StoredLayer>>,
    /// How many of them could not be had.
    lost: AtomicUsize,
    /// What the caller should know of caches.
    warnings: Mutex<Vec<String>>,
    /// What images that are caches stand on.
    _held: Vec<HeldLayers>,
}

/// After so many layers that could not be had nothing more is believed: each costs a beginning.
const LOST_LIMIT: usize = 3;

#[derive(Debug, Clone)]
struct Promise {
    /// By which it is written down.
    key: Digest,
    description: String,
    held: Arc<OnceCell<HeldLayers>>,
}

impl Imported {
    /// Of two that say something of the same step the first counts.
    pub(super) fn new(steps: Vec<CacheStep>, inside: Inside) -> Self {
        let Inside { steps: more, held, stored, warnings } = inside;
        let mut by_key = HashMap::with_capacity(steps.len());
        for mut step in steps.into_iter().chain(more) {
            let said = step.description.chars().take(DESCRIPTION_LETTERS);
            step.description = said.map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
            by_key.entry(step.key.clone()).or_insert(step);
        }
        let (steps, warnings) = (Mutex::new(by_key), Mutex::new(warnings));
        Self { steps, warnings, stored: Mutex::new(stored), _held: held, ..Self::default() }
    }

    /// What is said of a step. Its layer need not be here.
    pub(super) fn find(&self, images: &ImageStore, key: &Digest) -> Option<KeptStep> {
        let step = lock(&self.steps).get(key)?.clone();
        let CacheStep { layer, created, description, .. } = step;
        let Some(digest) = &layer else {
            return Some(KeptStep { layer, created, held: images.hold_layers(&[])? });
        };
        let known = key::of_imported(key, digest);
        let kept = images.cached_step(&known).filter(|kept| kept.layer == layer);
        if let Some(held) =
            kept.map(|kept| kept.held).or_else(|| images.hold_sound_layers(std::slice::from_ref(digest)))
        {
            return Some(KeptStep { layer, created, held });
        }
        let promise = Promise { key: known, description, held: Arc::default() };
        lock(&self.promised).entry(digest.clone()).or_insert(promise);
        Some(KeptStep { layer, created, held: images.hold_layers(&[])? })
    }

    /// The other keys of a step, by all that is said of it.
    pub(super) fn other_keys(&self, key: &Digest) -> Vec<Digest> {
        let steps = lock(&self.steps);
        let Some(step) = steps.get(key) else { return Vec::new() };
        let is_other = |other: &&CacheStep| CacheStep { key: key.clone(), ..CacheStep::clone(other) } == *step;
        let others = steps.values().filter(|other| other.key != *key).filter(is_other);
        let mut others: Vec<Digest> = others.map(|other| other.key.clone()).collect();
        others.sort();
        others
    }

    /// Has the layers here from now on whose files are needed.
    pub(super) async fn bring(&self, job: &Arc<Job>, layers: &[Digest]) -> Result<(), StepError> {
        for layer in layers {
            let Some(promise) = lock(&self.promised).get(layer).cloned() else { continue };
            let held = promise.held.clone();
            held.get_or_try_init(|| fetch(job, layer, promise)).await?;
        }
        Ok(())
    }

    /// A layer cannot be had. False: that was known.
    pub(super) fn forget(&self, layer: &Digest) -> bool {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.steps).retain(|_, step| lost < LOST_LIMIT && step.layer.as_ref() != Some(layer));
        lock(&self.stored).remove(layer);
        lock(&self.promised).remove(layer).is_some()
    }

    /// Where a layer lies in a registry; `None`: nowhere, or it could not be had from there.
    pub(super) fn stored(&self, layer: &Digest) -> Option<StoredLayer> {
        lock(&self.stored).get(layer).cloned()
    }

    /// What has not been told yet.
    pub(super) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.warnings))
    }
}

/// Brings it from a registry, or waits for its caller to bring it.
async fn fetch(job: &Arc<Job>, layer: &Digest, promise: Promise) -> Result<HeldLayers, StepError> {
    let images = job.shared.images.clone();
    // Another build may have brought it.
    if let Some(held) = images.hold_sound_layers(std::slice::from_ref(layer)) {
        return Ok(held);
    }
    let failed = |why: String| StepError::Cache { layer: layer.clone(), why };
    let new = match job.imported.stored(layer) {
        Some(stored) => stored.fetch(&images, layer).await.map_err(failed)?,
        None => {
            let brought = job.request.name.exchange().want(layer);
            job.tell(BuildEvent::WantsLayer(layer.clone())).await;
            brought.await.map_err(failed)?
        }
    };
    if new.is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    let Promise { key, description, .. } = promise;
    let add = move || Ok(images.add_step(&[key], StepLayer::from(new), &description)?);
    Ok(job.shared.blocking(add).await?.held)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(key: u8, layer: Option<u8>, description: &str) -> CacheStep {
        let digest = |byte| Digest::from_sha256([byte; 32]);
        CacheStep {
            key: digest(key),
            layer: layer.map(digest),
            created: Timestamp::UNIX_EPOCH,
            description: description.to_owned(),
            is_of_image: true,
        }
    }

    #[test]
    fn the_first_who_says_something_counts_and_says_no_more_than_fits() {
        let said = format!("a\n\x1b{}", "b".repeat(2 * DESCRIPTION_LETTERS));
        let imported = Imported::new(
            vec![step(1, Some(7), &said), step(1, Some(8), "x"), step(2, Some(7), "y")],
            Inside::default(),
        );
        {
            let steps = lock(&imported.steps);
            let first = &steps[&step(1, None, "").key];
            assert_eq!((first.layer.clone(), steps.len()), (step(1, Some(7), "").layer, 2));
            assert!(first.description.starts_with("a  b") && first.description.len() == DESCRIPTION_LETTERS);
        }
        assert!(!imported.forget(&Digest::from_sha256([7; 32])), "nobody was promised it");
        assert!(lock(&imported.steps).is_empty());
    }

    #[test]
    fn who_has_promised_too_much_is_not_believed() {
        let all = (1..9).map(|number| step(number, Some(number), "x")).collect();
        let imported = Imported::new(all, Inside::default());
        let left = (1..4).map(|number| {
            imported.forget(&Digest::from_sha256([number; 32]));
            lock(&imported.steps).len()
        });
        assert_eq!(left.collect::<Vec<_>>(), [7, 6, 0]);
    }
}
