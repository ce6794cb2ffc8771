//! A client's connection, which sends files without having them: what the body of an answer gives for a file are bytes that
//! stand in for it, all in one place of memory; when the HTTP library writes from that place, the kernel sends as many of
//! the file's instead (sendfile(2)). Nothing is copied through our memory, and the page cache's own pages go out.
//!
//! It holds as long as the library writes what it was given and copies nothing first, which it does for sockets that can
//! write from several places at once; a test pulls by all ways. Bytes that were sent from the wrong place would not have
//! the digest that every client asks for.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use dozen_tls::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use crate::metrics::Metrics;

/// A piece of a file, at the most.
pub(crate) const STAND_IN_BYTES: usize = 1 << 20;

/// Zeros that nobody reads or writes: the kernel has no pages for them.
static STAND_IN: LazyLock<&'static [u8]> = LazyLock::new(|| Box::leak(vec![0; STAND_IN_BYTES].into_boxed_slice()));

/// So many bytes of the file that the socket sends next.
pub(crate) fn stand_in(length: usize) -> Bytes {
    Bytes::from_static(&STAND_IN[..length.min(STAND_IN_BYTES)])
}

fn stands_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// Files that go out by this connection, in the order of its answers. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<VecDeque<Outgoing>>>);

#[derive(Debug)]
struct Outgoing {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Outbox {
    /// This part of a file is next, after all that were put here before.
    pub(crate) fn put(&self, file: Arc<File>, offset: u64, left: u64) {
        self.lock().push_back(Outgoing { file, offset, left });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Outgoing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends up to so many bytes of what is next.
    fn send(&self, stream: impl AsFd, length: usize) -> io::Result<usize> {
        let mut files = self.lock();
        let Some(next) = files.front_mut() else {
            return Err(io::Error::other("bytes stand in for no file"));
        };
        let length = length.min(usize::try_from(next.left).unwrap_or(usize::MAX));
        let sent = rustix::fs::sendfile(stream, &next.file, Some(&mut next.offset), length)?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob's file is shorter than it was"));
        }
        next.left -= sent as u64;
        if next.left == 0 {
            files.pop_front();
        }
        Ok(sent)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    outbox: Outbox,
    /// A client that takes nothing for so long is let go.
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
    /// To this process itself.
    Inside(UnixStream),
}

impl Socket {
    pub(crate) fn new(stream: Stream, outbox: Outbox, stall: Duration, metrics: Arc<Metrics>) -> Self {
        Self { stream, outbox, stall, stalled: None, metrics }
    }

    /// What came of a write; and if nothing did, whether that lasts too long.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

/// What the kernel sends files to.
trait Direct: AsyncWrite + AsFd + Unpin {
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Until it would block.
    fn attempt(&self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize>;
}

impl Direct for TcpStream {
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(context)
    }

    fn attempt(&self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, write)
    }
}

impl Direct for UnixStream {
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(context)
    }

    fn attempt(&self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, write)
    }
}

/// Bytes as they are, and files where bytes stand in for them: as many of the first slices as are of one kind.
fn poll_write_direct<S: Direct>(
    stream: &mut S,
    outbox: &Outbox,
    context: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or(0);
    let slices = &slices[first.min(slices.len())..];
    let is_file = slices.first().is_some_and(|slice| stands_in(slice));
    let count = slices.iter().take_while(|slice| stands_in(slice) == is_file).count();
    let slices = &slices[..count];
    if is_file {
        poll_send(stream, outbox, context, slices.iter().map(|slice| slice.len()).sum())
    } else {
        Pin::new(stream).poll_write_vectored(context, slices)
    }
}

fn poll_send<S: Direct>(
    stream: &S,
    outbox: &Outbox,
    context: &mut Context<'_>,
    length: usize,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_writable(context))?;
        match stream.attempt(|| outbox.send(stream, length)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Inside(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        this.metrics.received(buffer.filled().len().saturating_sub(before));
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            Stream::Plain(stream) => poll_write_direct(stream, &this.outbox, context, slices),
            Stream::Inside(stream) => poll_write_direct(stream, &this.outbox, context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        if let Poll::Ready(Ok(count)) = written {
            this.metrics.sent(count);
        }
        this.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        // Also where TLS copies in the end: the library is to copy nothing.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Inside(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        this.in_time(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Inside(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        };
        this.in_time(context, shut)
    }
}
