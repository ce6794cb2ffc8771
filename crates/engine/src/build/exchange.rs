//! What a build and its caller exchange about a cache that lies with the caller, while the build goes on.
//!
//! ```text
//! build                                     caller
//!   WantsLayer(digest)  ─────────────────▶   looks for its blob
//!   checks its digest   ◀─────────────────   brings it, or says that it has none
//!   …
//!   CacheReady(steps)   ─────────────────▶   takes the layers that it has not got
//!   goes on             ◀─────────────────   has taken all that it wants
//! ```

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dozen_image::{HeldLayers, ImageStore, NewLayer};
use dozen_model::{Digest, error_chain};
use tokio::sync::{oneshot, watch};

use super::BuildName;
use crate::{Engine, EngineError};

/// What came in a layer's place.
type Brought = Result<NewLayer, String>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    wanted: Mutex<HashMap<Digest, oneshot::Sender<Brought>>>,
    /// What the caller may take.
    offered: Mutex<HashSet<Digest>>,
    is_taken: watch::Sender<bool>,
}

impl Exchange {
    /// Waits until the caller has brought a layer, or said why not. The caller has to be told that it is wanted.
    pub(super) fn want(&self, layer: &Digest) -> impl Future<Output = Brought> + use<> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.wanted).insert(layer.clone(), sender);
        async move { receiver.await.unwrap_or_else(|_| Err("it is wanted no more".to_owned())) }
    }

    /// From now on the caller may take these.
    pub(super) fn offer(&self, layers: impl Iterator<Item = Digest>) {
        lock(&self.offered).extend(layers);
    }

    /// Waits until the caller has taken all that it wants.
    pub(super) async fn taken(&self) {
        let mut taken = self.is_taken.subscribe();
        taken.wait_for(|taken| *taken).await.expect("the sender is this exchange's");
    }
}

/// A layer that may be taken, and stays meanwhile.
#[derive(Debug)]
pub struct OfferedLayer {
    images: ImageStore,
    layer: Digest,
    _held: HeldLayers,
}

impl OfferedLayer {
    /// Writes its plain stream. Blocks.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), EngineError> {
        Ok(self.images.send_layer(&self.layer, out)?)
    }
}

impl Engine {
    /// Brings a build a layer that it wants: plain or compressed with gzip or zstd. What has another digest is told to both
    /// sides. Blocks.
    pub fn bring_layer(&self, build: &str, layer: &Digest, blob: impl Read) -> Result<(), EngineError> {
        let waiting = self.waiting(build, layer)?;
        let received = self.shared.images.receive_layer(blob, layer);
        let (brought, told) = match received {
            Ok(new) => (Ok(new), Ok(())),
            Err(error) => (Err(error_chain(&error)), Err(error.into())),
        };
        // A build that has ended meanwhile wants nothing.
        let _ = waiting.send(brought);
        told
    }

    /// The caller has not got a layer that its build wants.
    pub fn lack_layer(&self, build: &str, layer: &Digest, why: &str) -> Result<(), EngineError> {
        let _ = self.waiting(build, layer)?.send(Err(why.to_owned()));
        Ok(())
    }

    /// A layer that a build offers; `None`: nothing has needed its files, and so it is with the caller alone.
    pub fn offered_layer(&self, build: &str, layer: &Digest) -> Result<Option<OfferedLayer>, EngineError> {
        if !lock(&self.named_build(build)?.exchange().offered).contains(layer) {
            return Err(no_such_layer(layer));
        }
        let (images, layer) = (self.shared.images.clone(), layer.clone());
        let held = images.hold_layers(std::slice::from_ref(&layer));
        Ok(held.map(|held| OfferedLayer { images, layer, _held: held }))
    }

    /// The caller has what it wants of its build's cache.
    pub fn cache_is_taken(&self, build: &str) -> Result<(), EngineError> {
        self.named_build(build)?.exchange().is_taken.send_replace(true);
        Ok(())
    }

    fn waiting(&self, build: &str, layer: &Digest) -> Result<oneshot::Sender<Brought>, EngineError> {
        let named = self.named_build(build)?;
        lock(&named.exchange().wanted).remove(layer).ok_or_else(|| no_such_layer(layer))
    }

    fn named_build(&self, id: &str) -> Result<BuildName, EngineError> {
        self.shared.named_builds.find(id).ok_or_else(|| EngineError::NoSuchBuild(id.to_owned()))
    }
}

fn no_such_layer(layer: &Digest) -> EngineError {
    EngineError::Image(dozen_image::ImageError::NoSuchImage(layer.to_string()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
