//! Buffers on their way between threads. Each goes back to its pool when nobody needs it any more, so that a load of
//! any size touches the same few of them.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of one buffer.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Where buffers come from. Clones share one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Box<[u8]>>>>);

/// A buffer with bytes at its beginning.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Box<[u8]>,
    used: usize,
    pool: Pool,
}

impl Pool {
    /// An empty buffer.
    pub(crate) fn chunk(&self) -> Chunk {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| vec![0; CHUNK_BYTES].into_boxed_slice());
        Chunk { bytes, used: 0, pool: self.clone() }
    }
}

impl Chunk {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used == self.bytes.len()
    }

    /// Reads once into what is free; 0 at the end of the source.
    pub(crate) fn read_from(&mut self, mut source: impl Read) -> io::Result<usize> {
        let read = source.read(&mut self.bytes[self.used..])?;
        self.used += read;
        Ok(read)
    }

    /// Reads until it is full or the source ends.
    pub(crate) fn fill_from(&mut self, mut source: impl Read) -> io::Result<()> {
        while !self.is_full() {
            match self.read_from(&mut source) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map(drop)?,
            }
        }
        Ok(())
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}
