//! The rows of artifacts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dozen_ledger::rusqlite::{Connection, params};
use dozen_ledger::{LedgerError, Migration};
use dozen_model::Reference;

use super::Artifact;
use crate::schema::parsed;

/// The tables of artifacts. Their files have rows in `blob`.
pub const ARTIFACTS: Migration = Migration(
    "
CREATE TABLE artifact (
    reference         TEXT PRIMARY KEY,       -- in full
    manifest          TEXT NOT NULL,          -- its digest
    files_bytes       INTEGER NOT NULL        -- of all its files
) STRICT;
CREATE TABLE artifact_blob (
    reference         TEXT NOT NULL REFERENCES artifact(reference) ON DELETE CASCADE,
    digest            TEXT NOT NULL,          -- of all that it needs: the manifest, the configuration, the files
    PRIMARY KEY (reference, digest)
) STRICT, WITHOUT ROWID;
",
);

pub(crate) fn read(connection: &Connection) -> Result<BTreeMap<Reference, Arc<Artifact>>, LedgerError> {
    let mut artifacts = BTreeMap::new();
    let mut statement = connection.prepare("SELECT reference, manifest, files_bytes FROM artifact")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let artifact = Artifact {
            reference: parsed(row.get(0)?)?,
            digest: parsed(row.get(1)?)?,
            files_bytes: row.get::<_, i64>(2)?.max(0).unsigned_abs(),
            blobs: BTreeSet::new(),
        };
        artifacts.insert(artifact.reference.clone(), artifact);
    }
    let mut statement = connection.prepare("SELECT reference, digest FROM artifact_blob")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        if let Some(artifact) = artifacts.get_mut(&parsed::<Reference>(row.get(0)?)?) {
            artifact.blobs.insert(parsed(row.get(1)?)?);
        }
    }
    Ok(artifacts.into_iter().map(|(name, artifact)| (name, Arc::new(artifact))).collect())
}

/// Writes an artifact in the place of what its name led to before.
pub(super) fn insert(connection: &Connection, artifact: &Artifact) -> Result<(), LedgerError> {
    delete(connection, &artifact.reference)?;
    let reference = artifact.reference.to_string();
    let bytes = i64::try_from(artifact.files_bytes).unwrap_or(i64::MAX);
    connection
        .execute("INSERT INTO artifact VALUES (?1, ?2, ?3)", params![reference, artifact.digest.as_str(), bytes])?;
    let mut statement = connection.prepare("INSERT INTO artifact_blob VALUES (?1, ?2)")?;
    for blob in &artifact.blobs {
        statement.execute([reference.as_str(), blob.as_str()])?;
    }
    Ok(())
}

pub(super) fn delete(connection: &Connection, reference: &Reference) -> Result<(), LedgerError> {
    connection.execute("DELETE FROM artifact WHERE reference = ?1", [reference.to_string()])?;
    Ok(())
}
