//! Rows of open uploads, so that the next server goes on with them.

use dozen_ledger::Durability;
use dozen_ledger::rusqlite::params;

use super::{Index, upload_id};
use crate::hasher::Algorithm;
use crate::name::{RepositoryName, UploadId};
use crate::refusal::Refusal;

/// An open upload. How far it is, its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadRow {
    pub(crate) id: UploadId,
    pub(crate) repository: RepositoryName,
    pub(crate) algorithm: Algorithm,
    /// Of the machine when it was begun. Nothing of it is synced before its end.
    pub(crate) boot: Option<String>,
}

impl Index {
    pub(crate) async fn record_upload(&self, row: UploadRow) -> Result<(), Refusal> {
        self.change(Durability::Kill, move |connection| {
            let algorithm = if row.algorithm == Algorithm::Sha512 { "sha512" } else { "sha256" };
            connection
                .prepare_cached("INSERT INTO uploads (id, repository, algorithm, boot) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![row.id.as_str(), row.repository.as_str(), algorithm, row.boot])?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn forget_upload(&self, id: &UploadId) -> Result<(), Refusal> {
        let id = id.clone();
        self.change(Durability::Kill, move |connection| {
            connection.prepare_cached("DELETE FROM uploads WHERE id = ?1")?.execute([id.as_str()])?;
            Ok(())
        })
        .await
    }

    /// All of them.
    pub(crate) async fn uploads(&self) -> Result<Vec<UploadRow>, Refusal> {
        self.read(|connection| {
            let mut query = connection.prepare("SELECT id, repository, algorithm, boot FROM uploads")?;
            let rows = query.query_map([], |row| {
                Ok((upload_id(row, 0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get(3)?))
            })?;
            let mut all = Vec::new();
            for row in rows {
                let (id, repository, algorithm, boot) = row?;
                // Both were checked when they were written.
                if let (Ok(repository), Some(algorithm)) = (repository.parse(), Algorithm::parse(&algorithm)) {
                    all.push(UploadRow { id, repository, algorithm, boot });
                }
            }
            Ok(all)
        })
        .await
    }
}
