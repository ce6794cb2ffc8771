//! A thread that takes the digest of what passes by.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use dozen_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::ImageError;
use crate::chunks::{CHUNK_BYTES, Chunk};
use crate::recording::Sum;

/// Chunks on their way to one thread: 1 MiB.
pub(crate) const CHUNKS_WAITING: usize = (1 << 20) / CHUNK_BYTES;

/// What was fed.
#[derive(Debug, Clone)]
pub(crate) struct Hashed {
    pub(crate) digest: Digest,
    /// Check sum and length ([`Sum`]).
    pub(crate) sum: (u32, u64),
}

/// See the module. Dropped, it is given up, and its thread has ended.
pub(crate) struct Hashing {
    to: Option<SyncSender<Arc<Chunk>>>,
    thread: Option<JoinHandle<Hashed>>,
}

impl Hashing {
    pub(crate) fn start() -> Result<Self, ImageError> {
        let (to, chunks) = sync_channel(CHUNKS_WAITING);
        let thread = spawn("layer hash", move || hash(&chunks))?;
        Ok(Self { to: Some(to), thread: Some(thread) })
    }

    /// The next bytes.
    pub(crate) fn feed(&self, chunk: Arc<Chunk>) {
        if let Some(to) = &self.to {
            // It takes all that comes.
            let _ = to.send(chunk);
        }
    }

    /// Waits until it is done.
    pub(crate) fn finish(mut self) -> Hashed {
        self.to = None;
        joined(self.thread.take()).expect("it was started")
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.to = None;
        joined(self.thread.take());
    }
}

fn hash(chunks: &Receiver<Arc<Chunk>>) -> Hashed {
    let (mut hash, mut sum) = (Sha256::new(), Sum::default());
    for chunk in chunks {
        hash.update(chunk.bytes());
        sum.update(chunk.bytes());
    }
    Hashed { digest: Digest::from_sha256(hash.finalize().into()), sum: sum.finish() }
}

pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ImageError> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(ImageError::io("start", "a thread"))
}

pub(crate) fn joined<T>(thread: Option<JoinHandle<T>>) -> Option<T> {
    thread.map(|thread| thread.join().expect("the threads of a layer do not panic"))
}
