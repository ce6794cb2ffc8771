//! What a pull does.

use std::io::Read;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use dozen_image::{Arrival, DOCUMENT_BYTES, ImageError, Kept, LayersBudget, Needed, NeededLayer};
use dozen_model::{Digest, Reference, error_chain};
use dozen_registry::{
    Access, Authorities, Credentials, Document, Download, Manifest, Patience, Pauses, Proxies, RateLimit,
    RegistryError, Repository, Terms, Which,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::board::{Board, LayerStep, PullEvent};
use super::signatures::{NotVouched, Vouched, Vouching};
use super::{PullRequest, refusal};
use crate::EngineError;
use crate::engine::emit_pull;
use crate::own_registry::OwnRegistry;
use crate::shared::Shared;

/// Pieces of a layer between the network and the disk.
const PIECES: usize = 16;

/// All that a request asks for.
pub(super) async fn pull(
    shared: &Arc<Shared>,
    request: &PullRequest,
    vouching: &Vouching,
    board: &Board,
) -> Result<(), EngineError> {
    let terms = terms(shared, request.credentials.clone()).await?;
    let told = board.clone();
    let pauses = Pauses::new(move |digest, seconds| told.moves(digest, LayerStep::Retrying { seconds }));
    let repository = shared.pulls.client.repository(&request.reference, Access::Pull, terms);
    let repository = Arc::new(repository.telling(pauses));
    let one = |name| Pulling { shared, request, board, vouching, repository: repository.clone(), name };
    if !request.all_tags {
        return one(request.reference.clone()).pull().await;
    }
    let failed = |error: RegistryError| refusal::failure(&request.reference, &error);
    for tag in repository.tags().await.map_err(failed)? {
        let name = request.reference.with_tag(&tag).map_err(|error| invalid(error.to_string()))?;
        one(name).pull().await?;
    }
    Ok(())
}

/// How registries are reached by whom.
pub(crate) async fn terms(shared: &Arc<Shared>, credentials: Option<Credentials>) -> Result<Terms, EngineError> {
    let unusable = |error| invalid(error_chain(&error));
    let authorities = shared.blocking(move || Authorities::of_host(None).map_err(unusable)).await?;
    let own: Vec<(String, String)> = std::env::vars().collect();
    let of_engine = |name: &str| own.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    Ok(Terms {
        settings: shared.config.settings.get().registries.clone(),
        credentials,
        own: shared.own_registry.get().map(OwnRegistry::known),
        authorities,
        proxies: Proxies::of(of_engine),
        patience: Patience::default(),
    })
}

fn invalid(message: String) -> EngineError {
    EngineError::Invalid { message, hint: None }
}

/// One image on its way.
struct Pulling<'a> {
    shared: &'a Arc<Shared>,
    request: &'a PullRequest,
    board: &'a Board,
    vouching: &'a Vouching,
    repository: Arc<Repository>,
    name: Reference,
}

impl Pulling<'_> {
    async fn pull(&self) -> Result<(), EngineError> {
        let is_open = self.vouching.is_open(&self.name)?;
        let mut which = match (self.name.digest(), self.name.tag()) {
            (Some(digest), _) => Which::Digest(digest.clone()),
            (None, tag) => Which::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let what = which.to_string();
        // One question tells whether all is here already. A digest needs none.
        if let Which::Tag(tag) = &which
            && let Some(resolved) = self.repository.resolve(tag).await.map_err(|error| self.failed(&error))?
        {
            which = Which::Digest(resolved.digest);
        }
        // What is here already may have come before there was a rule: then it is looked at as if it came now.
        if let Which::Digest(digest) = &which
            && is_open
            && !self.request.is_beside
            && self.is_current(digest).await?
        {
            self.begin(&what);
            self.done(digest.clone(), false);
            return Ok(());
        }
        let root = self.repository.manifest(&which).await.map_err(|error| self.failed(&error))?;
        let vouched = self.vouched(&root.digest, root.kind, None).await?;
        self.begin(&what);
        let (digest, is_new) = self.fetch(&root, vouched).await?;
        self.done(digest, is_new);
        Ok(())
    }

    async fn is_current(&self, digest: &Digest) -> Result<bool, EngineError> {
        let (images, platform) = (self.shared.images.clone(), self.request.platform.clone());
        let [name, by_digest] = [self.own_name(digest)?, self.by_digest(digest)?];
        let look = move || {
            let current = images.is_current(&name, &by_digest, platform.as_ref());
            if let Some(image) = &current {
                images.note_use(image);
            }
            Ok(current.is_some())
        };
        self.shared.blocking(look).await
    }

    fn begin(&self, what: &str) {
        let repository = self.name.path().to_owned();
        self.board.say(PullEvent::Begins { what: what.to_owned(), repository });
    }

    fn done(&self, digest: Digest, is_new: bool) {
        if let Some(RateLimit { remaining, limit, window_s }) = self.repository.rate_limit() {
            self.board.say(PullEvent::Left { remaining, limit, window_s });
        }
        self.board.say(PullEvent::Resolved(digest));
        self.board.say(PullEvent::Done { name: self.name.familiar(), is_new });
    }

    /// What is kept, and whether anything came. An index that nobody vouches for is not kept, though somebody vouches for
    /// what it names: whoever pushes it, and signs it, would vouch for all the rest.
    async fn fetch(&self, root: &Manifest, mut vouched: Vouched) -> Result<(Digest, bool), EngineError> {
        let kept = match vouched {
            Vouched::Yes if !self.request.is_beside => Kept::AsAsked,
            _ => Kept::Manifest,
        };
        let (images, platform) = (self.shared.images.clone(), self.request.platform.clone());
        let (digest, media_type, bytes) = (root.digest.clone(), root.media_type.clone(), root.bytes.clone());
        let begin = move || {
            let arrival = images.arrival(digest.clone(), platform)?;
            arrival.document(&digest, &media_type, &bytes)?;
            Ok(Arc::new(arrival))
        };
        let arrival = self.shared.blocking(begin).await?;
        let mut last = root.digest.clone();
        let layers = loop {
            let asked = arrival.clone();
            match self.shared.blocking(move || Ok(asked.needed()?)).await.map_err(|error| self.is_no_image(error))? {
                Needed::Manifest { digest, .. } => {
                    let manifest = self.repository.manifest(&Which::Digest(digest)).await;
                    let manifest = manifest.map_err(|error| self.failed(&error))?;
                    if let Vouched::NotFor(index) = vouched {
                        vouched = self.vouched(&manifest.digest, manifest.kind, Some(index)).await?;
                    }
                    last = manifest.digest.clone();
                    self.take(&arrival, manifest.digest, manifest.media_type, manifest.bytes).await?;
                }
                Needed::Configuration { digest, size_bytes } => {
                    self.has_to_be(&vouched)?;
                    let bytes = self.repository.small_blob(&digest, size_bytes, DOCUMENT_BYTES).await;
                    let bytes = bytes.map_err(|error| self.failed(&error))?;
                    self.take(&arrival, digest, String::new(), bytes).await?;
                }
                Needed::Layers(layers) => break layers,
            }
        };
        self.has_to_be(&vouched)?;
        let is_new = layers.iter().any(|layer| !layer.is_here);
        let origin: Vec<_> = layers.iter().map(|layer| (layer.diff_id.clone(), layer.digest.clone())).collect();
        self.fetch_layers(&arrival, layers).await?;
        let digest = if kept == Kept::Manifest { last } else { root.digest.clone() };
        let names = self.names(&digest)?;
        let (shared, name) = (self.shared.clone(), self.name.clone());
        let install = move || {
            let loaded = arrival.install(&names, kept)?;
            shared.images.remember_origin(name.registry(), name.path(), &origin);
            emit_pull(&shared, &loaded.id, &name);
            Ok(())
        };
        self.shared.blocking(install).await?;
        Ok((digest, is_new))
    }

    /// Whether somebody vouches for this. What of an index may be signed further down is not yet refused.
    async fn vouched(
        &self,
        digest: &Digest,
        kind: Document,
        index: Option<NotVouched>,
    ) -> Result<Vouched, EngineError> {
        match self.vouching.vouched(&self.repository, &self.name, digest).await? {
            Vouched::NotFor(manifest) if kind == Document::Image => {
                Err(self.vouching.explained(&self.repository, &self.name, index, manifest).await)
            }
            vouched => Ok(vouched),
        }
    }

    fn has_to_be(&self, vouched: &Vouched) -> Result<(), EngineError> {
        match vouched {
            Vouched::Yes => Ok(()),
            Vouched::NotFor(rejected) => Err(self.vouching.refused_of(rejected)),
        }
    }

    async fn take(
        &self,
        arrival: &Arc<Arrival>,
        digest: Digest,
        media_type: String,
        bytes: Vec<u8>,
    ) -> Result<(), EngineError> {
        let arrival = arrival.clone();
        self.shared.blocking(move || Ok(arrival.document(&digest, &media_type, &bytes)?)).await
    }

    async fn fetch_layers(&self, arrival: &Arc<Arrival>, layers: Vec<NeededLayer>) -> Result<(), EngineError> {
        for layer in &layers {
            self.board.layer(&layer.digest, if layer.is_here { LayerStep::Exists } else { LayerStep::Found });
        }
        let budget = Arc::new(LayersBudget::of(&layers));
        let at_once = self.shared.config.settings.get().registries.downloads.get();
        let turns = Arc::new(Semaphore::new(usize::from(at_once)));
        let (stop, _) = watch::channel(false);
        let mut fetching = JoinSet::new();
        for layer in layers.into_iter().filter(|layer| !layer.is_here) {
            let one = Layer {
                repository: self.repository.clone(),
                arrival: arrival.clone(),
                board: self.board.clone(),
                budget: budget.clone(),
                stop: stop.subscribe(),
                turns: turns.clone(),
                layer,
            };
            let turns = turns.clone();
            fetching.spawn(async move {
                // Nobody closes it.
                let _turn = turns.acquire_owned().await;
                one.fetch().await
            });
        }
        let mut failure = None;
        while let Some(done) = fetching.join_next().await {
            let done = done.unwrap_or_else(|error| {
                let source = std::io::Error::other(error);
                Err(LayerError::Engine(EngineError::System { action: "finish a layer".into(), source }))
            });
            if let Err(error) = done
                && failure.is_none()
            {
                failure = Some(error);
                // All of them have ended, and nothing of them is left, before anybody is told.
                stop.send_replace(true);
            }
        }
        match failure {
            None => Ok(()),
            Some(LayerError::Registry(error)) => Err(self.failed(&error)),
            Some(LayerError::Engine(error)) => Err(error),
            Some(LayerError::Stopped) => Err(EngineError::ShuttingDown),
        }
    }

    /// A tag with the digest beside it is the digest's alone, as with Docker. Whoever names an index finds what was taken of
    /// it by that.
    fn names(&self, digest: &Digest) -> Result<Vec<Reference>, EngineError> {
        let mut names = vec![self.by_digest(digest)?];
        match self.name.digest() {
            _ if self.request.is_beside => {}
            Some(asked) if asked == digest => {}
            Some(asked) => names.push(self.by_digest(asked)?),
            None => names.push(self.name.clone()),
        }
        Ok(names)
    }

    fn own_name(&self, digest: &Digest) -> Result<Reference, EngineError> {
        if self.name.digest().is_some() { self.by_digest(digest) } else { Ok(self.name.clone()) }
    }

    fn by_digest(&self, digest: &Digest) -> Result<Reference, EngineError> {
        let text = format!("{}/{}@{digest}", self.name.registry(), self.name.path());
        text.parse().map_err(|error: dozen_model::ReferenceError| invalid(error.to_string()))
    }

    fn failed(&self, error: &RegistryError) -> EngineError {
        refusal::failure(&self.name, error).into()
    }

    fn is_no_image(&self, error: EngineError) -> EngineError {
        match &error {
            EngineError::Image(ImageError::Artifact { artifact_type, .. }) => {
                refusal::artifact(&self.name, artifact_type).into()
            }
            _ => error,
        }
    }
}

enum LayerError {
    Registry(RegistryError),
    Engine(EngineError),
    /// Another one failed.
    Stopped,
}

/// One layer on its way.
struct Layer {
    repository: Arc<Repository>,
    arrival: Arc<Arrival>,
    board: Board,
    budget: Arc<LayersBudget>,
    stop: watch::Receiver<bool>,
    /// Connections that layers may have. What is left of them goes to those that are large.
    turns: Arc<Semaphore>,
    layer: NeededLayer,
}

impl Layer {
    async fn fetch(self) -> Result<(), LayerError> {
        if *self.stop.borrow() {
            return Err(LayerError::Stopped);
        }
        let (digest, of_bytes) = (self.layer.digest.clone(), self.layer.size_bytes);
        let (pieces, arriving) = mpsc::channel(PIECES);
        let (arrival, layer, budget) = (self.arrival.clone(), self.layer.clone(), self.budget.clone());
        let board = self.board.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let arriving = Arriving { pieces: arriving, current: Bytes::new(), is_over: false };
            arrival.layer(&layer, arriving, &budget, |bytes| board.unpacks(&layer.digest, bytes, of_bytes))
        });
        let came = self.download(&digest, of_bytes, pieces).await;
        let unpacked = unpacking.await;
        // That it did not come is why it could not be unpacked.
        came?;
        let unpacked = unpacked.map_err(|error| {
            let source = std::io::Error::other(error);
            LayerError::Engine(EngineError::System { action: "unpack a layer".into(), source })
        })?;
        unpacked.map_err(|error| LayerError::Engine(error.into()))?;
        self.board.layer(&digest, LayerStep::Complete);
        Ok(())
    }

    async fn download(&self, digest: &Digest, of_bytes: u64, pieces: mpsc::Sender<Piece>) -> Result<(), LayerError> {
        let mut stop = self.stop.clone();
        let stopped = async move { _ = stop.wait_for(|stop| *stop).await };
        let download = async {
            let blob = self.repository.blob_or_elsewhere(digest, of_bytes, &self.layer.urls).await;
            let mut blob = Download::new(&self.repository, blob.map_err(LayerError::Registry)?, self.turns.clone());
            let mut bytes = 0;
            while let Some(piece) = blob.next_unverified().await.map_err(LayerError::Registry)? {
                bytes += piece.len() as u64;
                self.board.moves(digest, LayerStep::Downloading { bytes, of_bytes });
                if pieces.send(Piece::Bytes(piece)).await.is_err() {
                    // It cannot be unpacked: why is told by who tried.
                    return Ok(());
                }
            }
            self.board.layer(digest, LayerStep::Downloaded);
            _ = pieces.send(Piece::End).await;
            Ok(())
        };
        tokio::select! {
            downloaded = download => downloaded,
            () = stopped => Err(LayerError::Stopped),
        }
    }
}

/// Of a layer. That nothing more comes is no end of it.
enum Piece {
    Bytes(Bytes),
    End,
}

/// Pieces as a blocking reader.
struct Arriving {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    is_over: bool,
}

impl Read for Arriving {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.is_over {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(piece)) => self.current = piece,
                Some(Piece::End) => self.is_over = true,
                None => {
                    return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the rest of it did not come"));
                }
            }
        }
        let count = self.current.len().min(out.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}
