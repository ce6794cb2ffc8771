//! What is printed: `state`, `list`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::state::{Directory, Record, Status};
use crate::error::{Context, RuntimeError};

pub(super) fn print_state(directory: &Directory) -> Result<(), RuntimeError> {
    let record = directory.read()?;
    print(&State::of(&record, directory.root()))
}

pub(super) fn list(root: &Path, quiet: bool, format: &str) -> Result<(), RuntimeError> {
    let records = records(root)?;
    let mut out = io::stdout();
    let context = || "write to standard output".to_owned();
    match (quiet, format) {
        (true, _) => records.iter().try_for_each(|record| writeln!(out, "{}", record.id)).context(context),
        (_, "json") => {
            let states: Vec<State> = records.iter().map(|record| State::of(record, root)).collect();
            let text = serde_json::to_string(&states).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
            writeln!(out, "{text}").context(context)
        }
        (_, "table") => {
            let states = records.iter().map(|record| State::of(record, root));
            let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
            let rows: Vec<[String; 6]> = std::iter::once(head).chain(states.map(State::row)).collect();
            let widths: Vec<usize> =
                (0..6).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(9) + 3).collect();
            for row in &rows {
                let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
                writeln!(out, "{}", cells.collect::<String>().trim_end()).context(context)?;
            }
            Ok(())
        }
        (_, other) => Err(RuntimeError::Invalid(format!("invalid format {other:?}: want table or json"))),
    }
}

/// What is known of every container, by id. One that is just being made or removed is left out.
pub(super) fn records(root: &Path) -> Result<Vec<Record>, RuntimeError> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(|| format!("read {}", root.display()))?,
    };
    let ids = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut records: Vec<Record> =
        ids.flat_map(|id| Directory::of(root, &id).and_then(|directory| directory.read())).collect();
    records.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(records)
}

/// runtime.md, "State", and what runc adds to it: in its order, since scripts match the text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'static str,
    id: &'a str,
    pid: i32,
    status: Status,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: &'a Option<HashMap<String, String>>,
    /// A name, or `#` and a number.
    owner: String,
}

impl<'a> State<'a> {
    fn of(record: &'a Record, root: &Path) -> Self {
        let status = record.status();
        let uid = fs::metadata(root.join(&record.id)).map_or(0, |metadata| metadata.uid());
        Self {
            oci_version: super::SPEC_VERSION,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            // The runtime needs root, and others' names would have to be looked up.
            owner: if uid == 0 { "root".to_owned() } else { format!("#{uid}") },
        }
    }

    fn row(self) -> [String; 6] {
        let status = format!("{:?}", self.status).to_lowercase();
        let bundle = self.bundle.display().to_string();
        [self.id.to_owned(), self.pid.to_string(), status, bundle, self.created.to_owned(), self.owner]
    }
}

pub(super) fn print(value: &impl Serialize) -> Result<(), RuntimeError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    writeln!(io::stdout(), "{text}").context(|| "write to standard output".to_owned())
}
