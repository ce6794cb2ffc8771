//! A build in the words of Docker's classic builder, which scripts and SDKs read: `Step 2/5 : RUN make`, lines of JSON.
//!
//! That builder does one step after the other, and its stream is read so: a step's output follows its line. Ours does
//! stages side by side; so one stage has the word until it is done, what others say waits, and then the first of them in
//! the file is next. Numbers are those of the file. Steps have no images of their own, so there is no ` ---> ID` after each.

use std::collections::BTreeMap;

use dozen_engine::{BuildEvent, BuildFailure, StepId, StepStarted};
use dozen_model::ContainerId;
use serde_json::{Value, json};

use super::held::Held;
use super::pieces::Pieces;

/// As many digits of an id as people are shown.
const SHORT: usize = 12;

#[derive(Debug)]
pub(super) struct Classic {
    /// `q=1`: nothing but the image's id, or what led to a failure.
    is_quiet: bool,
    tags: Vec<String>,
    /// Those that have begun and are not done, by the number of their first step.
    stages: BTreeMap<usize, Stage>,
    /// The one that has the word.
    speaker: Option<usize>,
    pieces: Pieces,
    containers: BTreeMap<StepId, ContainerId>,
    quiet: Held,
    is_within_line: bool,
}

#[derive(Debug, Default)]
struct Stage {
    last_step: usize,
    is_done: bool,
    waiting: Held,
}

impl Classic {
    pub(super) fn new(is_quiet: bool, tags: Vec<String>) -> Self {
        Self {
            is_quiet,
            tags,
            stages: BTreeMap::new(),
            speaker: None,
            pieces: Pieces::default(),
            containers: BTreeMap::new(),
            quiet: Held::default(),
            is_within_line: false,
        }
    }

    pub(super) fn tell(&mut self, event: BuildEvent, said: &mut Vec<u8>) {
        match event {
            BuildEvent::Step(step) => self.step(&step),
            BuildEvent::Cached(step) => {
                self.wait(step, " ---> Using cache\n".into(), false);
                self.done(step);
            }
            BuildEvent::Running(step, container) => {
                self.wait(step, format!(" ---> Running in {}\n", short(container.as_str())), false);
                self.containers.insert(step, container);
            }
            // Who reads these words can ask for no shell, and has no place for a statement.
            BuildEvent::Shell(..) | BuildEvent::Statement(..) => {}
            BuildEvent::Output(step, stream, piece) => {
                let text = self.pieces.read(step, stream, piece);
                self.wait(step, text, true);
            }
            BuildEvent::Done(step) => {
                let rest = self.pieces.rest(step);
                self.wait(step, rest, true);
                if let Some(container) = self.containers.remove(&step) {
                    let line = format!(" ---> Removed intermediate container {}\n", short(container.as_str()));
                    self.wait(step, line, false);
                }
                self.done(step);
            }
            // Who is told so carries no cache.
            BuildEvent::WantsLayer(_) | BuildEvent::CacheReady(_) | BuildEvent::Exporting(..) => {}
            BuildEvent::Warning(text) => self.line(&format!(" ---> [Warning] {text}\n"), said),
            BuildEvent::Built(image) => {
                self.all(None, said);
                let id = image.to_string();
                if self.is_quiet {
                    write(&json!({ "stream": format!("{id}\n") }), said);
                    return;
                }
                write(&json!({ "aux": { "ID": id } }), said);
                self.line(&format!("Successfully built {}\n", short(&id)), said);
                for tag in std::mem::take(&mut self.tags) {
                    self.line(&format!("Successfully tagged {tag}\n"), said);
                }
            }
            BuildEvent::Failed(failure) => self.fail(failure, said),
        }
        self.next(said);
    }

    fn step(&mut self, step: &StepStarted) {
        let StepStarted { id, number, count, total, source, .. } = step;
        let first = (id.0 + 1).saturating_sub(*number);
        let stage = self.stages.entry(first).or_default();
        stage.last_step = first + count.saturating_sub(1);
        stage.waiting.push(format!("Step {}/{total} : {source}\n", id.0), false);
    }

    /// The stage that a step is of.
    fn stage(&mut self, step: StepId) -> Option<&mut Stage> {
        self.stages.range_mut(..=step.0).next_back().map(|(_, stage)| stage).filter(|stage| step.0 <= stage.last_step)
    }

    fn wait(&mut self, step: StepId, text: String, is_output: bool) {
        if let Some(stage) = self.stage(step)
            && !text.is_empty()
        {
            stage.waiting.push(text, is_output);
        }
    }

    fn done(&mut self, step: StepId) {
        if let Some(stage) = self.stage(step) {
            stage.is_done |= stage.last_step == step.0;
        }
    }

    /// Says what the stage with the word has to say, and passes the word on.
    fn next(&mut self, said: &mut Vec<u8>) {
        while let Some(first) = self.speaker.or_else(|| self.stages.keys().next().copied()) {
            let Some(stage) = self.stages.get_mut(&first) else { break };
            let (texts, is_done) = (stage.waiting.take(), stage.is_done);
            for text in texts {
                self.text(text, said);
            }
            self.speaker = Some(first);
            if !is_done {
                break;
            }
            self.stages.remove(&first);
            self.speaker = None;
        }
    }

    /// The build is over: whoever has not had the word has it now, and the stage of `last` after all others, since what
    /// follows is about it.
    fn all(&mut self, last: Option<StepId>, said: &mut Vec<u8>) {
        self.next(said);
        let last = last.and_then(|step| self.stages.range(..=step.0).next_back().map(|(first, _)| *first));
        let last = last.and_then(|first| self.stages.remove_entry(&first));
        for (_, mut stage) in std::mem::take(&mut self.stages).into_iter().chain(last) {
            for text in stage.waiting.take() {
                self.text(text, said);
            }
        }
        self.speaker = None;
    }

    /// A line of its own, wherever the one before has stopped.
    fn line(&mut self, text: &str, said: &mut Vec<u8>) {
        let gap = if self.is_within_line { "\n" } else { "" };
        self.text(format!("{gap}{text}"), said);
    }

    fn text(&mut self, text: String, said: &mut Vec<u8>) {
        self.is_within_line = !text.ends_with('\n');
        if self.is_quiet {
            self.quiet.push(text, true);
        } else {
            write(&json!({ "stream": text }), said);
        }
    }

    fn fail(&mut self, failure: BuildFailure, said: &mut Vec<u8>) {
        self.all(failure.step, said);
        if let Some(excerpt) = &failure.excerpt {
            self.line(excerpt, said);
        }
        for text in self.quiet.take() {
            write(&json!({ "stream": text }), said);
        }
        let mut detail = json!({ "message": failure.message });
        // docker's client ends with this status.
        if let Some(code) = failure.exit_code {
            detail["code"] = json!(code);
        }
        let mut line = json!({ "errorDetail": detail, "error": failure.message });
        if let Some(hint) = failure.hint {
            line["hint"] = json!(hint);
        }
        write(&line, said);
    }
}

/// Docker's lines end so.
fn write(line: &Value, said: &mut Vec<u8>) {
    said.extend_from_slice(line.to_string().as_bytes());
    said.extend_from_slice(b"\r\n");
}

fn short(id: &str) -> &str {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.get(..SHORT).unwrap_or(digits)
}
