//! The last events in a file of the run root, for `--since` of an engine that comes after this one.
//!
//! Each is appended by one write(2) and synced by nobody: a killed engine loses none, and a reboot takes the run root along.
//! A line begins with its newline, so that one of which only a part was written spoils no other. When there are twice as
//! many as are remembered, the file is replaced by those that are.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Event, REMEMBERED};

const NAME: &str = "events.json";

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    /// `None`: it cannot be written to, which has been said.
    file: Option<File>,
    lines: usize,
}

impl Kept {
    /// What earlier engines have left, the newest last, and the file for what comes.
    pub(super) fn open(run_root: &Path) -> (Self, VecDeque<Arc<Event>>) {
        let path = run_root.join(NAME);
        let text = std::fs::read(&path).unwrap_or_default();
        let read = |line: &[u8]| serde_json::from_slice::<Event>(line).ok().map(Arc::new);
        let mut events: VecDeque<_> = text.split(|byte| *byte == b'\n').filter_map(read).collect();
        events.drain(..events.len().saturating_sub(REMEMBERED));
        let mut kept = Self { path, file: None, lines: 0 };
        kept.replace(&events);
        (kept, events)
    }

    /// Appends one; `remembered` has it already.
    pub(super) fn append(&mut self, event: &Event, remembered: &VecDeque<Arc<Event>>) {
        let Some(file) = &mut self.file else { return };
        if self.lines >= 2 * REMEMBERED {
            return self.replace(remembered);
        }
        self.lines += 1;
        if let Err(error) = file.write_all(&line(event)) {
            self.give_up(&error);
        }
    }

    fn replace(&mut self, events: &VecDeque<Arc<Event>>) {
        let beside = self.path.with_extension("new");
        let write = || {
            let _ = std::fs::remove_file(&beside);
            let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(&events.iter().flat_map(|event| line(event)).collect::<Vec<u8>>())?;
            std::fs::rename(&beside, &self.path)?;
            std::io::Result::Ok(file)
        };
        match write() {
            Ok(file) => (self.file, self.lines) = (Some(file), events.len()),
            Err(error) => self.give_up(&error),
        }
    }

    /// A full run root, say: events go on, and the next engine knows fewer of them.
    fn give_up(&mut self, error: &std::io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "events are not kept for the next engine");
        self.file = None;
    }
}

fn line(event: &Event) -> Vec<u8> {
    let mut line = b"\n".to_vec();
    serde_json::to_writer(&mut line, event).expect("texts can be written as JSON");
    line
}

#[cfg(test)]
mod tests {
    use super::super::EventLog;
    use super::super::tests::event;
    use super::*;
    use jiff::Timestamp;

    fn seconds(log: &EventLog) -> Vec<i64> {
        let mut reader = log.subscribe(Some(Timestamp::UNIX_EPOCH));
        std::iter::from_fn(|| reader.try_recv().ok()).map(|event| event.time.as_second()).collect()
    }

    #[test]
    fn the_next_engine_knows_what_this_one_saw() {
        let directory = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        // As if it were killed at any moment, also around the replacement.
        for last in [3, 10, 2 * REMEMBERED as i64 + 7, 3 * REMEMBERED as i64] {
            let log = EventLog::open(directory.path());
            assert_eq!(seconds(&log), all[all.len().saturating_sub(REMEMBERED)..]);
            for second in all.len() as i64..last {
                log.emit(event(second));
                all.push(second);
            }
        }
        let length = std::fs::metadata(directory.path().join(NAME)).unwrap().len();
        assert!(length < 200 * 3 * REMEMBERED as u64, "{length}");
        assert!(!directory.path().join("events.new").exists());
    }

    #[test]
    fn what_was_half_written_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let log = EventLog::open(directory.path());
        (1..4).for_each(|second| log.emit(event(second)));
        drop(log);
        let path = directory.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let known = seconds(&EventLog::open(directory.path()));
            assert!([1, 2, 3].starts_with(&known) && known.len() < 3, "{length}: {known:?}");
        }
        std::fs::write(&path, [&whole[..whole.len() - 9], &line(&event(9))].concat()).unwrap();
        assert_eq!(seconds(&EventLog::open(directory.path())), [1, 2, 9]);
    }

    #[test]
    fn a_run_root_that_takes_nothing_keeps_no_event_from_being_told() {
        let log = EventLog::open(Path::new("/proc/no-such-place"));
        log.emit(event(5));
        assert_eq!(seconds(&log), [5]);
    }
}
