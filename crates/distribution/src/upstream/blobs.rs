//! Blobs of upstreams: each comes once, however many want it, and goes to all of them while it comes.
//!
//! The last byte is held back until the digest of all has been compared, so nobody takes a blob for whole that is not. What
//! comes goes on if all who wanted it go away; a server that ends meanwhile leaves a file that the next one removes.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dozen_model::Digest;
use tokio::sync::{mpsc, watch};

use super::{Source, UpstreamError, Upstreams, lock};
use crate::hasher::Algorithm;
use crate::name::RepositoryName;
use crate::refusal::{Kind, Refusal};
use crate::store::{Pieces, Store, Upload, Writer};

/// So much is read at once for each who follows.
const READ_BYTES: u64 = 64 << 10;
/// Pieces that are written at once.
const MOST_PIECES: usize = 32;

pub(super) type Flights = Mutex<HashMap<(RepositoryName, Digest), watch::Receiver<Flight>>>;

/// How far a blob has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Flight {
    file: Option<Arc<File>>,
    written: u64,
    end: Option<Result<(), Refusal>>,
}

/// What has become of a blob that was not here.
#[derive(Debug)]
pub(crate) enum Arriving {
    /// It is here.
    Arrived,
    /// It is on its way.
    Coming(Coming),
}

/// A blob that can be read while it comes.
#[derive(Debug)]
pub(crate) struct Coming {
    state: watch::Receiver<Flight>,
    /// So long it has to be.
    pub(crate) size_bytes: u64,
}

impl Flight {
    /// So much of it may be seen.
    fn visible(&self, size_bytes: u64) -> u64 {
        if self.end.is_some() { size_bytes } else { self.written.min(size_bytes.saturating_sub(1)) }
    }
}

impl Upstreams {
    /// Has a blob brought that a manifest names which is here, and waits until it begins to come.
    pub(crate) async fn blob(
        &self,
        store: &Arc<Store>,
        source: &Arc<Source>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Arriving, Refusal> {
        let Some(size_bytes) = store.index.promised_bytes(repository, digest).await? else {
            return Err(Refusal::new(Kind::BlobUnknown, "blob unknown to registry"));
        };
        if let Some(error) = self.0.refusals.of(&called(repository, digest)) {
            return Err(source.refusal(&error, Kind::BlobUnknown));
        }
        let mut state = self.flight(store, source, repository, digest, size_bytes);
        let begun = state.wait_for(|flight| flight.end.is_some() || (flight.file.is_some() && flight.written > 0));
        let begun = begun.await.map(|flight| flight.end.clone());
        match begun {
            Ok(Some(Ok(()))) => Ok(Arriving::Arrived),
            Ok(Some(Err(refusal))) => Err(refusal),
            Ok(None) => Ok(Arriving::Coming(Coming { state, size_bytes })),
            Err(_) => Err(Refusal::new(Kind::Internal, "the registry failed: its log says why")),
        }
    }

    /// How long a blob is that is not here. Whoever asks for it gets it, as far as is known: what names it says how long it is.
    pub(crate) async fn promised_bytes(
        &self,
        store: &Store,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        match self.0.refusals.of(&called(repository, digest)) {
            Some(_) => Ok(None),
            None => store.index.promised_bytes(repository, digest).await,
        }
    }

    /// The one that brings it, begun if there is none.
    fn flight(
        &self,
        store: &Arc<Store>,
        source: &Arc<Source>,
        repository: &RepositoryName,
        digest: &Digest,
        size_bytes: u64,
    ) -> watch::Receiver<Flight> {
        let key = (repository.clone(), digest.clone());
        let mut flights = lock(&self.0.flights);
        // One that has panicked is none.
        if let Some(state) = flights.get(&key).filter(|state| state.has_changed().is_ok()) {
            return state.clone();
        }
        let (sender, state) = watch::channel(Flight::default());
        flights.insert(key.clone(), state.clone());
        let (all, store, source) = (self.clone(), store.clone(), source.clone());
        tokio::spawn(async move {
            let end = fetch(&all, &store, &source, (&key.0, &key.1), size_bytes, &sender).await;
            lock(&all.0.flights).remove(&key);
            sender.send_modify(|flight| flight.end = Some(end));
        });
        state
    }
}

/// What a blob is remembered by.
fn called(repository: &RepositoryName, digest: &Digest) -> String {
    format!("the blob {repository}@{digest}")
}

async fn fetch(
    all: &Upstreams,
    store: &Arc<Store>,
    source: &Source,
    (repository, digest): (&RepositoryName, &Digest),
    size_bytes: u64,
    state: &watch::Sender<Flight>,
) -> Result<(), Refusal> {
    // It may have come between the look at what is here and this.
    if store.blob_size(repository, digest).await.is_ok() {
        return Ok(());
    }
    let _place = source.place_for_blob().await.map_err(|error| {
        all.refused(source, repository, called(repository, digest), &error);
        source.refusal(&error, Kind::BlobUnknown)
    })?;
    let used_bytes = store.used_bytes(repository).await?;
    store.check_room(repository, used_bytes, size_bytes)?;
    let upload = store.begin_upload(repository, Algorithm::of(digest), false).await?;
    let fetched = fill(all, store, source, &upload, digest, size_bytes, state).await;
    if fetched.is_err()
        && let Ok(writer) = upload.write().await
    {
        // One that is over already is nobody's to give up.
        let _ = store.cancel(writer).await;
    }
    fetched
}

async fn fill(
    all: &Upstreams,
    store: &Arc<Store>,
    source: &Source,
    upload: &Arc<Upload>,
    digest: &Digest,
    size_bytes: u64,
    state: &watch::Sender<Flight>,
) -> Result<(), Refusal> {
    let repository = &upload.repository;
    let refused = |error: &UpstreamError| {
        all.refused(source, repository, called(repository, digest), error);
        source.refusal(error, Kind::BlobUnknown)
    };
    let writer = upload.write().await?;
    state.send_modify(|flight| flight.file = writer.file());
    let there = source.plan.there(repository).unwrap_or_default();
    let (send, pieces) = mpsc::channel(MOST_PIECES);
    let asking = source.client.blob(&there, digest, size_bytes, send);
    let taking = take(store, writer, pieces, size_bytes, state);
    let (asked, taken) = tokio::join!(asking, taking);
    let writer = match (asked, taken?) {
        (Err(error), _) => return Err(refused(&error)),
        (Ok(()), Err(error)) => return Err(refused(&error)),
        (Ok(()), Ok(writer)) => writer,
    };
    store.finish(writer, digest).await.map_err(|refusal| match refusal.kind {
        Kind::DigestInvalid => refused(&UpstreamError::wrong(refusal.message)),
        _ => refusal,
    })
}

/// Writes what comes. The channel is closed when it returns.
async fn take(
    store: &Arc<Store>,
    mut writer: Writer,
    mut pieces: mpsc::Receiver<Bytes>,
    size_bytes: u64,
    state: &watch::Sender<Flight>,
) -> Result<Result<Writer, UpstreamError>, Refusal> {
    loop {
        let mut batch = Vec::new();
        if pieces.recv_many(&mut batch, MOST_PIECES).await == 0 {
            break;
        }
        let length: u64 = batch.iter().map(|piece| piece.len() as u64).sum();
        if writer.length() + length > size_bytes {
            return Ok(Err(UpstreamError::wrong(format!("more than the {size_bytes} bytes come that it has"))));
        }
        writer = store.append(writer, batch).await?;
        state.send_modify(|flight| flight.written = writer.length());
    }
    if writer.length() != size_bytes {
        let words = format!("{} bytes have come of {size_bytes}", writer.length());
        return Ok(Err(UpstreamError::wrong(words)));
    }
    Ok(Ok(writer))
}

impl Coming {
    /// A part of it, as it comes. Whoever reads finds an end before the end if it does not come.
    pub(crate) fn pieces(self, range: Range<u64>) -> Pieces {
        let (send, pieces) = mpsc::channel(2);
        tokio::spawn(async move {
            let Self { mut state, size_bytes } = self;
            let mut at = range.start;
            while at < range.end {
                let seen = state.wait_for(|flight| flight.end.is_some() || flight.visible(size_bytes) > at);
                let seen = tokio::select! {
                    seen = seen => match seen {
                        Ok(flight) => flight.clone(),
                        Err(_) => return,
                    },
                    () = send.closed() => return,
                };
                let (Some(file), None | Some(Ok(()))) = (seen.file.clone(), &seen.end) else { return };
                let length = (seen.visible(size_bytes).min(range.end) - at).min(READ_BYTES);
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
                    file.read_exact_at(&mut bytes, at).map(|()| bytes)
                });
                let Ok(Ok(bytes)) = read.await else { return };
                at += length;
                if send.send(Ok(bytes.into())).await.is_err() {
                    return;
                }
            }
        });
        pieces
    }
}
