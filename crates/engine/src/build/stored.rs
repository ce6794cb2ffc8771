//! Caches that lie in registries (`--cache-from type=registry`): what one says of steps is read before the build begins, and
//! a layer comes when something needs its files. All of it is a stranger's word, as in [`super::imported`]: documents are
//! what their digests say and have bounds, and a layer is the one whose digest the step has, or none.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use dozen_build::carried::{Cache, Descriptor, Manifest, Step};
use dozen_image::{DOCUMENT_BYTES, ImageStore, NewLayer, Platform};
use dozen_model::{Digest, Reference, error_chain};
use dozen_registry::{Access, BlobName, Document, Repository, Which};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::CacheStep;
use super::inline::Inside;
use crate::pull::{Credentials, Vouching, failure, terms};
use crate::shared::Shared;

/// Pieces of a layer between the network and the disk.
const PIECES: usize = 16;

/// A cache that a caller names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSource {
    /// A tag or a digest in a registry.
    pub reference: Reference,
    /// As the caller wrote it.
    pub name: String,
    /// An image of the engine's that has this name is meant before what a registry has.
    pub may_be_image: bool,
}

/// A layer that a cache in a registry has.
#[derive(Debug, Clone)]
pub(super) struct StoredLayer {
    repository: Arc<Repository>,
    /// The registry's name, and the path in it.
    pub(super) place: (String, String),
    pub(super) blob: BlobName,
    pub(super) media_type: String,
}

/// Images that are here, and what is to be looked for in registries.
pub(super) fn told_apart(shared: &Shared, sources: &[CacheSource]) -> (Vec<String>, Vec<CacheSource>) {
    let is_here = |source: &CacheSource| source.may_be_image && shared.images.find(&source.name).is_ok();
    let (here, elsewhere): (Vec<_>, Vec<_>) = sources.iter().cloned().partition(is_here);
    (here.into_iter().map(|source| source.name).collect(), elsewhere)
}

/// Adds what a cache says; of one that cannot be read a warning.
pub(super) async fn read(
    shared: &Arc<Shared>,
    source: &CacheSource,
    credentials: &BTreeMap<String, Credentials>,
    inside: &mut Inside,
) {
    let name = &source.reference;
    let found = async {
        // A step's files are run as an image's are, and no cache is signed.
        let vouched = Vouching::of(shared).of_unsigned(name, "a build cache");
        vouched.map_err(|error| error_chain(&error))?;
        let known = credentials.get(name.registry()).cloned();
        let terms = terms(shared, known).await.map_err(|error| error_chain(&error))?;
        let repository = Arc::new(shared.pulls.client.repository(name, Access::Pull, terms));
        Ok::<_, String>((cache(&repository, name).await?, repository))
    };
    let (Cache { steps, layers }, repository) = match found.await {
        Ok(found) => found,
        Err(why) => {
            let here =
                if source.may_be_image { "there is no such image here, and no cache in a registry: " } else { "" };
            return inside.warnings.push(format!("no cache is imported from {}: {here}{why}", source.name));
        }
    };
    let place = (name.registry().to_owned(), name.path().to_owned());
    for (diff_id, Descriptor { media_type, digest, size }) in layers {
        let blob = BlobName { digest, size_bytes: size };
        let layer = StoredLayer { repository: repository.clone(), place: place.clone(), blob, media_type };
        inside.stored.entry(diff_id).or_insert(layer);
    }
    inside.steps.extend(steps.into_iter().map(of_stranger));
}

fn of_stranger(Step { key, layer, created, description, is_of_image: _ }: Step) -> CacheStep {
    CacheStep { key, layer, created, description, is_of_image: false }
}

/// The image of an index that runs here best.
fn own_image(index: &[u8]) -> Result<Option<Digest>, String> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        digest: Digest,
        #[serde(default)]
        platform: Option<Platform>,
    }
    let Index { manifests } = serde_json::from_slice(index).map_err(|error| format!("its index: {error}"))?;
    let host = Platform::host();
    let ranked = manifests.into_iter().filter_map(|it| Some((host.rank(&it.platform?)?, it.digest)));
    Ok(ranked.min_by_key(|(rank, _)| *rank).map(|(_, digest)| digest))
}

async fn cache(repository: &Repository, name: &Reference) -> Result<Cache, String> {
    let failed = |error| failure(name, &error).message;
    let which = match (name.digest(), name.tag()) {
        (Some(digest), _) => Which::Digest(digest.clone()),
        (None, tag) => Which::Tag(tag.unwrap_or("latest").to_owned()),
    };
    let mut found = repository.manifest(&which).await.map_err(failed)?;
    if found.kind == Document::Index {
        // An image with attestations is one, and so is a cache of BuildKit's, which names no platform.
        let own = own_image(&found.bytes)?;
        let own = own.ok_or("it is an index without an image for this machine; caches of BuildKit are not read")?;
        found = repository.manifest(&Which::Digest(own)).await.map_err(failed)?;
    }
    let manifest = Manifest::read(&found.bytes)?;
    let Descriptor { digest, size, .. } = &manifest.config;
    let config = repository.small_blob(digest, *size, DOCUMENT_BYTES).await.map_err(failed)?;
    let mut cache = manifest.cache(&config)?;
    // What else it may be nobody unpacks, and it goes into no manifest of ours. What comes is compared by SHA-256.
    cache.layers.retain(|_, Descriptor { media_type, digest, .. }| {
        MEDIA_TYPES.contains(&media_type.as_str()) && digest.algorithm() == "sha256"
    });
    let Cache { steps, layers } = &mut cache;
    steps.retain(|step| step.layer.as_ref().is_none_or(|layer| layers.contains_key(layer)));
    Ok(cache)
}

/// Of layers (OCI image-spec, media-types.md).
const MEDIA_TYPES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];

impl StoredLayer {
    /// Brings the layer with this diff id. Neither what has another one nor what is no whole blob comes in.
    pub(super) async fn fetch(&self, images: &ImageStore, diff_id: &Digest) -> Result<NewLayer, String> {
        let (images, expected) = (images.clone(), diff_id.clone());
        let (sender, pieces) = mpsc::channel(PIECES);
        let receiving = tokio::task::spawn_blocking(move || {
            let pieces = Pieces { pieces, piece: Bytes::new() };
            images.receive_layer(pieces, &expected).map_err(|error| error_chain(&error))
        });
        let sent = self.send(&sender).await;
        drop(sender);
        let received = receiving.await.map_err(|error| error.to_string())?;
        match (sent, received) {
            (Err(Some(why)), _) | (_, Err(why)) => Err(why),
            (Err(None), Ok(_)) => Err(format!("more follows upon the layer in {}", self.blob.digest)),
            (Ok(()), Ok(new)) => Ok(new),
        }
    }

    /// Gives its pieces to whoever takes it in. `Err(None)`: that one has ended before.
    async fn send(&self, sender: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), Option<String>> {
        let sent = self.pieces(sender).await;
        if let Err(Some(why)) = &sent {
            // What has come so far is not to be taken for all of it.
            let _ = sender.send(Err(io::Error::other(why.clone()))).await;
        }
        sent
    }

    async fn pieces(&self, sender: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), Option<String>> {
        let failed = |error: dozen_registry::RegistryError| Some(error_chain(&error));
        let BlobName { digest, size_bytes } = &self.blob;
        let mut blob = self.repository.blob(digest, *size_bytes).await.map_err(failed)?;
        let mut hash = Sha256::new();
        // The last piece goes when all of it has been compared.
        let mut last: Option<Bytes> = None;
        while let Some(piece) = blob.next_unverified().await.map_err(failed)? {
            hash.update(&piece);
            if let Some(before) = last.replace(piece) {
                sender.send(Ok(before)).await.map_err(|_| None)?;
            }
        }
        let found = Digest::from_sha256(hash.finalize().into());
        if found != *digest {
            return Err(Some(format!("the blob {digest} came as {found}")));
        }
        match last {
            Some(last) => sender.send(Ok(last)).await.map_err(|_| None),
            None => Ok(()),
        }
    }
}

/// What comes, to be read by a thread.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let read = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..read]);
        Ok(read)
    }
}
