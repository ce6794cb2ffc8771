//! What is sent piece by piece, as it is read, mostly with a length that is known before; and how long who sends it is waited
//! for.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::Body;

/// So many bytes from a channel. `sent` is told of each piece that goes. A source that ends early, gives more or fails
/// breaks the connection: whoever is at its other end never takes it for the whole.
pub fn pieces(
    source: mpsc::Receiver<io::Result<Bytes>>,
    length_bytes: u64,
    sent: impl FnMut(u64) + Send + Unpin + 'static,
) -> Body {
    Pieces { source, left_bytes: Some(length_bytes), sent }.boxed_unsync()
}

/// The same of what nobody knows the length of before its end: it goes in chunks (RFC 9112, section 7.1). The end of the
/// channel is its end, and a failure breaks the connection.
pub fn pieces_until_end(
    source: mpsc::Receiver<io::Result<Bytes>>,
    sent: impl FnMut(u64) + Send + Unpin + 'static,
) -> Body {
    Pieces { source, left_bytes: None, sent }.boxed_unsync()
}

struct Pieces<S> {
    source: mpsc::Receiver<io::Result<Bytes>>,
    /// `None`: nobody knows.
    left_bytes: Option<u64>,
    sent: S,
}

impl<S: FnMut(u64) + Unpin> HttpBody for Pieces<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let wrong = |kind: io::ErrorKind, what: &str| Poll::Ready(Some(Err(io::Error::new(kind, what))));
        match ready!(self.source.poll_recv(context)) {
            Some(Ok(piece)) => {
                let length = piece.len() as u64;
                if let Some(left) = &mut self.left_bytes {
                    let Some(after) = left.checked_sub(length) else {
                        return wrong(io::ErrorKind::InvalidData, "there is more of it than was promised");
                    };
                    *left = after;
                }
                (self.sent)(length);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None if self.left_bytes.unwrap_or(0) == 0 => Poll::Ready(None),
            None => wrong(io::ErrorKind::UnexpectedEof, "the rest of it cannot be read"),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left_bytes.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// How far a body has gone, for who waits for the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moved(Arc<AtomicU64>);

impl Moved {
    /// The body, watched.
    pub(crate) fn watch(&self, body: Body) -> Body {
        Watched { body, moved: self.clone() }.boxed_unsync()
    }

    /// Waits for as long as something of the body goes; `None` once nothing has for so long.
    pub(crate) async fn patient<F: Future>(&self, asked: F, silence: Duration) -> Option<F::Output> {
        let mut asked = pin!(asked);
        loop {
            let before = self.0.load(Ordering::Relaxed);
            match tokio::time::timeout(silence, asked.as_mut()).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.0.load(Ordering::Relaxed) != before => {}
                Err(_) => return None,
            }
        }
    }
}

struct Watched {
    body: Body,
    moved: Moved,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.moved.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    async fn sent(given: Vec<io::Result<Bytes>>, length_bytes: u64) -> (Result<Vec<u8>, String>, u64) {
        let (sender, source) = mpsc::channel(8);
        for piece in given {
            sender.send(piece).await.unwrap();
        }
        drop(sender);
        let told = Arc::new(AtomicU64::new(0));
        let count = told.clone();
        let body = pieces(source, length_bytes, move |bytes| _ = count.fetch_add(bytes, Ordering::Relaxed));
        assert_eq!(body.size_hint().exact(), Some(length_bytes));
        let whole = body.collect().await.map(|all| all.to_bytes().to_vec()).map_err(|error| error.to_string());
        (whole, told.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn what_is_not_the_whole_is_no_end() {
        let piece = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        assert_eq!(sent(vec![piece("ab"), piece("c")], 3).await, (Ok(b"abc".to_vec()), 3));
        assert_eq!(sent(vec![], 0).await, (Ok(Vec::new()), 0));
        let short = sent(vec![piece("ab")], 3).await;
        assert_eq!(short, (Err("the rest of it cannot be read".into()), 2));
        let long = sent(vec![piece("ab"), piece("cd")], 3).await;
        assert_eq!(long, (Err("there is more of it than was promised".into()), 2));
        let failed = sent(vec![piece("ab"), Err(io::Error::other("damaged"))], 3).await;
        assert_eq!(failed, (Err("damaged".into()), 2));
    }

    #[tokio::test]
    async fn what_has_no_length_ends_with_its_source() {
        let of = async |given: Vec<io::Result<Bytes>>| {
            let (sender, source) = mpsc::channel(8);
            for piece in given {
                sender.send(piece).await.unwrap();
            }
            drop(sender);
            let body = pieces_until_end(source, |_| {});
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (None, false));
            body.collect().await.map(|all| all.to_bytes().to_vec()).map_err(|error| error.to_string())
        };
        let piece = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        assert_eq!(of(vec![piece("ab"), piece("c")]).await, Ok(b"abc".to_vec()));
        assert_eq!(of(vec![]).await, Ok(Vec::new()));
        assert_eq!(of(vec![piece("ab"), Err(io::Error::other("damaged"))]).await, Err("damaged".into()));
    }

    #[tokio::test]
    async fn who_sends_is_waited_for() {
        let (sender, source) = mpsc::channel(1);
        let moved = Moved::default();
        let mut body = moved.watch(pieces(source, 1000, |_| {}));
        let mut came = 0;
        let slow = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sender.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
                body.frame().await.unwrap().unwrap();
                came += 1;
            }
            std::future::pending::<()>().await;
        };
        // All of them together take longer than that.
        assert_eq!(moved.patient(slow, Duration::from_millis(20)).await, None);
        assert_eq!(came, 20);
    }
}
