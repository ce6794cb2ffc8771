//! The log on disk: appended to in whole entries, rotated by size.
//!
//! A log that cannot be written (a full disk) never stops the container: the entries are counted as lost, the
//! file is cut back to its last whole entry, and the next batch is tried again.
//!
//! The newest file has the log's own name; `.1` after it is the one before, `.2` the one before that. What is compressed
//! has `.gz` after the number. Where both are there, a kill has come in between, and the uncompressed one counts.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dozen_model::LogFiles;
use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::compression::Compressor;
use crate::protocol::LogEnd;

/// Looked through, from the end of a log that a killed monitor left, for the last whole entry. An entry is
/// shorter: 16 KiB, each byte of it escaped to at most 6, attributes, and a hundred bytes around them.
const LONGEST_ENTRY_BYTES: u64 = 256 * 1024;

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
    files: LogFiles,
    last_error: Option<io::Error>,
    compressor: Option<Compressor>,
}

/// A rotated file, by its number from 1.
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}"))
}

/// The same, compressed.
pub fn compressed(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}.gz"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl LogFile {
    /// Opens it for more, or begins it; a last entry that was torn is cut off. What is more than is to be kept, and what
    /// a killed monitor has left half compressed, goes.
    ///
    /// # Errors
    /// The file can be neither opened nor made.
    pub fn open(path: &Path, files: LogFiles) -> io::Result<Self> {
        let file = open(path, false)?;
        let size_bytes = whole_entries(&file)?;
        let mut log = Self { path: path.to_owned(), file, size_bytes, files, last_error: None, compressor: None };
        // Nothing of it keeps a container from starting.
        if let Err(error) = log.tidy() {
            log.last_error = Some(error);
        }
        Ok(log)
    }

    /// Where it ends now.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn end(&self) -> io::Result<LogEnd> {
        Ok(LogEnd { inode: self.file.metadata()?.ino(), size_bytes: self.size_bytes })
    }

    /// Why something could not be written, the last time.
    pub fn last_error(&self) -> String {
        self.last_error.as_ref().map_or_else(String::new, io::Error::to_string)
    }

    /// Appends whole entries; one write(2) unless they are rotated in between. How many could not be written.
    pub fn append(&mut self, mut batch: &[u8]) -> u64 {
        let mut lost = 0;
        while !batch.is_empty() {
            match next_step(self.size_bytes, batch, self.files.file_size_bytes) {
                Step::Rotate => {
                    if let Err(error) = self.rotate() {
                        // Better a file that is too long than a lost line.
                        self.last_error = Some(error);
                        return lost + self.write(batch);
                    }
                    self.compress_next();
                }
                Step::Append(length) => {
                    let (now, later) = batch.split_at(length);
                    lost += self.write(now);
                    batch = later;
                }
            }
        }
        lost
    }

    fn write(&mut self, entries: &[u8]) -> u64 {
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
                    self.last_error = Some(error.into());
                    // Where even that fails, readers pass over what is torn.
                    let _ = self.file.set_len(self.size_bytes);
                    return entries[whole..].iter().filter(|byte| **byte == b'\n').count() as u64;
                }
            }
        }
        self.size_bytes += entries.len() as u64;
        0
    }

    /// The log becomes .1, that .2, and so on; the oldest goes. The new file is there before anything is moved: without
    /// one (no inode is free), nothing has changed.
    fn rotate(&mut self) -> io::Result<()> {
        let kept = self.files.files.max(1) - 1;
        let new = if kept == 0 { self.path.clone() } else { with_suffix(&self.path, ".new") };
        let file = open(&new, true)?;
        if kept > 0 {
            // As many as there are, not as many as there may be.
            let older = (1..=kept).take_while(|number| self.has(*number)).last().unwrap_or(0);
            if older == kept {
                self.remove(kept)?;
            }
            for number in (1..=older.min(kept - 1)).rev() {
                rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
                rename(&compressed(&self.path, number), &compressed(&self.path, number + 1))?;
            }
            rename(&self.path, &numbered(&self.path, 1))?;
            std::fs::rename(&new, &self.path)?;
        }
        self.file = file;
        self.size_bytes = 0;
        Ok(())
    }

    fn has(&self, number: u32) -> bool {
        numbered(&self.path, number).exists() || compressed(&self.path, number).exists()
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        remove(&numbered(&self.path, number))?;
        remove(&compressed(&self.path, number))
    }

    /// Keeps as much from now on: what is more goes at once, and the newest file ends where it now has to with the next
    /// entry. That files are to be compressed, or no longer, is meant of those that are still to be rotated.
    pub fn keep(&mut self, files: LogFiles) {
        self.files = files;
        // A child may be compressing one of them: what it has made goes when it has ended.
        if let Err(error) = self.trim() {
            self.last_error = Some(error);
        }
    }

    /// What nobody else would take away.
    fn tidy(&self) -> io::Result<()> {
        remove(&self.half_compressed())?;
        self.trim()
    }

    /// No more files than are to be kept, and each once.
    fn trim(&self) -> io::Result<()> {
        let mut number = 1;
        while self.has(number) {
            if number >= self.files.files {
                self.remove(number)?;
            } else if numbered(&self.path, number).exists() {
                remove(&compressed(&self.path, number))?;
            }
            number += 1;
        }
        Ok(())
    }

    fn half_compressed(&self) -> PathBuf {
        with_suffix(&self.path, ".gz.new")
    }

    /// Has the oldest file compressed that is not yet. One after the other: they are not many.
    fn compress_next(&mut self) {
        if !self.files.compress || self.compressor.is_some() {
            return;
        }
        let waiting = (1..self.files.files).take_while(|number| self.has(*number));
        let Some(source) = waiting.map(|number| numbered(&self.path, number)).filter(|path| path.exists()).last()
        else {
            return;
        };
        match Compressor::begin(&source, &self.half_compressed()) {
            Ok(compressor) => self.compressor = Some(compressor),
            // It stays as it is until the next rotation.
            Err(error) => self.last_error = Some(error),
        }
    }

    /// Has the kernel tell when that child ends.
    ///
    /// # Errors
    /// epoll_ctl(2)'s.
    pub fn watch(&mut self, epoll: &OwnedFd) -> rustix::io::Result<()> {
        match &mut self.compressor {
            Some(compressor) => compressor.end.watch(epoll, Some(EventFlags::IN)),
            None => Ok(()),
        }
    }

    /// A child of this process has ended. If it was the one that compresses, what it has made takes its place.
    pub fn child_ended(&mut self, child: Pid, successful: bool) {
        let Some(compressor) = self.compressor.take_if(|compressor| compressor.child == child) else { return };
        let is_source = |number: &u32| {
            std::fs::metadata(numbered(&self.path, *number)).is_ok_and(|metadata| metadata.ino() == compressor.inode)
        };
        // It goes by another number than it did, or was thrown away.
        let result = match (1..self.files.files).take_while(|number| self.has(*number)).find(is_source) {
            Some(number) if successful => rename(&self.half_compressed(), &compressed(&self.path, number))
                .and_then(|()| remove(&numbered(&self.path, number))),
            _ => remove(&self.half_compressed()),
        };
        match result {
            Ok(()) if successful => self.compress_next(),
            // Most likely a full disk: trying at once again would end as this did.
            Ok(()) => {}
            Err(error) => self.last_error = Some(error),
        }
    }

    /// Has it write elsewhere, and gives what it wrote to.
    #[cfg(test)]
    pub(super) fn replace(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    /// Nothing more comes: no child is left. What it was compressing stays as it is.
    pub fn close(&mut self) {
        if let Some(compressor) = self.compressor.take() {
            compressor.stop();
            let _ = remove(&self.half_compressed());
        }
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        // There is none, or somebody has removed it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn open(path: &Path, empty: bool) -> io::Result<File> {
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

    const PLENTY: LogFiles = LogFiles { file_size_bytes: 20_000_000, files: 3, compress: false };

    fn log(directory: &Path, files: LogFiles) -> LogFile {
        LogFile::open(&directory.join("log.json"), files).unwrap()
    }

    fn unpacked(path: &Path) -> String {
        use std::io::Read;
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    /// All that is kept, oldest first.
    fn read(directory: &Path, files: u32) -> String {
        let path = directory.join("log.json");
        let older = (1..files).rev().map(|number| {
            std::fs::read_to_string(numbered(&path, number)).unwrap_or_else(|_| {
                let path = compressed(&path, number);
                if path.exists() { unpacked(&path) } else { String::new() }
            })
        });
        older.chain([std::fs::read_to_string(&path).unwrap_or_default()]).collect()
    }

    /// As the monitor does when a child has ended.
    fn wait_for_compressor(log: &mut LogFile) {
        let child = log.compressor.as_ref().unwrap().child;
        let (_, status) =
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        log.child_ended(child, status.exit_status() == Some(0));
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
            let mut log = log(directory.path(), LogFiles { file_size_bytes, files, compress: false });
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
        log(directory.path(), PLENTY).append(b"three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        std::fs::write(&path, "tor").unwrap();
        log(directory.path(), PLENTY);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_log_that_somebody_has_removed_begins_anew_with_the_next_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let files = LogFiles { file_size_bytes: 4, files: u32::MAX, compress: false };
        let mut log = log(directory.path(), files);
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
        let files = LogFiles { file_size_bytes: 4, files: 3, compress: false };
        let mut log = log(directory.path(), files);
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
        let mut log = log(directory.path(), PLENTY);
        log.append(b"kept\n");
        let file = std::mem::replace(&mut log.file, File::options().append(true).open("/dev/full").unwrap());
        assert_eq!(log.append(b"lost\nlost too\n"), 2);
        assert!(log.last_error().contains("No space left"));
        log.file = file;
        log.append(b"kept again\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("log.json")).unwrap(), "kept\nkept again\n");
    }

    #[test]
    fn rotated_files_are_compressed_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let mut log = log(directory.path(), LogFiles { file_size_bytes: 4, files: 4, compress: true });
        log.append(b"one\ntwo\n");
        let first = File::open(numbered(&path, 1)).unwrap().metadata().unwrap().ino();
        // It goes by another number when it is done.
        log.append(b"thr\n");
        wait_for_compressor(&mut log);
        assert!(!numbered(&path, 2).exists());
        assert_eq!(unpacked(&compressed(&path, 2)), "one\n");
        assert_eq!(super::super::compression::inode_of(&std::fs::read(compressed(&path, 2)).unwrap()), Some(first));
        // The next one is begun at once.
        wait_for_compressor(&mut log);
        assert_eq!(unpacked(&compressed(&path, 1)), "two\n");
        assert!(log.compressor.is_none());
        for text in ["fou\n", "fiv\n", "six\n"] {
            log.append(text.as_bytes());
            wait_for_compressor(&mut log);
        }
        assert_eq!(read(directory.path(), 9), "thr\nfou\nfiv\nsix\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn what_was_thrown_away_meanwhile_does_not_come_back_compressed() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), LogFiles { file_size_bytes: 4, files: 2, compress: true });
        log.append(b"one\ntwo\nthr\n");
        wait_for_compressor(&mut log);
        wait_for_compressor(&mut log);
        assert_eq!(read(directory.path(), 9), "two\nthr\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn fewer_files_are_kept_from_one_entry_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let mut log = log(directory.path(), LogFiles { file_size_bytes: 4, files: 9, compress: false });
        log.append(b"one\ntwo\nthr\nfou\n");
        log.keep(LogFiles { file_size_bytes: 8, files: 2, compress: false });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        log.append(b"fiv\nsix\n");
        assert_eq!(std::fs::read_to_string(numbered(&path, 1)).unwrap(), "fou\nfiv\n");
        // The newest is longer than it may be now.
        log.append(b"sev\n");
        log.keep(LogFiles { file_size_bytes: 4, files: 3, compress: false });
        log.append(b"eig\n");
        assert_eq!(read(directory.path(), 9), "fou\nfiv\nsix\nsev\neig\n");
        log.keep(LogFiles { file_size_bytes: u64::MAX, files: 1, compress: false });
        log.append(b"nin\n");
        assert_eq!(read(directory.path(), 9), "eig\nnin\n");
    }

    /// Neither the file that a child is compressing nor what it has made of it so far is lost, or comes back.
    #[test]
    fn what_is_kept_changes_while_a_child_compresses() {
        for (files, kept) in [(2, "one\ntwo\n"), (1, "two\n")] {
            let directory = tempfile::tempdir().unwrap();
            let mut log = log(directory.path(), LogFiles { file_size_bytes: 4, files: 3, compress: true });
            log.append(b"one\ntwo\n");
            assert!(log.compressor.is_some());
            log.keep(LogFiles { file_size_bytes: 4, files, compress: false });
            wait_for_compressor(&mut log);
            assert_eq!(read(directory.path(), 9), kept);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), files as usize);
        }
    }

    #[test]
    fn a_log_that_ends_leaves_no_child_and_nothing_half_done() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), LogFiles { file_size_bytes: 4, files: 2, compress: true });
        log.append(b"one\ntwo\n");
        let child = log.compressor.as_ref().unwrap().child;
        log.close();
        assert!(rustix::process::test_kill_process(child).is_err());
        assert_eq!(read(directory.path(), 9), "one\ntwo\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    /// At every moment at which a monitor can be killed: nothing is lost, nothing is there twice.
    #[test]
    fn what_a_killed_monitor_left_is_tidied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&path, "e\n");
        write(&numbered(&path, 1), "d\n");
        write(&compressed(&path, 1), "renamed, and the source not yet removed");
        write(&with_suffix(&path, ".gz.new"), "half");
        write(&numbered(&path, 2), "c\n");
        write(&numbered(&path, 3), "one too many");
        write(&compressed(&path, 4), "another");
        log(directory.path(), PLENTY);
        assert_eq!(read(directory.path(), 9), "c\nd\ne\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}
