//! What the ledger knows of cache mounts.

use dozen_ledger::rusqlite::{Connection, OptionalExtension, params};
use dozen_ledger::{Durability, Ledger, LedgerError, Migration};

use super::Place;

/// The directories, by the names that they were asked for by.
pub(crate) const MIGRATION: Migration = Migration(
    "
CREATE TABLE cache_mount (
    name              TEXT NOT NULL,          -- as Dockerfiles have it: the id, or the target
    number            INTEGER NOT NULL,       -- 0; more for builds that want one of their own at the same time
    directory         TEXT NOT NULL UNIQUE,   -- its name below cache-mounts/
    created_s         INTEGER NOT NULL,
    last_used_s       INTEGER NOT NULL,
    PRIMARY KEY (name, number)
) STRICT;
",
);

/// How often steps of builds have had it.
pub(crate) const USES: Migration = Migration("ALTER TABLE cache_mount ADD COLUMN uses INTEGER NOT NULL DEFAULT 0");

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheRow {
    pub(crate) place: Place,
    pub(crate) directory: String,
    pub(crate) created_s: i64,
    pub(crate) last_used_s: i64,
    pub(crate) uses: u64,
}

/// All of them, by name.
pub(crate) fn all(ledger: &Ledger) -> Result<Vec<CacheRow>, LedgerError> {
    ledger.read(|connection| {
        let mut statement = connection.prepare(
            "SELECT name, number, directory, created_s, last_used_s, uses FROM cache_mount ORDER BY name, number",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(CacheRow {
                place: Place { name: row.get(0)?, number: row.get(1)? },
                directory: row.get(2)?,
                created_s: row.get(3)?,
                last_used_s: row.get(4)?,
                uses: row.get::<_, i64>(5)?.max(0).unsigned_abs(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
}

/// A step is about to have it: the directory's name, which is `fresh` if there was none.
pub(super) fn used(ledger: &Ledger, place: &Place, fresh: String, now_s: i64) -> Result<String, LedgerError> {
    let Place { name, number } = place.clone();
    ledger.write(Durability::Kill, move |connection| {
        let known = connection
            .query_row(
                "UPDATE cache_mount SET last_used_s = ?3, uses = uses + 1 WHERE name = ?1 AND number = ?2
                     RETURNING directory",
                params![name, number, now_s],
                |row| row.get::<_, String>(0),
            )
            .optional()?;
        if let Some(directory) = known {
            return Ok(directory);
        }
        insert(connection, &name, number, &fresh, now_s, 1)?;
        Ok(fresh)
    })
}

fn insert(
    connection: &Connection,
    name: &str,
    number: u32,
    directory: &str,
    now_s: i64,
    uses: u32,
) -> Result<(), LedgerError> {
    connection.execute(
        "INSERT INTO cache_mount (name, number, directory, created_s, last_used_s, uses) VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
        params![name, number, directory, now_s, uses],
    )?;
    Ok(())
}

/// It has this directory from now on. Power-safe: whoever filled it is told that it is there.
pub(super) fn place(ledger: &Ledger, place: &Place, directory: String, now_s: i64) -> Result<(), LedgerError> {
    let Place { name, number } = place.clone();
    ledger.write(Durability::Power, move |connection| {
        connection.execute("DELETE FROM cache_mount WHERE name = ?1 AND number = ?2", params![name, number])?;
        insert(connection, &name, number, &directory, now_s, 0)
    })
}

/// Forgets those with these directories: by now others may have their names. Power-safe: what is deleted next must not come
/// back by half.
pub(super) fn delete(ledger: &Ledger, directories: Vec<String>) -> Result<(), LedgerError> {
    ledger.write_essential(Durability::Power, move |connection| {
        let mut statement = connection.prepare("DELETE FROM cache_mount WHERE directory = ?1")?;
        directories.iter().try_for_each(|directory| statement.execute([directory]).map(drop))?;
        Ok(())
    })
}
