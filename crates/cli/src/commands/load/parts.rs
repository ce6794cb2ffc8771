//! What is sent of files, piece by piece: of one file, or of many that become a tar stream on the way.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll};

use bytes::Bytes;
use futures_util::Stream;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::task::JoinHandle;

use super::BUFFER_BYTES;

/// Bytes of one source, one after the other.
#[derive(Debug, Clone)]
pub struct Part {
    pub source: Source,
    pub range: Range<u64>,
}

/// Where bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    Bytes(Bytes),
    File(Arc<File>),
    Member(Arc<Member>),
}

/// A file of a directory. It is opened when its turn has come: there may be more of them than descriptors.
#[derive(Debug)]
pub struct Member {
    pub directory: Arc<OwnedFd>,
    /// Below the directory.
    pub name: CString,
    opened: OnceLock<File>,
}

impl Member {
    pub fn new(directory: Arc<OwnedFd>, name: CString) -> Self {
        Self { directory, name, opened: OnceLock::new() }
    }

    /// The file itself, wherever links have been put meanwhile: none is followed.
    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.opened.get() {
            return Ok(file);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = File::from(rustix::fs::openat2(&self.directory, &self.name, flags, Mode::empty(), resolve)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{} is no file any more", self.name.to_string_lossy())));
        }
        Ok(self.opened.get_or_init(|| file))
    }
}

impl From<Vec<u8>> for Part {
    fn from(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len() as u64, source: Source::Bytes(bytes.into()) }
    }
}

impl Part {
    fn read(&self) -> io::Result<Bytes> {
        let Range { start, end } = self.range;
        let of = |file: &File| {
            let mut buffer = vec![0; (end - start) as usize];
            file.read_exact_at(&mut buffer, start)?;
            Ok(buffer.into())
        };
        match &self.source {
            Source::Bytes(bytes) => Ok(bytes.slice(start as usize..end as usize)),
            Source::File(file) => of(file),
            Source::Member(member) => of(member.file()?),
        }
    }
}

/// How many bytes they are.
pub fn length(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.range.end - part.range.start).sum()
}

/// Parts, one after the other.
pub struct Parts {
    parts: VecDeque<Part>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Parts {
    pub fn new(parts: Vec<Part>) -> Self {
        let parts = parts.into_iter().filter(|part| !part.range.is_empty()).collect();
        Self { parts, reading: None }
    }

    /// Reads the next piece, in a thread where waiting for a disk hurts nobody.
    fn read(&mut self) -> Option<JoinHandle<io::Result<Bytes>>> {
        let part = self.parts.front_mut()?;
        let Range { start, end } = part.range;
        let piece = Part { range: start..end.min(start + BUFFER_BYTES as u64), source: part.source.clone() };
        part.range.start = piece.range.end;
        if part.range.is_empty() {
            self.parts.pop_front();
        }
        Some(tokio::task::spawn_blocking(move || piece.read()))
    }
}

impl Stream for Parts {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut reading = match self.reading.take().or_else(|| self.read()) {
            Some(reading) => reading,
            None => return Poll::Ready(None),
        };
        match Pin::new(&mut reading).poll(context) {
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready(read) => {
                // The next one is read while this one is sent.
                self.reading = self.read();
                Poll::Ready(Some(read.unwrap_or_else(|error| Err(io::Error::other(error)))))
            }
        }
    }
}
