//! A place in a log, across its files.
//!
//! Whatever the log's size and however much of it is asked for, a cursor holds one batch.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use dozen_monitor::protocol::LogFormat;

use super::entries::{LogTime, Place, log_time};
use super::files::{self, Part, PartReader};
use super::{LogBatch, LogOptions, OutputStream};
use crate::EngineError;

/// A batch ends with the entry that makes it as large as this, or this long.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_ENTRIES: usize = 4096;
/// So much is read for one batch at most: whoever looks for a few entries in a long log lets others read meanwhile.
const BATCH_READ_BYTES: u64 = 4 << 20;
/// An entry is shorter than 256 KiB (the monitor's log). What is longer is none, and not kept in memory.
const LINE_LIMIT_BYTES: u64 = 512 * 1024;

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
    format: LogFormat,
    options: LogOptions,
    since: Option<LogTime>,
    until: Option<LogTime>,
    opened: bool,
    /// Files after the current one, in the order in which they were written.
    later: VecDeque<Part>,
    /// The last of them is read up to here.
    last_end: Option<u64>,
    current: Option<Reading>,
    /// There is a newer file than the current one, whose end is looked at once more: it may have grown before that.
    superseded: bool,
}

/// A place in one file.
struct Reading {
    part: Part,
    reader: PartReader,
    /// Where the line begins that is read next.
    offset: u64,
    /// Without `follow`, what is written from now on is not read: or a busy log would have no end.
    end: Option<u64>,
    /// The line, as far as it has come.
    line: Vec<u8>,
    /// It has come whole, and was given away.
    taken: bool,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("part", &self.part).field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Cursor {
    /// Nothing is opened before the first batch.
    pub(super) fn new(path: PathBuf, format: LogFormat, options: LogOptions) -> Self {
        Self {
            path,
            format,
            since: options.since.map(log_time),
            until: options.until.map(log_time),
            options,
            opened: false,
            later: VecDeque::new(),
            last_end: None,
            current: None,
            superseded: false,
        }
    }

    /// The next entries, and what comes after them. Blocks. `cancelled` is asked in between: then nobody wants them.
    pub(super) fn next_batch(&mut self, cancelled: &dyn Fn() -> bool) -> Result<(LogBatch, State), EngineError> {
        let mut batch = LogBatch::default();
        let result = self.read_batch(&mut batch, cancelled);
        batch.end();
        let state = result.map_err(EngineError::system(|| format!("read the log {}", self.path.display())))?;
        Ok((batch, state))
    }

    fn read_batch(&mut self, batch: &mut LogBatch, cancelled: &dyn Fn() -> bool) -> io::Result<State> {
        if !self.opened {
            self.open(cancelled)?;
            self.opened = true;
        }
        let mut read = 0;
        while batch.len() < BATCH_ENTRIES && batch.text_bytes() < BATCH_BYTES && read < BATCH_READ_BYTES {
            let Some(line) = self.current.as_mut().map(Reading::next_line).transpose()?.flatten() else {
                if self.advance()? {
                    continue;
                }
                return Ok(State::CaughtUp);
            };
            read += line.len() as u64;
            let Some(place) = batch.parse(line, self.format) else { continue };
            match self.wants(&place) {
                Want::Yes => batch.keep(place),
                Want::No => {}
                Want::NoMore => return Ok(State::Finished),
            }
        }
        Ok(State::More)
    }

    fn wants(&self, entry: &Place) -> Want {
        let stream = match entry.stream {
            OutputStream::Stdout => self.options.stdout,
            OutputStream::Stderr => self.options.stderr,
        };
        if self.until.is_some_and(|until| entry.time > until) {
            return Want::NoMore;
        }
        if stream && self.since.is_none_or(|since| entry.time >= since) { Want::Yes } else { Want::No }
    }

    fn open(&mut self, cancelled: &dyn Fn() -> bool) -> io::Result<()> {
        self.later = files::open_all(&self.path)?;
        if let Some(end) = self.options.end {
            // From the newest on: an inode's number is given again once its file is gone.
            let is_last = |part: &Part| part.written_inode().is_ok_and(|inode| inode == end.inode);
            if let Some(index) = self.later.iter().rposition(is_last) {
                self.later.truncate(index + 1);
                self.last_end = Some(end.size_bytes);
            }
        }
        let mut offset = 0;
        if let Some(lines) = self.options.tail {
            let (index, start) = files::tail_start(&self.later, lines, cancelled)?;
            self.later.drain(..index);
            offset = start;
        }
        self.next_file(offset).map(drop)
    }

    /// False if there is none.
    fn next_file(&mut self, offset: u64) -> io::Result<bool> {
        let Some(part) = self.later.pop_front() else { return Ok(false) };
        let is_last = self.later.is_empty();
        let end = match self.last_end.filter(|_| is_last) {
            Some(end) => Some(end),
            None if is_last && !self.options.follow => part.length()?,
            None => None,
        };
        let reader = part.reader(offset)?;
        self.current = Some(Reading { part, reader, offset, end, line: Vec::new(), taken: true });
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
        let Some(newest) = files::open_newest(&self.path)? else { return Ok(false) };
        if let Some(current) = &mut self.current {
            if current.part.is(&newest)? {
                let read = current.offset + if current.taken { 0 } else { current.line.len() as u64 };
                let emptied = newest.length()?.is_some_and(|length| length < read);
                if emptied {
                    current.restart()?;
                }
                return Ok(emptied);
            }
            if !std::mem::replace(&mut self.superseded, true) {
                return Ok(true);
            }
        }
        self.superseded = false;
        // A slow reader may be more than one rotation behind; what was thrown away meanwhile is a gap.
        let mut parts = files::open_all(&self.path)?;
        if let Some(current) = &self.current {
            // From the newest on, as above.
            if let Some(index) = parts.iter().rposition(|part| current.part.is(part).unwrap_or(false)) {
                parts.drain(..=index);
            }
        }
        self.later = parts;
        self.next_file(0)
    }
}

enum Want {
    Yes,
    No,
    /// It comes after all that is wanted.
    NoMore,
}

impl Reading {
    /// The next whole line. One that is only half written stays for later.
    fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        if self.end.is_some_and(|end| self.offset >= end) {
            return Ok(None);
        }
        if std::mem::take(&mut self.taken) {
            self.line.clear();
        }
        let room = LINE_LIMIT_BYTES - self.line.len() as u64;
        (&mut self.reader).take(room).read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') && (self.line.len() as u64) < LINE_LIMIT_BYTES {
            return Ok(None);
        }
        self.taken = true;
        self.offset += self.line.len() as u64;
        Ok(Some(&self.line))
    }

    /// The file was emptied.
    fn restart(&mut self) -> io::Result<()> {
        self.reader = self.part.reader(0)?;
        (self.offset, self.taken) = (0, true);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
