//! How much a store has, for who watches it.

use crate::metrics::Stored;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::index::Index;

impl Index {
    /// A look at each row.
    pub(crate) async fn stored(&self) -> Result<Stored, Refusal> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT (SELECT count(*) FROM repositories), (SELECT count(*) FROM manifests),
                 (SELECT count(*) FROM tags), count(*), coalesce(sum(size_bytes), 0), (SELECT count(*) FROM aside WHERE is_damaged),
                 (SELECT count(*) FROM blobs b WHERE b.upload IS NULL AND EXISTS (
                     SELECT 1 FROM manifest_blobs n JOIN manifests m ON m.id = n.manifest
                     WHERE n.blob = b.id AND m.is_cached = 0))
                 FROM blobs WHERE upload IS NOT NULL",
            )?;
            Ok(query.query_row([], |row| {
                let number = |column| Ok::<_, dozen_ledger::rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
                Ok(Stored {
                    repositories: number(0)?,
                    manifests: number(1)?,
                    tags: number(2)?,
                    blobs: number(3)?,
                    bytes: number(4)?,
                    damaged: number(5)?,
                    lost: number(6)?,
                })
            })?)
        })
        .await
    }
}

impl Store {
    /// Uploads that are not finished.
    pub(crate) fn open_uploads(&self) -> usize {
        self.table().len()
    }
}
