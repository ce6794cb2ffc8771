//! What has happened so far, step by step.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use super::visible::visible;

/// The last lines that a step has said: shown again when it fails.
const TAIL_LINES: usize = 20;
/// A line without an end is one all the same.
const LINE_BYTES: usize = 16 << 10;

#[derive(Debug, Default)]
pub(super) struct Journal {
    pub steps: BTreeMap<usize, Record>,
    /// Of the build; 0 until the first one begins.
    pub total: usize,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub title: String,
    /// Since the build's beginning.
    pub began: Duration,
    pub end: Option<End>,
    /// When it was said, and what.
    pub tail: VecDeque<(Duration, String)>,
    /// How far it is, if it says so.
    pub note: String,
    unfinished: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub is_cached: bool,
    pub at: Duration,
}

impl Journal {
    pub(super) fn begin(&mut self, step: usize, title: String, now: Duration) {
        let title = visible(&title);
        self.steps.insert(step, Record { title, began: now, ..Record::default() });
    }

    pub(super) fn note(&mut self, step: usize, note: String) {
        if let Some(record) = self.steps.get_mut(&step) {
            record.note = note;
        }
    }

    /// False if it had ended already.
    pub(super) fn end(&mut self, step: usize, is_cached: bool, now: Duration) -> bool {
        let Some(record) = self.steps.get_mut(&step).filter(|record| record.end.is_none()) else { return false };
        record.end = Some(End { is_cached, at: now });
        true
    }

    /// The lines that are whole with this text, each with when it came.
    pub(super) fn take(&mut self, step: usize, text: &str, now: Duration) -> Vec<(Duration, String)> {
        let Some(record) = self.steps.get_mut(&step) else { return Vec::new() };
        record.unfinished.push_str(text);
        let whole = match record.unfinished.rfind('\n') {
            Some(at) => record.unfinished.drain(..=at).collect(),
            None if record.unfinished.len() > LINE_BYTES => std::mem::take(&mut record.unfinished),
            None => String::new(),
        };
        record.said(&whole, now)
    }

    /// The line that a step has not ended.
    pub(super) fn rest(&mut self, step: usize, now: Duration) -> Vec<(Duration, String)> {
        let Some(record) = self.steps.get_mut(&step) else { return Vec::new() };
        let rest = std::mem::take(&mut record.unfinished);
        record.said(&rest, now)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Record)> {
        self.steps.iter().filter(|(_, record)| record.end.is_none()).map(|(step, record)| (*step, record))
    }

    /// The step at which a build that failed has stopped: the one that the engine names; of those that run, the one that
    /// spoke last, since whatever fails says why; else the last.
    pub(super) fn culprit(&self, named: Option<usize>) -> Option<(usize, &Record)> {
        if let Some((step, record)) = named.and_then(|step| self.steps.get_key_value(&step)) {
            return Some((*step, record));
        }
        self.running().max_by_key(|(step, record)| (record.tail.back().map(|(when, _)| *when), *step))
    }

    pub(super) fn done(&self) -> usize {
        self.steps.iter().filter(|(step, record)| **step > 0 && record.end.is_some()).count()
    }
}

impl Record {
    fn said(&mut self, text: &str, now: Duration) -> Vec<(Duration, String)> {
        let since = now.saturating_sub(self.began);
        let lines: Vec<(Duration, String)> = text.lines().map(|line| (since, visible(line))).collect();
        self.tail.extend(lines.iter().map(|(_, line)| (now, line.clone())));
        let surplus = self.tail.len().saturating_sub(TAIL_LINES);
        self.tail.drain(..surplus);
        lines
    }

    pub(super) fn took(&self) -> Duration {
        self.end.map_or(Duration::ZERO, |end| end.at.saturating_sub(self.began))
    }

    /// As buildx shows them at the end, so that nobody has to look for them.
    pub(super) fn last_words(&self) -> String {
        let unfinished = Some(visible(&self.unfinished)).filter(|line| !line.is_empty());
        if self.tail.is_empty() && unfinished.is_none() {
            return String::new();
        }
        let mut text = format!("------\n > {}:\n", self.title);
        for (when, line) in &self.tail {
            let _ = writeln!(text, "{:.3} {line}", when.saturating_sub(self.began).as_secs_f64());
        }
        if let Some(line) = unfinished {
            let _ = writeln!(text, "{line}");
        }
        text + "------\n"
    }
}
