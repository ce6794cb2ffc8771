//! An answer that takes the connection over: Docker's two heads, and what runs after them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::unread::until_read;

/// Runs with the client's socket and the bytes that it had sent beyond its request.
pub(crate) type Session = Box<dyn FnOnce(UnixStream, Bytes) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Travels in a response's extensions from the handler to the connection.
#[derive(Clone)]
pub(crate) struct Takeover(Arc<Mutex<Option<Session>>>);

impl Takeover {
    /// Takes the session out of a response, if it has one.
    pub(crate) fn of(response: &mut Response) -> Option<Session> {
        let takeover: Self = response.extensions_mut().remove()?;
        takeover.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

/// Which head the client expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// It sent `Upgrade: tcp`: 101.
    Upgraded { content_type: &'static str },
    /// It sent no Upgrade: 200, and raw bytes.
    Raw,
    /// It wants a WebSocket, and is answered with this key.
    WebSocket { accept: String },
}

impl Head {
    /// Docker looks for the header's presence only.
    pub(crate) fn for_request(headers: &HeaderMap, content_type: &'static str) -> Self {
        if headers.contains_key(header::UPGRADE) { Self::Upgraded { content_type } } else { Self::Raw }
    }

    fn text(&self) -> String {
        match self {
            Self::Upgraded { content_type } => format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            ),
            Self::WebSocket { accept } => format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            ),
            Self::Raw => "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n".into(),
        }
    }
}

/// The response of a handler that wants the connection: `run` gets it once the head is written.
pub(crate) fn response<F, R>(head: Head, run: F) -> Response
where
    F: FnOnce(UnixStream, Bytes) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let session: Session = Box::new(move |mut client, early| {
        Box::pin(async move {
            // A client that is gone already is noticed by whatever runs next.
            let _ = client.write_all(head.text().as_bytes()).await;
            until_read(&client).await;
            run(client, early).await;
        })
    });
    let mut response = StatusCode::OK.into_response();
    response.extensions_mut().insert(Takeover(Arc::new(Mutex::new(Some(session)))));
    response
}
