//! An artifact comes from a registry: its manifest, then configuration and files, several at once, those alone that are not
//! here. It is seen when all of it is here; who gives it up leaves nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use dozen_image::{ArtifactDocument, NameTaken, NewArtifact};
use dozen_model::{Classified, Digest, error_chain};
use dozen_registry::{Access, Document, RegistryError, Repository};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::{ArtifactTransfer, repository, which};
use crate::pull::{Board, Vouching, Watch, failure};
use crate::shared::Shared;
use crate::{Engine, EngineError, LayerStep, PullEvent, PullFailure};

/// Gathered before the disk is troubled.
const PIECE_BYTES: usize = 1024 * 1024;

/// A pull, watched. It is given up with this, and leaves nothing then.
#[derive(Debug)]
pub struct ArtifactPull {
    watch: Watch,
    task: AbortHandle,
}

impl ArtifactPull {
    /// What happens next; `None` once it is over and went well. [`PullEvent::Resolved`] has the digest.
    ///
    /// # Errors
    /// Those of [`Engine::pull_artifact`].
    pub async fn next(&mut self) -> Result<Option<PullEvent>, EngineError> {
        Ok(self.watch.next().await?)
    }
}

impl Drop for ArtifactPull {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Engine {
    /// See the module; gives the digest of its manifest.
    ///
    /// # Errors
    /// There is none of this name, or it is a list of several.
    pub async fn pull_artifact(&self, transfer: &ArtifactTransfer) -> Result<Digest, EngineError> {
        self.fetch_artifact(transfer, &Board::new()).await
    }

    /// The same, watched.
    pub fn watch_artifact_pull(&self, transfer: ArtifactTransfer) -> ArtifactPull {
        let (engine, board) = (self.clone(), Board::new());
        let watch = board.watch();
        let task = tokio::spawn(async move {
            let pulled = engine.fetch_artifact(&transfer, &board).await;
            board.end(pulled.map(|digest| board.say(PullEvent::Resolved(digest))).map_err(|error| PullFailure {
                kind: error.kind(),
                message: error_chain(&error),
                hint: error.hint(),
            }));
        });
        ArtifactPull { watch, task: task.abort_handle() }
    }

    async fn fetch_artifact(&self, transfer: &ArtifactTransfer, board: &Board) -> Result<Digest, EngineError> {
        let name = &transfer.reference;
        let failed = |error: RegistryError| EngineError::from(failure(name, &error));
        // Models and policies are trusted as images are.
        let vouching = Vouching::of(&self.shared);
        let is_open = vouching.is_open(name)?;
        let repository = Arc::new(repository(&self.shared, transfer, Access::Pull).await?);
        let manifest = repository.manifest(&which(name)).await.map_err(failed)?;
        if manifest.kind == Document::Index {
            let message = format!(
                "{} is an index of several manifests, and artifacts of that kind are not built yet",
                name.familiar()
            );
            let hint = format!("name one of them by its digest: dozen manifest inspect {}", name.familiar());
            return Err(EngineError::NotBuilt { message, hint: Some(hint) });
        }
        if !is_open {
            vouching.has_to_be(&repository, name, &manifest.digest).await?;
        }
        let document = ArtifactDocument::read(&manifest.bytes)?;
        let shared = self.shared.clone();
        let staged = Arc::new(self.shared.blocking(move || Ok(shared.images.new_artifact()?)).await?);
        let at_once = self.shared.config.settings.get().registries.downloads.get();
        let turns = Arc::new(Semaphore::new(usize::from(at_once)));
        let (mut fetching, mut seen) = (JoinSet::new(), BTreeSet::new());
        for blob in document.blobs().filter(|blob| seen.insert(blob.digest.clone())) {
            let one = Fetching {
                shared: self.shared.clone(),
                repository: repository.clone(),
                staged: staged.clone(),
                digest: blob.digest.clone(),
                size_bytes: blob.size_bytes,
                board: board.clone(),
            };
            let turns = turns.clone();
            fetching.spawn(async move {
                // Nobody closes it.
                let _turn = turns.acquire_owned().await;
                one.fetch().await
            });
        }
        while let Some(done) = fetching.join_next().await {
            let done = done.unwrap_or_else(|error| {
                let source = std::io::Error::other(error);
                Err(EngineError::System { action: "finish a blob".into(), source }.into())
            });
            if let Err(failure) = done {
                // All of them have ended before anybody is told.
                fetching.shutdown().await;
                return Err(match failure {
                    Failure::Registry(error) => failed(error),
                    Failure::Engine(error) => error,
                });
            }
        }
        let name = name.clone();
        let install = move || Ok(staged.install(name, &manifest.bytes, &NameTaken::Replace)?.digest);
        self.shared.blocking(install).await
    }
}

enum Failure {
    Registry(RegistryError),
    Engine(EngineError),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// One blob on its way.
struct Fetching {
    shared: Arc<Shared>,
    repository: Arc<Repository>,
    staged: Arc<NewArtifact>,
    digest: Digest,
    size_bytes: u64,
    board: Board,
}

impl Fetching {
    async fn fetch(self) -> Result<(), Failure> {
        let (staged, digest, size_bytes) = (self.staged.clone(), self.digest.clone(), self.size_bytes);
        if self.shared.blocking(move || Ok(staged.take_known(&digest, size_bytes)?)).await? {
            self.board.layer(&self.digest, LayerStep::Exists);
            return Ok(());
        }
        self.board.layer(&self.digest, LayerStep::Found);
        let staged = self.staged.clone();
        let mut taken = self.shared.blocking(move || Ok(staged.blob()?)).await?;
        let mut blob = self.repository.blob(&self.digest, self.size_bytes).await?;
        let mut gathered = BytesMut::with_capacity(PIECE_BYTES);
        let mut come_bytes = 0;
        loop {
            let piece = blob.next_unverified().await?;
            let bytes = piece.as_deref().unwrap_or_default();
            gathered.extend_from_slice(bytes);
            come_bytes += bytes.len() as u64;
            self.board.moves(&self.digest, LayerStep::Downloading { bytes: come_bytes, of_bytes: self.size_bytes });
            if gathered.len() >= PIECE_BYTES || piece.is_none() {
                let bytes = gathered.split();
                let write = move || {
                    taken.write(&bytes)?;
                    Ok(taken)
                };
                taken = self.shared.blocking(write).await?;
            }
            if piece.is_none() {
                break;
            }
        }
        let (staged, digest, size_bytes) = (self.staged.clone(), self.digest.clone(), self.size_bytes);
        self.board.layer(&self.digest, LayerStep::Downloaded);
        self.shared.blocking(move || Ok(staged.keep_promised(taken, &digest, size_bytes)?)).await?;
        self.board.layer(&self.digest, LayerStep::Complete);
        Ok(())
    }
}
