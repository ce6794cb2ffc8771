//! What runs, redrawn in place at the foot of a terminal; what is done stands above and stays.

use std::io::Write as _;
use std::time::Duration;

use super::journal::{Journal, Record};
use super::seconds;
use super::visible::cut;
use crate::terminal::{self, Size};

/// Of a step that runs, as many of its last lines as there is room for, and no more than these.
const LINES: usize = 6;
/// More often nobody sees it.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Live {
    /// How many lines stand there to be redrawn.
    drawn: usize,
    last: Option<Duration>,
}

impl Live {
    /// A step begins or has ended, or has said something.
    pub(super) fn show(&mut self, record: &Record, is_change: bool, journal: &Journal, now: Duration) {
        match record.end {
            Some(_) if is_change => self.print(vec![line(record, now, columns())], journal, now),
            _ => self.draw(journal, now, terminal::size()),
        }
    }

    /// Lines that stay.
    pub(super) fn print(&mut self, lines: Vec<String>, journal: &Journal, now: Duration) {
        let frame = frame(journal, now, terminal::size());
        self.write(&lines, &frame);
        self.last = Some(now);
    }

    pub(super) fn draw(&mut self, journal: &Journal, now: Duration, size: Option<Size>) {
        if self.last.is_some_and(|last| now < last + PAUSE) {
            return;
        }
        self.write(&[], &frame(journal, now, size));
        self.last = Some(now);
    }

    pub(super) fn finish(&mut self, lines: &[String], journal: &Journal, now: Duration) {
        let mut shown = vec![" => exporting to image".to_owned()];
        shown.extend(lines.iter().map(|line| format!(" => => {}", line.trim_end_matches(" done"))));
        let done = journal.done();
        shown.push(format!("[+] Built in {} ({done}/{})", seconds(now), journal.total.max(done)));
        let shown: Vec<String> = shown.iter().map(|line| cut(line, columns())).collect();
        self.write(&shown, &[]);
    }

    pub(super) fn fail(&mut self, culprit: Option<usize>, journal: &Journal, now: Duration) {
        let line = |(step, record): (usize, &Record)| {
            let word = if Some(step) == culprit { "ERROR" } else { "CANCELED" };
            timed(&format!(" => {word} {}", record.title), now.saturating_sub(record.began), columns())
        };
        let lines: Vec<String> = journal.running().map(line).collect();
        self.write(&lines, &[]);
    }

    /// What is redrawn goes, and begins anew below what others write.
    pub(super) fn make_way(&mut self) {
        self.write(&[], &[]);
    }

    fn write(&mut self, above: &[String], frame: &[String]) {
        let text = redraw(self.drawn, above, frame);
        self.drawn = frame.len();
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

fn columns() -> usize {
    terminal::size().map_or(80, |size| usize::from(size.columns))
}

/// Goes up over what was drawn, clears from there, and writes anew (ECMA-48: CUU, ED).
fn redraw(drawn: usize, above: &[String], frame: &[String]) -> String {
    let mut text = String::new();
    if drawn > 0 {
        text = format!("\x1b[{drawn}A\r\x1b[J");
    }
    for line in above.iter().chain(frame) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn frame(journal: &Journal, now: Duration, size: Option<Size>) -> Vec<String> {
    let size = size.unwrap_or(Size { rows: 24, columns: 80 });
    let columns = usize::from(size.columns);
    let rows = usize::from(size.rows).saturating_sub(2).max(1);
    let running: Vec<&Record> = journal.running().map(|(_, record)| record).collect();
    let shown = &running[running.len().saturating_sub(rows)..];
    let tail = ((rows - shown.len()) / shown.len().max(1)).min(LINES);
    let mut lines = Vec::new();
    for record in shown {
        lines.push(line(record, now, columns));
        let said = record.tail.iter().skip(record.tail.len().saturating_sub(tail));
        lines.extend(said.map(|(_, said)| cut(&format!(" => => # {said}"), columns)));
    }
    lines
}

fn line(record: &Record, now: Duration, columns: usize) -> String {
    let cached = if record.end.is_some_and(|end| end.is_cached) { "CACHED " } else { "" };
    let gap = if record.note.is_empty() { "" } else { ": " };
    let took = if record.end.is_some() { record.took() } else { now.saturating_sub(record.began) };
    timed(&format!(" => {cached}{}{gap}{}", record.title, record.note), took, columns)
}

/// The time stands at the right edge.
fn timed(text: &str, time: Duration, columns: usize) -> String {
    let time = seconds(time);
    let room = columns.saturating_sub(time.len() + 2);
    let text = cut(text, room);
    let used: usize = text.chars().map(|letter| if letter.is_ascii() { 1 } else { 2 }).sum();
    format!("{text}{} {time}", " ".repeat(room.saturating_sub(used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_fits_on_the_screen() {
        let mut journal = Journal::default();
        let size = |rows, columns| Some(Size { rows, columns });
        for step in 1..=3 {
            journal.begin(step, format!("[{step}/3] RUN something long"), Duration::from_secs(1));
            journal.take(step, "one\ntwo\n\x1b[31mthree\n", Duration::from_secs(2));
        }
        journal.end(2, false, Duration::from_secs(3));
        let now = Duration::from_millis(4200);
        let wide = frame(&journal, now, size(24, 40));
        assert_eq!(
            wide,
            [
                " => [1/3] RUN something long       3.2s",
                " => => # one",
                " => => # two",
                " => => # three",
                " => [3/3] RUN something long       3.2s",
                " => => # one",
                " => => # two",
                " => => # three",
            ]
        );
        for rows in 1..9 {
            for columns in [1, 10, 20] {
                let lines = frame(&journal, now, size(rows, columns));
                assert!(lines.len() < usize::from(rows).max(2), "{rows}: {lines:?}");
                let limit = usize::from(columns).max(6);
                assert!(lines.iter().all(|line| line.chars().count() <= limit), "{columns}: {lines:?}");
            }
        }
    }

    #[test]
    fn a_frame_is_drawn_over_the_one_before() {
        let lines = |text: &[&str]| text.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(redraw(0, &[], &lines(&["a"])), "a\n");
        assert_eq!(redraw(2, &lines(&["done"]), &lines(&["a"])), "\x1b[2A\r\x1b[Jdone\na\n");
        assert_eq!(redraw(1, &[], &[]), "\x1b[1A\r\x1b[J");
    }
}
