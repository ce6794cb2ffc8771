//! Forward migrations: the version of the schema is SQLite's `user_version`.

use std::path::Path;

use rusqlite::Connection;

use crate::LedgerError;

/// The `user_version` of a file that no dozen has touched.
pub const SCHEMA_VERSION_ORIGIN: u32 = 0;

/// One step forward: SQL statements. The n-th migration of the list leads to version n.
///
/// A migration that has been released is never edited: a later one corrects it.
#[derive(Debug, Clone, Copy)]
pub struct Migration(pub &'static str);

/// Brings the file to the newest version, all steps in one transaction.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, migrations: &[Migration]) -> Result<(), LedgerError> {
    let failed = |source| LedgerError::Open { path: path.to_owned(), source };
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = u32::try_from(migrations.len()).expect("there are few migrations");
    if found > known {
        return Err(LedgerError::Newer { path: path.to_owned(), found, known });
    }
    if found == known {
        // A full disk has no room for a version that is there already.
        return Ok(());
    }
    let transaction = connection.transaction().map_err(failed)?;
    for Migration(statements) in &migrations[found as usize..] {
        transaction.execute_batch(statements).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    transaction.commit().map_err(failed)
}
