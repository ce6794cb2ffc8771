//! What an engine tells of a build: a JSON document a line.

use dozen_model::Digest;
use serde::Deserialize;
use serde_json::Value;

use super::cache;

/// The request's body: a line of JSON, and the archive behind it.
pub(super) const CONTEXT_TYPE: &str = "application/vnd.dozen.build-context.v1";
/// What is asked for.
pub(super) const EVENTS_TYPE: &str = "application/vnd.dozen.build-events.v1+json";

/// The last is `Built` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) enum Event {
    Step(Step),
    Cached(usize),
    Running(Running),
    Output(Output),
    /// The step has failed, and the build waits for a shell in this container to end.
    Shell(Running),
    Done(usize),
    /// The engine wants a layer of a cache that it was told of: its diff id.
    WantsLayer(Digest),
    /// What has been done may be taken along; the build ends once that is so.
    CacheReady(Steps),
    /// The cache is on its way to a registry.
    Exporting(Exporting),
    Warning(String),
    /// A part of what is said of the image, and the file that it goes into.
    Statement(Statement),
    /// The image's id, with its algorithm.
    Built(String),
    Failed(Failed),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Steps {
    pub steps: Vec<cache::Step>,
}

/// A step that begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Step {
    /// Among all of the file, from 1.
    #[serde(rename = "ID")]
    pub id: usize,
    /// The stage's name, or its number.
    pub stage: String,
    /// In the stage, from 1.
    pub number: usize,
    /// Of the stage.
    pub count: usize,
    /// Of the build.
    pub total: usize,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Exporting {
    pub name: String,
    /// What has been done; `None`: it is there.
    #[serde(default)]
    pub line: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Running {
    pub step: usize,
    pub container: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Output {
    pub step: usize,
    /// `stdout` or `stderr`.
    pub stream: String,
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failed {
    pub message: String,
    #[serde(default)]
    pub excerpt: Option<String>,
    #[serde(default)]
    pub hint: Option<String>,
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// Which step has failed.
    #[serde(default)]
    pub step: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Statement {
    pub file: String,
    pub text: String,
}

impl Event {
    /// `None`: something that a newer engine tells.
    pub(super) fn read(line: Value) -> Option<Self> {
        serde_json::from_value(line).ok()
    }
}

impl Step {
    /// `[build 2/4] RUN make`; in a build of one stage without its name.
    pub(super) fn title(&self) -> String {
        let Self { stage, number, count, total, text, .. } = self;
        let stage = match stage.bytes().all(|byte| byte.is_ascii_digit()) {
            _ if count == total => String::new(),
            true => format!("stage-{stage} "),
            false => format!("{stage} "),
        };
        format!("[{stage}{number}/{count}] {text}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_read_and_what_is_new_is_passed_over() {
        let step = json!({ "ID": 3, "Stage": "build", "Number": 1, "Count": 2, "Total": 9, "Text": "FROM a" });
        let Some(Event::Step(step)) = Event::read(json!({ "Step": step })) else { panic!("no step") };
        assert_eq!(step.title(), "[build 1/2] FROM a");
        assert_eq!(Event::read(json!({ "Cached": 3 })), Some(Event::Cached(3)));
        let failed = json!({ "Failed": { "Message": "m", "Excerpt": null, "Hint": "h", "ExitCode": 2, "Step": 3 } });
        let want =
            Failed { message: "m".into(), excerpt: None, hint: Some("h".into()), exit_code: Some(2), step: Some(3) };
        assert_eq!(Event::read(failed), Some(Event::Failed(want)));
        assert_eq!(Event::read(json!({ "Exported": 7 })), None);
    }

    #[test]
    fn titles_are_buildkits() {
        let title = |stage: &str, count, total| {
            Step { id: 2, stage: stage.into(), number: 2, count, total, text: "RUN make".into() }.title()
        };
        assert_eq!(title("0", 4, 4), "[2/4] RUN make");
        assert_eq!(title("build", 4, 4), "[2/4] RUN make");
        assert_eq!(title("1", 4, 9), "[stage-1 2/4] RUN make");
        assert_eq!(title("build", 4, 9), "[build 2/4] RUN make");
    }
}
