//! An archive, entry by entry, into index and spool.

use std::fs::File;
use std::io::{self, Read};

use dozen_image::archive::{Entry, EntryType, TarReader, normalize, shown};
use dozen_image::beneath::{PATH_LIMIT, is_portable_xattr};

use super::compression::{self, decompress};
use super::index::{Directory, Index, Looks, Refusal, What};
use super::spool::Spool;
use super::{ContextError, Owners};
use crate::tree::join;

/// Entries, and directories that they imply.
pub(super) const ENTRIES: usize = 2_000_000;
/// Bytes of names, link targets and attributes.
const DESCRIPTIONS: usize = 256 << 20;
/// Bytes that sparse files leave out: they take nothing of the disk, and time to go through.
pub(super) const HOLES: u64 = 8 << 30;

pub(super) fn read(archive: impl Read, spool: File, owners: Owners, holes: u64) -> Result<(Index, File), ContextError> {
    read_parts([(Vec::new(), archive)], spool, owners, holes)
}

/// The bounds are those of all parts together.
pub(super) fn read_parts<R: Read>(
    parts: impl IntoIterator<Item = (Vec<u8>, R)>,
    spool: File,
    owners: Owners,
    holes: u64,
) -> Result<(Index, File), ContextError> {
    let mut reading = Reading {
        index: Index::default(),
        spool: Spool::new(spool).map_err(ContextError::Spool)?,
        owners,
        entries: 0,
        descriptions: 0,
        holes,
    };
    for (place, archive) in parts {
        let (source, is_archive) = decompress(archive).map_err(failed)?;
        if !is_archive {
            return Err(ContextError::NotAnArchive);
        }
        let mut reader = TarReader::new(source).may_lack_padding();
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            reading.entry(&place, entry, &mut reader)?;
        }
        reader.drain().map_err(failed)?;
    }
    Ok((reading.index, reading.spool.finish().map_err(ContextError::Spool)?))
}

/// An error while the archive is read: its own fault, or that of whoever sends it.
fn failed(error: io::Error) -> ContextError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ContextError::Archive("it is cut short".into()),
        io::ErrorKind::InvalidData | io::ErrorKind::Unsupported => ContextError::Archive(error.to_string()),
        _ => ContextError::Receive(error),
    }
}

struct Reading {
    index: Index,
    spool: Spool,
    owners: Owners,
    entries: usize,
    descriptions: usize,
    /// Bytes that may still come.
    holes: u64,
}

impl Reading {
    fn entry<R: Read>(&mut self, place: &[u8], entry: Entry, reader: &mut TarReader<R>) -> Result<(), ContextError> {
        let refused = |why| ContextError::Refused { entry: shown(&entry.path), why };
        let path = join(place, &normalize(&entry.path).map_err(refused)?);
        self.count(&entry, path.len())?;
        let put = match entry.kind {
            EntryType::Link => {
                let target = normalize(&entry.link).map_err(|_| refused("its target leads out of the archive"))?;
                self.index.link(&path, &join(place, &target), entry.mtime)
            }
            kind => {
                let what = match kind {
                    EntryType::Directory => What::Directory(Directory::default()),
                    EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(&entry, reader)?,
                    EntryType::Symlink => {
                        if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > PATH_LIMIT {
                            return Err(refused("its target is empty, too long or holds a NUL"));
                        }
                        What::Link(entry.link.as_slice().into())
                    }
                    EntryType::Fifo => What::Pipe,
                    EntryType::Char => What::CharacterDevice(entry.device.0, entry.device.1),
                    EntryType::Block => What::BlockDevice(entry.device.0, entry.device.1),
                    _ => return Err(refused("dozen does not know its type")),
                };
                let looks = self.looks(&entry);
                self.index.put(&path, what, looks)
            }
        };
        put.map_err(|refusal| match refusal {
            Refusal::Because(why) => refused(why),
            Refusal::TooMany => too_many(),
            Refusal::TooLong => ContextError::Archive("the paths of its entries are longer than 256 MiB".into()),
        })
    }

    fn count(&mut self, entry: &Entry, path_bytes: usize) -> Result<(), ContextError> {
        self.entries += 1;
        if self.entries > ENTRIES {
            return Err(too_many());
        }
        let attributes = entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>();
        self.descriptions += path_bytes + entry.link.len() + attributes;
        if self.descriptions > DESCRIPTIONS {
            return Err(ContextError::Archive("its names and attributes are larger than 256 MiB".into()));
        }
        Ok(())
    }

    fn looks(&self, entry: &Entry) -> Looks {
        let (uid, gid) = match self.owners {
            Owners::Root => (0, 0),
            Owners::Kept => (entry.uid, entry.gid),
        };
        let attributes: Vec<_> = entry.xattrs.iter().filter(|(name, _)| is_portable_xattr(name)).cloned().collect();
        let attributes = (!attributes.is_empty()).then(|| attributes.into());
        Looks { mode: entry.mode, uid, gid, mtime: entry.mtime, attributes }
    }

    fn file<R: Read>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<What, ContextError> {
        let whole = [(0, entry.size)];
        let (pieces, size) = match &entry.sparse {
            Some(sparse) => (sparse.pieces.as_slice(), sparse.real_size),
            None => (whole.as_slice(), entry.size),
        };
        let data = pieces.iter().map(|(_, length)| length).sum::<u64>();
        self.holes = self
            .holes
            .checked_sub(size - data)
            .ok_or_else(|| ContextError::Archive("its files have holes of more than 8 GiB".into()))?;
        let stored = self.spool.file(&mut reader.data(), pieces, size);
        let (offset, digest) = stored.map_err(|error| match error {
            super::spool::Failure::Source(error) => failed(error),
            super::spool::Failure::Spool(error) => ContextError::Spool(error),
        })?;
        Ok(What::File { offset, size, digest })
    }
}

fn too_many() -> ContextError {
    ContextError::Archive(format!("it has more than {ENTRIES} entries, counting directories that none names"))
}

/// Whether contents are an archive: the first entry can be read.
pub(crate) fn is_archive(content: impl Read) -> io::Result<bool> {
    let (source, is_archive) = match compression::decompress(content) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
        Err(error) => return Err(error),
    };
    if !is_archive {
        return Ok(false);
    }
    match TarReader::new(source).next_entry() {
        Ok(entry) => Ok(entry.is_some()),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => Ok(false),
        Err(error) => Err(error),
    }
}
