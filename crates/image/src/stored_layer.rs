//! A layer that is in the store, given again as the plain stream that it was, and compared with that on the way.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};

use dozen_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::chunks::{CHUNK_BYTES, Chunk, Pool};
use crate::compression::decompress;
use crate::recipe::{self, RecipeError};
use crate::recording::Sum;
use crate::schema::LayerRow;
use crate::store::Inner;
use crate::{ImageError, tree};

/// Chunks on their way between the threads: 1 MiB.
const CHUNKS_WAITING: usize = (1 << 20) / CHUNK_BYTES;

/// See the module.
pub(crate) struct StoredLayer {
    /// For the error: its directory, or its blob.
    path: PathBuf,
    kept: File,
    /// The layer's directory, if a recipe is kept.
    root: Option<OwnedFd>,
    /// The blob is the plain stream, whatever it begins with.
    is_plain: bool,
}

impl StoredLayer {
    pub(crate) fn open(inner: &Inner, row: &LayerRow) -> Result<Self, ImageError> {
        let kept_path = inner.content_path(row);
        let kept = File::open(&kept_path).map_err(ImageError::io("open", kept_path.display()))?;
        let is_plain = row.blob == row.diff_id;
        if row.recipe_size_bytes.is_none() {
            return Ok(Self { path: kept_path, kept, root: None, is_plain });
        }
        let path = inner.layer_path(&row.directory);
        let root = tree::open_root(&path).map_err(ImageError::io("open", path.display()))?;
        Ok(Self { path, kept, root: Some(root), is_plain })
    }

    /// The layer, plain again and compared on the way with what it was: read by a second thread.
    pub(crate) fn write(
        &self,
        row: &LayerRow,
        check: Check,
        mut out: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let damaged = |what: Option<String>| {
            tracing::error!(layer = %row.diff_id, what, "a stored layer is damaged");
            ImageError::Damaged { path: self.path.clone(), expected: row.diff_id.to_string() }
        };
        let (mut checking, mut left) = (Checking::of(row, check), row.tar_size_bytes);
        std::thread::scope(|scope| {
            let (sender, chunks) = sync_channel(CHUNKS_WAITING);
            let reading = scope.spawn(|| self.read(sender));
            let mut written = Ok(());
            for chunk in chunks {
                let chunk: Chunk = chunk;
                checking.update(chunk.bytes());
                // More than was promised is damage, and seen below.
                let fits = chunk.bytes().len().min(usize::try_from(left).unwrap_or(usize::MAX));
                left -= fits as u64;
                written = out(&chunk.bytes()[..fits]);
                if written.is_err() {
                    break;
                }
            }
            // The channel is gone, and a reader that still had something to say with it.
            let read = reading.join().expect("the reading thread does not panic");
            written?;
            read.map_err(|what| damaged(Some(what)))
        })?;
        if !checking.finds_whole(row) {
            return Err(damaged(None));
        }
        Ok(())
    }

    /// The plain stream in chunks, until it ends or nobody takes them any more; what is damaged, in words.
    fn read(&self, chunks: SyncSender<Chunk>) -> Result<(), String> {
        let pool = Pool::default();
        let kept = self.kept.try_clone().map_err(|error| error.to_string())?;
        let pass = |chunk| chunks.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into());
        if let Some(root) = &self.root {
            return match recipe::reproduce(kept, root.as_fd(), &pool, pass) {
                Ok(()) | Err(RecipeError::Out(_)) => Ok(()),
                Err(RecipeError::Damaged(what)) => Err(what),
            };
        }
        let mut plain: Box<dyn Read> = match self.is_plain {
            true => Box::new(kept),
            false => Box::new(decompress(kept).map_err(|error| error.to_string())?.1),
        };
        loop {
            let mut chunk = pool.chunk();
            chunk.fill_from(&mut plain).map_err(|error| error.to_string())?;
            if chunk.bytes().is_empty() || pass(chunk).is_err() {
                return Ok(());
            }
        }
    }
}

/// How a stored layer is compared with what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// By its digest.
    Digest,
    /// By its check sum, if it has one: for somebody who compares the digest himself. A disk that gives other bytes than it
    /// was given is found out by it as well, in a seventh of the time.
    Sum,
}

/// A layer's bytes as they pass by.
enum Checking {
    Digest(Sha256),
    Sum { expected: (u32, u64), sum: Sum },
}

impl Checking {
    fn of(row: &LayerRow, check: Check) -> Self {
        match (check, row.tar_crc32) {
            (Check::Sum, Some(crc32)) => Self::Sum { expected: (crc32, row.tar_size_bytes), sum: Sum::default() },
            _ => Self::Digest(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Digest(hash) => hash.update(bytes),
            Self::Sum { sum, .. } => sum.update(bytes),
        }
    }

    fn finds_whole(self, row: &LayerRow) -> bool {
        match self {
            Self::Digest(hash) => Digest::from_sha256(hash.finalize().into()) == row.diff_id,
            Self::Sum { expected, sum } => sum.finish() == expected,
        }
    }
}
