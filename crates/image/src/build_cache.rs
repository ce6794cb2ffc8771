//! The build cache: which layer a build's step has made, by the step's key.
//!
//! A step that is found is not done again, and its layer is kept for as long as its row is. Rows are kill-safe and no more,
//! since a build that syncs each step would wait for the disk more than it works: a layer is marked with the boot that it
//! was written in, and loses the mark when an image gets it, after the sync that every image waits for. What still has the
//! mark of another boot may be torn, and is thrown away when the store is opened, with the steps that lead to it.

use std::collections::HashMap;
use std::sync::Arc;

use dozen_ledger::rusqlite::{Connection, params};
use dozen_ledger::{Durability, LedgerError, Migration};
use dozen_model::Digest;
use jiff::Timestamp;

use crate::ImageError;
use crate::new_layer::NewLayer;
use crate::pins::Pin;
use crate::state::State;
use crate::store::{ImageStore, Inner};

mod inventory;

pub use self::inventory::CachedStep;

/// The steps, and the layers that are not safe from a power cut yet.
pub const BUILD_CACHE: Migration = Migration(
    "
ALTER TABLE layer ADD COLUMN unsynced_boot TEXT;    -- the boot that it was written in, if nothing was synced since; or NULL
CREATE TABLE build_step (
    key               TEXT PRIMARY KEY,       -- digest of what is done, and of what it is done to
    diff_id           TEXT REFERENCES layer(diff_id), -- NULL: it changes nothing
    description       TEXT NOT NULL,          -- for people
    created_s         INTEGER NOT NULL,
    last_used_s       INTEGER NOT NULL,
    uses              INTEGER NOT NULL        -- how often it was found
) STRICT;
CREATE INDEX build_step_by_layer ON build_step(diff_id);
",
);

/// A step that was found, or has just been written down.
#[derive(Debug, Clone)]
pub struct KeptStep {
    /// What it made; `None`: it changed nothing.
    pub layer: Option<Digest>,
    /// When it was done.
    pub created: Timestamp,
    /// Its layer, for as long as this is held.
    pub held: HeldLayers,
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepRow {
    pub(crate) key: Digest,
    pub(crate) diff_id: Option<Digest>,
    pub(crate) description: String,
    pub(crate) created_s: i64,
    pub(crate) last_used_s: i64,
    pub(crate) uses: u64,
}

/// Layers that stay for as long as this is held, whatever is removed meanwhile.
#[derive(Clone)]
pub struct HeldLayers(Arc<Vec<Pin>>);

impl std::fmt::Debug for HeldLayers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|pin| &pin.digest)).finish()
    }
}

impl ImageStore {
    /// Keeps layers; `None` if one of them is not there.
    pub fn hold_layers(&self, diff_ids: &[Digest]) -> Option<HeldLayers> {
        self.0.hold_layers(diff_ids)
    }

    /// The same, unless one of them was found to be damaged.
    pub fn hold_sound_layers(&self, diff_ids: &[Digest]) -> Option<HeldLayers> {
        self.hold_layers(diff_ids).filter(|_| !diff_ids.iter().any(|diff_id| self.0.is_damaged(diff_id)))
    }

    /// What a step has made, if it was done before; the layer is held from here on.
    pub fn cached_step(&self, key: &Digest) -> Option<KeptStep> {
        let diff_ids: Vec<Digest> = self.0.read_state().steps.get(key)?.diff_id.iter().cloned().collect();
        // It may go in this moment; and a layer that was found to be damaged is to be made again.
        let held = self.hold_sound_layers(&diff_ids)?;
        let used = {
            let mut state = self.0.write_state();
            // What is held is not forgotten, but it may have been before.
            let row = state.steps.get_mut(key)?;
            let used = StepRow { last_used_s: Timestamp::now().as_second(), uses: row.uses + 1, ..StepRow::clone(row) };
            *row = used.clone().into();
            used
        };
        let (layer, created_s) = (used.diff_id.clone(), used.created_s);
        // Nobody waits for it: it only says what goes first when room is made.
        self.0.ledger.submit(
            Durability::Kill,
            move |connection| insert(connection, &used),
            |_: Result<(), LedgerError>| {},
        );
        let created = Timestamp::from_second(created_s).unwrap_or_default();
        Some(KeptStep { layer, created, held })
    }

    /// The other keys of a step: those that were written down with this one.
    pub fn other_keys(&self, key: &Digest) -> Vec<Digest> {
        let state = self.0.read_state();
        let Some(step) = state.steps.get(key) else { return Vec::new() };
        let said = |row: &StepRow| (row.diff_id.clone(), row.created_s, row.description.clone());
        let is_other = |row: &&std::sync::Arc<StepRow>| row.key != *key && said(row) == said(step);
        let mut others: Vec<Digest> = state.steps.values().filter(is_other).map(|row| row.key.clone()).collect();
        others.sort();
        others
    }

    /// Writes down what a step has made, by each of its keys. `layer`: the step's, or that of another step, which is held.
    pub fn add_step(&self, keys: &[Digest], layer: StepLayer, description: &str) -> Result<KeptStep, ImageError> {
        let now_s = Timestamp::now().as_second();
        let (diff_id, new) = match layer {
            StepLayer::None => (None, None),
            StepLayer::Known(diff_id) => (Some(diff_id), None),
            StepLayer::New(new) if new.is_empty() => (None, None),
            StepLayer::New(new) => (Some(new.diff_id().clone()), Some(*new)),
        };
        let row = |key: &Digest| StepRow {
            key: key.clone(),
            diff_id: diff_id.clone(),
            description: description.to_owned(),
            created_s: now_s,
            last_used_s: now_s,
            uses: 0,
        };
        let held = self.0.install_step(new, keys.iter().map(row).collect())?;
        let created = Timestamp::from_second(now_s).unwrap_or_default();
        Ok(KeptStep { layer: diff_id, created, held })
    }
}

impl From<NewLayer> for StepLayer {
    fn from(layer: NewLayer) -> Self {
        Self::New(Box::new(layer))
    }
}

/// What a step has made.
pub enum StepLayer {
    /// Nothing.
    None,
    /// A layer that is there already, and held.
    Known(Digest),
    /// This.
    New(Box<NewLayer>),
}

impl Inner {
    pub(crate) fn hold_layers(self: &Arc<Self>, diff_ids: &[Digest]) -> Option<HeldLayers> {
        let pins = diff_ids.iter().map(|diff_id| self.pin(diff_id)).collect::<Option<Vec<_>>>()?;
        Some(HeldLayers(Arc::new(pins)))
    }

    /// Makes safe from a power cut what steps have made, once and for all images: an error that somebody else was told
    /// before would not be told to a descriptor that is younger (syncfs(2)). After one nothing is known of what still
    /// waited: its steps are forgotten, and a layer that a build holds goes into no image until it has been made anew.
    pub(crate) fn sync_steps(&self, diff_ids: &[&Digest]) -> Result<Vec<Digest>, ImageError> {
        let unsynced: Vec<Digest> = {
            let state = self.read_state();
            diff_ids.iter().filter(|diff_id| state.is_unsynced(diff_id)).map(|diff_id| Digest::clone(diff_id)).collect()
        };
        if unsynced.is_empty() {
            return Ok(unsynced);
        }
        if unsynced.iter().any(|diff_id| self.is_damaged(diff_id)) {
            let lost = std::io::Error::other("the disk has lost something of a layer of this build; build again");
            return Err(ImageError::io("write to the disk what is in", self.layers.display())(lost));
        }
        if let Err(error) = rustix::fs::syncfs(&self.opened) {
            self.lose_unsynced()?;
            return Err(ImageError::io("write to the disk what is in", self.layers.display())(error));
        }
        Ok(unsynced)
    }

    /// What has not been synced may be torn, and no later sync would say so.
    pub(crate) fn lose_unsynced(&self) -> Result<(), ImageError> {
        let steps = {
            let mut state = self.write_state();
            let layers = state.layers.values().filter(|layer| layer.unsynced_boot.is_some());
            let layers: Vec<Digest> = layers.map(|layer| layer.diff_id.clone()).collect();
            state.damaged.extend(layers);
            let is_lost = |row: &&Arc<StepRow>| row.diff_id.as_ref().is_some_and(|diff_id| state.is_unsynced(diff_id));
            let steps: Vec<Digest> = state.steps.values().filter(is_lost).map(|row| row.key.clone()).collect();
            steps.iter().for_each(|key| drop(state.steps.remove(key)));
            steps
        };
        Ok(self.ledger.write_essential(Durability::Kill, move |connection: &Connection| {
            steps.iter().try_for_each(|key| delete(connection, key))
        })?)
    }
}

impl State {
    /// These are safe from a power cut now.
    pub(crate) fn forget_marks(&mut self, diff_ids: &[Digest]) {
        for diff_id in diff_ids {
            if let Some(layer) = self.layers.get_mut(diff_id) {
                Arc::make_mut(layer).unsynced_boot = None;
            }
        }
    }

    /// A build's step made it, and it is not safe from a power cut.
    fn is_unsynced(&self, diff_id: &Digest) -> bool {
        self.layers.get(diff_id).is_some_and(|layer| layer.unsynced_boot.is_some())
    }
}

/// All of them; those of layers that another boot has left unsynced are deleted.
pub(crate) fn read(connection: &Connection, boot: Option<&str>) -> Result<HashMap<Digest, StepRow>, LedgerError> {
    connection.execute(
        "DELETE FROM build_step WHERE diff_id IN
             (SELECT diff_id FROM layer WHERE unsynced_boot IS NOT NULL AND unsynced_boot IS NOT ?1)",
        [boot],
    )?;
    let mut rows = HashMap::new();
    let mut statement =
        connection.prepare("SELECT key, diff_id, description, created_s, last_used_s, uses FROM build_step")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let step = StepRow {
            key: crate::schema::parsed(row.get(0)?)?,
            diff_id: row.get::<_, Option<String>>(1)?.map(crate::schema::parsed).transpose()?,
            description: row.get(2)?,
            created_s: row.get(3)?,
            last_used_s: row.get(4)?,
            uses: row.get::<_, i64>(5)?.max(0).unsigned_abs(),
        };
        rows.insert(step.key.clone(), step);
    }
    Ok(rows)
}

/// Writes a step, or what it has become.
pub(crate) fn insert(connection: &Connection, row: &StepRow) -> Result<(), LedgerError> {
    connection.execute(
        "INSERT INTO build_step VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (key) DO UPDATE SET
             diff_id = excluded.diff_id, last_used_s = excluded.last_used_s, uses = excluded.uses",
        params![
            row.key.as_str(),
            row.diff_id.as_ref().map(Digest::as_str),
            row.description,
            row.created_s,
            row.last_used_s,
            i64::try_from(row.uses).unwrap_or(i64::MAX)
        ],
    )?;
    Ok(())
}

fn delete(connection: &Connection, key: &Digest) -> Result<(), LedgerError> {
    connection.execute("DELETE FROM build_step WHERE key = ?1", [key.as_str()])?;
    Ok(())
}

/// Takes the mark from layers that a sync has made safe.
pub(crate) fn mark_synced(connection: &Connection, diff_ids: &[Digest]) -> Result<(), LedgerError> {
    let mut statement = connection.prepare("UPDATE layer SET unsynced_boot = NULL WHERE diff_id = ?1")?;
    diff_ids.iter().try_for_each(|diff_id| statement.execute([diff_id.as_str()]).map(drop))?;
    Ok(())
}

#[cfg(test)]
mod tests;
