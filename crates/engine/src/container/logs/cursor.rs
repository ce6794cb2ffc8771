//! A place in a log, across its files.
//!
//! The monitor writes Docker's json-file format: `log.json` is the newest file, `log.json.1` the one before it. A rotation
//! gives every file the next number and begins `log.json` anew; where only one file is kept, it is emptied instead.
//! Whatever the log's size and however much of it is asked for, a cursor holds one batch.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{LogEntry, LogOptions, OutputStream};
use crate::EngineError;

/// A batch ends with the entry that makes it as large as this, or this long.
const BATCH_BYTES: usize = 64 * 1024;
const BATCH_ENTRIES: usize = 1024;
/// So much is read for one batch at most: whoever looks for a few entries in a long log lets others read meanwhile.
const BATCH_READ_BYTES: u64 = 4 << 20;
/// An entry is shorter than 128 KiB (the monitor's log). What is longer is none, and not kept in memory.
const LINE_LIMIT_BYTES: u64 = 256 * 1024;
/// A log is searched for the beginning of its last lines in pieces of this size.
const BLOCK_BYTES: usize = 64 * 1024;

/// Some entries, and what comes after them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) entries: Vec<LogEntry>,
    pub(super) state: State,
}

/// What a cursor has before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There may be more at once.
    More,
    /// There is nothing more now.
    CaughtUp,
    /// Nothing that was asked for can come any more.
    Finished,
}

/// Reads a log from where it was asked to begin.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    options: LogOptions,
    opened: bool,
    /// Files after the current one, in the order in which they were written.
    later: VecDeque<File>,
    current: Option<Place>,
    /// There is a newer file than the current one, whose end is looked at once more: it may have grown before that.
    superseded: bool,
}

/// A place in one file.
#[derive(Debug)]
struct Place {
    reader: BufReader<File>,
    offset: u64,
    /// Without `follow`, what is written from now on is not read: or a busy log would have no end.
    end: Option<u64>,
}

impl Cursor {
    /// Nothing is opened before the first batch.
    pub(super) fn new(path: PathBuf, options: LogOptions) -> Self {
        Self { path, options, opened: false, later: VecDeque::new(), current: None, superseded: false }
    }

    /// The next entries. Blocks. `cancelled` is asked in between: then nobody wants them.
    pub(super) fn next_batch(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Batch, EngineError> {
        let result = self.read_batch(cancelled);
        result.map_err(EngineError::system(|| format!("read the log {}", self.path.display())))
    }

    fn read_batch(&mut self, cancelled: &dyn Fn() -> bool) -> io::Result<Batch> {
        if !self.opened {
            self.open(cancelled)?;
            self.opened = true;
        }
        let (mut entries, mut bytes, mut read) = (Vec::new(), 0, 0);
        let batch = |entries, state| Ok(Batch { entries, state });
        while entries.len() < BATCH_ENTRIES && bytes < BATCH_BYTES && read < BATCH_READ_BYTES {
            let Some(line) = self.current.as_mut().map(Place::next_line).transpose()?.flatten() else {
                if self.advance()? {
                    continue;
                }
                return batch(entries, State::CaughtUp);
            };
            read += line.len() as u64;
            // A line torn by a power cut is passed over; its neighbours are whole.
            let Ok(entry) = serde_json::from_slice::<LogEntry>(&line) else { continue };
            match self.wants(&entry) {
                Want::Yes => {
                    bytes += entry.line.len();
                    entries.push(entry);
                }
                Want::No => {}
                Want::NoMore => return batch(entries, State::Finished),
            }
        }
        batch(entries, State::More)
    }

    fn wants(&self, entry: &LogEntry) -> Want {
        let stream = match entry.stream {
            OutputStream::Stdout => self.options.stdout,
            OutputStream::Stderr => self.options.stderr,
        };
        let (since, until) = (self.options.since, self.options.until);
        let time = if since.or(until).is_some() { entry.time.parse::<Timestamp>().ok() } else { None };
        match time {
            Some(time) if until.is_some_and(|until| time > until) => Want::NoMore,
            Some(time) if since.is_some_and(|since| time < since) => Want::No,
            _ if stream => Want::Yes,
            _ => Want::No,
        }
    }

    fn open(&mut self, cancelled: &dyn Fn() -> bool) -> io::Result<()> {
        self.later = open_all(&self.path)?;
        let mut offset = 0;
        if let Some(lines) = self.options.tail {
            let (index, start) = tail_start(&self.later, lines, cancelled)?;
            self.later.drain(..index);
            offset = start;
        }
        self.next_file(offset).map(drop)
    }

    /// False if there is none.
    fn next_file(&mut self, offset: u64) -> io::Result<bool> {
        let Some(mut file) = self.later.pop_front() else { return Ok(false) };
        file.seek(SeekFrom::Start(offset))?;
        let metadata = file.metadata()?;
        let wanted_end = self.options.end.filter(|end| end.inode == metadata.ino()).map(|end| end.size_bytes);
        if wanted_end.is_some() {
            self.later.clear();
        }
        let is_last = self.later.is_empty() && !self.options.follow;
        let end = wanted_end.or(is_last.then_some(metadata.len()));
        self.current = Some(Place { reader: BufReader::new(file), offset, end });
        Ok(true)
    }

    /// From the end of a file to where the log goes on; false if it does not, for now.
    fn advance(&mut self) -> io::Result<bool> {
        if self.next_file(0)? {
            return Ok(true);
        }
        if !self.options.follow {
            return Ok(false);
        }
        let newest = match File::open(&self.path) {
            Ok(file) => file,
            // It is being rotated at this moment, or has not begun.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(current) = &mut self.current {
            if is_same_file(current.reader.get_ref(), &newest)? {
                let emptied = newest.metadata()?.len() < current.offset;
                if emptied {
                    current.offset = 0;
                    current.reader.seek(SeekFrom::Start(0))?;
                }
                return Ok(emptied);
            }
            if !std::mem::replace(&mut self.superseded, true) {
                return Ok(true);
            }
        }
        self.superseded = false;
        // A slow reader may be more than one rotation behind; what was thrown away meanwhile is a gap.
        let mut files = open_all(&self.path)?;
        if let Some(current) = &self.current {
            let same = |file: &File| is_same_file(current.reader.get_ref(), file).unwrap_or(false);
            if let Some(index) = files.iter().position(same) {
                files.drain(..=index);
            }
        }
        self.later = files;
        self.next_file(0)
    }
}

enum Want {
    Yes,
    No,
    /// It comes after all that is wanted.
    NoMore,
}

impl Place {
    /// The next whole line. One that is only half written stays for later.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.end.is_some_and(|end| self.offset >= end) {
            return Ok(None);
        }
        let mut line = Vec::new();
        let length = (&mut self.reader).take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') && length < LINE_LIMIT_BYTES {
            self.reader.seek_relative(-(length as i64))?;
            return Ok(None);
        }
        self.offset += length;
        Ok(Some(line))
    }
}

/// The files of a log, oldest first.
///
/// They are opened from the newest on, in the direction in which a rotation moves them: one may be met twice, and none is
/// missed. A rotation that is under way leaves one number free.
fn open_all(path: &Path) -> io::Result<VecDeque<File>> {
    let mut files = VecDeque::<File>::new();
    let mut missing = 0;
    for number in 0.. {
        let name = if number == 0 { path.to_owned() } else { path.with_extension(format!("json.{number}")) };
        match File::open(&name) {
            Ok(file) => {
                missing = 0;
                let again = files.front().is_some_and(|newer| is_same_file(newer, &file).unwrap_or(false));
                if !again {
                    files.push_front(file);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && missing == 0 => missing = 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn is_same_file(a: &File, b: &File) -> io::Result<bool> {
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// The file, and the place in it, at which the last `lines` whole lines begin, looked for from the end.
fn tail_start(files: &VecDeque<File>, lines: u64, cancelled: &dyn Fn() -> bool) -> io::Result<(usize, u64)> {
    let mut left = lines;
    let mut block = vec![0; BLOCK_BYTES];
    for (index, file) in files.iter().enumerate().rev() {
        let mut end = file.metadata()?.len();
        while end > 0 && !cancelled() {
            let begin = end.saturating_sub(BLOCK_BYTES as u64);
            let block = &mut block[..(end - begin) as usize];
            // Shorter than it was a moment ago: it was emptied, and begins anew.
            match file.read_exact_at(block, begin) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((index, 0)),
                result => result?,
            }
            for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                if left == 0 {
                    return Ok((index, begin + at as u64 + 1));
                }
                left -= 1;
            }
            end = begin;
        }
        if left == 0 {
            return Ok((index, 0));
        }
    }
    Ok((0, 0))
}

#[cfg(test)]
mod tests;
