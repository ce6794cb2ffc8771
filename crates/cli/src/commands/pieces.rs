//! Archives between HTTP and a thread that may block: pieces through a channel, in bounded memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use dozen_image::{CopyIn, LivePath};
use dozen_model::error_chain;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::client::Body;
use crate::failure::Failure;

/// Pieces on their way, and how large one is.
const PIECES: usize = 8;
const PIECE_BYTES: usize = 256 << 10;

/// What a thread that packs or unpacks comes to.
pub type Copied = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A blocking writer into a request's body. Dropped, it ends the body: what is still in it has to be flushed before.
pub struct Outgoing {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
    sent: Arc<AtomicU64>,
}

/// A writer, the body that it fills, and how many bytes have gone so far.
pub fn outgoing() -> (Outgoing, Body, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let (sender, mut pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let out = Outgoing { pieces: sender, gathered: Vec::with_capacity(PIECE_BYTES), sent: sent.clone() };
    let stream = futures_util::stream::poll_fn(move |context| {
        pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    });
    (out, BodyExt::boxed(StreamBody::new(stream)), sent)
}

impl Outgoing {
    /// Breaks the body off: what has gone is not to be taken for all of it.
    pub fn abort(self, why: &str) {
        let _ = self.pieces.blocking_send(Err(io::Error::other(why.to_owned())));
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE_BYTES));
        self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the engine takes no more");
        self.pieces.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

/// A response's body as a blocking reader.
struct Incoming {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(out.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

/// Unpacks an archive of the engine's into a directory of this host; how many bytes it had.
pub async fn unpack(response: Response<hyper::body::Incoming>, directory: &str, how: CopyIn) -> Result<u64, Failure> {
    let failed = |error: io::Error| Failure::new(format!("open {directory}: {}", super::system_words(&error)));
    let root = File::open(directory).map_err(failed)?;
    let unpack = move |pieces: &mut dyn Read| -> Copied {
        Ok(dozen_image::copy_in(root.as_fd(), &LivePath::new(b"/")?, &how, pieces)?)
    };
    read_through(response, unpack).await.map(|((), bytes)| bytes)
}

/// Gives a body to a thread that may block; what that makes of it, and how many bytes it had.
pub async fn read_through<T: Send + 'static>(
    response: Response<hyper::body::Incoming>,
    work: impl FnOnce(&mut dyn Read) -> Result<T, Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
) -> Result<(T, u64), Failure> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let reading = tokio::task::spawn_blocking(move || work(&mut Incoming { pieces, current: Bytes::new() }));
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let piece = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(_trailers)) => continue,
            Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
        };
        bytes += piece.as_ref().map_or(0, |data| data.len() as u64);
        // Whoever reads has seen the end, or has stopped, and says why.
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    joined(reading.await).map(|made| (made, bytes))
}

/// How a thread has ended.
pub fn joined<T>(
    result: Result<Result<T, Box<dyn std::error::Error + Send + Sync>>, tokio::task::JoinError>,
) -> Result<T, Failure> {
    match result {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(Failure::new(error_chain(error.as_ref()))),
        Err(error) => Err(Failure::new(format!("copying ended: {error}"))),
    }
}
