//! BuildKit's own documents, a line each (buildkit, client.SolveStatus): what `--progress rawjson` of buildx gives programs.

use dozen_model::{Digest, base64};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::events::Output;
use super::journal::{Journal, Record};

#[derive(Debug)]
pub(super) struct RawJson {
    began: Timestamp,
}

impl Default for RawJson {
    fn default() -> Self {
        Self { began: Timestamp::now() }
    }
}

impl RawJson {
    /// A step begins, or has ended.
    pub(super) fn vertex(&self, step: usize, record: &Record) -> String {
        json!({ "vertexes": [self.described(step, record)] }).to_string()
    }

    pub(super) fn error(&self, step: usize, message: &str, journal: &Journal) -> String {
        let Some(record) = journal.steps.get(&step) else { return String::new() };
        let mut vertex = self.described(step, record);
        vertex["completed"] = json!(Timestamp::now());
        vertex["error"] = json!(message);
        json!({ "vertexes": [vertex] }).to_string()
    }

    pub(super) fn output(&self, output: &Output, journal: &Journal) -> String {
        let Some(record) = journal.steps.get(&output.step) else { return String::new() };
        let stream = if output.stream == "stderr" { 2 } else { 1 };
        let data = base64::encode(output.text.as_bytes());
        let vertex = digest(output.step, &record.title);
        json!({ "logs": [{ "vertex": vertex, "stream": stream, "data": data, "timestamp": Timestamp::now() }] })
            .to_string()
    }

    pub(super) fn warning(&self, text: &str) -> String {
        json!({ "warnings": [{ "level": 1, "short": base64::encode(text.as_bytes()) }] }).to_string()
    }

    fn described(&self, step: usize, record: &Record) -> Value {
        let at = |time| self.began + time;
        let mut vertex = json!({
            "digest": digest(step, &record.title), "name": record.title, "started": at(record.began),
        });
        if let Some(end) = record.end {
            vertex["completed"] = json!(at(end.at));
            if end.is_cached {
                vertex["cached"] = json!(true);
            }
        }
        vertex
    }
}

/// What a step is known by in this stream, and nowhere else.
fn digest(step: usize, title: &str) -> String {
    Digest::from_sha256(Sha256::digest(format!("{step} {title}")).into()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn documents_are_buildkits() {
        let raw = RawJson { began: Timestamp::UNIX_EPOCH };
        let mut journal = Journal::default();
        journal.begin(2, "[2/2] RUN a".into(), Duration::from_secs(1));
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let begun = read(raw.vertex(2, &journal.steps[&2]));
        let vertex = &begun["vertexes"][0];
        assert_eq!((&vertex["name"], &vertex["started"]), (&json!("[2/2] RUN a"), &json!("1970-01-01T00:00:01Z")));
        assert!(vertex.get("completed").is_none());
        let output = Output { step: 2, stream: "stderr".into(), text: "é\n".into() };
        let log = &read(raw.output(&output, &journal))["logs"][0];
        assert_eq!((&log["vertex"], &log["stream"], &log["data"]), (&vertex["digest"], &json!(2), &json!("w6kK")));
        let failed = read(raw.error(2, "no", &journal));
        assert_eq!(failed["vertexes"][0]["error"], "no");
        journal.end(2, true, Duration::from_secs(3));
        let ended = &read(raw.vertex(2, &journal.steps[&2]))["vertexes"][0];
        assert_eq!((&ended["completed"], &ended["cached"]), (&json!("1970-01-01T00:00:03Z"), &json!(true)));
        assert_eq!(read(raw.warning("w"))["warnings"][0]["short"], "dw==");
    }
}
