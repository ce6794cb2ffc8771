//! Upstreams: registries elsewhere whose repositories are kept here as they are asked for.
//!
//! **The rule.** A manifest that is called by its digest is given as soon as it is here; one that is called by a tag is given
//! for as long as the tag is fresh, and then the upstream is asked what the tag leads to. An upstream that cannot be asked,
//! or says what cannot be, takes nothing away: what is here is given, and it is said that it may be old. One that answers that
//! there is none, or that it does not let us, is believed. A blob comes when somebody wants it whom a manifest that is here
//! told of it, and no longer than that says. Nothing counts as here before its digest has been compared. Lists of tags and
//! referrers are the upstream's (`lists.rs`); how it is asked, `asking.rs` says.
//!
//! Who asks upstreams is passed in ([`Upstream`]); it is believed in nothing.

mod asking;
mod blobs;
mod file;
mod lists;
mod manifests;
mod shelf;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dozen_model::Digest;
use tokio::sync::mpsc;

use asking::{Places, Refusals, Turns};
use lists::{ReferrersOf, TagsOf};
use shelf::Shelf;

pub(crate) use blobs::{Arriving, Coming};
pub use file::{Secrets, UpstreamPlan, UpstreamsError, read_upstreams};

use crate::name::{RepositoryName, Tag};
use crate::refusal::{Kind, Refusal};

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
    /// There is no connection to it.
    Unreachable,
    /// It is out of order, says nothing, or wants to be left alone for a while.
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

/// What an upstream says of a manifest that is about another one. It may not be so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's words")]
pub struct FetchedReferrer {
    pub digest: Digest,
    pub media_type: String,
    pub size_bytes: u64,
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
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

    /// All tags of a repository: 16 MiB of them at the most.
    fn tags<'a>(&'a self, repository: &'a str) -> Asked<'a, Vec<String>>;

    /// All that is about a manifest, by the registry's own list or, where it keeps none, by that under a tag
    /// (distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema"): 16 MiB at the most.
    fn referrers<'a>(&'a self, repository: &'a str, subject: &'a Digest) -> Asked<'a, Vec<FetchedReferrer>>;

    /// How many pulls it still gives, if it has said so.
    fn remaining_pulls(&self) -> Option<u64> {
        None
    }
}

/// One upstream, and who asks it.
#[derive(Debug)]
pub struct Source {
    plan: UpstreamPlan,
    client: Arc<dyn Upstream>,
    /// Its own: one that is slow keeps nobody from another.
    places: Places,
}

impl Source {
    /// Of what a file says.
    pub fn new(plan: UpstreamPlan, client: Arc<dyn Upstream>) -> Self {
        Self { plan, client, places: Places::default() }
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
    refusals: Refusals,
    tags: Shelf<TagsOf>,
    referrers: Shelf<ReferrersOf>,
    turns: Turns,
    flights: blobs::Flights,
}

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
            refusals: Refusals::default(),
            tags: Shelf::default(),
            referrers: Shelf::default(),
            turns: Turns::default(),
            flights: blobs::Flights::default(),
        }))
    }

    /// From now on these. What is under way goes on, and what comes of it is not believed: see [`Self::is_of`].
    pub fn replace(&self, sources: Vec<Source>) {
        *self.0.sources.write().unwrap_or_else(PoisonError::into_inner) = shared(sources);
        lock(&self.0.fresh).clear();
        self.0.refusals.clear();
        self.0.tags.clear();
        self.0.referrers.clear();
    }

    /// Whether a repository is still that upstream's. Asked under the lock of whatever is to be remembered: it is either
    /// forgotten with all the rest, or not remembered.
    fn is_of(&self, source: &Source, repository: &RepositoryName) -> bool {
        self.source(repository).is_some_and(|now| std::ptr::eq(&raw const *now, source))
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

    fn know(&self, source: &Source, repository: &RepositoryName, tag: &Tag, lasts: Duration, is_stale: bool) {
        let mut fresh = lock(&self.0.fresh);
        let now = Instant::now();
        if fresh.len() >= MOST_TAGS {
            fresh.retain(|_, it| it.until > now);
        }
        if fresh.len() < MOST_TAGS && self.is_of(source, repository) {
            fresh.insert((repository.clone(), tag.clone()), Fresh { until: now + lasts, is_stale });
        }
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

    /// How many pulls it still gives.
    pub(crate) fn remaining_pulls(&self) -> Option<u64> {
        self.client.remaining_pulls()
    }

    /// What a client is told: nothing of what an upstream says in words.
    fn refusal(&self, error: &UpstreamError, missing: Kind) -> Refusal {
        let host = &self.plan.host;
        match error.kind {
            UpstreamErrorKind::Missing => {
                let words = match missing {
                    Kind::BlobUnknown => "blob unknown to registry",
                    Kind::NameUnknown => "repository name not known to registry",
                    _ => "manifest unknown",
                };
                Refusal::new(missing, words)
            }
            UpstreamErrorKind::Denied => {
                Refusal::new(Kind::Denied, format!("{host} does not let this registry have it"))
            }
            UpstreamErrorKind::Unreachable | UpstreamErrorKind::Unavailable | UpstreamErrorKind::Wrong => {
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

    /// It says nothing of what there is: that is believed no less than before.
    fn is_silence(&self) -> bool {
        use UpstreamErrorKind::{Unavailable, Unreachable, Wrong};
        matches!(self.kind, Unreachable | Unavailable | Wrong)
    }
}

fn shared(sources: Vec<Source>) -> Arc<[Arc<Source>]> {
    sources.into_iter().map(Arc::new).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
