//! Files with holes: only what they hold is written, with a map of where it belongs, in the form that GNU tar, libarchive
//! and Go read (GNU tar manual, "PAX Format, Version 1.0"). A container can have a file of an exabyte that occupies
//! nothing.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, Stat};

use crate::pack::{Description, TarWriter};
use crate::tarball::SPARSE_LIMIT;

/// Holes below this size together are written as the zeros that they are: every unpacker reads those.
const WORTHWHILE_BYTES: u64 = 1 << 20;
const BLOCK: usize = 512;

/// Offset and length of what a file holds, in order; `None` if it is to be written whole.
pub(super) fn pieces(file: impl AsFd, stat: &Stat) -> Option<Vec<(u64, u64)>> {
    let size = u64::try_from(stat.st_size).ok()?;
    let occupied = u64::try_from(stat.st_blocks).ok()?.saturating_mul(512);
    if occupied.saturating_add(WORTHWHILE_BYTES) > size {
        return None;
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    // ENXIO: there is no data behind this place (lseek(2)).
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).ok()?.min(size);
        // It may have grown meanwhile.
        if start >= size || end <= start {
            break;
        }
        pieces.push((start, end - start));
        // One more is needed for the end; beyond that the rest is one piece.
        if pieces.len() == SPARSE_LIMIT - 1 {
            pieces.last_mut()?.1 = size - start;
            break;
        }
        at = end;
    }
    // A piece of no length says where the file ends.
    pieces.push((size, 0));
    Some(pieces)
}

/// Writes header, map and data. `header` is that of the whole file.
pub(super) fn write<W: Write>(
    writer: &mut TarWriter<W>,
    header: Description<'_>,
    file: impl AsFd,
    pieces: &[(u64, u64)],
) -> io::Result<()> {
    let mut map = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        // Writing to a string does not fail.
        let _ = write!(map, "{offset}\n{length}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    let size = map.len() as u64 + pieces.iter().map(|(_, length)| length).sum::<u64>();
    let records = [
        ("GNU.sparse.major", b"1".to_vec()),
        ("GNU.sparse.minor", b"0".to_vec()),
        ("GNU.sparse.name", header.path.to_vec()),
        ("GNU.sparse.realsize", header.size.to_string().into_bytes()),
    ];
    writer.header_with(&Description { path: b"GNUSparseFile.0/file", size, ..header }, &records)?;
    writer.data(map.as_slice().chain(Pieces { file: file.as_fd(), rest: pieces, done: 0 }), size)
}

/// The pieces one after the other. A file that got shorter has zeros where it ended.
struct Pieces<'a> {
    file: BorrowedFd<'a>,
    rest: &'a [(u64, u64)],
    done: u64,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let [(offset, length), rest @ ..] = self.rest {
            if self.done == *length {
                (self.rest, self.done) = (rest, 0);
                continue;
            }
            let want = usize::try_from(length - self.done).unwrap_or(usize::MAX).min(buffer.len());
            let buffer = &mut buffer[..want];
            let read = match rustix::io::pread(self.file, &mut *buffer, offset + self.done)? {
                0 => {
                    buffer.fill(0);
                    want
                }
                read => read,
            };
            self.done += read as u64;
            return Ok(read);
        }
        Ok(0)
    }
}
