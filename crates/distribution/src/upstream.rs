//! Upstreams: registries elsewhere whose repositories are kept here as they are asked for.
//!
//! **The rule.** A manifest that is called by its digest is given as soon as it is here; one that is called by a tag is given
//! for as long as the tag is fresh, and then the upstream is asked what the tag leads to. An upstream that cannot be asked,
//! or says what cannot be, takes nothing away: what is here is given, and it is said that it may be old. One that answers that
//! there is none, or that it does not let us, is believed. A blob comes when somebody wants it whom a manifest that is here
//! told of it, and no longer than that says. Nothing counts as here before its digest has been compared.
//!
//! Who asks upstreams is passed in ([`Upstream`]); it is believed in nothing.

mod blobs;
mod file;
mod manifests;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dozen_model::Digest;
use tokio::sync::{Semaphore, mpsc};

pub(crate) use blobs::{Arriving, Coming};
pub use file::{Secrets, UpstreamPlan, UpstreamsError, read_upstreams};

use crate::name::{RepositoryName, Tag};
use crate::refusal::{Kind, Refusal};

/// Manifests that upstreams are asked for at once.
const MOST_QUESTIONS: usize = 64;
/// Tags of which it is known how fresh they are: beyond these, those go that are not any more.
const MOST_TAGS: usize = 4096;

/// What becomes of a question.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, UpstreamError>> + Send + 'a>>;

/// Why an upstream gave nothing. The words are for the log, and have no secret in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct UpstreamError {
    /// What is done about it.
    pub kind: UpstreamErrorKind,
    /// In words.
    pub words: String,
}

/// See [`UpstreamError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamErrorKind {
    /// It has none.
    Missing,
    /// It does not let us.
    Denied,
    /// It cannot be reached, is out of order, or wants to be left alone for a while.
    Unavailable,
    /// What it says cannot be.
    Wrong,
}

/// A manifest as an upstream gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Its bytes.
    pub content: Vec<u8>,
    /// As the answer says.
    pub media_type: String,
}

/// Asks a registry. Repositories are called as they are there.
pub trait Upstream: fmt::Debug + Send + Sync + 'static {
    /// What a tag leads to, without its bytes. `None`: it does not say, and is to be asked for the manifest.
    fn resolve<'a>(&'a self, repository: &'a str, tag: &'a str) -> Asked<'a, Option<Digest>>;

    /// A manifest, by tag or digest: 4 MiB at the most.
    fn manifest<'a>(&'a self, repository: &'a str, reference: &'a str) -> Asked<'a, FetchedManifest>;

    /// A blob, piece by piece, in order. Who does not want it any more closes the channel.
    fn blob<'a>(
        &'a self,
        repository: &'a str,
        digest: &'a Digest,
        size_bytes: u64,
        pieces: mpsc::Sender<Bytes>,
    ) -> Asked<'a, ()>;
}

/// One upstream, and who asks it.
#[derive(Debug)]
pub struct Source {
    plan: UpstreamPlan,
    client: Arc<dyn Upstream>,
}

impl Source {
    /// Of what a file says.
    pub fn new(plan: UpstreamPlan, client: Arc<dyn Upstream>) -> Self {
        Self { plan, client }
    }
}

/// All upstreams of a server, and what is under way with them. Clones share it.
#[derive(Debug, Clone)]
pub struct Upstreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: RwLock<Arc<[Arc<Source>]>>,
    /// In memory alone: a server that has just begun asks of everything.
    fresh: Mutex<HashMap<(RepositoryName, Tag), Fresh>>,
    turns: Mutex<HashMap<String, Weak<Turn>>>,
    flights: blobs::Flights,
    questions: Semaphore,
}

/// Of whoever asks for the same: how the last one fared, if he was told nothing.
type Turn = tokio::sync::Mutex<Option<(Instant, UpstreamError)>>;

#[derive(Debug, Clone)]
struct Fresh {
    until: Instant,
    /// The upstream could not be asked; so it is not asked again for a while.
    is_stale: bool,
}

impl Upstreams {
    /// The first one that has a repository counts for it.
    pub fn new(sources: Vec<Source>) -> Self {
        Self(Arc::new(Inner {
            sources: RwLock::new(shared(sources)),
            fresh: Mutex::default(),
            turns: Mutex::default(),
            flights: blobs::Flights::default(),
            questions: Semaphore::new(MOST_QUESTIONS),
        }))
    }

    /// From now on these. What is under way goes on.
    pub fn replace(&self, sources: Vec<Source>) {
        *self.0.sources.write().unwrap_or_else(PoisonError::into_inner) = shared(sources);
        lock(&self.0.fresh).clear();
    }

    /// Whose this repository is, if it is an upstream's.
    pub(crate) fn source(&self, repository: &RepositoryName) -> Option<Arc<Source>> {
        let sources = self.0.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        sources.iter().find(|source| source.plan.there(repository).is_some()).cloned()
    }

    /// What a repository of that registry is called here. One whose name here is another upstream's is not to be had.
    pub(crate) fn here(&self, registry: &str, repository: &RepositoryName) -> Option<RepositoryName> {
        let sources = self.0.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        sources.iter().find_map(|source| {
            let here = source.plan.here(registry, repository)?;
            self.source(&here).is_some_and(|it| Arc::ptr_eq(&it, source)).then_some(here)
        })
    }

    /// `None`: it has to be asked. `Some(true)`: it could not be asked a moment ago.
    fn known(&self, repository: &RepositoryName, tag: &Tag) -> Option<bool> {
        let fresh = lock(&self.0.fresh);
        let found = fresh.get(&(repository.clone(), tag.clone())).filter(|it| it.until > Instant::now());
        found.map(|it| it.is_stale)
    }

    fn know(&self, repository: &RepositoryName, tag: &Tag, lasts: Duration, is_stale: bool) {
        let mut fresh = lock(&self.0.fresh);
        let now = Instant::now();
        if fresh.len() >= MOST_TAGS {
            fresh.retain(|_, it| it.until > now);
        }
        if fresh.len() < MOST_TAGS {
            fresh.insert((repository.clone(), tag.clone()), Fresh { until: now + lasts, is_stale });
        }
    }

    /// Of those who want the same of an upstream one asks at a time.
    fn turn(&self, what: String) -> Arc<Turn> {
        let mut turns = lock(&self.0.turns);
        if let Some(turn) = turns.get(&what).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(what, Arc::downgrade(&turn));
        turn
    }
}

impl Source {
    /// Whose it is.
    pub(crate) fn host(&self) -> &str {
        &self.plan.host
    }

    /// A client that pushes is told where to.
    pub(crate) fn refuses_pushes(&self, repository: &RepositoryName) -> Refusal {
        let (address, there) = (&self.plan.host, self.plan.there(repository).unwrap_or_default());
        let words =
            format!("{repository} has here what {address} has as {there}: push it there, or under another name");
        Refusal::new(Kind::Unsupported, words)
    }

    fn refusal(&self, what: &str, error: &UpstreamError, missing: Kind) -> Refusal {
        let host = &self.plan.host;
        match error.kind {
            UpstreamErrorKind::Missing => {
                let words = match missing {
                    Kind::BlobUnknown => "blob unknown to registry",
                    _ => "manifest unknown",
                };
                Refusal::new(missing, words)
            }
            UpstreamErrorKind::Denied => {
                tracing::warn!("{what}: {error}");
                Refusal::new(Kind::Denied, format!("{host} does not let this registry have it"))
            }
            UpstreamErrorKind::Unavailable | UpstreamErrorKind::Wrong => {
                tracing::warn!("{what}: {error}");
                let words = format!("it is not here, and cannot be had of {host}: the registry's log says why");
                Refusal::new(Kind::UpstreamFailed, words)
            }
        }
    }
}

impl UpstreamError {
    /// What it says cannot be.
    pub(crate) fn wrong(words: impl Into<String>) -> Self {
        Self { kind: UpstreamErrorKind::Wrong, words: words.into() }
    }
}

fn shared(sources: Vec<Source>) -> Arc<[Arc<Source>]> {
    sources.into_iter().map(Arc::new).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
