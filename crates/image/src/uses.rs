//! When somebody last wanted an image: made it, pulled it, named it, built on it, or had a container of it. While a container
//! is there it is used anyway, so nothing is written when one starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_ledger::rusqlite::{Connection, params};
use dozen_ledger::{Durability, LedgerError, Migration};
use dozen_model::ImageId;
use jiff::Timestamp;

use crate::ImageError;
use crate::schema::parsed;
use crate::state::State;
use crate::store::{ImageStore, Inner};

/// The moments. An image from before has been wanted when it was first seen here.
pub const USES: Migration = Migration(
    "
CREATE TABLE image_use (
    image             TEXT PRIMARY KEY REFERENCES image(id) ON DELETE CASCADE,
    last_used_s       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
);

/// In seconds since 1970.
pub(crate) type Uses = BTreeMap<ImageId, i64>;

impl ImageStore {
    /// When somebody last wanted it.
    pub fn last_used(&self, id: &ImageId) -> Option<Timestamp> {
        self.0.read_state().last_used(id)
    }

    /// Somebody wants it. Kill-safe, and nobody waits: it only says what goes first when room is made.
    pub fn note_use(&self, id: &ImageId) {
        self.0.note_use(id);
    }

    /// The same in somebody else's transaction: [`write_use`] is called in it, with this moment.
    pub fn note_use_in_memory(&self, id: &ImageId, now_s: i64) {
        self.0.write_state().note_use(id, now_s);
    }
}

impl Inner {
    pub(crate) fn note_use(&self, id: &ImageId) {
        let now_s = Timestamp::now().as_second();
        self.write_state().note_use(id, now_s);
        let id = id.clone();
        let written = |_: Result<(), LedgerError>| {};
        self.ledger.submit(Durability::Kill, move |connection| write_use(connection, &id, now_s), written);
    }

    /// At the beginning: those of which nothing is known have been wanted now.
    pub(crate) fn begin_uses(&self) -> Result<(), ImageError> {
        let now_s = Timestamp::now().as_second();
        let unknown: Vec<ImageId> = {
            let state = self.read_state();
            state.images.keys().filter(|id| !state.uses.contains_key(id)).cloned().collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let mut state = self.write_state();
        unknown.iter().for_each(|id| state.note_use(id, now_s));
        drop(state);
        Ok(self.ledger.write(Durability::Kill, move |connection| {
            unknown.iter().try_for_each(|id| write_use(connection, id, now_s))
        })?)
    }
}

impl State {
    pub(crate) fn last_used(&self, id: &ImageId) -> Option<Timestamp> {
        Timestamp::from_second(*self.uses.get(id)?).ok()
    }

    pub(crate) fn note_use(&mut self, id: &ImageId, now_s: i64) {
        if self.images.contains_key(id) {
            self.uses.insert(id.clone(), now_s);
        }
    }

    /// Those of images that are gone are not kept.
    pub(crate) fn forget_uses(&mut self) {
        let images: &BTreeMap<ImageId, Arc<crate::Image>> = &self.images;
        self.uses.retain(|id, _| images.contains_key(id));
    }
}

/// Writes down that an image was wanted at this moment. One that is gone by then is not.
///
/// # Errors
/// The ledger's.
pub fn write_use(connection: &Connection, id: &ImageId, now_s: i64) -> Result<(), LedgerError> {
    connection.execute(
        "INSERT INTO image_use SELECT id, ?2 FROM image WHERE id = ?1
             ON CONFLICT (image) DO UPDATE SET last_used_s = excluded.last_used_s",
        params![id.digest().as_str(), now_s],
    )?;
    Ok(())
}

pub(crate) fn read(connection: &Connection) -> Result<Uses, LedgerError> {
    let mut statement = connection.prepare("SELECT image, last_used_s FROM image_use")?;
    let mut found = statement.query([])?;
    let mut uses = Uses::new();
    while let Some(row) = found.next()? {
        uses.insert(ImageId::new(parsed(row.get(0)?)?), row.get(1)?);
    }
    Ok(uses)
}
