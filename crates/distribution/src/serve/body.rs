//! What an answer is made of: bytes at hand, or a file, which is never in memory as a whole.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use super::socket::{Outbox, STAND_IN_BYTES, stand_in};
use crate::store::Pieces;

/// So much of a file is read at once for a connection with TLS.
const READ_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Option<Bytes>),
    Sent(Sent),
    Read(Read),
    Arriving(Arriving),
}

/// A part of a file that the kernel sends (`socket.rs`).
#[derive(Debug)]
pub(crate) struct Sent {
    file: Arc<File>,
    offset: u64,
    left: u64,
    /// `None` once the socket knows of the file.
    outbox: Option<Outbox>,
    /// Brings the next piece from the disk.
    bringing: Option<JoinHandle<io::Result<()>>>,
}

/// A part of a file that goes through our memory, piece by piece.
#[derive(Debug)]
pub(crate) struct Read {
    file: Arc<File>,
    offset: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

/// A part of an object as it comes from the store. It is asked for more when the client has taken what has come.
#[derive(Debug)]
pub(crate) struct Arriving {
    pieces: Pieces,
    left: u64,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }

    /// So many bytes that come.
    pub(crate) fn arriving(pieces: Pieces, length: u64) -> Self {
        Self::Arriving(Arriving { pieces, left: length })
    }

    /// So many bytes of a file, from this one on.
    pub(crate) fn file(file: File, offset: u64, length: u64, outbox: Option<Outbox>) -> Self {
        let file = Arc::new(file);
        match outbox {
            Some(outbox) => Self::Sent(Sent { file, offset, left: length, outbox: Some(outbox), bringing: None }),
            None => Self::Read(Read { file, offset, left: length, reading: None }),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Sent(sent) => sent.poll(context),
            Self::Read(read) => read.poll(context),
            Self::Arriving(arriving) => arriving.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Sent(sent) => sent.left,
            Self::Read(read) => read.left,
            Self::Arriving(arriving) => arriving.left,
        })
    }
}

impl Arriving {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.pieces.poll_recv(context)) {
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Err(error)) => {
                tracing::warn!("a blob did not come to its end from the store: {error}");
                Err(io::Error::other(error))
            }
            Some(Ok(piece)) => match self.left.checked_sub(piece.len() as u64) {
                None => Err(io::Error::other("the store sends more than it was asked for")),
                Some(left) => {
                    self.left = left;
                    Ok(Frame::data(piece))
                }
            },
        };
        Poll::Ready(Some(piece))
    }
}

impl Sent {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(STAND_IN_BYTES as u64);
        if self.bringing.is_none() && !is_at_hand(&self.file, self.offset + length - 1) {
            let (file, offset) = (self.file.clone(), self.offset);
            self.bringing = Some(tokio::task::spawn_blocking(move || bring(&file, offset, length)));
        }
        if let Some(bringing) = &mut self.bringing {
            let brought = ready!(Pin::new(bringing).poll(context));
            self.bringing = None;
            if let Err(error) = brought.unwrap_or_else(|error| Err(io::Error::other(error))) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        if let Some(outbox) = self.outbox.take() {
            outbox.put(self.file.clone(), self.offset, self.left);
        }
        self.offset += length;
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(stand_in(usize::try_from(length).unwrap_or(STAND_IN_BYTES))))))
    }
}

/// Whether this byte is in the page cache, as the last one of a piece stands for all of it: sendfile(2) would wait for the
/// disk, and with it all that this thread serves. Where the file system cannot say it is taken to be.
fn is_at_hand(file: &File, offset: u64) -> bool {
    let mut byte = [0];
    let read = rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
    !matches!(read, Err(Errno::AGAIN))
}

/// Reads it for the page cache's sake.
fn bring(file: &File, mut offset: u64, length: u64) -> io::Result<()> {
    let end = offset + length;
    let mut buffer = vec![0; READ_BYTES];
    while offset < end {
        match file.read_at(&mut buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => offset += count as u64,
        }
    }
    Ok(())
}

impl Read {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (file, offset) = (&self.file, self.offset);
        let length = usize::try_from(self.left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let reading = self.reading.get_or_insert_with(|| {
            let file = file.clone();
            tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(buffer.into())
            })
        });
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Ok(bytes) = &read {
            self.offset += bytes.len() as u64;
            self.left -= bytes.len() as u64;
        }
        Poll::Ready(Some(read.map(Frame::data)))
    }
}
