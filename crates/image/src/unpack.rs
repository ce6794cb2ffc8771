//! One layer's blob into its directory: decompress and hash on one thread, extract on another.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dozen_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::compression::{Compression, allowance, decompress};
use crate::extract::{ExtractError, Extracted, Limits, extract};

/// How many entries a layer may have.
const ENTRIES_LIMIT: u64 = 2_000_000;
const CHUNK: usize = 128 * 1024;
/// Chunks on their way between the threads: 1 MiB.
const CHUNKS_WAITING: usize = 8;

/// What a blob turned out to be.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    /// The digest of the plain tar stream.
    pub(crate) diff_id: Digest,
    pub(crate) tar_size_bytes: u64,
    pub(crate) compression: Compression,
    pub(crate) extracted: Extracted,
}

/// Unpacks a whole blob into `root`, an empty directory. `progress` is told how many plain bytes are done.
pub(crate) fn unpack(
    blob: File,
    blob_size_bytes: u64,
    root: BorrowedFd<'_>,
    progress: impl FnMut(u64) + Send,
) -> Result<Unpacked, ExtractError> {
    let (sender, chunks) = sync_channel(CHUNKS_WAITING);
    let limits = Limits { entries: ENTRIES_LIMIT, content_bytes: allowance(blob_size_bytes) };
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read_plain(blob, &sender, progress));
        let extracted = extract(Chunks { chunks, current: Vec::new(), used: 0 }, root, limits);
        let read = reader.join().expect("the reading thread does not panic");
        let extracted = extracted?;
        let (compression, tar_size_bytes, diff_id) = read.map_err(ExtractError::Read)?;
        Ok(Unpacked { diff_id, tar_size_bytes, compression, extracted })
    })
}

fn read_plain(
    blob: File,
    sender: &SyncSender<io::Result<Vec<u8>>>,
    mut progress: impl FnMut(u64),
) -> io::Result<(Compression, u64, Digest)> {
    let result: io::Result<_> = (|| {
        let (compression, mut plain) = decompress(blob)?;
        let (mut hash, mut size) = (Sha256::new(), 0u64);
        loop {
            let mut chunk = vec![0; CHUNK];
            let mut filled = 0;
            while filled < CHUNK {
                match plain.read(&mut chunk[filled..])? {
                    0 => break,
                    read => filled += read,
                }
            }
            if filled == 0 {
                return Ok((compression, size, Digest::from_sha256(hash.finalize().into())));
            }
            chunk.truncate(filled);
            hash.update(&chunk);
            size += filled as u64;
            progress(size);
            if sender.send(Ok(chunk)).is_err() {
                // The extractor has given up, and its error is the one that counts.
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    })();
    if let Err(error) = &result {
        // An error cannot be cloned; the system's number, if it has one, says more than the words.
        let copy = error.raw_os_error().map(io::Error::from_raw_os_error);
        let _ = sender.send(Err(copy.unwrap_or_else(|| io::Error::new(error.kind(), error.to_string()))));
    }
    result
}

struct Chunks {
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    used: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.used) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len() - self.used);
        buffer[..length].copy_from_slice(&self.current[self.used..self.used + length]);
        self.used += length;
        Ok(length)
    }
}
