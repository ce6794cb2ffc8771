//! What the build cache holds, and what of it is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use dozen_ledger::Durability;
use dozen_model::Digest;
use jiff::Timestamp;

use super::{StepRow, delete};
use crate::ImageError;
use crate::failpoint::failpoint;
use crate::store::ImageStore;

/// A step that has been done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedStep {
    /// What it is found by.
    pub key: Digest,
    /// What it made; `None`: it changed nothing.
    pub layer: Option<Digest>,
    /// For people: `RUN make`.
    pub description: String,
    /// Bytes of its layer: of the files, and of what is kept beside them.
    pub size_bytes: u64,
    /// When it was done.
    pub created: Timestamp,
    /// When it was last found.
    pub last_used: Timestamp,
    /// How often it was found.
    pub uses: u64,
    /// An image has its layer, too: it does not go with the step.
    pub is_shared: bool,
    /// Somebody relies on its layer at this moment: a build that goes on.
    pub is_held: bool,
}

impl ImageStore {
    /// All steps that are kept.
    pub fn cached_steps(&self) -> Vec<CachedStep> {
        // Pins before state, here as in `pin`.
        let pins = self.0.lock_pins();
        let state = self.0.read_state();
        let alone = state.layers_of_steps_alone();
        let time = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
        let step = |row: &Arc<StepRow>| {
            let layer = row.diff_id.as_ref().and_then(|diff_id| state.layers.get(diff_id));
            CachedStep {
                key: row.key.clone(),
                layer: row.diff_id.clone(),
                description: row.description.clone(),
                size_bytes: layer.map_or(0, |layer| layer.content_bytes + layer.kept_bytes()),
                created: time(row.created_s),
                last_used: time(row.last_used_s),
                uses: row.uses,
                is_shared: row.diff_id.as_ref().is_some_and(|diff_id| !alone.contains(diff_id)),
                is_held: row.diff_id.as_ref().is_some_and(|diff_id| pins.contains_key(diff_id)),
            }
        };
        state.steps.values().map(step).collect()
    }

    /// Forgets steps, and deletes the layers that nothing else needs. A step whose layer is held stays, and so does one that
    /// was found again after the moment that stands beside it, which is when it was known to be used last. Gives those that
    /// are gone.
    pub fn forget_steps(&self, steps: &[(Digest, Timestamp)]) -> Result<Vec<Digest>, ImageError> {
        let _change = self.0.lock_change();
        failpoint("image.steps.before");
        let gone: HashMap<Digest, Arc<StepRow>> = {
            // Gone from memory before the pins are let go: nobody can begin to rely on them.
            let pins = self.0.lock_pins();
            let mut state = self.0.write_state();
            let is_held = |row: &StepRow| row.diff_id.as_ref().is_some_and(|diff_id| pins.contains_key(diff_id));
            let is_free = |row: &StepRow, used: &Timestamp| !is_held(row) && row.last_used_s <= used.as_second();
            let free: Vec<&Digest> = steps
                .iter()
                .filter(|(key, used)| state.steps.get(key).is_some_and(|row| is_free(row, used)))
                .map(|(key, _)| key)
                .collect();
            free.into_iter().filter_map(|key| state.steps.remove_entry(key)).collect()
        };
        let forgotten: Vec<Digest> = gone.keys().cloned().collect();
        let rows = forgotten.clone();
        let deleted = self.0.ledger.write_essential(Durability::Kill, move |connection| {
            rows.iter().try_for_each(|key| delete(connection, key))
        });
        if let Err(error) = deleted {
            self.0.write_state().steps.extend(gone);
            return Err(error.into());
        }
        failpoint("image.steps.rows");
        self.0.collect_layers()?;
        Ok(forgotten)
    }
}
