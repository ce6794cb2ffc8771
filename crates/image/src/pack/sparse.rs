//! Files with holes: only what they hold is written, with a map of where it belongs, in the form that GNU tar, libarchive
//! and Go read (GNU tar manual, "PAX Format, Version 1.0"). A container can have a file of terabytes that occupies
//! nothing: `useradd` with a high number makes one of `lastlog`.
//!
//! The map says which blocks of a file hold anything but zeros. That depends on what is in the file and not on how a
//! file system keeps its holes, so that the same tree packs to the same bytes on any; only files with holes are looked
//! at so closely.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::{Description, PackError, TarWriter};
use crate::names::shown;
use crate::tarball::SPARSE_LIMIT;

/// Holes below this size together are written as the zeros that they are: every unpacker reads those.
const WORTHWHILE_BYTES: u64 = 1 << 20;
/// Zeros that are written for want of a longer map. More of them than this, and than there is data, and the file is
/// refused: it was made to fill the disk.
const FILLED_LIMIT_BYTES: u64 = 1 << 30;
/// What is a hole or not as a whole.
const GRAIN: u64 = 4096;
const TAR_BLOCK: usize = 512;

/// Writes header and content of a regular file. `header` is that of the whole file. `note` is told where in the file the
/// bytes come from that are written next: an offset and how many they are.
pub(crate) fn write_file<W: Write>(
    writer: &mut TarWriter<W>,
    header: Description<'_>,
    file: BorrowedFd<'_>,
    mut note: impl FnMut(&mut W, u64, u64) -> io::Result<()>,
) -> Result<(), PackError> {
    let failed = |source| PackError::Read { path: shown(header.path), source };
    let written = match Map::of(file, header.size).map_err(failed)? {
        None => {
            let size = header.size;
            writer.header(&header).and_then(|()| {
                note(writer.out(), 0, size)?;
                // Not by the descriptor's own offset, which a look for holes has moved.
                writer.data(Piece { file, at: 0, end: size }, size)
            })
        }
        Some(map) if map.filled_bytes() > FILLED_LIMIT_BYTES.max(map.data_bytes) => {
            let why = "it has more holes than an archive can tell of";
            return Err(PackError::Refused { path: shown(header.path), why });
        }
        Some(map) => map.write(writer, header, file, note),
    };
    written.map_err(PackError::Write)
}

/// Where a file holds data.
#[derive(Debug, Default, PartialEq, Eq)]
struct Map {
    /// Offset and length of each piece, in order.
    pieces: Vec<(u64, u64)>,
    /// Bytes of blocks that hold anything but zeros.
    data_bytes: u64,
    /// Holes up to this size are not told of: the map had become too long.
    joined_bytes: u64,
}

impl Map {
    /// Of a file of this size; `None` if it is to be written whole. Reads what lies between the holes.
    fn of(file: impl AsFd, size: u64) -> Result<Option<Self>, Errno> {
        if size < WORTHWHILE_BYTES || !has_hole(&file, size) {
            return Ok(None);
        }
        let mut map = Self::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut at = 0;
        loop {
            // ENXIO: there is no data behind this place (lseek(2)).
            let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                start => start?,
            };
            let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
            // A block that is data in part is looked at whole, and once.
            at = (start / GRAIN * GRAIN).max(at);
            let end = end.next_multiple_of(GRAIN).min(size);
            // It may have grown meanwhile.
            if start >= size {
                break;
            }
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                let read = fill(&file, &mut buffer[..want], at)?;
                for (number, block) in (0..).zip(buffer[..read].chunks(GRAIN as usize)) {
                    if block.iter().any(|byte| *byte != 0) {
                        map.add(at + number * GRAIN, block.len() as u64);
                    }
                }
                if read < want {
                    // It got shorter; what is missing are zeros, as when it is written.
                    at = size;
                    break;
                }
                at = end.min(at + read as u64);
            }
        }
        let holes_bytes = size - map.pieces.iter().map(|(_, length)| length).sum::<u64>();
        // A piece of no length says where the file ends.
        map.pieces.push((size, 0));
        Ok((holes_bytes >= WORTHWHILE_BYTES).then_some(map))
    }

    /// One more block that holds something, behind all others.
    fn add(&mut self, offset: u64, length: u64) {
        self.data_bytes += length;
        if let Some(last) = self.pieces.last_mut()
            && offset - (last.0 + last.1) <= self.joined_bytes
        {
            last.1 = offset + length - last.0;
            return;
        }
        self.pieces.push((offset, length));
        // One more is needed for the end.
        while self.pieces.len() >= SPARSE_LIMIT {
            self.joined_bytes = GRAIN.max(2 * self.joined_bytes);
            let joined_bytes = self.joined_bytes;
            self.pieces.dedup_by(|next, last| {
                let joins = next.0 - (last.0 + last.1) <= joined_bytes;
                if joins {
                    last.1 = next.0 + next.1 - last.0;
                }
                joins
            });
        }
    }

    /// Zeros that are written all the same.
    fn filled_bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, length)| length).sum::<u64>() - self.data_bytes
    }

    /// Writes header, map and data.
    fn write<W: Write>(
        &self,
        writer: &mut TarWriter<W>,
        header: Description<'_>,
        file: BorrowedFd<'_>,
        mut note: impl FnMut(&mut W, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut map = format!("{}\n", self.pieces.len());
        for (offset, length) in &self.pieces {
            // Writing to a string does not fail.
            let _ = write!(map, "{offset}\n{length}\n");
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(TAR_BLOCK), 0);
        let size = map.len() as u64 + self.pieces.iter().map(|(_, length)| length).sum::<u64>();
        let records = [
            ("GNU.sparse.major", b"1".to_vec()),
            ("GNU.sparse.minor", b"0".to_vec()),
            ("GNU.sparse.name", header.path.to_vec()),
            ("GNU.sparse.realsize", header.size.to_string().into_bytes()),
        ];
        writer.header_with(&Description { path: b"GNUSparseFile.0/file", size, ..header }, &records)?;
        writer.raw(&map)?;
        for (offset, length) in self.pieces.iter().copied() {
            note(writer.out(), offset, length)?;
            writer.part(Piece { file, at: offset, end: offset + length }, length)?;
        }
        writer.pad(size)
    }
}

/// Every file has a hole at its end (lseek(2)); whether there is one before.
fn has_hole(file: impl AsFd, size: u64) -> bool {
    rustix::fs::seek(file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < size)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        let read =
            rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut buffer[filled..], offset + filled as u64))?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(filled)
}

/// A part of a file. Where that has got shorter it is over early.
struct Piece<'a> {
    file: BorrowedFd<'a>,
    at: u64,
    end: u64,
}

impl Read for Piece<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = rustix::io::pread(self.file, &mut buffer[..want], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Where a file has data, as it is written at these places, and the map of it.
    #[track_caller]
    fn check(size: u64, written: &[(u64, &[u8])], want: Option<&[(u64, u64)]>) {
        let file: File = tempfile::tempfile().unwrap();
        written.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
        file.set_len(size).unwrap();
        let map = Map::of(&file, size).unwrap();
        assert_eq!(map.map(|map| map.pieces).as_deref(), want);
    }

    #[test]
    fn a_map_is_of_what_is_not_zero() {
        const MIB: u64 = 1 << 20;
        check(MIB - 1, &[], None);
        check(MIB, &[], Some(&[(MIB, 0)]));
        check(MIB, &[(0, b"x")], None);
        check(10 << 40, &[(5 << 40, b"x")], Some(&[(5 << 40, GRAIN), (10 << 40, 0)]));
        check(4 * MIB + 5, &[(4 * MIB, b"12345")], Some(&[(4 * MIB, 5), (4 * MIB + 5, 0)]));
        // Zeros that were written are as good as a hole beside one.
        let zeros = vec![0; MIB as usize];
        let around: &[(u64, &[u8])] = &[(0, b"x"), (8192, &zeros), (8192 + MIB, b"y"), (MIB + 20_000, b"z")];
        let want = [(0, GRAIN), (8192 + MIB, GRAIN), (MIB + 16_384, GRAIN), (4 * MIB, 0)];
        check(4 * MIB, around, Some(&want));
        check(4 * MIB, &[(0, &vec![0; 4 * MIB as usize])], None);
    }

    /// What is large, whole or not, is given back by who reads it.
    #[test]
    fn what_is_written_is_what_the_file_holds() {
        const MIB: usize = 1 << 20;
        let noise: Vec<u8> =
            (0..3 * MIB as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
        for (holes, size) in [(0, 2 * MIB), (0, 3 * MIB), (MIB / 2, 3 * MIB), (2 * MIB, 3 * MIB), (MIB, MIB)] {
            let file: File = tempfile::tempfile().unwrap();
            file.write_all_at(&noise[holes..size], holes as u64).unwrap();
            file.set_len(size as u64).unwrap();
            let mut bytes = Vec::new();
            let mut writer = TarWriter::new(&mut bytes);
            let header = Description::plain(b"file", tar::EntryType::Regular, 0o644, size as u64);
            write_file(&mut writer, header, file.as_fd(), |_, _, _| Ok(())).unwrap();
            writer.finish().unwrap();
            assert_eq!(bytes.len() < size, holes >= MIB);
            let mut reader = crate::tarball::TarReader::new(bytes.as_slice());
            let entry = reader.next_entry().unwrap().unwrap();
            let pieces = entry.sparse.map_or(vec![(0, size as u64)], |sparse| sparse.pieces);
            let mut read = vec![0; size];
            for (offset, length) in pieces {
                let (start, end) = (offset as usize, (offset + length) as usize);
                reader.data().read_exact(&mut read[start..end]).unwrap();
            }
            let want = [&vec![0; holes][..], &noise[holes..size]].concat();
            assert!(read == want, "{holes} of {size}");
        }
    }

    #[test]
    fn a_map_has_an_end_and_tells_of_the_larger_holes() {
        let mut map = Map::default();
        for number in 0..(SPARSE_LIMIT as u64 - 2) {
            map.add(number * 2 * GRAIN, GRAIN);
        }
        assert_eq!((map.pieces.len(), map.joined_bytes), (SPARSE_LIMIT - 2, 0));
        map.add(1 << 40, GRAIN);
        assert_eq!((map.pieces.len(), map.joined_bytes), (SPARSE_LIMIT - 1, 0));
        map.add(2 << 40, GRAIN);
        let first = (SPARSE_LIMIT as u64 - 2) * 2 * GRAIN - GRAIN;
        assert_eq!(map.pieces, [(0, first), (1 << 40, GRAIN), (2 << 40, GRAIN)]);
        assert_eq!(map.filled_bytes(), (SPARSE_LIMIT as u64 - 3) * GRAIN);
        // Far apart, and no end of them.
        let mut map = Map::default();
        for number in 0..(3 * SPARSE_LIMIT as u64) {
            map.add(number << 30, GRAIN);
        }
        assert!(map.pieces.len() < SPARSE_LIMIT && map.filled_bytes() > FILLED_LIMIT_BYTES, "{}", map.pieces.len());
    }
}
