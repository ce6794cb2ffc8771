//! One layer as it comes: hashed as it is, kept if it is compressed, and unpacked.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::{Arrival, NeededLayer, lock};
use crate::ImageError;
use crate::budget::Budget;
use crate::compression::{Compression, decompress};
use crate::digesting::Digesting;
use crate::extract::ExtractError;
use crate::failpoint::failpoint;
use crate::install::Staged;
use crate::load::check_digest;
use crate::tarball::begins_tar;
use crate::unpack::{Place, Unpacked, Unpacking};

/// What all layers of one image may swell to.
#[derive(Debug)]
pub struct LayersBudget(Budget);

impl LayersBudget {
    /// For all that are to come.
    pub fn of(layers: &[NeededLayer]) -> Self {
        Self(Budget::of(layers.iter().map(|layer| layer.size_bytes).fold(0, u64::saturating_add)))
    }
}

impl Arrival {
    /// Takes a layer, whose blob `bytes` gives to its end: an error of its is an error of the layer. `watch` is told how many
    /// bytes of the blob are unpacked. Blocks.
    pub fn layer(
        &self,
        layer: &NeededLayer,
        bytes: impl Read,
        budget: &LayersBudget,
        watch: impl Fn(u64),
    ) -> Result<(), ImageError> {
        let number = self.number();
        let name = layer.digest.to_string();
        let wrong = |what: String| ImageError::Layer { layer: name.clone(), what };
        let place = Place::new(&self.scratch.0, number)?;
        let path = self.scratch.0.join(format!("b{number}"));
        let mut coming = Coming { bytes, hash: Digesting::like(&layer.digest), size: 0, kept: None };
        let mut first = Vec::new();
        let read = coming.by_ref().take(512).read_to_end(&mut first);
        read.map_err(|error| wrong(error.to_string()))?;
        let is_plain = begins_tar(&first)
            || matches!(Compression::of(&first).map_err(|error| wrong(error.to_string()))?, Compression::None);
        // A recipe gives a plain stream by its sha256; what is named by another digest is kept as it came.
        let is_recorded = is_plain && layer.digest.algorithm() == layer.diff_id.algorithm();
        if !is_recorded {
            coming.keep(path.clone(), &first)?;
        }
        let unpacked = self.unpack(&first, &mut coming, (place, layer.size_bytes, is_recorded), budget, &watch)?;
        // What the decoder did not want belongs to the blob, too.
        let rest = coming.drain().map_err(|error| wrong(error.to_string()));
        let (compression, unpacked) = unpacked.map_err(|error| ImageError::layer(&name, error))?;
        rest?;
        let found = coming.hash.finish();
        if coming.size != layer.size_bytes {
            return Err(wrong(format!("it has {} bytes, and the manifest promises {}", coming.size, layer.size_bytes)));
        }
        if found != layer.digest {
            return Err(wrong(format!("its bytes have the digest {found}")));
        }
        check_digest(&name, &layer.diff_id, &unpacked.diff_id)?;
        let staged = match is_recorded {
            true => Staged::plain(unpacked),
            false => Staged::new(unpacked, compression, layer.digest.clone(), coming.size, path),
        };
        lock(&self.staged).push(staged);
        failpoint("image.arrived");
        Ok(())
    }

    fn unpack<R: Read>(
        &self,
        first: &[u8],
        coming: &mut Coming<R>,
        (place, size_bytes, is_recorded): (Place, u64, bool),
        budget: &LayersBudget,
        watch: &impl Fn(u64),
    ) -> Result<Result<(Compression, Unpacked), ExtractError>, ImageError> {
        let mut unpacking = Unpacking::start(place, Some(size_bytes), is_recorded)?;
        let mut compression = Compression::None;
        let read: io::Result<()> = (|| {
            let counted = Counted { source: first.chain(coming.by_ref()), watch, read: 0 };
            let (found, mut plain) = decompress(counted)?;
            compression = found;
            loop {
                let mut chunk = self.pool.chunk();
                chunk.fill_from(&mut plain)?;
                let is_last = !chunk.is_full();
                budget.0.take(chunk.bytes().len() as u64)?;
                if !unpacking.feed(chunk) || is_last {
                    return Ok(());
                }
            }
        })();
        if let Err(error) = read {
            unpacking.fail(error);
        }
        Ok(unpacking.finish().map(|unpacked| (compression, unpacked)))
    }
}

/// A blob as it comes.
struct Coming<R> {
    bytes: R,
    hash: Digesting,
    size: u64,
    kept: Option<(File, PathBuf)>,
}

impl<R: Read> Coming<R> {
    /// What has come and what comes is kept in a file.
    fn keep(&mut self, path: PathBuf, first: &[u8]) -> Result<(), ImageError> {
        let file = File::create_new(&path).and_then(|mut file| file.write_all(first).map(|()| file));
        self.kept = Some((file.map_err(ImageError::io("write", path.display()))?, path));
        Ok(())
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut rest = vec![0; 64 * 1024];
        while self.read(&mut rest)? > 0 {}
        Ok(())
    }
}

impl<R: Read> Read for Coming<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.size += read as u64;
        if let Some((file, path)) = &mut self.kept {
            let failed = |error: io::Error| io::Error::new(error.kind(), format!("write {}: {error}", path.display()));
            file.write_all(&buffer[..read]).map_err(failed)?;
        }
        Ok(read)
    }
}

/// Tells how much is read.
struct Counted<'a, R, W> {
    source: R,
    watch: &'a W,
    read: u64,
}

impl<R: Read, W: Fn(u64)> Read for Counted<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read += read as u64;
        (self.watch)(self.read);
        Ok(read)
    }
}
