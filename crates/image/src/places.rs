//! Where registries have layers: what was pulled from a repository or pushed to it is there, under the digest of its blob. So
//! a layer need not be compressed to know what it is called there, and a registry that has it elsewhere need not be sent it.
//!
//! None of it is certain, since a registry may throw away what it likes: who relies on it asks first. It goes with its layer.

use dozen_ledger::rusqlite::{Connection, params};
use dozen_ledger::{Durability, LedgerError, Migration};
use dozen_model::Digest;

use crate::ImageError;
use crate::schema::parsed;
use crate::store::ImageStore;

/// Of one layer; the oldest go.
const MOST_PLACES: u32 = 20;

/// The table of places.
pub const PLACES: Migration = Migration(
    "
CREATE TABLE layer_place (
    id                INTEGER PRIMARY KEY,    -- the newest have the highest
    diff_id           TEXT NOT NULL REFERENCES layer(diff_id) ON DELETE CASCADE,
    registry          TEXT NOT NULL,          -- as images' names have it
    repository        TEXT NOT NULL,          -- its path there
    blob              TEXT NOT NULL,          -- digest of the layer there
    size_bytes        INTEGER NOT NULL,       -- of that
    media_type        TEXT NOT NULL,          -- of that
    UNIQUE (diff_id, registry, repository, blob)
) STRICT;
",
);

/// Where a layer was once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct LayerPlace {
    pub diff_id: Digest,
    pub registry: String,
    /// Its path there.
    pub repository: String,
    pub blob: LayerBlob,
}

/// What a layer is in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub struct LayerBlob {
    pub digest: Digest,
    pub size_bytes: u64,
    pub media_type: String,
}

impl ImageStore {
    /// The places of a layer, the newest first. Blocks.
    pub fn places_of(&self, diff_id: &Digest) -> Result<Vec<LayerPlace>, ImageError> {
        let diff_id = diff_id.clone();
        Ok(self.0.ledger.read(move |connection| read(connection, &diff_id))?)
    }

    /// Layers are there. Nobody waits for it, and what has no row any more has none then.
    pub fn remember_places(&self, places: Vec<LayerPlace>) {
        let write = move |connection: &Connection| places.iter().try_for_each(|place| insert(connection, place));
        self.0.ledger.submit(Durability::Kill, write, |written: Result<(), LedgerError>| {
            if let Err(error) = written {
                tracing::info!(error = %error, "where a registry has layers is not remembered");
            }
        });
    }

    /// The same of what came from a repository: those of these layers, by plain stream and blob, that are kept as they came.
    pub fn remember_origin(&self, registry: &str, repository: &str, layers: &[(Digest, Digest)]) {
        let state = self.0.read_state();
        let of = |(diff_id, blob): &(Digest, Digest)| {
            let row = state.layers.get(diff_id).filter(|row| row.blob == *blob)?;
            let (digest, size_bytes, media_type) = (blob.clone(), row.blob_size_bytes, row.media_type.clone());
            Some(LayerPlace {
                diff_id: diff_id.clone(),
                registry: registry.to_owned(),
                repository: repository.to_owned(),
                blob: LayerBlob { digest, size_bytes, media_type },
            })
        };
        let places = layers.iter().filter_map(of).collect();
        drop(state);
        self.remember_places(places);
    }
}

fn insert(connection: &Connection, place: &LayerPlace) -> Result<(), LedgerError> {
    let LayerPlace { diff_id, registry, repository, blob } = place;
    let size = i64::try_from(blob.size_bytes).unwrap_or(i64::MAX);
    connection.execute(
        "INSERT OR REPLACE INTO layer_place (diff_id, registry, repository, blob, size_bytes, media_type)
         SELECT diff_id, ?2, ?3, ?4, ?5, ?6 FROM layer WHERE diff_id = ?1",
        params![diff_id.as_str(), registry, repository, blob.digest.as_str(), size, blob.media_type],
    )?;
    connection.execute(
        "DELETE FROM layer_place WHERE diff_id = ?1 AND id NOT IN
             (SELECT id FROM layer_place WHERE diff_id = ?1 ORDER BY id DESC LIMIT ?2)",
        params![diff_id.as_str(), MOST_PLACES],
    )?;
    Ok(())
}

fn read(connection: &Connection, diff_id: &Digest) -> Result<Vec<LayerPlace>, LedgerError> {
    let mut statement = connection.prepare(
        "SELECT registry, repository, blob, size_bytes, media_type FROM layer_place WHERE diff_id = ?1 ORDER BY id DESC",
    )?;
    let mut found = statement.query([diff_id.as_str()])?;
    let mut places = Vec::new();
    while let Some(row) = found.next()? {
        let (digest, size_bytes) = (parsed(row.get(2)?)?, row.get::<_, i64>(3)?.max(0).unsigned_abs());
        places.push(LayerPlace {
            diff_id: diff_id.clone(),
            registry: row.get(0)?,
            repository: row.get(1)?,
            blob: LayerBlob { digest, size_bytes, media_type: row.get(4)? },
        });
    }
    Ok(places)
}
