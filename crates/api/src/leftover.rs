//! What a client is still sending when its request has been refused already.
//!
//! A connection that is closed while its client writes is, for most clients, a broken pipe: they never read the
//! answer that says why. So whatever of the body nobody has read is read and dropped before a refusal goes out.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// A client that takes longer than this to send the rest does without the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request's body, of which the rest can be had back.
#[derive(Clone)]
pub(crate) struct Leftover(Arc<Mutex<Body>>);

impl Leftover {
    /// The body to be handed to the handler, and what remembers it.
    pub(crate) fn of(body: Body) -> (Body, Self) {
        let leftover = Self(Arc::new(Mutex::new(body)));
        (Body::new(leftover.clone()), leftover)
    }

    /// Reads what is left. Call it when the handler is done.
    pub(crate) async fn drain(self) {
        let mut body = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(PATIENCE, rest).await;
    }
}

impl HttpBody for Leftover {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_has_read_is_read() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let (mut body, leftover) = Leftover::of(Body::from_stream(stream));
        sender.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        drop(body);
        let drained = tokio::spawn(leftover.drain());
        for _ in 0..3 {
            sender.send(Ok(Bytes::from_static(b"more"))).await.unwrap();
        }
        drop(sender);
        drained.await.unwrap();
    }
}
