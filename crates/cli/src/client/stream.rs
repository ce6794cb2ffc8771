//! Two kinds of streams that answers are: lines of JSON, and bytes of a connection taken over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::ClientError;

/// No line of a JSON stream is longer.
const MAX_LINE_BYTES: usize = 16 << 20;

/// A body of JSON documents, one after the other (events, the progress of a load).
pub struct JsonLines {
    body: Incoming,
    buffer: BytesMut,
    what: &'static str,
}

impl JsonLines {
    /// The documents of this answer; `what` is for errors.
    pub fn new(response: Response<Incoming>, what: &'static str) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new(), what }
    }

    /// The next document; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(value) = self.take_one()? {
                return Ok(Some(value));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(ClientError::Broken { what: self.what.into(), why: error.to_string() }),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(self.unreadable("it ends within a document")),
            }
        }
    }

    fn take_one(&mut self) -> Result<Option<Value>, ClientError> {
        let mut documents = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        match documents.next() {
            Some(Ok(value)) => {
                let read = documents.byte_offset();
                self.buffer.advance(read);
                Ok(Some(value))
            }
            Some(Err(error)) if error.is_eof() && self.buffer.len() < MAX_LINE_BYTES => Ok(None),
            Some(Err(error)) => Err(self.unreadable(&error.to_string())),
            None => Ok(None),
        }
    }

    fn unreadable(&self, why: &str) -> ClientError {
        ClientError::Unreadable { what: self.what.to_owned(), why: why.to_owned() }
    }
}

/// A connection whose first bytes have been read already.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Bytes,
    stream: UnixStream,
}

impl Prefixed {
    /// `prefix` comes before what the stream still has to give.
    pub fn new(prefix: Bytes, stream: UnixStream) -> Self {
        Self { prefix, stream }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
