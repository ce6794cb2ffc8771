//! A line at a time, as BuildKit's plain progress has it: `#5 [build 2/4] RUN make`, `#5 0.105 gcc …`, `#5 DONE 1.2s`.

use std::fmt::Write as _;
use std::time::Duration;

use super::journal::{Journal, Record};
use super::seconds;

#[derive(Debug, Default)]
pub(super) struct Plain {
    /// Of which step the last line was.
    last: Option<usize>,
    /// There has been one.
    has_begun: bool,
}

impl Plain {
    /// A step begins, says these lines, or has ended.
    pub(super) fn show(&mut self, step: usize, record: &Record, lines: &[(Duration, String)]) -> String {
        let mut text = String::new();
        let number = step + 1;
        let is_end = lines.is_empty() && record.end.is_some();
        if self.last != Some(step) {
            if self.has_begun {
                text.push('\n');
            }
            self.has_begun = true;
            let _ = writeln!(text, "#{number} {}", record.title);
            self.last = Some(step);
        }
        for (when, line) in lines {
            // What is told of the context has no time of its own.
            let _ = match step {
                0 => writeln!(text, "#{number} {line}"),
                _ => writeln!(text, "#{number} {:.3} {line}", when.as_secs_f64()),
            };
        }
        if let (true, Some(end)) = (is_end, record.end) {
            let _ = match end.is_cached {
                true => writeln!(text, "#{number} CACHED"),
                false => writeln!(text, "#{number} DONE {}", seconds(record.took())),
            };
        }
        text.trim_end_matches('\n').to_owned()
    }

    pub(super) fn warning(&mut self, text: &str) -> String {
        let gap = if self.has_begun { "\n" } else { "" };
        (self.last, self.has_begun) = (None, true);
        format!("{gap}WARNING: {text}")
    }

    pub(super) fn exported(&mut self, lines: &[String], journal: &Journal) -> String {
        let number = journal.steps.keys().next_back().map_or(1, |last| last + 2);
        let mut text = format!("\n#{number} exporting to image\n");
        for line in lines {
            let _ = writeln!(text, "#{number} {line}");
        }
        text + &format!("#{number} DONE")
    }

    pub(super) fn error(&mut self, step: usize, message: &str, journal: &Journal) -> String {
        let begun = journal.steps.get(&step).map(|record| self.show(step, record, &[])).unwrap_or_default();
        let gap = if begun.is_empty() { "" } else { "\n" };
        format!("{begun}{gap}#{} ERROR: {message}", step + 1)
    }
}
