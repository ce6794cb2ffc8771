//! What nothing names any more.
//!
//! **The rule.** A repository's blob goes when none of its manifests names it and nobody has uploaded it, mounted it or
//! asked for it since the grace time began. That is looked at, and the row deleted, in one transaction; a manifest is
//! stored, and each of its blobs looked for, in one transaction. One of the two is first: either the manifest's rows keep
//! the blob, or the manifest is refused, and its client uploads the blob again. The file goes after its row, and no other
//! file ever gets its name (`directory.rs`): a blob that has come again meanwhile is not touched.

use dozen_ledger::rusqlite::params;
use dozen_model::Digest;

use super::{Index, upload_id};
use crate::refusal::Refusal;
use crate::store::directory::BlobFile;

/// Blobs that are looked at in one transaction, so that nobody waits long.
const STEP: i64 = 1000;

/// What one step of a collection has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Files whose rows are gone.
    pub(crate) files: Vec<BlobFile>,
    /// Their sizes, in all.
    pub(crate) bytes: u64,
    /// Where the next step begins; `None` at the end.
    pub(crate) next: Option<i64>,
}

impl Index {
    /// Takes away the rows of what nobody names and nobody has seen since, among the blobs from `first` on.
    pub(crate) async fn collect(&self, first: i64, unseen_since: i64) -> Result<Collected, Refusal> {
        self.free(move |connection| {
            let last = first.saturating_add(STEP);
            let range = params![first, last, unseen_since];
            connection
                .prepare_cached(
                    "DELETE FROM repository_blobs WHERE blob >= ?1 AND blob < ?2 AND seen_at < ?3 AND NOT EXISTS (
                     SELECT 1 FROM manifest_blobs n
                     WHERE n.blob = repository_blobs.blob AND n.repository = repository_blobs.repository)",
                )?
                .execute(range)?;
            let mut collected = Collected::default();
            // One that was lost, or has not come yet, has no file.
            let mut unheld = connection.prepare_cached(
                "SELECT digest, size_bytes, upload FROM blobs WHERE id >= ?1 AND id < ?2 AND upload IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM repository_blobs h WHERE h.blob = blobs.id)",
            )?;
            let mut rows = unheld.query([first, last])?;
            while let Some(row) = rows.next()? {
                if let Ok(digest) = row.get::<_, String>(0)?.parse::<Digest>() {
                    collected.files.push(BlobFile { digest, upload: upload_id(row, 2)? });
                    collected.bytes += row.get::<_, i64>(1)?.unsigned_abs();
                }
            }
            drop(rows);
            // What a manifest of an upstream names keeps its row, and may come again.
            connection
                .prepare_cached(
                    "UPDATE blobs SET upload = NULL WHERE id >= ?1 AND id < ?2 AND upload IS NOT NULL
                     AND NOT EXISTS (SELECT 1 FROM repository_blobs h WHERE h.blob = blobs.id)
                     AND EXISTS (SELECT 1 FROM manifest_blobs n WHERE n.blob = blobs.id)",
                )?
                .execute([first, last])?;
            connection
                .prepare_cached(
                    "DELETE FROM blobs WHERE id >= ?1 AND id < ?2
                     AND NOT EXISTS (SELECT 1 FROM repository_blobs h WHERE h.blob = blobs.id)
                     AND NOT EXISTS (SELECT 1 FROM manifest_blobs n WHERE n.blob = blobs.id)",
                )?
                .execute([first, last])?;
            collected.next =
                connection.query_row("SELECT min(id) FROM blobs WHERE id >= ?1", [last], |row| row.get(0))?;
            if collected.next.is_none() {
                connection.execute(
                    "DELETE FROM repositories WHERE NOT EXISTS (
                         SELECT 1 FROM repository_blobs h WHERE h.repository = repositories.id)
                     AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = repositories.id)",
                    [],
                )?;
            }
            Ok(collected)
        })
        .await
    }

    /// Whether manifests name all blobs that repositories have: nothing waits to be collected.
    pub(crate) async fn names_all(&self) -> Result<bool, Refusal> {
        self.read(|connection| {
            let mut unnamed = connection.prepare_cached(
                "SELECT 1 FROM repository_blobs h WHERE NOT EXISTS (
                 SELECT 1 FROM manifest_blobs n WHERE n.blob = h.blob AND n.repository = h.repository)",
            )?;
            Ok(!unnamed.exists([])?)
        })
        .await
    }

    /// Which files have rows, with the sizes that these say.
    pub(crate) async fn blob_files(&self) -> Result<Vec<(BlobFile, u64)>, Refusal> {
        self.read(|connection| {
            let mut query =
                connection.prepare("SELECT digest, size_bytes, upload FROM blobs WHERE upload IS NOT NULL")?;
            let mut rows = query.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                if let Ok(digest) = row.get::<_, String>(0)?.parse::<Digest>() {
                    let file = BlobFile { digest, upload: upload_id(row, 2)? };
                    all.push((file, row.get::<_, i64>(1)?.unsigned_abs()));
                }
            }
            Ok(all)
        })
        .await
    }

    /// Manifests whose content has another digest than they are called by, and blobs that they name and nobody has:
    /// sentences.
    pub(crate) async fn contradictions(&self) -> Result<Vec<String>, Refusal> {
        self.read(|connection| {
            let mut found = Vec::new();
            let mut query = connection.prepare(
                "SELECT r.name, m.digest, m.content FROM manifests m JOIN repositories r ON r.id = m.repository",
            )?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let (name, digest, content): (String, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let is_right = digest.parse::<Digest>().is_ok_and(|digest| {
                    crate::hasher::Hasher::of(crate::hasher::Algorithm::of(&digest), &content) == digest
                });
                if !is_right {
                    found.push(format!("the manifest {name}@{digest} is damaged"));
                }
            }
            let mut query = connection.prepare(
                "SELECT r.name, m.digest, b.digest FROM manifest_blobs n
                 JOIN manifests m ON m.id = n.manifest JOIN repositories r ON r.id = m.repository
                 JOIN blobs b ON b.id = n.blob
                 WHERE m.is_cached = 0 AND (b.upload IS NULL OR NOT EXISTS (
                     SELECT 1 FROM repository_blobs h WHERE h.blob = b.id AND h.repository = n.repository))",
            )?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let (name, manifest, blob): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                found.push(format!("{name}@{manifest} names {blob}, which is not there"));
            }
            Ok(found)
        })
        .await
    }
}

#[cfg(test)]
impl Index {
    /// All blobs were seen then.
    pub(crate) async fn set_seen(&self, at: i64) -> Result<(), Refusal> {
        self.change(dozen_ledger::Durability::Kill, move |connection| {
            connection.execute("UPDATE repository_blobs SET seen_at = ?1", [at])?;
            Ok(())
        })
        .await
    }
}
