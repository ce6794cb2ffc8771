//! `pull`: images from registries.
//!
//! A pull belongs to all who wait for it: two who want the same share one, and it is given up when the last of them has
//! gone. What they are told is on its board (`board`), so whoever comes later is told all of it too. Documents are fetched
//! one after the other, since each says what is needed next; layers several at once (`fetch`), straight into the image
//! store, which shows nothing before all of it is there. A pull that dies leaves a scratch directory, and the next start
//! takes that away.

mod board;
mod bundles;
mod fetch;
mod flights;
mod refusal;
mod signatures;

use std::sync::Arc;

use dozen_image::Platform;
use dozen_model::{Classified, ErrorKind, Reference};
pub use dozen_registry::{Credentials, Secret as RegistrySecret};

pub(crate) use self::board::{Board, Watch};
pub use self::board::{LayerStep, PullEvent};
pub(crate) use self::fetch::terms;
use self::flights::Flight;
pub(crate) use self::flights::Pulls;
pub(crate) use self::refusal::failure;
pub(crate) use self::signatures::Vouching;
use crate::{Engine, EngineError};

/// What is to be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PullRequest {
    /// A tag or a digest.
    pub reference: Reference,
    /// All tags of its repository.
    pub all_tags: bool,
    /// `None`: what runs here best.
    pub platform: Option<Platform>,
    /// A tag stays with what it is here: what comes has the name of its manifest's digest alone. The rules of a policy are
    /// those of the tag.
    pub is_beside: bool,
    /// For its registry.
    pub credentials: Option<Credentials>,
}

/// Why a pull failed: all who wait for it are told. Of a push it is the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PullFailure {
    /// Its kind.
    pub kind: ErrorKind,
    /// In Docker's words, where scripts match them.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Classified for PullFailure {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// A pull, watched. It is given up with the last who watches it.
#[derive(Debug)]
pub struct Pull {
    watch: Watch,
    _flight: Arc<Flight>,
}

impl Engine {
    /// Begins to pull, or joins who does already.
    pub fn pull(&self, request: PullRequest) -> Pull {
        let flight = self.shared.pulls.join(&self.shared, request);
        Pull { watch: flight.watch(), _flight: flight }
    }
}

impl Engine {
    /// Asks a registry, host and port, whether these credentials are right.
    ///
    /// # Errors
    /// They are not, or nobody answers.
    pub async fn log_in(&self, registry: &str, credentials: Credentials) -> Result<(), EngineError> {
        let terms = fetch::terms(&self.shared, Some(credentials)).await?;
        let asked = self.shared.pulls.client.log_in(registry, terms).await;
        asked.map_err(|error| refusal::not_let_in(registry, &error).into())
    }
}

impl Pull {
    /// What happens next; `None` once it is over and went well.
    ///
    /// # Errors
    /// It went wrong: nothing of the image is there that was not there before.
    pub async fn next(&mut self) -> Result<Option<PullEvent>, EngineError> {
        Ok(self.watch.next().await?)
    }

    /// Waits for the end of it.
    ///
    /// # Errors
    /// As [`Pull::next`].
    pub async fn finish(mut self) -> Result<(), EngineError> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}
