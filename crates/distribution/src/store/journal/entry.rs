//! How entries and snapshots are written: lines of JSON, first who has written it and when, then a change each.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use dozen_ledger::rusqlite::Connection;
use serde::{Deserialize, Serialize};

pub(in crate::store) use super::capture::Change;
use super::{Position, capture, fresh_name};
use crate::refusal::Refusal;
use crate::store::index::now;
use crate::store::schema::MIGRATIONS;

/// The only one so far.
const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Header {
    format: u32,
    /// The version of the tables.
    schema: usize,
    /// The entry's own name; a snapshot has that of the last entry in it.
    pub(in crate::store) id: String,
    /// The directory whose server has written it.
    pub(in crate::store) owner: String,
    /// For people: on which machine.
    pub(in crate::store) host: String,
    /// Seconds since 1970.
    pub(in crate::store) at: i64,
    /// A server has begun with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::store) opens: bool,
    /// A server has ended in order with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::store) closes: bool,
    /// Of a snapshot: numbers at which servers have begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::store) fences: Vec<u64>,
}

impl Header {
    pub(in crate::store) fn new(owner: &str, closes: bool) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (schema, id) = (MIGRATIONS.len(), fresh_name());
        Self {
            format: FORMAT,
            schema,
            id,
            owner: owner.to_owned(),
            host,
            at: now(),
            opens: false,
            closes,
            fences: vec![],
        }
    }

    pub(in crate::store) fn opening(owner: &str) -> Self {
        Self { opens: true, ..Self::new(owner, false) }
    }

    pub(in crate::store) fn of_snapshot(owner: &str, position: &Position, closes: bool) -> Self {
        Self { id: position.last.clone(), fences: position.fences.clone(), ..Self::new(owner, closes) }
    }

    /// Whether this program can read it: in words why not.
    pub(in crate::store) fn check(&self) -> Result<(), String> {
        if self.format == FORMAT && self.schema <= MIGRATIONS.len() {
            return Ok(());
        }
        Err("a newer dozen has written it: run that one, or a newer one; going back is not supported".into())
    }
}

/// An entry as it is put.
pub(in crate::store) fn write_entry(header: &Header, changes: &[Change]) -> Vec<u8> {
    let mut content = line(header);
    for change in changes {
        content.extend(line(change));
    }
    content
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("texts and numbers can be written as JSON");
    line.push(b'\n');
    line
}

/// Who has written this; `None`: nobody of ours.
pub(in crate::store) fn read_header(content: &[u8]) -> Option<Header> {
    serde_json::from_slice(content.split(|byte| *byte == b'\n').next()?).ok()
}

/// All of an entry.
pub(in crate::store) fn read_entry(content: &[u8]) -> Option<(Header, Vec<Change>)> {
    // The last line is whole, too.
    let mut lines = content.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
    let header = serde_json::from_slice(lines.next()?).ok()?;
    let changes = lines.map(serde_json::from_slice).collect::<Result<_, _>>().ok()?;
    Some((header, changes))
}

/// Writes all rows to a file: how long it is.
pub(in crate::store) fn write_snapshot(connection: &Connection, header: &Header, path: &Path) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&line(header))?;
    let mut failed = None;
    let walked = capture::all(connection, |change| {
        if failed.is_none() {
            failed = file.write_all(&line(&change)).err();
        }
        Ok(())
    });
    walked.map_err(io::Error::other)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(file.into_inner().map_err(io::IntoInnerError::into_error)?.metadata()?.len()),
    }
}

/// What cannot be read of what lies in the bucket.
pub(in crate::store) fn damaged(name: &str, why: &str) -> Refusal {
    tracing::error!("cannot read {name}: {why}");
    Refusal::new(crate::refusal::Kind::Internal, format!("cannot read {name}: {why}"))
}
