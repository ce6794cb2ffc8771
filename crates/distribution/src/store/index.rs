//! The rows of a store: which repository has which blobs, manifests and tags, and what names what. Reference counts are
//! these rows: what nothing names is a query.
//!
//! All changes are transactions of one thread (`crates/ledger`), one after the other.

mod browse;
mod collect;
mod manifests;
mod retention;
mod scrub;
mod uploads;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use dozen_ledger::rusqlite::Error::QueryReturnedNoRows;
use dozen_ledger::rusqlite::{Connection, OptionalExtension, Row, params};
use dozen_ledger::{Durability, Ledger, LedgerError};
use dozen_model::Digest;

use crate::name::{RepositoryName, UploadId};
use crate::refusal::{Kind, Refusal};
use crate::store::blocking;
use crate::store::bucket::Bucket;
use crate::store::directory::BlobFile;
use crate::store::journal::{self, Journal, Position};
use crate::store::schema::MIGRATIONS;

pub(crate) use browse::{DescribedManifest, TagSummary};
pub(crate) use manifests::{PutManifest, Referrer, StoredManifest};
pub use retention::Released;
pub(crate) use scrub::{Aside, Due, Round};
pub(crate) use uploads::UploadRow;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    ledger: Ledger,
    /// Of a store whose data lies in a bucket.
    journal: Option<Journal>,
}

/// A blob as a repository has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredBlob {
    pub(crate) file: BlobFile,
    pub(crate) size_bytes: u64,
}

/// What became of a blob that has been placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// The file is the blob's from now on.
    New,
    /// The store had it: the file that has just been placed is one too many.
    Known,
}

impl Index {
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self { ledger: Ledger::open(path, &MIGRATIONS)?, journal: None })
    }

    /// From now on nothing that lasts is answered before it is in the journal, too.
    pub(super) async fn with_journal(mut self, journal: Journal, position: &Position) -> Result<Self, Refusal> {
        let position = position.clone();
        self.change(Durability::Kill, move |connection| journal::begin(connection, &position)).await?;
        self.journal = Some(journal);
        Ok(self)
    }

    pub(crate) fn journal(&self) -> Option<(&Journal, &Ledger)> {
        self.journal.as_ref().map(|journal| (journal, &self.ledger))
    }

    /// Puts all its rows into a bucket.
    pub(super) async fn put_snapshot(
        &self,
        bucket: &Arc<dyn Bucket>,
        position: &Position,
        header: journal::Header,
        scratch: &Path,
    ) -> Result<(), Refusal> {
        let (file, length) = journal::snapshot_file(&self.ledger, header, scratch).await?;
        journal::put_snapshot(bucket, position, file, length).await
    }

    /// As far as this index has been written to its journal; `None`: it has none.
    pub(super) async fn position(&self) -> Result<Option<Position>, Refusal> {
        self.read(journal::read_position).await
    }

    /// A transaction. It is carried out even if nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        durability: Durability,
        change: impl FnOnce(&Connection) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let journal = self.journal().filter(|_| durability == Durability::Power);
        if let Some((journal, ledger)) = journal {
            journal.settle(ledger).await?;
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.ledger.submit(durability, change, move |result| drop(answer.send(result)));
        let changed = answered.await.unwrap_or_else(|_| Err(LedgerError::Closed.into()))?;
        if let Some((journal, ledger)) = journal {
            journal.ship(ledger).await?;
        }
        Ok(changed)
    }

    /// A change after which less is kept: on a full disk it takes the space in reserve, for it is the way out. It may run
    /// more than once.
    async fn free<T: Send + 'static>(
        &self,
        change: impl Fn(&Connection) -> Result<T, Refusal> + Clone + Send + 'static,
    ) -> Result<T, Refusal> {
        if let Some((journal, ledger)) = self.journal() {
            journal.settle(ledger).await?;
        }
        let ledger = self.ledger.clone();
        let freed = blocking(move || {
            let refused = Arc::new(Mutex::new(None));
            let told = refused.clone();
            let freed = ledger.write_essential(Durability::Power, move |connection| {
                change(connection).map_err(|refusal| {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
                    // Takes back what was changed; what is said is the refusal.
                    LedgerError::Statement(QueryReturnedNoRows)
                })
            });
            let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            freed.map_err(|error| match (&error, refused) {
                (LedgerError::Statement(QueryReturnedNoRows), Some(refusal)) => refusal,
                _ => error.into(),
            })
        })
        .await?;
        if let Some((journal, ledger)) = self.journal() {
            journal.ship(ledger).await?;
        }
        Ok(freed)
    }

    /// Sees all that was written before. What it changes itself survives the process, not the machine.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.change(Durability::Kill, query).await
    }

    /// A blob, if the repository has it and its file is there. `renew_before`: one that was last seen before this is seen
    /// now, so that the collector leaves it to who will name it.
    pub(crate) async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        renew_before: Option<i64>,
    ) -> Result<StoredBlob, Refusal> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.read(move |connection| {
            let held = held_blob(connection, &repository, &digest)?.ok_or_else(|| blob_unknown(&digest))?;
            if renew_before.is_some_and(|before| held.seen_at < before) {
                see(connection, held.repository, held.blob)?;
            }
            Ok(held.stored)
        })
        .await
    }

    /// A blob that was placed: the repository has it from now on. Durable.
    pub(crate) async fn record_blob(
        &self,
        repository: &RepositoryName,
        blob: StoredBlob,
        quota_bytes: Option<u64>,
    ) -> Result<Recorded, Refusal> {
        let repository = repository.clone();
        self.change(Durability::Power, move |connection| {
            let digest = &blob.file.digest;
            let size = signed(blob.size_bytes);
            // A blob whose file is lost, or has not come until now, gets this one. How long it was said to be was a word.
            let inserted = connection.prepare_cached(
                "INSERT INTO blobs (digest, size_bytes, upload) VALUES (?1, ?2, ?3)
                 ON CONFLICT (digest) DO UPDATE SET upload = excluded.upload, size_bytes = excluded.size_bytes
                 WHERE blobs.upload IS NULL",
            )?;
            let mut inserted = inserted;
            let is_new = inserted.execute(params![digest.as_str(), size, blob.file.upload.as_str()])? > 0;
            let id =
                connection.query_row("SELECT id FROM blobs WHERE digest = ?1", [digest.as_str()], |row| row.get(0))?;
            give(connection, &repository, id, blob.size_bytes, quota_bytes)?;
            connection.execute("DELETE FROM uploads WHERE id = ?1", [blob.file.upload.as_str()])?;
            Ok(if is_new { Recorded::New } else { Recorded::Known })
        })
        .await
    }

    /// Lets a repository have a blob of another one; of any, if `from` is not said. Whether there was one.
    pub(crate) async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
        quota_bytes: Option<u64>,
    ) -> Result<bool, Refusal> {
        let (repository, digest, from) = (repository.clone(), digest.clone(), from.cloned());
        self.change(Durability::Power, move |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT b.id, b.size_bytes FROM blobs b
                     JOIN repository_blobs h ON h.blob = b.id JOIN repositories r ON r.id = h.repository
                     WHERE b.digest = ?1 AND b.upload IS NOT NULL AND (?2 IS NULL OR r.name = ?2) LIMIT 1",
                )?
                .query_row(params![digest.as_str(), from.as_ref().map(RepositoryName::as_str)], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })
                .optional()?;
            let Some((blob, size)) = found else { return Ok(false) };
            give(connection, &repository, blob, size.unsigned_abs(), quota_bytes)?;
            Ok(true)
        })
        .await
    }

    /// The repository does not have the blob any more. One that its manifests name stays.
    pub(crate) async fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), Refusal> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.free(move |connection| {
            let held = held_blob(connection, &repository, &digest)?.ok_or_else(|| blob_unknown(&digest))?;
            let named: bool = connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM manifest_blobs WHERE blob = ?1 AND repository = ?2)")?
                .query_row([held.blob, held.repository], |row| row.get(0))?;
            if named {
                let words = format!("manifests of {repository} name {digest}: delete them first");
                return Err(Refusal::new(Kind::BlobInUse, words));
            }
            connection.execute(
                "DELETE FROM repository_blobs WHERE repository = ?1 AND blob = ?2",
                [held.repository, held.blob],
            )?;
            Ok(())
        })
        .await
    }

    /// Names of repositories that have a manifest, sorted: those after one, and so many at the most.
    pub(crate) async fn repositories(&self, after: String, limit: usize) -> Result<Vec<String>, Refusal> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT name FROM repositories r WHERE name > ?1
                 AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id) ORDER BY name LIMIT ?2",
            )?;
            let rows = rows.query_map(params![after, signed(limit as u64)], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The sizes of what a repository has, in all.
    pub(crate) async fn used_bytes(&self, repository: &RepositoryName) -> Result<u64, Refusal> {
        let repository = repository.clone();
        self.read(move |connection| match repository_id(connection, &repository)? {
            Some(id) => used_bytes(connection, id),
            None => Ok(0),
        })
        .await
    }
}

struct HeldBlob {
    repository: i64,
    blob: i64,
    seen_at: i64,
    stored: StoredBlob,
}

fn held_blob(
    connection: &Connection,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<HeldBlob>, Refusal> {
    let mut query = connection.prepare_cached(
        "SELECT h.repository, b.id, h.seen_at, b.size_bytes, b.upload FROM blobs b
         JOIN repository_blobs h ON h.blob = b.id JOIN repositories r ON r.id = h.repository
         WHERE b.digest = ?1 AND r.name = ?2 AND b.upload IS NOT NULL",
    )?;
    let held = query.query_row([digest.as_str(), repository.as_str()], |row| {
        let upload = upload_id(row, 4)?;
        let size_bytes = row.get::<_, i64>(3)?.unsigned_abs();
        let stored = StoredBlob { file: BlobFile { digest: digest.clone(), upload }, size_bytes };
        Ok(HeldBlob { repository: row.get(0)?, blob: row.get(1)?, seen_at: row.get(2)?, stored })
    });
    Ok(held.optional()?)
}

fn upload_id(row: &Row<'_>, column: usize) -> dozen_ledger::rusqlite::Result<UploadId> {
    let text: String = row.get(column)?;
    let odd = |()| dozen_ledger::rusqlite::Error::ToSqlConversionFailure(format!("the upload's id is {text:?}").into());
    text.parse().map_err(odd)
}

fn blob_unknown(digest: &Digest) -> Refusal {
    let detail = serde_json::json!({ "digest": digest.as_str() });
    Refusal::new(Kind::BlobUnknown, "blob unknown to registry").with_detail(detail)
}

fn repository_id(connection: &Connection, name: &RepositoryName) -> Result<Option<i64>, Refusal> {
    let mut query = connection.prepare_cached("SELECT id FROM repositories WHERE name = ?1")?;
    Ok(query.query_row([name.as_str()], |row| row.get(0)).optional()?)
}

/// Of one that is made if need be.
fn repository_made(connection: &Connection, name: &RepositoryName) -> Result<i64, Refusal> {
    connection
        .prepare_cached("INSERT INTO repositories (name) VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([name.as_str()])?;
    let mut query = connection.prepare_cached("SELECT id FROM repositories WHERE name = ?1")?;
    Ok(query.query_row([name.as_str()], |row| row.get(0))?)
}

/// The repository has the blob, and has seen it now.
fn give(
    connection: &Connection,
    repository: &RepositoryName,
    blob: i64,
    size_bytes: u64,
    quota_bytes: Option<u64>,
) -> Result<(), Refusal> {
    let id = repository_made(connection, repository)?;
    let is_held: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM repository_blobs WHERE repository = ?1 AND blob = ?2)")?
        .query_row([id, blob], |row| row.get(0))?;
    if !is_held {
        check_quota(connection, id, repository, size_bytes, quota_bytes)?;
    }
    see(connection, id, blob)
}

fn see(connection: &Connection, repository: i64, blob: i64) -> Result<(), Refusal> {
    connection
        .prepare_cached(
            "INSERT INTO repository_blobs (repository, blob, seen_at) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET seen_at = excluded.seen_at",
        )?
        .execute([repository, blob, now()])?;
    Ok(())
}

fn check_quota(
    connection: &Connection,
    id: i64,
    name: &RepositoryName,
    more_bytes: u64,
    quota_bytes: Option<u64>,
) -> Result<(), Refusal> {
    let Some(quota_bytes) = quota_bytes else { return Ok(()) };
    let used_bytes = used_bytes(connection, id)?;
    if used_bytes.saturating_add(more_bytes) > quota_bytes {
        return Err(quota_exceeded(name, used_bytes, quota_bytes));
    }
    Ok(())
}

pub(crate) fn quota_exceeded(name: &RepositoryName, used_bytes: u64, quota_bytes: u64) -> Refusal {
    let words = format!("{name} may have {quota_bytes} bytes and has {used_bytes}: delete something in it first");
    Refusal::new(Kind::QuotaExceeded, words)
}

fn used_bytes(connection: &Connection, repository: i64) -> Result<u64, Refusal> {
    let mut query = connection.prepare_cached(
        "SELECT (SELECT coalesce(sum(b.size_bytes), 0) FROM repository_blobs h JOIN blobs b ON b.id = h.blob
                 WHERE h.repository = ?1)
              + (SELECT coalesce(sum(size_bytes), 0) FROM manifests WHERE repository = ?1)",
    )?;
    Ok(query.query_row([repository], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

/// SQLite's integers are signed; no file is as long as the difference.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
