//! A TCP connection that can be watched for its end while TLS, or nobody, has it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// After so much silence the kernel asks whether the peer is still there, and so often again; then it is gone.
/// Go's own values, so those of Docker's daemon and command line.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_COUNT: u32 = 9;

/// What becomes of a half-close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfClose {
    /// TLS has a word for it; the connection stays as it is.
    Tls,
    /// The connection's own (FIN).
    Tcp,
}

/// Clones share it; the connection ends with the last.
#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    stream: Arc<TcpStream>,
    half_close: HalfClose,
}

impl Tcp {
    pub(crate) fn new(stream: TcpStream, half_close: HalfClose) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
        Ok(Self { stream: Arc::new(stream), half_close })
    }

    /// Returns once the connection is no more: reset, or its peer has not been heard of.
    pub(crate) async fn broken(&self) -> io::Error {
        match self.stream.ready(Interest::ERROR).await {
            Ok(_) => self.stream.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
            Err(error) => error,
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.half_close {
            HalfClose::Tls => Ok(()),
            HalfClose::Tcp => rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write).map_err(Into::into),
        })
    }
}
