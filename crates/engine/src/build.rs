//! Builds: a Dockerfile and a context become an image. What is done is decided by `dozen-build`; here it is done, in
//! containers of this engine (`run`) and in the layer store (`layer`), once for all who want the same (`flights`).

pub(crate) mod caches;
mod executor;
mod failure;
pub(crate) mod flights;
mod graph;
pub(crate) mod job;
mod kept;
mod layer;
mod mounts;
mod prune;
mod remote;
mod root;
mod run;
pub(crate) mod site;
mod source;
mod step;
mod stubs;
pub(crate) mod sweep;
mod variable;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use dozen_build::context::{Context, ContextError};
use dozen_dockerfile::scope::{Given, Platform};
use dozen_model::{ContainerId, ContainerSpec, ImageId, Reference, error_chain};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::failure::StepError;
use self::job::Job;
pub use self::kept::CacheEntry;
pub use self::prune::{CachePrune, PrunedCache};
use self::site::Site;
use self::source::Source;
use crate::container::Container;
use crate::container::snapshot::Snapshot;
use crate::failpoint::failpoint;
use crate::{Engine, EngineError};

/// What is to be built, and how.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// Arguments, platforms and the target.
    pub given: Given,
    /// The image's names.
    pub tags: Vec<Reference>,
    /// `--label`, which win over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Nothing is taken from the cache.
    pub no_cache: bool,
    /// Stages of which nothing is taken from the cache.
    pub no_cache_stages: Vec<String>,
    /// What containers that run its steps are: network, hosts, limits, isolation. Its image, its process and its mounts are
    /// the steps' own.
    pub container: ContainerSpec,
    /// How many users and groups of their own they have, in place of what `container` says.
    pub own_ids: Option<u32>,
    /// `--platform`, if it was given.
    pub platform: Option<Platform>,
    /// `--secret`, by id: never in a log, in an error or in the cache.
    pub secrets: BTreeMap<String, Secret>,
    /// Certificate authorities in PEM that the commands of RUN trust, too, as far as they heed the usual variables; no part
    /// of the image, and none of what a step is known by.
    pub authorities: Option<String>,
    /// Whoever may: `--allow security.insecure`, `network.host`.
    pub entitlements: Vec<String>,
}

/// Bytes that nobody sees.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Where a Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// A path in the context.
    InContext(String),
    /// Given beside it: what it is called, and its text.
    Text {
        /// For messages.
        name: String,
        /// The file.
        text: String,
    },
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::InContext("Dockerfile".into())
    }
}

/// Files that came with the request, kept below the data root until this is dropped.
#[derive(Debug)]
pub struct BuildContext {
    files: Context,
    site: Site,
}

/// What a build tells, in order. The last is `Built` or `Failed`.
#[derive(Debug)]
pub enum BuildEvent {
    /// A step begins. Those of several stages go on side by side: `stage` and `number` say which it is.
    Step(StepStarted),
    /// The step was done before.
    Cached(StepId),
    /// The step runs in this container.
    Running(StepId, ContainerId),
    /// The step's command wrote something.
    Output(StepId, crate::OutputStream, Vec<u8>),
    /// The step is done.
    Done(StepId),
    /// Something that the caller should know.
    Warning(String),
    /// The image is there, with its names.
    Built(ImageId),
    /// There is none.
    Failed(BuildFailure),
}

/// Which step: all of a build are numbered from 1, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepId(pub usize);

/// A step that begins.
#[derive(Debug, Clone)]
pub struct StepStarted {
    /// Which.
    pub id: StepId,
    /// The stage's name, or its number.
    pub stage: String,
    /// Its number in the stage, from 1, FROM being the first.
    pub number: usize,
    /// How many the stage has.
    pub count: usize,
    /// How many the build has.
    pub total: usize,
    /// The instruction in one line, with the values of its variables where they are known.
    pub text: String,
    /// The same as it was written.
    pub source: String,
}

/// Why a build has failed.
#[derive(Debug, Default)]
pub struct BuildFailure {
    /// What went wrong; for a RUN, in Docker's words: `The command '/bin/sh -c false' returned a non-zero code: 1`.
    pub message: String,
    /// The lines of the Dockerfile with the place marked.
    pub excerpt: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// The command's status.
    pub exit_code: Option<i64>,
}

/// A build that goes on; dropped, it stops and takes away what it made.
#[derive(Debug)]
pub struct Build {
    /// What it tells.
    pub events: mpsc::Receiver<BuildEvent>,
}

impl Engine {
    /// Takes in a context: a tar archive, plain or compressed with gzip, bzip2, xz or zstd. What its `.dockerignore` names
    /// is left out, whoever has packed it. Blocks.
    pub fn build_context(&self, archive: impl Read) -> Result<BuildContext, EngineError> {
        let site = Site::new(&self.shared)?;
        let files = Context::read(archive, site.nameless_file()?).map_err(context_failed)?;
        failpoint("build.context");
        Ok(BuildContext { files, site })
    }

    /// A context with these files and no others: paths, and what they hold. Blocks.
    pub fn empty_build_context(&self) -> Result<BuildContext, EngineError> {
        let site = Site::new(&self.shared)?;
        Ok(BuildContext { files: Context::empty(site.nameless_file()?), site })
    }

    /// Begins a build.
    pub fn build(&self, request: BuildRequest, context: BuildContext) -> Build {
        let (sender, events) = mpsc::channel(EVENTS);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let BuildContext { files, site } = context;
            let wanted = request.dockerfile.clone();
            let read = shared.blocking(move || Ok(source::read(&wanted, &files))).await;
            let source = match read.map_err(StepError::from).and_then(|read| read) {
                Ok(source) => source,
                Err(error) => {
                    let _ = sender.send(BuildEvent::Failed(error.told("", "", None))).await;
                    return;
                }
            };
            let Source { name, text, context } = source;
            let job = Arc::new(Job::new(shared, request, context, site, sender));
            let last = tokio::select! {
                built = executor::execute(&job, &name, &text) => Some(built),
                // Nobody wants it any more.
                () = job.events.closed() => None,
            };
            job.end_all().await;
            // Whoever hears of the end finds no secret any more.
            let (shared, held) = (job.shared.clone(), job.clone());
            let clear = move || {
                held.site.clear_secrets();
                Ok(())
            };
            let _ = shared.blocking(clear).await;
            if let Some(last) = last {
                job.tell(last.map_or_else(BuildEvent::Failed, BuildEvent::Built)).await;
            }
            // What it had is nobody's any more; what it has unpacked may take a while to go.
            let end = move || {
                drop(job);
                Ok(())
            };
            let _ = shared.blocking(end).await;
            sweep::sweep(&shared).await;
        });
        Build { events }
    }

    /// For an engine that goes down: commands of builds are ended and leave nothing, since nobody would take what they make,
    /// and no more begin. Containers of others go on.
    pub async fn end_builds(&self) {
        self.shared.builds.close();
        let mut ending = JoinSet::new();
        for step in self.containers().into_iter().filter(|snapshot| snapshot.spec.build_step.is_some()) {
            let Some(entry) = self.shared.registry.get(&step.id) else { continue };
            let container = Container::new(entry, self.shared.clone());
            ending.spawn(async move { job::remove(&container).await });
        }
        if timeout(PATIENCE, async { while ending.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("a step of a build does not end; the next engine tries again");
        }
    }
}

/// How long an engine that goes down waits for steps that are killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events on their way to who listens.
const EVENTS: usize = 64;

fn context_failed(error: ContextError) -> EngineError {
    use dozen_model::{Classified, ErrorKind};
    let hint = error.hint();
    match error {
        ContextError::Spool(source) => {
            EngineError::System { action: "keep what the build context holds".into(), source }
        }
        ContextError::Unpack { path, source } => {
            EngineError::System { action: format!("make {path} of the build context"), source }
        }
        error if error.kind() == ErrorKind::Internal => {
            EngineError::System { action: "take in the build context".into(), source: std::io::Error::other(error) }
        }
        error => EngineError::Invalid { message: error_chain(&error), hint },
    }
}

/// Refuses what needs the image of a container that runs a step of a build: that has none.
pub(crate) fn check_no_step(snapshot: &Snapshot) -> Result<(), EngineError> {
    match snapshot.spec.build_step {
        None => Ok(()),
        Some(_) => Err(EngineError::Conflict {
            message: format!("container {} runs a step of a build, and stands on no image", snapshot.name),
            hint: Some("wait until the build is over, and look at its image".into()),
        }),
    }
}
