//! Which rows have changed, and how they are written again elsewhere: a list of keys that triggers keep, in the very
//! transaction that changes a row, whoever wrote it.
//!
//! A change is the row's key and what the row is now, or that it is no more. So many changes in their order give the rows
//! that were there at the last of them, however often some are written again.

use std::collections::{BTreeMap, BTreeSet};

use dozen_ledger::rusqlite::types::{Value as Cell, ValueRef};
use dozen_ledger::rusqlite::{Connection, OptionalExtension, Result, Row, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tables of this machine alone: open uploads are files here, and how far a scrub has come is worth no request to the store.
const LOCAL: [&str; 4] = ["uploads", "scrub", "changed", "journal_state"];

/// When something was last asked for: worth no request to the store. After a restoration it was just now, so that nothing
/// goes because of a time that was lost.
const TIMES: [&str; 2] = ["seen_at", "pulled_at"];

/// What an entry says nothing of whose writer did not have these columns yet. As with the migration that adds them (`schema`),
/// that was just now: at the beginning of time, rules of retention would take it.
const LATER_TIMES: [&str; 3] = ["named_at", "pulled_at", "pushed_at"];

/// A row, by its primary key, and what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Change {
    pub(in crate::store) table: String,
    pub(in crate::store) key: Vec<Value>,
    /// Column by column; `None`: there is no such row any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) row: Option<BTreeMap<String, Value>>,
}

/// What has changed and is in no journal yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) changes: Vec<Change>,
    /// The last entry of the list of keys that they stand for.
    pub(super) through: i64,
}

/// Has the database remember which rows change from now on.
pub(super) fn watch(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS changed (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL,
             key TEXT NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS journal_state (next INTEGER NOT NULL, last TEXT NOT NULL, fences TEXT NOT NULL)
             STRICT;",
    )?;
    for table in tables(connection)? {
        let keys = keys(connection, &table)?;
        let mut watched = columns_of(connection, &table)?;
        watched.retain(|column| !TIMES.contains(&column.as_str()));
        for (event, row) in [("INSERT", "NEW"), ("UPDATE", "OLD"), ("UPDATE", "NEW"), ("DELETE", "OLD")] {
            let name = format!("changed_{table}_{event}_{row}");
            connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {name}"))?;
            let event = if event == "UPDATE" { format!("UPDATE OF {}", watched.join(", ")) } else { event.to_owned() };
            let key: Vec<_> = keys.iter().map(|key| format!("{row}.{key}")).collect();
            connection.execute_batch(&format!(
                "CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN
                     INSERT INTO changed (source, key) VALUES ('{table}', json_array({}));
                 END",
                key.join(", ")
            ))?;
        }
    }
    Ok(())
}

/// What has changed since the list was last cut, as it is now; `None` if nothing has.
pub(super) fn pending(connection: &Connection) -> Result<Option<Pending>> {
    let through: Option<i64> = connection.query_row("SELECT max(id) FROM changed", [], |row| row.get(0))?;
    let Some(through) = through else { return Ok(None) };
    let mut query = connection.prepare_cached("SELECT DISTINCT source, key FROM changed")?;
    let listed = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut changes = Vec::new();
    for listed in listed {
        let (table, key) = listed?;
        let key: Vec<Value> = serde_json::from_str(&key).map_err(|error| odd(&error.to_string()))?;
        let names = keys(connection, &table)?;
        let mut query = connection.prepare_cached(&format!("SELECT * FROM {table} WHERE {}", is_key(&names)))?;
        let cells = key.iter().map(cell).collect::<Result<Vec<_>>>()?;
        let row = query.query_row(params_from_iter(cells), columns).optional()?;
        changes.push(Change { table, key, row });
    }
    Ok(Some(Pending { changes, through }))
}

/// All rows there are, each as a change.
pub(super) fn all(connection: &Connection, mut each: impl FnMut(Change) -> Result<()>) -> Result<()> {
    for table in tables(connection)? {
        let names = keys(connection, &table)?;
        let mut query = connection.prepare(&format!("SELECT * FROM {table}"))?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let row = columns(row)?;
            let key = names.iter().map(|name| row.get(name).cloned().unwrap_or_default()).collect();
            each(Change { table: table.clone(), key, row: Some(row) })?;
        }
    }
    Ok(())
}

/// Writes rows as they were elsewhere. Foreign keys have to be off: what belongs together comes one after the other.
pub(super) fn apply(connection: &Connection, changes: &[Change], now: i64) -> Result<()> {
    let known: BTreeSet<_> = tables(connection)?.into_iter().collect();
    // First all that was there: a row may have what another one had.
    for change in changes {
        if !known.contains(&change.table) {
            return Err(odd(&format!("there is no table {:?}", change.table)));
        }
        let names = keys(connection, &change.table)?;
        if names.len() != change.key.len() {
            return Err(odd(&format!("a key of {:?} has {} parts", change.table, change.key.len())));
        }
        let cells = change.key.iter().map(cell).collect::<Result<Vec<_>>>()?;
        let mut delete =
            connection.prepare_cached(&format!("DELETE FROM {} WHERE {}", change.table, is_key(&names)))?;
        delete.execute(params_from_iter(cells))?;
    }
    for change in changes {
        let Some(row) = &change.row else { continue };
        let columns = columns_of(connection, &change.table)?;
        if let Some(strange) = row.keys().find(|name| !columns.contains(*name)) {
            return Err(odd(&format!("{:?} has no column {strange:?}", change.table)));
        }
        let is_missing = |name: &&str| columns.iter().any(|known| known == name) && !row.contains_key(*name);
        let missing: Vec<_> = LATER_TIMES.into_iter().filter(is_missing).collect();
        let names: Vec<_> = row.keys().map(String::as_str).chain(missing.iter().copied()).collect();
        let marks: Vec<_> = (1..=names.len()).map(|at| format!("?{at}")).collect();
        let cells = row.iter().map(|(name, value)| match name.as_str() {
            name if TIMES.contains(&name) => Ok(Cell::Integer(now)),
            _ => cell(value),
        });
        let cells = cells.chain(missing.iter().map(|_| Ok(Cell::Integer(now)))).collect::<Result<Vec<_>>>()?;
        let text = format!("INSERT INTO {} ({}) VALUES ({})", change.table, names.join(", "), marks.join(", "));
        connection.prepare_cached(&text)?.execute(params_from_iter(cells))?;
    }
    Ok(())
}

/// Those that every server of this store has.
fn tables(connection: &Connection) -> Result<Vec<String>> {
    let mut query = connection.prepare_cached("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")?;
    let names = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>>>()?;
    let is_shared = |name: &String| !name.starts_with("sqlite_") && !LOCAL.contains(&name.as_str());
    Ok(names.into_iter().filter(is_shared).collect())
}

/// The columns of a primary key, in their order. Every table has one.
fn keys(connection: &Connection, table: &str) -> Result<Vec<String>> {
    let mut query = connection.prepare_cached("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let names = query.query_map([table], |row| row.get(0))?.collect::<Result<Vec<String>>>()?;
    if names.is_empty() { Err(odd(&format!("the table {table:?} has no primary key"))) } else { Ok(names) }
}

fn columns_of(connection: &Connection, table: &str) -> Result<Vec<String>> {
    let mut query = connection.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
    query.query_map([table], |row| row.get(0))?.collect()
}

fn is_key(names: &[String]) -> String {
    let terms: Vec<_> = names.iter().enumerate().map(|(at, name)| format!("{name} = ?{}", at + 1)).collect();
    terms.join(" AND ")
}

fn columns(row: &Row<'_>) -> Result<BTreeMap<String, Value>> {
    let names: Vec<String> = row.as_ref().column_names().map(str::to_owned).collect();
    names.into_iter().enumerate().map(|(at, name)| Ok((name, value(row.get_ref(at)?)?))).collect()
}

/// A cell as JSON has it: a blob is an object, for JSON has none.
fn value(cell: ValueRef<'_>) -> Result<Value> {
    Ok(match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(_) => return Err(odd("numbers are whole")),
        ValueRef::Text(text) => std::str::from_utf8(text)?.into(),
        ValueRef::Blob(bytes) => serde_json::json!({ "base64": dozen_model::base64::encode(bytes) }),
    })
}

fn cell(value: &Value) -> Result<Cell> {
    let bytes = || dozen_model::base64::decode(value.get("base64")?.as_str()?);
    match value {
        Value::Null => Ok(Cell::Null),
        Value::Number(number) => number.as_i64().map(Cell::Integer).ok_or_else(|| odd("numbers are whole")),
        Value::String(text) => Ok(Cell::Text(text.clone())),
        _ => bytes().map(Cell::Blob).ok_or_else(|| odd("this is no cell")),
    }
}

fn odd(words: &str) -> dozen_ledger::rusqlite::Error {
    dozen_ledger::rusqlite::Error::ToSqlConversionFailure(words.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::MIGRATIONS;

    fn watched() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|migration| connection.execute_batch(migration.0).unwrap());
        watch(&connection).unwrap();
        connection
    }

    /// What `pending` has, whose list is cut then.
    fn taken(connection: &Connection) -> Vec<Change> {
        let pending = pending(connection).unwrap();
        connection.execute("DELETE FROM changed", []).unwrap();
        pending.map_or_else(Vec::new, |pending| pending.changes)
    }

    /// Who only pulls writes nothing to the store; and where the disk was lost, nothing goes because nobody knows of it.
    #[test]
    fn a_pull_is_no_change_and_what_is_restored_was_pulled_just_now() {
        let here = watched();
        here.execute_batch(
            "INSERT INTO repositories (id, name) VALUES (1, 'web');
             INSERT INTO manifests (id, repository, digest, media_type, size_bytes, annotations, content, named_at, pulled_at)
             VALUES (1, 1, 'sha256:1', 'm', 1, '', x'00ff', 5, 5);",
        )
        .unwrap();
        let made = taken(&here);
        assert_eq!(made.len(), 2);
        here.execute("UPDATE manifests SET pulled_at = 9", []).unwrap();
        assert_eq!(taken(&here), []);
        here.execute("UPDATE manifests SET named_at = 7", []).unwrap();
        let renamed = taken(&here);
        assert_eq!(renamed.len(), 1);
        let there = watched();
        for changes in [made, renamed] {
            apply(&there, &changes, 1000).unwrap();
        }
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let restored: (i64, i64, Vec<u8>) =
            there.query_row("SELECT named_at, pulled_at, content FROM manifests", [], row).unwrap();
        assert_eq!(restored, (7, 1000, vec![0, 255]));
    }
    /// An entry from before there were times for retention; what is newer says them itself.
    #[test]
    fn what_an_older_server_has_written_was_named_just_now() {
        let row = |columns: &[(&str, Value)]| {
            Some(columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
        };
        let change = |table: &str, key: Vec<Value>, row| Change { table: table.to_owned(), key, row };
        let manifest = |id: i64, digest: &str, times: &[(&str, Value)]| {
            let own = [("id", id.into()), ("digest", digest.into())];
            let rest = [("repository", 1.into()), ("media_type", "m".into()), ("size_bytes", 1.into())];
            let text = [("annotations", "".into()), ("content", serde_json::json!({ "base64": "" }))];
            change("manifests", vec![id.into()], row(&[&own[..], &rest, &text, times].concat()))
        };
        let tag = [("repository", Value::from(1)), ("name", "a".into()), ("manifest", 1.into())];
        let changes = [
            change("repositories", vec![1.into()], row(&[("id", 1.into()), ("name", "web".into())])),
            manifest(1, "sha256:1", &[]),
            manifest(2, "sha256:2", &[("named_at", 7.into()), ("pulled_at", 8.into())]),
            change("tags", vec![1.into(), "a".into()], row(&tag)),
        ];
        let there = watched();
        apply(&there, &changes, 1000).unwrap();
        let times =
            |query: &str| -> (i64, i64) { there.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap() };
        assert_eq!(times("SELECT named_at, pulled_at FROM manifests WHERE id = 1"), (1000, 1000));
        assert_eq!(times("SELECT named_at, pulled_at FROM manifests WHERE id = 2"), (7, 1000));
        assert_eq!(times("SELECT pushed_at, pushed_at FROM tags"), (1000, 1000));
    }
}
