//! What a file holds, to be read whenever it is needed: a handle that stays good without the tree that gave it.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::live;

/// The contents of a file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Content(Held);

#[derive(Debug, Clone)]
enum Held {
    Bytes(Arc<[u8]>),
    Part { file: Arc<File>, offset: u64, size: u64 },
    Live { root: Arc<OwnedFd>, path: Arc<[u8]>, identity: (u64, u64) },
}

/// Reads contents once, from the beginning.
#[derive(Debug)]
pub struct ContentReader(Reading);

#[derive(Debug)]
enum Reading {
    Bytes(Cursor<Arc<[u8]>>),
    Part { file: Arc<File>, offset: u64, end: u64 },
    Live(File),
}

impl Content {
    /// These bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Held::Bytes(bytes.into()))
    }

    /// A part of a file, which nobody changes.
    pub fn of_part(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self(Held::Part { file, offset, size })
    }

    /// A file below a root, as long as it is this one.
    pub(super) fn of_live(root: Arc<OwnedFd>, path: &[u8], identity: (u64, u64)) -> Self {
        Self(Held::Live { root, path: path.into(), identity })
    }

    /// Begins to read.
    pub fn open(&self) -> io::Result<ContentReader> {
        Ok(ContentReader(match &self.0 {
            Held::Bytes(bytes) => Reading::Bytes(Cursor::new(bytes.clone())),
            Held::Part { file, offset, size } => {
                Reading::Part { file: file.clone(), offset: *offset, end: offset + size }
            }
            Held::Live { root, path, identity } => Reading::Live(live::open_file(root, path, *identity)?),
        }))
    }
}

impl Read for ContentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Reading::Bytes(bytes) => bytes.read(buffer),
            Reading::Live(file) => file.read(buffer),
            Reading::Part { file, offset, end } => {
                let want = usize::try_from(*end - *offset).unwrap_or(usize::MAX).min(buffer.len());
                let read = file.read_at(&mut buffer[..want], *offset)?;
                *offset += read as u64;
                Ok(read)
            }
        }
    }
}
