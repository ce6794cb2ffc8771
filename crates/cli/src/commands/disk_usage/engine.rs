//! What lies on the disk that Docker says nothing of: with it, the sizes are together what du(1) says of the data root. Engines
//! of ours tell it.

use serde::Deserialize;

use super::{Container, line};
use crate::output::listing::Layout;
use crate::output::{short_id, size};
use crate::template::Row;

/// By what it is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct EngineUsage {
    logs: Vec<Log>,
    unfinished: Vec<Place>,
    ledger: Size,
    records: Size,
    unowned: Vec<Place>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Log {
    container: String,
    size: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Place {
    /// Below the data root.
    path: String,
    size: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Size {
    size: i64,
}

pub(super) const LAYOUT: Layout = Layout {
    table: "{{.Type}}\t{{.Name}}\t{{.Size}}",
    quiet: "Name",
    headings: &[("Type", "TYPE"), ("Name", "NAME"), ("Size", "SIZE")],
};

impl EngineUsage {
    /// Of the summary.
    pub(super) fn lines(&self, running: &[&&Container]) -> Vec<Row> {
        let size = |places: &[Place]| places.iter().map(|place| place.size).sum::<i64>();
        let is_active = |log: &&Log| running.iter().any(|container| container.id == log.container);
        let active = self.logs.iter().filter(is_active).count();
        let all: i64 = self.logs.iter().map(|log| log.size).sum();
        let of_running: i64 = self.logs.iter().filter(is_active).map(|log| log.size).sum();
        let records = self.ledger.size + self.records.size;
        let unfinished = self.unfinished.len();
        let mut lines = vec![
            // They go with their containers.
            line("Container Logs", self.logs.len(), active, all, all - of_running),
            line("Unfinished", unfinished, unfinished, size(&self.unfinished), 0),
            line("Engine Records", 1, 1, records, 0),
        ];
        if !self.unowned.is_empty() {
            let size = size(&self.unowned);
            lines.push(line("Unowned", self.unowned.len(), 0, size, size));
        }
        lines
    }

    /// Each thing that they count.
    pub(super) fn places<'a>(&self, containers: impl Iterator<Item = &'a Container> + Clone) -> Vec<Row> {
        let row = |kind: &str, name: String, size: i64| Row {
            columns: vec![("Type", kind.to_owned()), ("Name", name), ("Size", size::human(size))],
            labels: None,
        };
        let name = |id: &str| {
            let container = containers.clone().find(|container| container.id == id);
            let name = container.and_then(|container| container.names.first());
            name.map_or(short_id(id).to_owned(), |name| name.trim_start_matches('/').to_owned())
        };
        let mut rows: Vec<Row> =
            self.logs.iter().map(|log| row("container log", name(&log.container), log.size)).collect();
        rows.extend(self.unfinished.iter().map(|place| row("unfinished", place.path.clone(), place.size)));
        rows.extend(self.unowned.iter().map(|place| row("unowned", place.path.clone(), place.size)));
        rows.push(row("ledger", "state.db".to_owned(), self.ledger.size));
        rows.push(row("records", "directories, and what is kept of containers".to_owned(), self.records.size));
        rows
    }
}
