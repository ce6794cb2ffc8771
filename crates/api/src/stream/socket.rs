//! The adapter between a client's socket and hyper.
//!
//! hyper knows one kind of taking a connection over: an Upgrade header answered by 101. Docker's clients know
//! another: no such header, `200 OK` without a length, and then raw bytes; and it may be the n-th request of a
//! connection. So hyper is not asked. A handler answers with a [`Takeover`](super::takeover::Takeover); from then
//! on what hyper writes (an empty answer with `Connection: close`) is dropped here, hyper lets go of the
//! connection, and the takeover writes Docker's own head.
//!
//! The adapter also keeps a half-closed client apart from one that has gone: hyper would take either for an
//! aborted request. A client that has only shut down its writing half still gets its answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::hangup::{Hangup, hung_up};
use super::takeover::Session;

/// How much is read at once of requests.
const READ_BYTES: usize = 16 << 10;
/// And where more than that comes, as an archive does: as much as hyper asks for.
const STREAM_BYTES: usize = 128 << 10;

/// What a connection's service, socket and driver tell each other.
#[derive(Default)]
pub(crate) struct Control {
    session: Mutex<Option<Session>>,
    taken: AtomicBool,
    /// The client sends nothing more.
    pub(crate) half_closed: Notify,
}

impl Control {
    /// The answer that hyper is about to write is dropped, and `session` gets the socket.
    pub(crate) fn take_over(&self, session: Session) {
        *self.lock() = Some(session);
        self.taken.store(true, Ordering::Release);
    }

    pub(crate) fn session(&self) -> Option<Session> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A client's socket as hyper sees it.
pub(crate) struct ClientSocket {
    stream: UnixStream,
    control: Arc<Control>,
    /// Set once the client has shut down its writing half: ends when it has gone.
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What is read into while much comes; a connection at rest has none.
    stream_buffer: Vec<u8>,
}

impl ClientSocket {
    pub(crate) fn new(stream: UnixStream, control: Arc<Control>) -> Self {
        Self { stream, control, gone: None, stream_buffer: Vec::new() }
    }

    /// The socket itself, once hyper has let go.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

impl Read for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut small = [0u8; READ_BYTES];
        let this = &mut *self;
        while this.gone.is_none() {
            ready!(this.stream.poll_read_ready(context))?;
            let chunk = if this.stream_buffer.is_empty() { &mut small[..] } else { &mut this.stream_buffer };
            let wanted = chunk.len().min(buffer.remaining());
            match this.stream.try_read(&mut chunk[..wanted]) {
                Ok(0) if wanted > 0 => {
                    if hung_up(&this.stream) {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                    }
                    let hangup = Hangup::of(&this.stream)?;
                    this.gone = Some(Box::pin(async move { hangup.wait().await }));
                    this.control.half_closed.notify_one();
                }
                Ok(count) => {
                    buffer.put_slice(&chunk[..count]);
                    let is_stream = count >= READ_BYTES;
                    if is_stream && this.stream_buffer.is_empty() {
                        this.stream_buffer = vec![0; STREAM_BYTES];
                    } else if !is_stream {
                        this.stream_buffer = Vec::new();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if let Some(gone) = &mut this.gone {
            ready!(gone.as_mut().poll(context));
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl Write for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.control.taken.load(Ordering::Acquire) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.control.taken.load(Ordering::Acquire) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
