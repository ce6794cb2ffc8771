//! One layer or configuration on its way to a registry.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dozen_image::{ImageError, LayerBlob, LayerPlace, Outgoing, OutgoingBlob};
use dozen_model::{Digest, Reference};
use dozen_registry::{Found, RegistryError, Session, UploadedBlob, Uploads};
use tokio::sync::mpsc;

use super::PushStep;
use super::told::Told;
use crate::EngineError;
use crate::shared::Shared;

/// Pieces of a layer between the disk and the network.
const PIECES: usize = 8;
/// A registry is asked for so many other names of a layer, and to look in so many other repositories for each.
const MOST_GUESSES: usize = 3;
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// See the module.
pub(super) struct Blob {
    pub(super) shared: Arc<Shared>,
    pub(super) uploads: Arc<Uploads>,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) told: Told,
    /// Where it goes.
    pub(super) name: Reference,
    /// What is packed is given up.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) blob: OutgoingBlob,
    /// It is a layer, and people see what becomes of it.
    pub(super) is_shown: bool,
}

/// Why it did not arrive.
pub(super) enum BlobError {
    Registry(RegistryError),
    Engine(EngineError),
}

impl From<EngineError> for BlobError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<RegistryError> for BlobError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl Blob {
    /// Sees to it that the registry has it; gives what it is called there.
    pub(super) async fn send(self) -> Result<(Digest, LayerBlob), BlobError> {
        let places = self.places().await?;
        let guesses = guesses(self.blob.blob.as_ref(), &places, self.name.registry());
        let mut opened = None;
        for guess in &guesses {
            let elsewhere = elsewhere(&places, &self.name, &guess.digest);
            match self.uploads.find(&guess.digest, &elsewhere).await? {
                Found::Nowhere(session) => opened = session.or(opened),
                found => return Ok(self.is_there(found, guess.clone())),
            }
        }
        let packed = match self.blob.blob {
            Some(_) => self.blob.clone(),
            None => self.pack().await?,
        };
        let Some(blob) = packed.blob.clone() else {
            let source = io::Error::other("it has no digest");
            return Err(EngineError::System { action: "pack a layer".into(), source }.into());
        };
        // Somebody else may have made the same of it.
        if !guesses.contains(&blob) {
            let found = self.uploads.find(&blob.digest, &[]).await?;
            if found == Found::Here {
                return Ok(self.is_there(found, blob));
            }
        }
        self.upload(packed, &blob, opened).await?;
        self.show(PushStep::Pushed);
        self.remember(&blob);
        Ok((self.blob.id.clone(), blob))
    }

    async fn places(&self) -> Result<Vec<LayerPlace>, EngineError> {
        let Some(diff_id) = self.blob.diff_id.clone() else { return Ok(Vec::new()) };
        let images = self.shared.images.clone();
        self.shared.blocking(move || Ok(images.places_of(&diff_id)?)).await
    }

    fn is_there(&self, found: Found, blob: LayerBlob) -> (Digest, LayerBlob) {
        self.show(match found {
            Found::Mounted { from } => PushStep::Mounted { from },
            _ => PushStep::Exists,
        });
        self.remember(&blob);
        (self.blob.id.clone(), blob)
    }

    fn show(&self, step: PushStep) {
        if self.is_shown {
            self.told.layer(&self.blob.id, step);
        }
    }

    /// The next push, of whatever image, finds it here.
    fn remember(&self, blob: &LayerBlob) {
        let Some(diff_id) = self.blob.diff_id.clone() else { return };
        let (registry, repository) = (self.name.registry().to_owned(), self.name.path().to_owned());
        self.shared.images.remember_places(vec![LayerPlace { diff_id, registry, repository, blob: blob.clone() }]);
    }

    async fn pack(&self) -> Result<OutgoingBlob, EngineError> {
        let (outgoing, blob, stop) = (self.outgoing.clone(), self.blob.clone(), self.stop.clone());
        let (told, is_shown, of_bytes) = (self.told.clone(), self.is_shown, self.blob.stored_bytes);
        let watch = move |blob: &OutgoingBlob, bytes| {
            if is_shown {
                told.moves(&blob.id, PushStep::Packing { bytes, of_bytes });
            }
        };
        self.shared.blocking(move || Ok(outgoing.pack(&blob, &stop, &|bytes| watch(&blob, bytes))?)).await
    }

    async fn upload(&self, packed: OutgoingBlob, blob: &LayerBlob, opened: Option<Session>) -> Result<(), BlobError> {
        let failure: Arc<Mutex<Option<ImageError>>> = Arc::default();
        let is_unreadable = Arc::new(AtomicBool::new(false));
        let reading =
            Reading { outgoing: self.outgoing.clone(), blob: packed, failure: failure.clone(), is_unreadable };
        let is_unreadable = reading.is_unreadable.clone();
        let (told, id, is_shown, of_bytes) = (self.told.clone(), self.blob.id.clone(), self.is_shown, blob.size_bytes);
        let uploaded = UploadedBlob {
            digest: blob.digest.clone(),
            size_bytes: blob.size_bytes,
            open: Arc::new(move |from| reading.open(from)),
            watch: Arc::new(move |bytes| {
                if is_shown {
                    told.moves(&id, PushStep::Pushing { bytes, of_bytes });
                }
            }),
            is_unreadable,
        };
        let sent = self.uploads.upload(&uploaded, opened).await;
        // That it cannot be read is why it did not go.
        match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) if sent.is_err() => Err(EngineError::from(error).into()),
            _ => Ok(sent?),
        }
    }
}

/// What a layer may be called in a registry, the likeliest first: its own name if it has one, or else those that it had.
fn guesses(own: Option<&LayerBlob>, places: &[LayerPlace], registry: &str) -> Vec<LayerBlob> {
    if let Some(own) = own {
        return vec![own.clone()];
    }
    let (here, others): (Vec<_>, Vec<_>) = places.iter().partition(|place| place.registry == registry);
    let mut guesses: Vec<LayerBlob> = Vec::new();
    for place in here.into_iter().chain(others) {
        if place.blob.media_type == GZIP && !guesses.contains(&place.blob) {
            guesses.push(place.blob.clone());
        }
    }
    guesses.truncate(MOST_GUESSES);
    guesses
}

/// Other repositories of the registry that had a blob.
fn elsewhere(places: &[LayerPlace], name: &Reference, digest: &Digest) -> Vec<String> {
    let others = places.iter().filter(|place| place.registry == name.registry() && place.blob.digest == *digest);
    let others = others.filter(|place| place.repository != name.path());
    others.take(MOST_GUESSES).map(|place| place.repository.clone()).collect()
}

/// Reads a blob for whoever sends it.
struct Reading {
    outgoing: Arc<Outgoing>,
    blob: OutgoingBlob,
    failure: Arc<Mutex<Option<ImageError>>>,
    is_unreadable: Arc<AtomicBool>,
}

impl Reading {
    fn open(&self, from: u64) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (outgoing, blob) = (self.outgoing.clone(), self.blob.clone());
        let (failure, is_unreadable) = (self.failure.clone(), self.is_unreadable.clone());
        tokio::task::spawn_blocking(move || {
            let read = outgoing.read(&blob, from, |bytes| {
                let taken = sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
                taken.map_err(|_| io::ErrorKind::BrokenPipe.into())
            });
            let Err(error) = read else { return };
            // Nobody takes it any more: that is no failure of the store's.
            if sender.is_closed() {
                return;
            }
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            is_unreadable.store(true, Ordering::Relaxed);
            let _ = sender.blocking_send(Err(io::Error::other("it cannot be read")));
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    fn place(registry: &str, repository: &str, letter: char) -> LayerPlace {
        let media_type = if letter == 'z' { "application/vnd.oci.image.layer.v1.tar+zstd" } else { GZIP };
        LayerPlace {
            diff_id: digest('0'),
            registry: registry.into(),
            repository: repository.into(),
            blob: LayerBlob {
                digest: digest(if letter == 'z' { 'f' } else { letter }),
                size_bytes: 1,
                media_type: media_type.into(),
            },
        }
    }

    #[test]
    fn where_a_layer_is_looked_for() {
        let places = [
            place("b.example", "x", 'b'),
            place("a.example", "x", 'a'),
            place("a.example", "y", 'a'),
            place("a.example", "y", 'z'),
            place("a.example", "me/app", 'a'),
            place("b.example", "me/app", 'c'),
            place("b.example", "me/app", 'd'),
        ];
        let name: Reference = "a.example/me/app:1".parse().unwrap();
        assert_eq!(elsewhere(&places, &name, &digest('a')), ["x", "y"]);
        assert!(elsewhere(&places, &name, &digest('b')).is_empty());
        let named = |own, registry: &str| -> Vec<Digest> {
            guesses(own, &places, registry).into_iter().map(|blob| blob.digest).collect()
        };
        // Not what is zstd there: that is not what would be sent.
        assert_eq!(named(None, "a.example"), ['a', 'b', 'c'].map(digest));
        assert_eq!(named(None, "b.example"), ['b', 'c', 'd'].map(digest));
        assert_eq!(named(None, "c.example"), ['b', 'a', 'c'].map(digest));
        assert_eq!(named(Some(&places[3].blob), "a.example"), [digest('f')]);
    }
}
