//! Reading a container's log, with rotation, and following it.
//!
//! The monitor writes Docker's json-file format: `log.json` is the newest file, `log.json.1` the one before it.
//! A reader that follows waits for inotify's word (inotify(7)), so that an idle log costs nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::inotify;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::handle::Container;
use crate::snapshot::Phase;
use crate::{EngineError, Snapshot};

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Not after this.
    pub until: Option<Timestamp>,
    /// Only the last so many lines; `None`: all.
    pub tail: Option<u64>,
    /// Go on until the container has ended.
    pub follow: bool,
}

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the streams' own names")]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// A piece of a log: a line with its newline, or a part of a very long one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogEntry {
    /// When it was read from the container, as written in the log: RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// Where it was written.
    pub stream: OutputStream,
    /// The text; what is not UTF-8 was replaced when it was written, as Docker does.
    #[serde(rename = "log")]
    pub line: String,
}

/// Entries in order; the channel closes after the last. Dropping it ends the reader.
pub type LogStream = mpsc::Receiver<Result<LogEntry, EngineError>>;

/// Entries that may wait for a slow client.
const BUFFERED_ENTRIES: usize = 256;
/// Starts a reader in a thread of its own; an unreadable file ends it with an error.
pub(crate) fn read(container: &Container, options: LogOptions) -> Result<LogStream, EngineError> {
    let (sender, receiver) = mpsc::channel(BUFFERED_ENTRIES);
    let snapshots = container.entry.snapshots.clone();
    let exits_before = snapshots.borrow().exits;
    // A follower's log ends with the run that it follows, also if the next one begins at once.
    let is_over = move |snapshot: &Snapshot| snapshot.exits > exits_before || is_ended(snapshot);
    let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(EngineError::system(|| "make an event descriptor".to_owned()))?;
    let waker = wake.try_clone().map_err(EngineError::system(|| "copy a descriptor".to_owned()))?;
    let watcher = tokio::spawn({
        let (mut snapshots, sender) = (snapshots.clone(), sender.clone());
        async move {
            tokio::select! {
                // An error means that the container is gone: that wakes too.
                _ = snapshots.wait_for(|snapshot| is_over(snapshot)) => {}
                () = sender.closed() => {}
            }
            // It stays readable from now on. It cannot fail: nobody else adds to it.
            let _ = rustix::io::write(&waker, &1u64.to_ne_bytes());
        }
    });
    let path = container.snapshot().directory.join("log.json");
    tokio::task::spawn_blocking(move || {
        let is_over = || snapshots.has_changed().is_err() || is_over(&snapshots.borrow());
        let mut reader = Reader { path, options, sender: &sender, wake };
        let result = reader.run(&is_over);
        // Its copy of the sender would keep the channel open.
        watcher.abort();
        if let Err(error) = result {
            drop(sender.blocking_send(Err(error)));
        }
    });
    Ok(receiver)
}

fn is_ended(snapshot: &Snapshot) -> bool {
    !matches!(snapshot.phase, Phase::Running(_) | Phase::Starting { .. })
}

struct Reader<'a> {
    path: PathBuf,
    options: LogOptions,
    sender: &'a mpsc::Sender<Result<LogEntry, EngineError>>,
    /// Readable once there is nothing more to wait for.
    wake: OwnedFd,
}

/// The reader goes on, or has seen all that it was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    Done,
}

impl Reader<'_> {
    fn run(&mut self, is_over: &dyn Fn() -> bool) -> Result<(), EngineError> {
        // Watched before it is read: what is written in between is not missed.
        let watch = if self.options.follow { Some(self.watch()?) } else { None };
        let mut files = open_all(&self.path).map_err(self.failed())?;
        let mut current = files.pop_back();
        if self.history(files, &mut current)? == Next::Done {
            return Ok(());
        }
        let Some(watch) = watch else { return Ok(()) };
        loop {
            // Asked before reading: whatever was written before the end is still read after it.
            let over = is_over();
            if self.drain(&mut current)? == Next::Done || over || self.sender.is_closed() {
                return Ok(());
            }
            self.wait(&watch)?;
        }
    }

    /// All that is there now, or its last lines.
    fn history(
        &self,
        older: VecDeque<BufReader<File>>,
        current: &mut Option<BufReader<File>>,
    ) -> Result<Next, EngineError> {
        let mut last = VecDeque::new();
        for file in older.into_iter().map(Some).chain([None]) {
            let mut file = file;
            let reader = match &mut file {
                Some(file) => file,
                None => match current {
                    Some(current) => current,
                    None => break,
                },
            };
            while let Some(entry) = self.next_entry(reader)? {
                let Some(tail) = self.options.tail else {
                    match self.send(entry) {
                        Next::Done => return Ok(Next::Done),
                        Next::More => continue,
                    }
                };
                last.push_back(entry);
                if last.len() as u64 > tail {
                    last.pop_front();
                }
            }
        }
        let done = last.into_iter().any(|entry| self.send(entry) == Next::Done);
        Ok(if done { Next::Done } else { Next::More })
    }

    /// What has come since; across a rotation, the rest of the old file and then the new one.
    fn drain(&self, current: &mut Option<BufReader<File>>) -> Result<Next, EngineError> {
        loop {
            if let Some(reader) = current {
                while let Some(entry) = self.next_entry(reader)? {
                    if self.send(entry) == Next::Done {
                        return Ok(Next::Done);
                    }
                }
            }
            let newest = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Next::More),
                Err(error) => return Err(self.failed()(error)),
            };
            let same = current.as_ref().is_some_and(|reader| is_same_file(reader.get_ref(), &newest));
            if same {
                return Ok(Next::More);
            }
            *current = Some(BufReader::new(newest));
        }
    }

    /// The next whole line that is wanted. A line that is only half written stays for later.
    fn next_entry(&self, reader: &mut BufReader<File>) -> Result<Option<LogEntry>, EngineError> {
        loop {
            let mut line = Vec::new();
            let length = reader.read_until(b'\n', &mut line).map_err(self.failed())?;
            if length == 0 {
                return Ok(None);
            }
            if line.last() != Some(&b'\n') {
                reader.seek_relative(-(length as i64)).map_err(self.failed())?;
                return Ok(None);
            }
            // A line torn by a power cut is passed over; its neighbours are whole.
            let Ok(entry) = serde_json::from_slice::<LogEntry>(&line) else { continue };
            let wanted = match entry.stream {
                OutputStream::Stdout => self.options.stdout,
                OutputStream::Stderr => self.options.stderr,
            };
            let time = entry.time.parse::<Timestamp>().ok();
            let early = matches!((self.options.since, time), (Some(since), Some(time)) if time < since);
            if wanted && !early {
                return Ok(Some(entry));
            }
        }
    }

    fn send(&self, entry: LogEntry) -> Next {
        let time = entry.time.parse::<Timestamp>().ok();
        if matches!((self.options.until, time), (Some(until), Some(time)) if time > until) {
            return Next::Done;
        }
        if self.sender.blocking_send(Ok(entry)).is_ok() { Next::More } else { Next::Done }
    }

    /// The directory is watched, not the file: a rotation makes another file.
    fn watch(&self) -> Result<OwnedFd, EngineError> {
        let directory = self.path.parent().expect("a log lies in its container's directory");
        let watch =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(self.failed())?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, directory, events).map_err(self.failed())?;
        Ok(watch)
    }

    fn wait(&self, watch: &OwnedFd) -> Result<(), EngineError> {
        let mut polled = [PollFd::new(watch, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(self.failed()(error)),
        }
        // What exactly happened does not matter: the file is read in any case.
        let mut buffer = [0u8; 4096];
        while rustix::io::read(watch, &mut buffer).is_ok_and(|length| length > 0) {}
        Ok(())
    }

    fn failed<E: Into<std::io::Error>>(&self) -> impl FnOnce(E) -> EngineError {
        EngineError::system(|| format!("read the log {}", self.path.display()))
    }
}

/// The files of a log, oldest first.
fn open_all(path: &Path) -> std::io::Result<VecDeque<BufReader<File>>> {
    let mut files = VecDeque::new();
    for number in 0.. {
        let name = if number == 0 { path.to_owned() } else { path.with_extension(format!("json.{number}")) };
        match File::open(&name) {
            Ok(file) => files.push_front(BufReader::new(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn is_same_file(a: &File, b: &File) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, stream: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.000000000Z\"}}\n"
        )
    }

    #[track_caller]
    fn check(options: LogOptions, files: &[(&str, String)], expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let (sender, mut receiver) = mpsc::channel(64);
        let mut reader = Reader { path: directory.path().join("log.json"), options, sender: &sender, wake: no_wake() };
        reader.run(&|| true).unwrap();
        drop(sender);
        let lines: Vec<String> = std::iter::from_fn(|| receiver.blocking_recv())
            .map(|entry| entry.unwrap().line.trim_end().to_owned())
            .collect();
        assert_eq!(lines, expected);
    }

    fn no_wake() -> OwnedFd {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
    }

    fn both() -> LogOptions {
        LogOptions { stdout: true, stderr: true, ..LogOptions::default() }
    }

    fn files() -> Vec<(&'static str, String)> {
        vec![
            ("log.json.1", line("a", "stdout", 1) + &line("b", "stderr", 2)),
            ("log.json", line("c", "stdout", 3) + &line("d", "stdout", 4) + "{\"log\":\"half"),
        ]
    }

    #[test]
    fn rotated_files_are_read_in_order_and_half_a_line_is_left() {
        check(both(), &files(), &["a", "b", "c", "d"]);
        check(LogOptions { follow: true, ..both() }, &files(), &["a", "b", "c", "d"]);
    }

    #[test]
    fn parts_of_a_log() {
        check(LogOptions { stderr: true, ..LogOptions::default() }, &files(), &["b"]);
        check(LogOptions { tail: Some(3), ..both() }, &files(), &["b", "c", "d"]);
        check(LogOptions { tail: Some(0), ..both() }, &files(), &[]);
        let at = |second: u32| Some(format!("2026-01-01T00:00:{second:02}Z").parse().unwrap());
        check(LogOptions { since: at(2), until: at(3), ..both() }, &files(), &["b", "c"]);
    }

    #[test]
    fn a_torn_line_is_passed_over_and_no_log_is_an_empty_log() {
        check(both(), &[("log.json", "garbage\n".to_owned() + &line("a", "stdout", 1))], &["a"]);
        check(both(), &[], &[]);
    }

    #[test]
    fn a_follower_sees_what_is_written_across_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        std::fs::write(&path, line("a", "stdout", 1)).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        let wake = no_wake();
        let waker = wake.try_clone().unwrap();
        let (sender, mut receiver) = mpsc::channel(64);
        std::thread::scope(|scope| {
            let mut next = || receiver.blocking_recv().map(|entry: Result<LogEntry, EngineError>| entry.unwrap().line);
            scope.spawn(|| {
                let options = LogOptions { follow: true, ..both() };
                let sender = sender;
                Reader { path: path.clone(), options, sender: &sender, wake }
                    .run(&|| over.load(std::sync::atomic::Ordering::SeqCst))
                    .unwrap();
            });
            assert_eq!(next().as_deref(), Some("a\n"));
            let mut old = File::options().append(true).open(&path).unwrap();
            std::fs::rename(&path, path.with_extension("json.1")).unwrap();
            std::io::Write::write_all(&mut old, line("b", "stdout", 2).as_bytes()).unwrap();
            std::fs::write(&path, line("c", "stdout", 3)).unwrap();
            assert_eq!((next().as_deref(), next().as_deref()), (Some("b\n"), Some("c\n")));
            over.store(true, std::sync::atomic::Ordering::SeqCst);
            rustix::io::write(&waker, &1u64.to_ne_bytes()).unwrap();
            assert_eq!(next(), None, "the wake ends it, without a word in the log");
        });
    }
}
