//! `import`: a root file system in a tar archive becomes an image of one layer.

use std::io::{self, Read};

use dozen_model::{Digest, ImageId, Reference};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::ImageError;
use crate::chunks::Pool;
use crate::compression::decompress;
use crate::image::ImageConfig;
use crate::install::{NewImage, Staged};
use crate::platform::Platform;
use crate::scratch::Scratch;
use crate::store::ImageStore;
use crate::tarball::begins_tar;
use crate::unpack::{Place, Unpacking};

/// What to make of the archive.
#[derive(Debug)]
pub struct ImportRequest {
    /// The image's execution parameters.
    pub config: ImageConfig,
    /// What its programs run on.
    pub platform: Platform,
    /// `--message`: the comment on its only step.
    pub message: String,
    /// The image's name. `None`: it has only its id.
    pub reference: Option<Reference>,
    /// When it was made.
    pub created: Timestamp,
}

impl ImageStore {
    /// Makes an image of a tar archive, plain or compressed with gzip or zstd. The plain archive is the layer, to the byte.
    pub fn import(&self, archive: impl Read, request: ImportRequest) -> Result<ImageId, ImageError> {
        if request.reference.as_ref().is_some_and(|reference| reference.digest().is_some()) {
            return Err(ImageError::TagWithDigest);
        }
        let inner = &self.0;
        let scratch = inner.scratch()?;
        let staged = unpack(archive, &scratch)?;
        let diff_id = staged.row.diff_id.clone();
        let config = serde_json::to_vec(&configuration(&request, &diff_id)).expect("a JSON value serializes");
        let id = ImageId::new(Digest::from_sha256(Sha256::digest(&config).into()));
        let references = request.reference.into_iter().collect();
        let image = NewImage { id: id.clone(), config, diff_ids: vec![diff_id], parent: None, references };
        inner.install(&scratch, vec![staged], &[image])?;
        Ok(id)
    }
}

/// Unpacks the archive as it comes.
fn unpack(archive: impl Read, scratch: &Scratch) -> Result<Staged, ImageError> {
    let (_, mut plain) = decompress(archive).map_err(importing)?;
    let pool = Pool::default();
    let mut chunk = pool.chunk();
    chunk.fill_from(&mut plain).map_err(importing)?;
    if !chunk.bytes().get(..512).is_some_and(begins_tar) {
        let what = if chunk.bytes().is_empty() { "empty" } else { "no tar archive" };
        return Err(ImageError::Import(format!("what was given is {what}")));
    }
    let mut unpacking = Unpacking::start(Place::new(&scratch.0, 0)?, None, true)?;
    let read = loop {
        let is_last = !chunk.is_full();
        if !unpacking.feed(chunk) || is_last {
            break Ok(());
        }
        chunk = pool.chunk();
        if let Err(error) = chunk.fill_from(&mut plain) {
            break Err(error);
        }
    };
    // What the archive's sender or the host did wrong comes before what the extractor makes of it.
    read.map_err(importing)?;
    let unpacked = unpacking.finish().map_err(|error| match ImageError::layer("of the archive", error) {
        ImageError::Layer { what, .. } => ImageError::Import(what),
        error => error,
    })?;
    Ok(Staged::plain(unpacked))
}

fn importing(error: io::Error) -> ImageError {
    match ImageError::reading(error) {
        ImageError::Archive(what) => ImageError::Import(what),
        error => error,
    }
}

/// As Docker writes it (moby, daemon/images/image_import.go).
fn configuration(request: &ImportRequest, diff_id: &Digest) -> Value {
    let created = request.created.to_string();
    let mut config = json!({
        "architecture": request.platform.architecture,
        "created": created,
        "os": request.platform.os,
        "config": request.config,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": created, "comment": request.message }],
    });
    if let Some(variant) = &request.platform.variant {
        config["variant"] = json!(variant);
    }
    config
}

#[cfg(test)]
mod tests;
