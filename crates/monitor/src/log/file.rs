//! The log on disk: appended to in whole entries, rotated by size.
//!
//! A log that cannot be written (a full disk) never stops the container: the entries are counted as lost, the
//! file is cut back to its last whole entry, and the next batch is tried again.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dozen_model::LogLimits;
use rustix::fs::{Mode, OFlags};

use crate::protocol::LogEnd;

/// Looked through, from the end of a log that a killed monitor left, for the last whole entry. An entry is
/// shorter: 16 KiB, each byte of it escaped to at most 6, and a hundred bytes around them.
const LONGEST_ENTRY_BYTES: u64 = 128 * 1024;

/// What to do next with a batch of entries.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Append so many bytes of it: whole entries.
    Append(usize),
    /// Begin a new file first.
    Rotate,
}

/// Decides where the next part of `batch` goes, in a file that has `size_bytes`. A file is filled up to its limit
/// with whole entries; one that is empty takes an entry however long.
pub fn next_step(size_bytes: u64, batch: &[u8], limit_bytes: u64) -> Step {
    let room = usize::try_from(limit_bytes.saturating_sub(size_bytes)).unwrap_or(usize::MAX);
    if batch.len() <= room {
        return Step::Append(batch.len());
    }
    match batch[..room].iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => Step::Append(newline + 1),
        None if size_bytes > 0 => Step::Rotate,
        None => Step::Append(batch.iter().position(|byte| *byte == b'\n').map_or(batch.len(), |newline| newline + 1)),
    }
}

/// An open log.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    limits: LogLimits,
    lost_entries: u64,
    last_error: Option<io::Error>,
}

impl LogFile {
    /// Opens `<data_directory>/log.json` for more, or begins it; a last entry that was torn is cut off.
    ///
    /// # Errors
    /// The file can be neither opened nor made.
    pub fn open(data_directory: &Path, limits: LogLimits) -> io::Result<Self> {
        let path = data_directory.join("log.json");
        let file = open(&path, false)?;
        let size_bytes = whole_entries(&file)?;
        Ok(Self { path, file, size_bytes, limits, lost_entries: 0, last_error: None })
    }

    /// Where it ends now.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn end(&self) -> io::Result<LogEnd> {
        Ok(LogEnd { inode: self.file.metadata()?.ino(), size_bytes: self.size_bytes })
    }

    /// Entries that could not be written so far, and why the last one could not.
    pub fn lost(&self) -> Option<(u64, String)> {
        (self.lost_entries > 0)
            .then(|| (self.lost_entries, self.last_error.as_ref().map_or_else(String::new, io::Error::to_string)))
    }

    /// Appends whole entries; one write(2) unless they are rotated in between.
    pub fn append(&mut self, mut batch: &[u8]) {
        while !batch.is_empty() {
            match next_step(self.size_bytes, batch, self.limits.file_size_bytes) {
                Step::Rotate => {
                    if let Err(error) = self.rotate() {
                        // Better a file that is too long than a lost line.
                        self.last_error = Some(error);
                        self.write(batch);
                        return;
                    }
                }
                Step::Append(length) => {
                    let (now, later) = batch.split_at(length);
                    self.write(now);
                    batch = later;
                }
            }
        }
    }

    fn write(&mut self, entries: &[u8]) {
        let mut rest = entries;
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // Entries that were written whole stay.
                    let written = &entries[..entries.len() - rest.len()];
                    let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
                    self.size_bytes += whole as u64;
                    self.lost_entries += entries[whole..].iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.last_error = Some(error.into());
                    if let Err(error) = self.file.set_len(self.size_bytes) {
                        self.last_error = Some(error);
                    }
                    return;
                }
            }
        }
        self.size_bytes += entries.len() as u64;
    }

    /// log.json becomes log.json.1, that log.json.2, and so on; the oldest goes. The new file is there before anything is
    /// moved: without one (no inode is free), nothing has changed.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        let kept = self.limits.files.max(1) - 1;
        let new = if kept == 0 { self.path.clone() } else { PathBuf::from(format!("{}.new", self.path.display())) };
        let file = open(&new, true)?;
        if kept > 0 {
            // As many as there are, not as many as there may be.
            let older = (1..kept).take_while(|number| numbered(*number).exists()).last().unwrap_or(0);
            let moves = (1..=older).rev().map(|number| (numbered(number), numbered(number + 1)));
            for (from, to) in moves.chain([(self.path.clone(), numbered(1))]) {
                match std::fs::rename(from, to) {
                    // Somebody has removed it.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            std::fs::rename(&new, &self.path)?;
        }
        self.file = file;
        self.size_bytes = 0;
        Ok(())
    }
}

fn open(path: &Path, empty: bool) -> io::Result<File> {
    let mut flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    flags.set(OFlags::TRUNC, empty);
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?.into())
}

/// Cuts the file after its last whole entry and says how long it is then.
fn whole_entries(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut last = [0_u8; 1];
    if size == 0 || (rustix::io::pread(file.as_fd(), &mut last, size - 1)? == 1 && last[0] == b'\n') {
        return Ok(size);
    }
    let from = size.saturating_sub(LONGEST_ENTRY_BYTES);
    let mut tail = vec![0; (size - from) as usize];
    let count = rustix::io::pread(file.as_fd(), &mut tail, from)?;
    let whole = tail[..count].iter().rposition(|byte| *byte == b'\n').map_or(from, |newline| from + newline as u64 + 1);
    file.set_len(whole)?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn where_a_batch_goes() {
        for (size, batch, limit, want) in [
            (0, "ab\ncd\n", 100, Step::Append(6)),
            (0, "ab\ncd\n", 5, Step::Append(3)),
            (0, "ab\ncd\n", 6, Step::Append(6)),
            (3, "cd\n", 5, Step::Rotate),
            (0, "abcdef\n", 3, Step::Append(7)),
            (9, "ab\n", 3, Step::Rotate),
        ] {
            assert_eq!(next_step(size, batch.as_bytes(), limit), want, "{size} {batch:?} {limit}");
        }
    }

    fn read(directory: &Path, files: u32) -> String {
        let older = (1..files).rev().map(|number| directory.join(format!("log.json.{number}")));
        older.chain([directory.join("log.json")]).filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What is kept is the end of what was written, uncut, and no file but an over-long entry's passes the limit.
        #[test]
        fn rotation_keeps_whole_lines(
            batches in proptest::collection::vec("([a-z]{0,30}\n){1,5}", 0..20),
            file_size_bytes in 1_u64..200,
            files in 1_u32..5,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut log = LogFile::open(directory.path(), LogLimits { file_size_bytes, files }).unwrap();
            for batch in &batches {
                log.append(batch.as_bytes());
            }
            let (all, kept) = (batches.concat(), read(directory.path(), files));
            prop_assert!(all.ends_with(&kept));
            prop_assert!(kept.is_empty() || all.len() == kept.len() || all[..all.len() - kept.len()].ends_with('\n'));
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
                prop_assert!(text.len() as u64 <= file_size_bytes || text.lines().count() == 1);
            }
            prop_assert!(std::fs::read_dir(directory.path()).unwrap().count() <= files as usize);
        }
    }

    #[test]
    fn a_torn_entry_is_cut_off_when_the_log_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        std::fs::write(&path, "one\ntwo\ntor").unwrap();
        LogFile::open(directory.path(), LogLimits::default()).unwrap().append(b"three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        std::fs::write(&path, "tor").unwrap();
        LogFile::open(directory.path(), LogLimits::default()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_log_that_somebody_has_removed_begins_anew_with_the_next_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let limits = LogLimits { file_size_bytes: 4, files: u32::MAX };
        let mut log = LogFile::open(directory.path(), limits).unwrap();
        log.append(b"one\n");
        std::fs::remove_file(&path).unwrap();
        log.append(b"two\nthr\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "thr\n");
        assert_eq!(std::fs::read_to_string(path.with_extension("json.1")).unwrap(), "two\n");
    }

    /// A directory in the new file's place stands for whatever keeps a file from being made.
    #[test]
    fn a_rotation_that_cannot_make_a_file_moves_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let limits = LogLimits { file_size_bytes: 4, files: 3 };
        let mut log = LogFile::open(directory.path(), limits).unwrap();
        log.append(b"one\n");
        std::fs::create_dir(path.with_extension("json.new")).unwrap();
        log.append(b"two\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        std::fs::remove_dir(path.with_extension("json.new")).unwrap();
        log.append(b"thr\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "thr\n");
        assert_eq!(std::fs::read_to_string(path.with_extension("json.1")).unwrap(), "one\ntwo\n");
    }

    /// /dev/full answers every write with ENOSPC (full(4)).
    #[test]
    fn a_full_disk_is_counted_and_survived() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(directory.path(), LogLimits::default()).unwrap();
        log.append(b"kept\n");
        let file = std::mem::replace(&mut log.file, File::options().append(true).open("/dev/full").unwrap());
        log.append(b"lost\nlost too\n");
        let (entries, _) = log.lost().unwrap();
        assert_eq!(entries, 2);
        log.file = file;
        log.append(b"kept again\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("log.json")).unwrap(), "kept\nkept again\n");
    }
}
