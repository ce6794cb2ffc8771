//! Rows of a scrub: how far it has come, and what it has found.

use dozen_ledger::Durability;
use dozen_ledger::rusqlite::{Connection, OptionalExtension, Row, params};
use dozen_model::Digest;

use super::{Index, now, signed, upload_id};
use crate::refusal::Refusal;
use crate::store::directory::BlobFile;

/// So many manifests are named that want a blob which is not there.
const MOST_NAMED: i64 = 5;

/// A round in which all blobs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    /// Seconds since 1970.
    pub(crate) begun_at: i64,
    /// The row of the last blob that was read; `None`: all were.
    pub(crate) after: Option<i64>,
}

/// A blob that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) row: i64,
    pub(crate) file: BlobFile,
    pub(crate) size_bytes: u64,
}

/// A file that is nobody's, and stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aside {
    pub(crate) file: BlobFile,
    pub(crate) size_bytes: u64,
    /// Something else was found in it; if not, it was not there.
    pub(crate) is_damaged: bool,
}

impl Index {
    /// The last one that was begun.
    pub(crate) async fn round(&self) -> Result<Option<Round>, Refusal> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT begun_at, after FROM scrub")?;
            let round = query.query_row([], |row| Ok(Round { begun_at: row.get(0)?, after: row.get(1)? }));
            Ok(round.optional()?)
        })
        .await
    }

    /// After a loss of power some blobs are read once more.
    pub(crate) async fn note_round(&self, round: Round) -> Result<(), Refusal> {
        self.change(Durability::Kill, move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO scrub (id, begun_at, after) VALUES (1, ?1, ?2)")?
                .execute(params![round.begun_at, round.after])?;
            Ok(())
        })
        .await
    }

    /// Blobs whose files are there, in the order of their rows: those after one, and so many at the most.
    pub(crate) async fn blobs_after(&self, after: i64, limit: i64) -> Result<Vec<Due>, Refusal> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, digest, upload, size_bytes FROM blobs WHERE id > ?1 AND upload IS NOT NULL
                 ORDER BY id LIMIT ?2",
            )?;
            let mut rows = query.query([after, limit])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                all.extend(due(row)?);
            }
            Ok(all)
        })
        .await
    }

    /// Some blobs that are no longer than this, beside that of a row: from all over the rows, since what lies together is
    /// lost together.
    pub(crate) async fn witnesses(&self, beside: i64, most: u32, longest_bytes: u64) -> Result<Vec<Due>, Refusal> {
        self.read(move |connection| {
            let last: Option<i64> = connection.query_row("SELECT max(id) FROM blobs", [], |row| row.get(0))?;
            let mut query = connection.prepare_cached(
                "SELECT id, digest, upload, size_bytes FROM blobs
                 WHERE id > ?1 AND id <> ?2 AND upload IS NOT NULL AND size_bytes <= ?3 ORDER BY id LIMIT 1",
            )?;
            let step = last.unwrap_or_default() / i64::from(most);
            let mut all = Vec::new();
            for after in (0..i64::from(most)).map(|at| at * step) {
                let mut rows = query.query(params![after, beside, signed(longest_bytes)])?;
                if let Some(row) = rows.next()? {
                    all.extend(due(row)?);
                }
            }
            all.dedup();
            Ok(all)
        })
        .await
    }

    /// Nobody has this file any more: the blob waits until somebody brings it again. What names it, some of all; `None`: the
    /// file was nobody's already.
    pub(crate) async fn set_aside(
        &self,
        file: BlobFile,
        size_bytes: u64,
        is_damaged: bool,
    ) -> Result<Option<Vec<String>>, Refusal> {
        self.free(move |connection| {
            let (digest, upload) = (file.digest.as_str(), file.upload.as_str());
            let lost = connection
                .prepare_cached("UPDATE blobs SET upload = NULL WHERE digest = ?1 AND upload = ?2")?
                .execute([digest, upload])?;
            if lost == 0 {
                return Ok(None);
            }
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO aside (digest, upload, size_bytes, is_damaged, found_at)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![digest, upload, signed(size_bytes), is_damaged, now()])?;
            named_by(connection, digest).map(Some)
        })
        .await
    }

    /// Files that were set aside.
    pub(crate) async fn aside(&self) -> Result<Vec<Aside>, Refusal> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT digest, upload, size_bytes, is_damaged FROM aside")?;
            let mut rows = query.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                if let Ok(digest) = row.get::<_, String>(0)?.parse::<Digest>() {
                    let file = BlobFile { digest, upload: upload_id(row, 1)? };
                    let size_bytes = row.get::<_, i64>(2)?.unsigned_abs();
                    all.push(Aside { file, size_bytes, is_damaged: row.get(3)? });
                }
            }
            Ok(all)
        })
        .await
    }

    /// Such a file is right: it is the blob's again, if that has no other one meanwhile. Whether it is: if not, it has no row
    /// any more, and is to be removed.
    pub(crate) async fn take_back(&self, aside: Aside) -> Result<bool, Refusal> {
        self.change(Durability::Power, move |connection| {
            let (digest, upload) = (aside.file.digest.as_str(), aside.file.upload.as_str());
            let taken = connection
                .prepare_cached("UPDATE blobs SET upload = ?2, size_bytes = ?3 WHERE digest = ?1 AND upload IS NULL")?
                .execute(params![digest, upload, signed(aside.size_bytes)])?;
            connection
                .prepare_cached("DELETE FROM aside WHERE digest = ?1 AND upload = ?2")?
                .execute([digest, upload])?;
            Ok(taken > 0)
        })
        .await
    }

    /// Such files are not there. Those are forgotten whose blobs have others, or are wanted by nobody.
    pub(crate) async fn forget_aside(&self, files: Vec<BlobFile>) -> Result<(), Refusal> {
        self.change(Durability::Power, move |connection| {
            let mut forget = connection.prepare_cached(
                "DELETE FROM aside WHERE digest = ?1 AND upload = ?2
                 AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = ?1 AND b.upload IS NULL)",
            )?;
            for file in files {
                forget.execute([file.digest.as_str(), file.upload.as_str()])?;
            }
            Ok(())
        })
        .await
    }
}

/// A row of `id, digest, upload, size_bytes`.
fn due(row: &Row<'_>) -> Result<Option<Due>, Refusal> {
    // It was checked when it was written.
    let Ok(digest) = row.get::<_, String>(1)?.parse::<Digest>() else { return Ok(None) };
    let file = BlobFile { digest, upload: upload_id(row, 2)? };
    Ok(Some(Due { row: row.get(0)?, file, size_bytes: row.get::<_, i64>(3)?.unsigned_abs() }))
}

/// Tags, or manifests that have none.
fn named_by(connection: &Connection, digest: &str) -> Result<Vec<String>, Refusal> {
    let mut query = connection.prepare_cached(
        "SELECT r.name || coalesce(':' || (SELECT min(t.name) FROM tags t WHERE t.manifest = m.id), '@' || m.digest)
         FROM blobs b JOIN manifest_blobs n ON n.blob = b.id JOIN manifests m ON m.id = n.manifest
         JOIN repositories r ON r.id = m.repository WHERE b.digest = ?1 ORDER BY 1 LIMIT ?2",
    )?;
    let names = query.query_map(params![digest, MOST_NAMED], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}
