//! The bytes of what goes as it lies here: read as often as a registry wants them, and compared with their digest each time.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::packing::{LayerForm, Packing};
use super::{Content, OutgoingBlob, OutgoingBlobs};
use crate::ImageError;
use crate::chunks::CHUNK_BYTES;
use crate::digesting::Digesting;
use crate::schema::LayerRow;
use crate::stored_layer::{Check, StoredLayer};

impl OutgoingBlobs {
    /// Of a layer that is to be compressed: how that is done, by whoever runs it; `None` if it is none, or has gone.
    pub fn packing(&self, layer: &OutgoingBlob, form: LayerForm) -> Option<Packing> {
        let Content::Plain(row) = &layer.content else { return None };
        Packing::of(&self.inner, row.clone(), form)
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
                let mut hash = match &blob.blob {
                    Some(blob) => Digesting::like(&blob.digest),
                    None => Digesting::like(&blob.id),
                };
                let mut size = 0;
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
                let found = hash.finish();
                let is_whole = blob.blob.as_ref().is_some_and(|blob| (&found, size) == (&blob.digest, blob.size_bytes));
                if !is_whole {
                    let expected = blob.blob.as_ref().map(|blob| blob.digest.to_string()).unwrap_or_default();
                    let error = ImageError::Damaged { path: path.clone(), expected };
                    self.inner.note_damage(blob.diff_id.as_ref().unwrap_or(&blob.id), &error);
                    return Err(error);
                }
            }
        }
        held.finish().map_err(sending)
    }

    fn plain(&self, row: &Arc<LayerRow>, mut out: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ImageError> {
        let written =
            StoredLayer::open(&self.inner, row)?.write(row, Check::Digest, |bytes| out(bytes).map_err(sending));
        written.inspect_err(|error| self.inner.note_damage(&row.diff_id, error))
    }
}

pub(super) fn sending(source: io::Error) -> ImageError {
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
