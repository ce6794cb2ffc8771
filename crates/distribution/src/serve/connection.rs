//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dozen_accept::Ending;
use dozen_tls::DoorKeeper;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::reception::Reception;
use super::socket::{Outbox, Socket, Stream};

/// The longest head of a request, and what is read of a body at once at the most.
const BUFFER_BYTES: usize = 128 << 10;
/// After the last answer: what the client has sent meanwhile is read for so long, for a socket that is closed with bytes
/// unread sends a reset, and the client may never see the answer (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// Who has come.
pub(super) enum Visitor {
    Network(TcpStream, SocketAddr),
    /// From this very process.
    Inside(UnixStream),
}

impl From<(TcpStream, SocketAddr)> for Visitor {
    fn from((stream, peer): (TcpStream, SocketAddr)) -> Self {
        Self::Network(stream, peer)
    }
}

/// Serves a client.
pub(super) async fn speak(reception: Arc<Reception>, tls: Option<DoorKeeper>, visitor: Visitor, ending: Ending) {
    let (stream, peer) = match visitor {
        Visitor::Network(stream, peer) => (stream, peer),
        Visitor::Inside(stream) => {
            // For logs: it has no address.
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            return answer(reception, Stream::Inside(stream), peer, ending).await;
        }
    };
    // It fails only on a connection that is gone already.
    let _ = stream.set_nodelay(true);
    let stall = reception.options.stall;
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(door) => match tokio::time::timeout(stall, door.accept(stream)).await {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!("{peer} was refused: {error}");
                return;
            }
            Err(_) => {
                tracing::debug!("{peer} was refused: it did not begin TLS in {stall:?}");
                return;
            }
        },
    };
    answer(reception, stream, peer, ending).await;
}

async fn answer(reception: Arc<Reception>, stream: Stream, peer: SocketAddr, mut ending: Ending) {
    let stall = reception.options.stall;
    let outbox = Outbox::default();
    let metrics = reception.options.watch.metrics.clone();
    let _connected = metrics.connected();
    let socket = Socket::new(stream, outbox.clone(), stall, metrics);
    let service = service_fn(move |request| {
        let (reception, outbox) = (reception.clone(), outbox.clone());
        Box::pin(async move { Ok::<_, Infallible>(reception.answer(request, peer, &outbox).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(stall)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let mut closing = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|context| connection.poll_without_shutdown(context)) => break ended,
            () = ending.begun(), if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = &ended {
        tracing::debug!("{peer}: the connection ended early: {error}");
    }
    let mut socket = connection.into_parts().io.into_inner();
    if socket.shutdown().await.is_ok() {
        let mut rest = vec![0; 16 << 10];
        let read = async { while socket.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        let _ = tokio::time::timeout(LINGER, read).await;
    }
}
