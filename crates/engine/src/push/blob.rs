//! One layer or configuration on its way to a registry.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dozen_image::{ImageError, LayerBlob, LayerForm, LayerPlace, OutgoingBlob, OutgoingBlobs};
use dozen_model::{Digest, Reference};
use dozen_registry::{BlobName, Found, RegistryError, Session, UploadedBlob, Uploads};
use tokio::sync::{mpsc, watch};

use super::PushStep;
use super::buffers::Buffers;
use super::packings::Flight;
use super::told::Told;
use crate::EngineError;
use crate::shared::Shared;

/// Pieces of a layer between the disk and the network.
const PIECES: usize = 8;
/// A registry is asked for so many other names of a layer, and to look in so many other repositories for each.
const MOST_GUESSES: usize = 3;
/// A layer whose plain stream is as long goes while it is compressed. A shorter one is compressed in less time than a question
/// to a registry takes, and its name is known then.
const STREAMED_FROM_BYTES: u64 = 8 * 1024 * 1024;

/// See the module.
pub(crate) struct Blob {
    pub(crate) shared: Arc<Shared>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) outgoing: Arc<OutgoingBlobs>,
    pub(crate) told: Told,
    /// Where it goes.
    pub(crate) name: Reference,
    /// How it is packed if it has to be.
    pub(crate) form: LayerForm,
    /// It is packed even if the registry has it already, packed at some level.
    pub(crate) is_anew: bool,
    pub(crate) blob: OutgoingBlob,
    /// It is a layer, and people see what becomes of it.
    pub(crate) is_shown: bool,
}

/// Why it did not arrive.
pub(crate) enum BlobError {
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
    pub(crate) async fn send(self) -> Result<(Digest, LayerBlob), BlobError> {
        let places = self.places().await?;
        let mut guesses = guesses(self.blob.blob.as_ref(), &places, self.name.registry(), self.form.media_type());
        if self.is_anew && self.blob.blob.is_none() {
            guesses.clear();
        }
        let mut opened = None;
        for guess in &guesses {
            let elsewhere = elsewhere(&places, &self.name, &guess.digest);
            match self.uploads.find(&guess.digest, &elsewhere).await? {
                Found::Nowhere(session) => opened = session.or(opened),
                found => return Ok(self.is_there(found, guess.clone())),
            }
        }
        let Some(blob) = self.blob.blob.clone() else { return self.pack_and_send(&guesses, opened).await };
        let (_, name) = watch::channel(Some(named(&blob)));
        self.upload(Reads::Stored(self.outgoing.clone(), self.blob.clone()), name, blob.size_bytes, opened).await?;
        Ok(self.is_sent(blob))
    }

    /// Sends it while it is compressed, if it is large.
    async fn pack_and_send(
        &self,
        guesses: &[LayerBlob],
        opened: Option<Session>,
    ) -> Result<(Digest, LayerBlob), BlobError> {
        let flight = self.shared.packings.join(&self.outgoing, &self.blob, self.form)?;
        flight.begun().await?;
        let (tell, name) = watch::channel(None);
        let named = async {
            let blob = flight.packed().await?;
            // Somebody else may have made the same of it.
            let is_asked = !guesses.contains(&blob);
            let is_there = is_asked && self.uploads.find(&blob.digest, &[]).await? == Found::Here;
            Ok::<_, BlobError>((blob, is_there))
        };
        let sending = self.upload(Reads::Packed(flight.clone()), name, self.blob.stored_bytes, opened);
        let (mut sending, mut named) = (std::pin::pin!(sending), std::pin::pin!(named));
        let named = match self.blob.stored_bytes {
            ..STREAMED_FROM_BYTES => named.await,
            _ => tokio::select! {
                // Before it has a name it can but fail.
                sent = &mut sending => match sent {
                    Err(error) => Err(error),
                    Ok(()) => named.as_mut().await,
                },
                named = &mut named => named,
            },
        };
        let (blob, is_there) = named?;
        if is_there {
            return Ok(self.is_there(Found::Here, blob));
        }
        tell.send_replace(Some(self::named(&blob)));
        sending.await?;
        Ok(self.is_sent(blob))
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

    fn is_sent(&self, blob: LayerBlob) -> (Digest, LayerBlob) {
        self.show(PushStep::Pushed);
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

    /// `of_bytes`: of how many it is told how many went.
    async fn upload(
        &self,
        reads: Reads,
        name: watch::Receiver<Option<BlobName>>,
        of_bytes: u64,
        opened: Option<Session>,
    ) -> Result<(), BlobError> {
        let failure: Arc<Mutex<Option<ImageError>>> = Arc::default();
        let is_unreadable = Arc::new(AtomicBool::new(false));
        let reading = Reading { reads, failure: failure.clone(), is_unreadable: is_unreadable.clone() };
        let (told, id, is_shown, known) = (self.told.clone(), self.blob.id.clone(), self.is_shown, name.clone());
        let uploaded = UploadedBlob {
            name,
            open: Arc::new(move |from| reading.open(from)),
            watch: Arc::new(move |bytes| {
                if is_shown {
                    let of_bytes = known.borrow().as_ref().map_or(of_bytes, |name| name.size_bytes);
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

fn named(blob: &LayerBlob) -> BlobName {
    BlobName { digest: blob.digest.clone(), size_bytes: blob.size_bytes }
}

/// What a layer may be called in a registry, the likeliest first: its own name if it has one, or else those that it had.
fn guesses(own: Option<&LayerBlob>, places: &[LayerPlace], registry: &str, media_type: &str) -> Vec<LayerBlob> {
    if let Some(own) = own {
        return vec![own.clone()];
    }
    let (here, others): (Vec<_>, Vec<_>) = places.iter().partition(|place| place.registry == registry);
    let mut guesses: Vec<LayerBlob> = Vec::new();
    for place in here.into_iter().chain(others) {
        if place.blob.media_type == media_type && !guesses.contains(&place.blob) {
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

/// From where a blob is read.
#[derive(Clone)]
enum Reads {
    Stored(Arc<OutgoingBlobs>, OutgoingBlob),
    Packed(Arc<Flight>),
}

/// Reads a blob for whoever sends it.
struct Reading {
    reads: Reads,
    failure: Arc<Mutex<Option<ImageError>>>,
    is_unreadable: Arc<AtomicBool>,
}

impl Reading {
    fn open(&self, from: u64) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (reads, failure, is_unreadable) = (self.reads.clone(), self.failure.clone(), self.is_unreadable.clone());
        tokio::task::spawn_blocking(move || {
            let buffers = Buffers::default();
            let out = |bytes: &[u8]| {
                let taken = sender.blocking_send(Ok(buffers.copy(bytes)));
                taken.map_err(|_| io::ErrorKind::BrokenPipe.into())
            };
            let read = match &reads {
                Reads::Stored(outgoing, blob) => outgoing.read(blob, from, out),
                Reads::Packed(flight) => flight.packing().read(from, out),
            };
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

    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

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
        let by = |own, registry: &str, media_type: &str| -> Vec<Digest> {
            guesses(own, &places, registry, media_type).into_iter().map(|blob| blob.digest).collect()
        };
        let named = |own, registry| by(own, registry, GZIP);
        assert_eq!(by(None, "b.example", LayerForm::Zstd(3).media_type()), [digest('f')]);
        // Not what is zstd there: that is not what would be sent.
        assert_eq!(named(None, "a.example"), ['a', 'b', 'c'].map(digest));
        assert_eq!(named(None, "b.example"), ['b', 'c', 'd'].map(digest));
        assert_eq!(named(None, "c.example"), ['b', 'a', 'c'].map(digest));
        assert_eq!(named(Some(&places[3].blob), "a.example"), [digest('f')]);
    }
}
