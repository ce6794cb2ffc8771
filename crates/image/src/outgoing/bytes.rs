//! The bytes of what goes: packed once, read as often as a registry wants them, and compared with their digest each time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dozen_model::Digest;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::{Content, Outgoing, OutgoingBlob};
use crate::ImageError;
use crate::chunks::CHUNK_BYTES;
use crate::compression::Compression;
use crate::places::LayerBlob;
use crate::save::Source;
use crate::schema::LayerRow;

impl Outgoing {
    /// Compresses a layer into a file of its own. `watch` is told how many bytes of the plain stream are done. It is given
    /// up when `stop` is set. Blocks.
    pub fn pack(
        &self,
        layer: &OutgoingBlob,
        stop: &AtomicBool,
        watch: &dyn Fn(u64),
    ) -> Result<OutgoingBlob, ImageError> {
        let Content::Plain(row) = &layer.content else { return Ok(layer.clone()) };
        let path = self.scratch.0.join(format!("p{}", row.diff_id.hex()));
        let failed = |error| ImageError::io("write", path.display())(error);
        let file = File::create(&path).map_err(failed)?;
        let counted = Counted { file, hash: Sha256::new(), size_bytes: 0 };
        // The header has neither a name nor a time: the same layer is the same blob.
        let mut encoder = GzEncoder::new(counted, flate2::Compression::default());
        let mut done = 0;
        let packed = self.plain(row, |bytes| {
            if stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            encoder.write_all(bytes)?;
            done += bytes.len() as u64;
            watch(done);
            Ok(())
        });
        packed.map_err(|error| match error {
            ImageError::Io { attempted: "write", source, .. } => failed(source),
            error => error,
        })?;
        let Counted { hash, size_bytes, .. } = encoder.finish().map_err(failed)?;
        let digest = Digest::from_sha256(hash.finalize().into());
        let media_type = Compression::Gzip.layer_media_type().to_owned();
        Ok(OutgoingBlob {
            blob: Some(LayerBlob { digest, size_bytes, media_type }),
            stored_bytes: size_bytes,
            content: Content::File(path),
            ..layer.clone()
        })
    }

    /// Reads what goes, from a place to its end, in pieces of at most so many bytes as a chunk has. All of it is compared
    /// with its digest; the last piece comes after that. An error of `out` ends it. Blocks.
    pub fn read(
        &self,
        blob: &OutgoingBlob,
        from: u64,
        mut out: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ImageError> {
        let mut held = Held { skip: from, piece: Vec::with_capacity(CHUNK_BYTES), out: &mut out };
        match &blob.content {
            Content::Plain(row) => self.plain(row, |bytes| held.take(bytes))?,
            Content::Bytes(bytes) => held.take(bytes).map_err(sending)?,
            Content::File(path) => {
                let mut file = File::open(path).map_err(ImageError::io("open", path.display()))?;
                let (mut hash, mut size) = (Sha256::new(), 0);
                let mut buffer = vec![0; CHUNK_BYTES];
                loop {
                    let read = file.read(&mut buffer).map_err(ImageError::io("read", path.display()))?;
                    if read == 0 {
                        break;
                    }
                    hash.update(&buffer[..read]);
                    size += read as u64;
                    held.take(&buffer[..read]).map_err(sending)?;
                }
                let found = Digest::from_sha256(hash.finalize().into());
                let is_whole = blob.blob.as_ref().is_some_and(|blob| (&found, size) == (&blob.digest, blob.size_bytes));
                if !is_whole {
                    let expected = blob.blob.as_ref().map(|blob| blob.digest.to_string()).unwrap_or_default();
                    let error = ImageError::Damaged { path: path.clone(), expected };
                    if let Some(diff_id) = &blob.diff_id {
                        self.inner.note_damage(diff_id, &error);
                    }
                    return Err(error);
                }
            }
        }
        held.finish().map_err(sending)
    }

    fn plain(&self, row: &Arc<LayerRow>, out: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ImageError> {
        let written = Source::open(&self.inner, row)?.write(row, out);
        written.inspect_err(|error| self.inner.note_damage(&row.diff_id, error))
    }
}

fn sending(source: io::Error) -> ImageError {
    ImageError::Io { attempted: "send", object: "a layer".into(), source }
}

/// Keeps the newest piece back.
struct Held<'o> {
    skip: u64,
    piece: Vec<u8>,
    out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl Held<'_> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
        if bytes.is_empty() {
            return Ok(());
        }
        self.give()?;
        self.piece.extend_from_slice(bytes);
        Ok(())
    }

    fn give(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            (self.out)(&self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.give()
    }
}

/// A file, hashed as it is written.
struct Counted {
    file: File,
    hash: Sha256,
    size_bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
