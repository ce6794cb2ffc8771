//! A socket whose other end may answer and hang up before it has been told everything.
//!
//! An engine that refuses an upload answers and closes. What is still written then fails with EPIPE, which the HTTP
//! library takes for the end of the connection although the answer lies there unread. So the rest of the upload is
//! thrown away instead, and reading tells what there is: the answer, or the end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// The socket; [`Self::into_inner`] for what is no longer HTTP.
#[derive(Debug)]
pub struct LastWords(UnixStream);

impl LastWords {
    pub fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    pub fn into_inner(self) -> UnixStream {
        self.0
    }
}

fn unless_hung_up<T>(result: io::Result<T>, thrown_away: T) -> io::Result<T> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(thrown_away)
        }
        result => result,
    }
}

impl AsyncRead for LastWords {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for LastWords {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.0).poll_write(context, bytes));
        Poll::Ready(unless_hung_up(result, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.0).poll_write_vectored(context, slices));
        Poll::Ready(unless_hung_up(result, slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.0).poll_flush(context));
        Poll::Ready(unless_hung_up(result, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.0).poll_shutdown(context));
        Poll::Ready(unless_hung_up(result, ()))
    }
}
