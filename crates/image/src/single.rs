//! Layers that travel alone, without an image: a build's, from one machine to another.

use std::io::{self, Read, Write};

use dozen_model::Digest;

use crate::ImageError;
use crate::chunks::Pool;
use crate::compression::decompress;
use crate::install::Staged;
use crate::load::check_digest;
use crate::new_layer::NewLayer;
use crate::store::ImageStore;
use crate::stored_layer::{Check, StoredLayer};
use crate::unpack::{Place, Unpacking};

impl ImageStore {
    /// Takes in a layer, plain or compressed with gzip or zstd: the one whose plain stream has this digest, or none. Like
    /// those of a load it is bounded in all directions.
    pub fn receive_layer(&self, blob: impl Read, expected: &Digest) -> Result<NewLayer, ImageError> {
        let scratch = self.0.scratch()?;
        let pool = Pool::default();
        let mut unpacking = Unpacking::start(Place::new(&scratch.0, 0)?, None, true)?;
        let read = || -> io::Result<()> {
            let (_, mut plain) = decompress(blob)?;
            loop {
                let mut chunk = pool.chunk();
                chunk.fill_from(&mut plain)?;
                let is_last = !chunk.is_full();
                if !unpacking.feed(chunk) || is_last {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            unpacking.fail(error);
        }
        let unpacked = unpacking.finish().map_err(|error| ImageError::layer(expected.as_str(), error))?;
        check_digest(expected.as_str(), expected, &unpacked.diff_id)?;
        Ok(NewLayer { staged: Staged::plain(unpacked), _scratch: scratch })
    }

    /// Writes the plain stream of a layer that is held. What it says of damage comes at the end.
    pub fn send_layer(&self, diff_id: &Digest, out: &mut dyn Write) -> Result<(), ImageError> {
        let row = self.0.read_state().layers.get(diff_id).cloned();
        let row = row.ok_or_else(|| ImageError::NoSuchImage(diff_id.to_string()))?;
        StoredLayer::open(&self.0, &row)?
            .write(&row, Check::Digest, |bytes| out.write_all(bytes).map_err(ImageError::io("write", "the layer")))
    }
}
