//! The store's rows. A file below `content/` or `layers/` belongs to exactly one row here, or is garbage.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dozen_ledger::rusqlite::{Connection, params};
use dozen_ledger::{LedgerError, Migration};
use dozen_model::{Digest, ImageId, Reference};
use serde_json::Value;

use crate::artifact::{self, Artifact};
use crate::build_cache::{self, StepRow};
use crate::target::Target;
use crate::uses;

/// All of the image store's, in the order in which they came: for a ledger that has nothing else.
pub const MIGRATIONS: [Migration; 8] = [
    MIGRATION,
    RECIPES,
    TARGETS,
    build_cache::BUILD_CACHE,
    crate::places::PLACES,
    artifact::ARTIFACTS,
    uses::USES,
    SUMS,
];

/// The tables of the image store.
pub const MIGRATION: Migration = Migration(
    "
CREATE TABLE layer (
    diff_id           TEXT PRIMARY KEY,       -- digest of the plain tar stream
    directory         TEXT NOT NULL UNIQUE,   -- its name below layers/
    blob              TEXT NOT NULL,          -- digest of its file below content/, compressed as it came
    media_type        TEXT NOT NULL,
    blob_size_bytes   INTEGER NOT NULL,
    tar_size_bytes    INTEGER NOT NULL,       -- of the plain tar stream
    content_bytes     INTEGER NOT NULL,       -- of the files in it
    opaque_root       INTEGER NOT NULL        -- 1: hides every layer below it
) STRICT;
CREATE TABLE image (
    id                TEXT PRIMARY KEY,       -- digest of its configuration, a file below content/
    parent            TEXT,
    removed           INTEGER NOT NULL        -- 1: removed while a container still stood on its layers
) STRICT;
CREATE TABLE image_layer (
    image             TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    position          INTEGER NOT NULL,       -- 0 is the lowest
    diff_id           TEXT NOT NULL REFERENCES layer(diff_id),
    PRIMARY KEY (image, position)
) STRICT;
CREATE INDEX image_layer_by_layer ON image_layer(diff_id);
CREATE TABLE image_reference (
    reference         TEXT PRIMARY KEY,       -- in full
    image             TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE
) STRICT;
CREATE INDEX image_reference_by_image ON image_reference(image);
",
);

/// Layers whose blob is made again from a recipe instead of being kept. The blobs of those from before stay.
pub const RECIPES: Migration = Migration(
    "
ALTER TABLE layer ADD COLUMN recipe_size_bytes INTEGER; -- of DIFF_ID.recipe below content/, in the blob's place; or NULL
",
);

/// What names lead to besides images: OCI indexes and manifests, kept as they came, with all that they lead to.
pub const TARGETS: Migration = Migration(
    "
CREATE TABLE blob (
    digest            TEXT PRIMARY KEY,       -- of a file below content/ that is neither a layer's nor the image's own
    size_bytes        INTEGER NOT NULL
) STRICT;
CREATE TABLE target (
    digest            TEXT PRIMARY KEY,       -- of an index or a manifest
    descriptor        TEXT NOT NULL,          -- as an index.json would have it, without names
    manifest          TEXT NOT NULL,          -- digest of the image's own manifest
    image             TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    referrers         TEXT NOT NULL           -- descriptors of artifacts about something in it, a JSON array
) STRICT;
CREATE INDEX target_by_image ON target(image);
CREATE TABLE target_blob (
    target            TEXT NOT NULL REFERENCES target(digest) ON DELETE CASCADE,
    digest            TEXT NOT NULL,          -- of all that it leads to, itself included: blobs, layers, the image
    PRIMARY KEY (target, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE reference_target (
    reference         TEXT PRIMARY KEY REFERENCES image_reference(reference) ON DELETE CASCADE,
    target            TEXT NOT NULL REFERENCES target(digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_target_by_target ON reference_target(target);
",
);

/// Layers that are read for a push are compared with a check sum. Those from before are compared with their digests.
pub const SUMS: Migration = Migration(
    "
ALTER TABLE layer ADD COLUMN tar_crc32 INTEGER; -- of the plain tar stream (RFC 1952, section 8); or NULL
",
);

#[derive(Debug, Clone)]
pub(crate) struct LayerRow {
    pub(crate) diff_id: Digest,
    pub(crate) directory: String,
    pub(crate) blob: Digest,
    pub(crate) media_type: String,
    pub(crate) blob_size_bytes: u64,
    pub(crate) tar_size_bytes: u64,
    pub(crate) content_bytes: u64,
    pub(crate) opaque_root: bool,
    /// Size of the recipe that is kept in the blob's place, whose blob is then the plain tar stream; `None`: the blob
    /// itself is kept.
    pub(crate) recipe_size_bytes: Option<u64>,
    /// A build's step made it in this boot, and it is not safe from a power cut yet (`build_cache`).
    pub(crate) unsynced_boot: Option<String>,
    /// CRC-32 of the plain tar stream; `None`: of a layer from before there was one.
    pub(crate) tar_crc32: Option<u32>,
}

impl LayerRow {
    /// The name of its file below `content/`.
    pub(crate) fn content_name(&self) -> String {
        match self.recipe_size_bytes {
            Some(_) => format!("{}.recipe", self.diff_id.hex()),
            None => self.blob.hex().to_owned(),
        }
    }

    /// Bytes of that file.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.recipe_size_bytes.unwrap_or(self.blob_size_bytes)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ImageRow {
    pub(crate) id: ImageId,
    pub(crate) parent: Option<ImageId>,
    pub(crate) removed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) layers: HashMap<Digest, LayerRow>,
    pub(crate) images: Vec<ImageRow>,
    pub(crate) references: BTreeMap<Reference, ImageId>,
    pub(crate) blobs: BTreeMap<Digest, u64>,
    pub(crate) targets: BTreeMap<Digest, Target>,
    pub(crate) reference_targets: BTreeMap<Reference, Digest>,
    pub(crate) artifacts: BTreeMap<Reference, Arc<Artifact>>,
    pub(crate) steps: HashMap<Digest, StepRow>,
    pub(crate) uses: uses::Uses,
}

/// Reads a text that was valid when it was written.
pub(crate) fn parsed<T: std::str::FromStr>(text: String) -> Result<T, LedgerError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    use dozen_ledger::rusqlite::{Error, types::Type};
    text.parse()
        .map_err(|error| LedgerError::Statement(Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))))
}

/// `boot`: this one, if it is known.
pub(crate) fn read(connection: &Connection, boot: Option<&str>) -> Result<Rows, LedgerError> {
    let (steps, uses) = (build_cache::read(connection, boot)?, uses::read(connection)?);
    let mut rows = Rows { steps, uses, ..Rows::default() };
    let mut statement = connection.prepare(
        "SELECT diff_id, directory, blob, media_type, blob_size_bytes, tar_size_bytes, content_bytes, opaque_root,
                recipe_size_bytes, unsynced_boot, tar_crc32
         FROM layer",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let size = |at| row.get::<_, i64>(at).map(|size| size.max(0).unsigned_abs());
        let layer = LayerRow {
            diff_id: parsed(row.get(0)?)?,
            directory: row.get(1)?,
            blob: parsed(row.get(2)?)?,
            media_type: row.get(3)?,
            blob_size_bytes: size(4)?,
            tar_size_bytes: size(5)?,
            content_bytes: size(6)?,
            opaque_root: row.get(7)?,
            recipe_size_bytes: row.get::<_, Option<i64>>(8)?.map(|size| size.max(0).unsigned_abs()),
            unsynced_boot: row.get(9)?,
            tar_crc32: row.get(10)?,
        };
        rows.layers.insert(layer.diff_id.clone(), layer);
    }
    let mut statement = connection.prepare("SELECT id, parent, removed FROM image ORDER BY id")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let parent = row.get::<_, Option<String>>(1)?.map(parsed).transpose()?;
        rows.images.push(ImageRow {
            id: ImageId::new(parsed(row.get(0)?)?),
            parent: parent.map(ImageId::new),
            removed: row.get(2)?,
        });
    }
    let mut statement = connection.prepare("SELECT reference, image FROM image_reference")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.references.insert(parsed(row.get(0)?)?, ImageId::new(parsed(row.get(1)?)?));
    }
    read_targets(connection, &mut rows)?;
    rows.artifacts = artifact::read(connection)?;
    Ok(rows)
}

/// The layers of an image, lowest first.
pub(crate) fn layers_of(connection: &Connection, id: &ImageId) -> Result<Vec<Digest>, LedgerError> {
    let mut statement = connection.prepare("SELECT diff_id FROM image_layer WHERE image = ?1 ORDER BY position")?;
    let mut found = statement.query([id.digest().as_str()])?;
    let mut layers = Vec::new();
    while let Some(row) = found.next()? {
        layers.push(parsed(row.get(0)?)?);
    }
    Ok(layers)
}

fn read_targets(connection: &Connection, rows: &mut Rows) -> Result<(), LedgerError> {
    let mut statement = connection.prepare("SELECT digest, size_bytes FROM blob")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.blobs.insert(parsed(row.get(0)?)?, row.get::<_, i64>(1)?.max(0).unsigned_abs());
    }
    let mut statement = connection.prepare("SELECT digest, descriptor, manifest, image, referrers FROM target")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let target = Target {
            digest: parsed(row.get(0)?)?,
            descriptor: parsed(row.get(1)?)?,
            manifest: parsed(row.get(2)?)?,
            image: ImageId::new(parsed(row.get(3)?)?),
            referrers: parsed::<Value>(row.get(4)?)?.as_array().cloned().unwrap_or_default(),
            blobs: BTreeSet::new(),
        };
        rows.targets.insert(target.digest.clone(), target);
    }
    let mut statement = connection.prepare("SELECT target, digest FROM target_blob")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        if let Some(target) = rows.targets.get_mut(&parsed::<Digest>(row.get(0)?)?) {
            target.blobs.insert(parsed(row.get(1)?)?);
        }
    }
    let mut statement = connection.prepare("SELECT reference, target FROM reference_target")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.reference_targets.insert(parsed(row.get(0)?)?, parsed(row.get(1)?)?);
    }
    Ok(())
}

pub(crate) fn insert_blob(connection: &Connection, digest: &Digest, size_bytes: u64) -> Result<(), LedgerError> {
    let size = i64::try_from(size_bytes).unwrap_or(i64::MAX);
    connection.execute("INSERT OR IGNORE INTO blob VALUES (?1, ?2)", params![digest.as_str(), size])?;
    Ok(())
}

/// Writes a target, or what it has become: its descriptor stays as it came first.
pub(crate) fn insert_target(connection: &Connection, target: &Target) -> Result<(), LedgerError> {
    let digest = target.digest.as_str();
    connection.execute(
        "INSERT INTO target VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (digest) DO UPDATE SET referrers = excluded.referrers",
        params![
            digest,
            target.descriptor.to_string(),
            target.manifest.as_str(),
            target.image.digest().as_str(),
            Value::Array(target.referrers.clone()).to_string()
        ],
    )?;
    let mut statement = connection.prepare("INSERT OR IGNORE INTO target_blob VALUES (?1, ?2)")?;
    for blob in &target.blobs {
        statement.execute([digest, blob.as_str()])?;
    }
    Ok(())
}

pub(crate) fn delete_target(connection: &Connection, digest: &Digest) -> Result<(), LedgerError> {
    connection.execute("DELETE FROM target WHERE digest = ?1", [digest.as_str()])?;
    Ok(())
}

pub(crate) fn delete_blob(connection: &Connection, digest: &Digest) -> Result<(), LedgerError> {
    connection.execute("DELETE FROM blob WHERE digest = ?1", [digest.as_str()])?;
    Ok(())
}

pub(crate) fn insert_layer(connection: &Connection, layer: &LayerRow) -> Result<(), LedgerError> {
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    connection.execute(
        "INSERT INTO layer VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            layer.diff_id.as_str(),
            layer.directory,
            layer.blob.as_str(),
            layer.media_type,
            size(layer.blob_size_bytes),
            size(layer.tar_size_bytes),
            size(layer.content_bytes),
            layer.opaque_root,
            layer.recipe_size_bytes.map(size),
            layer.unsynced_boot,
            layer.tar_crc32
        ],
    )?;
    Ok(())
}

/// Writes an image, or brings back one that was removed while it was in use.
pub(crate) fn insert_image(connection: &Connection, row: &ImageRow, diff_ids: &[Digest]) -> Result<(), LedgerError> {
    let id = row.id.digest().as_str();
    let parent = row.parent.as_ref().map(|parent| parent.digest().as_str());
    connection.execute(
        "INSERT INTO image VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET removed = excluded.removed",
        params![id, parent, row.removed],
    )?;
    for (position, diff_id) in (0i64..).zip(diff_ids) {
        connection.execute(
            "INSERT OR IGNORE INTO image_layer VALUES (?1, ?2, ?3)",
            params![id, position, diff_id.as_str()],
        )?;
    }
    Ok(())
}

/// Gives a name to an image, and to what of an OCI layout leads to it.
pub(crate) fn set_reference(
    connection: &Connection,
    reference: &Reference,
    id: &ImageId,
    target: Option<&Digest>,
) -> Result<(), LedgerError> {
    let reference = reference.to_string();
    connection.execute(
        "INSERT INTO image_reference VALUES (?1, ?2) ON CONFLICT (reference) DO UPDATE SET image = excluded.image",
        params![reference, id.digest().as_str()],
    )?;
    match target {
        Some(target) => connection.execute(
            "INSERT INTO reference_target VALUES (?1, ?2) ON CONFLICT (reference) DO UPDATE SET target = excluded.target",
            params![reference, target.as_str()],
        )?,
        None => connection.execute("DELETE FROM reference_target WHERE reference = ?1", [reference])?,
    };
    Ok(())
}

pub(crate) fn delete_reference(connection: &Connection, reference: &Reference) -> Result<(), LedgerError> {
    connection.execute("DELETE FROM image_reference WHERE reference = ?1", [reference.to_string()])?;
    Ok(())
}

pub(crate) fn delete_image(connection: &Connection, id: &ImageId) -> Result<(), LedgerError> {
    connection.execute("DELETE FROM image WHERE id = ?1", [id.digest().as_str()])?;
    Ok(())
}

pub(crate) fn hide_image(connection: &Connection, id: &ImageId) -> Result<(), LedgerError> {
    connection.execute("UPDATE image SET removed = 1 WHERE id = ?1", [id.digest().as_str()])?;
    Ok(())
}

pub(crate) fn delete_layer(connection: &Connection, diff_id: &Digest) -> Result<(), LedgerError> {
    connection.execute("DELETE FROM layer WHERE diff_id = ?1", [diff_id.as_str()])?;
    Ok(())
}
