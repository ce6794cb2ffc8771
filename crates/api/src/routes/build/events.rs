//! A build as events, a JSON document a line: what our own command line shows them from, in whatever form it was asked for.

use axum::http::{HeaderMap, header};
use dozen_engine::{BuildEvent, BuildFailure, OutputStream, StepStarted};
use serde_json::{Value, json};

use super::carried;
use super::pieces::Pieces;

/// Who accepts this gets it.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dozen.build-events.v1+json";

pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let kinds = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    kinds
        .flat_map(|kinds| kinds.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MEDIA_TYPE)))
}

#[derive(Debug, Default)]
pub(super) struct Events(Pieces);

impl Events {
    pub(super) fn tell(&mut self, event: BuildEvent, said: &mut Vec<u8>) {
        match event {
            BuildEvent::Step(step) => {
                let StepStarted { id, stage, number, count, total, text, source: _ } = step;
                write(
                    &json!({ "Step": {
                        "ID": id.0, "Stage": stage, "Number": number, "Count": count, "Total": total, "Text": text,
                    } }),
                    said,
                );
            }
            BuildEvent::Cached(step) => write(&json!({ "Cached": step.0 }), said),
            BuildEvent::Running(step, container) => {
                write(&json!({ "Running": { "Step": step.0, "Container": container.as_str() } }), said);
            }
            BuildEvent::Output(step, stream, piece) => {
                let text = self.0.read(step, stream, piece);
                output(step.0, stream, &text, said);
            }
            BuildEvent::Shell(step, container) => {
                output(step.0, OutputStream::Stdout, &self.0.rest(step), said);
                write(&json!({ "Shell": { "Step": step.0, "Container": container.as_str() } }), said);
            }
            BuildEvent::Done(step) => {
                output(step.0, OutputStream::Stdout, &self.0.rest(step), said);
                write(&json!({ "Done": step.0 }), said);
            }
            BuildEvent::WantsLayer(layer) => write(&json!({ "WantsLayer": layer }), said),
            BuildEvent::CacheReady(steps) => {
                let steps: Vec<Value> = steps.iter().map(carried::shown).collect();
                write(&json!({ "CacheReady": { "Steps": steps } }), said);
            }
            BuildEvent::Exporting(name, line) => {
                write(&json!({ "Exporting": { "Name": name, "Line": line } }), said);
            }
            BuildEvent::Warning(text) => write(&json!({ "Warning": text }), said),
            BuildEvent::Statement(file, text) => write(&json!({ "Statement": { "File": file, "Text": text } }), said),
            BuildEvent::Built(image) => write(&json!({ "Built": image.to_string() }), said),
            BuildEvent::Failed(BuildFailure { message, excerpt, hint, exit_code, step }) => write(
                &json!({ "Failed": {
                    "Message": message, "Excerpt": excerpt, "Hint": hint, "ExitCode": exit_code,
                    "Step": step.map(|step| step.0),
                } }),
                said,
            ),
        }
    }
}

fn output(step: usize, stream: OutputStream, text: &str, said: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    let stream = match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    };
    write(&json!({ "Output": { "Step": step, "Stream": stream, "Text": text } }), said);
}

fn write(line: &Value, said: &mut Vec<u8>) {
    said.extend_from_slice(line.to_string().as_bytes());
    said.push(b'\n');
}
