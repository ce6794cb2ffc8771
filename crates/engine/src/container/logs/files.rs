//! The files of a log, oldest first, compressed or not.
//!
//! The newest has the log's own name; a rotation gives every file the next number and begins that anew. A rotated file is
//! compressed some time later, under the eyes of those who read it: by its header they know which one it was.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use dozen_monitor::log::{compression, file};
use flate2::read::MultiGzDecoder;

/// A log is searched for the beginning of its last lines in pieces of this size; reading is done in pieces of it, too.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// One file of a log, open.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    /// The inode's number of what was compressed; `None`: this is not.
    former_inode: Option<u64>,
}

/// Reads a part from some place on.
pub(super) type PartReader = BufReader<Box<dyn Read + Send>>;

impl Part {
    fn open(path: &Path, compressed: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut former_inode = None;
        if compressed {
            let mut header = [0; compression::HEADER_BYTES];
            let count = file.read_at(&mut header, 0)?;
            // 0 is no inode's number.
            former_inode = Some(compression::inode_of(&header[..count]).unwrap_or(0));
        }
        Ok(Self { file, former_inode })
    }

    /// The inode's number that it had when it was written.
    pub(super) fn written_inode(&self) -> io::Result<u64> {
        match self.former_inode {
            Some(inode) => Ok(inode),
            None => Ok(self.file.metadata()?.ino()),
        }
    }

    /// It is the same file, or what has become of it.
    pub(super) fn is(&self, other: &Self) -> io::Result<bool> {
        let (own, others) = (self.file.metadata()?, other.file.metadata()?);
        let same = (own.dev(), own.ino()) == (others.dev(), others.ino());
        Ok(same || (self.former_inode.is_none() && other.former_inode == Some(own.ino())))
    }

    /// The length of what was written; `None` where that is not known before it is unpacked.
    pub(super) fn length(&self) -> io::Result<Option<u64>> {
        if self.former_inode.is_some() { Ok(None) } else { self.file.metadata().map(|metadata| Some(metadata.len())) }
    }

    /// From so many written bytes on. A part has one reader at a time.
    pub(super) fn reader(&self, offset: u64) -> io::Result<PartReader> {
        let mut file = self.file.try_clone()?;
        let source: Box<dyn Read + Send> = if self.former_inode.is_some() {
            file.seek(SeekFrom::Start(0))?;
            let mut unpacked = MultiGzDecoder::new(BufReader::with_capacity(BLOCK_BYTES, file));
            io::copy(&mut (&mut unpacked).take(offset), &mut io::sink())?;
            Box::new(unpacked)
        } else {
            file.seek(SeekFrom::Start(offset))?;
            Box::new(file)
        };
        Ok(BufReader::with_capacity(BLOCK_BYTES, source))
    }

    /// Where its last `lines` lines begin; or, if it has fewer, how many it has.
    fn tail(&self, lines: u64, cancelled: &dyn Fn() -> bool) -> io::Result<Result<u64, u64>> {
        if self.former_inode.is_some() {
            self.tail_unpacked(lines, cancelled)
        } else {
            self.tail_backwards(lines, cancelled)
        }
    }

    fn tail_backwards(&self, lines: u64, cancelled: &dyn Fn() -> bool) -> io::Result<Result<u64, u64>> {
        let mut left = lines;
        let mut block = vec![0; BLOCK_BYTES];
        let mut end = self.file.metadata()?.len();
        while end > 0 && !cancelled() {
            let begin = end.saturating_sub(BLOCK_BYTES as u64);
            let block = &mut block[..(end - begin) as usize];
            // Shorter than it was a moment ago: it was emptied, and begins anew.
            match self.file.read_exact_at(block, begin) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Ok(0)),
                result => result?,
            }
            for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                if left == 0 {
                    return Ok(Ok(begin + at as u64 + 1));
                }
                left -= 1;
            }
            end = begin;
        }
        Ok(if left == 0 { Ok(0) } else { Err(lines - left) })
    }

    /// A stream is read from its beginning: once to count, once to find the place.
    fn tail_unpacked(&self, lines: u64, cancelled: &dyn Fn() -> bool) -> io::Result<Result<u64, u64>> {
        let (all, _) = count_lines(self.reader(0)?, u64::MAX, cancelled)?;
        match all.checked_sub(lines) {
            None => Ok(Err(all)),
            Some(before) => Ok(Ok(count_lines(self.reader(0)?, before, cancelled)?.1)),
        }
    }
}

/// Lines up to `most`, and the bytes that they have.
fn count_lines(mut reader: PartReader, most: u64, cancelled: &dyn Fn() -> bool) -> io::Result<(u64, u64)> {
    let (mut lines, mut bytes) = (0, 0);
    while lines < most && !cancelled() {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            break;
        }
        let mut taken = block.len();
        for (at, _) in block.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            lines += 1;
            if lines == most {
                taken = at + 1;
                break;
            }
        }
        bytes += taken as u64;
        reader.consume(taken);
    }
    Ok((lines, bytes))
}

/// The newest file. `None`: it is being rotated at this moment, or has not begun.
pub(super) fn open_newest(path: &Path) -> io::Result<Option<Part>> {
    match Part::open(path, false) {
        Ok(part) => Ok(Some(part)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The files of a log, oldest first.
///
/// They are opened from the newest on, in the direction in which a rotation moves them: one may be met twice, and none is
/// missed. A rotation that is under way leaves one number free.
pub(super) fn open_all(path: &Path) -> io::Result<VecDeque<Part>> {
    let mut parts = VecDeque::<Part>::new();
    let mut missing = 0;
    for number in 0.. {
        let opened = match number {
            0 => open_newest(path)?,
            // Where both are there, the compressed one is not finished; where it comes into being between these two
            // looks, it is found by the second.
            _ => match open_newest(&file::numbered(path, number))? {
                Some(part) => Some(part),
                None => match Part::open(&file::compressed(path, number), true) {
                    Ok(part) => Some(part),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                },
            },
        };
        match opened {
            Some(part) => {
                missing = 0;
                if !parts.front().is_some_and(|newer| newer.is(&part).unwrap_or(false)) {
                    parts.push_front(part);
                }
            }
            None if missing == 0 => missing = 1,
            None => break,
        }
    }
    Ok(parts)
}

/// The part, and the place in it, at which the last `lines` whole lines begin, looked for from the end.
pub(super) fn tail_start(parts: &VecDeque<Part>, lines: u64, cancelled: &dyn Fn() -> bool) -> io::Result<(usize, u64)> {
    let mut left = lines;
    for (index, part) in parts.iter().enumerate().rev() {
        match part.tail(left, cancelled)? {
            Ok(place) => return Ok((index, place)),
            Err(lines) => left -= lines,
        }
    }
    Ok((0, 0))
}
