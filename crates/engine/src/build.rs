//! Builds: a Dockerfile and a context become an image. What is done is decided by `dozen-build`; here it is done, in
//! containers of this engine (`run`) and in the layer store (`layer`), once for all who want the same (`flights`).

pub(crate) mod agents;
mod attest;
mod bring;
pub(crate) mod caches;
mod contexts;
mod deposit;
mod events;
mod exchange;
mod executor;
mod failure;
pub(crate) mod flights;
mod foreign;
mod graph;
mod imported;
mod inline;
pub(crate) mod job;
mod kept;
mod layer;
mod mounts;
mod named;
mod prune;
pub(crate) mod remote;
mod remote_context;
mod repository;
mod request;
mod root;
mod run;
mod shell;
pub(crate) mod site;
mod source;
mod step;
mod stored;
mod stubs;
pub(crate) mod sweep;
mod variable;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use dozen_build::context::{Context, ContextError};
use dozen_model::{ImageId, error_chain};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::agents::{SshAgent, WaitingAgent};
pub use self::attest::{Attestations, ProvenanceWanted};
use self::contexts::NamedContexts;
pub use self::deposit::CacheDestination;
pub use self::events::{BuildEvent, BuildFailure, StepId, StepStarted};
pub use self::exchange::OfferedLayer;
use self::failure::{Failed, StepError};
pub use self::imported::CacheStep;
use self::imported::Imported;
use self::inline::Inside;
use self::job::Job;
pub use self::kept::CacheEntry;
pub(crate) use self::kept::noted_entries;
pub use self::named::BuildName;
pub(crate) use self::named::NamedBuilds;
pub(crate) use self::prune::remove_entries;
pub use self::prune::{CachePrune, PrunedCache};
use self::remote_context::Place;
pub use self::request::{BuildRequest, DockerfileSource, Secret};
use self::site::Site;
use self::source::Source;
pub use self::stored::CacheSource;
use crate::container::Container;
use crate::container::snapshot::Snapshot;
use crate::failpoint::failpoint;
use crate::shared::Shared;
use crate::{Engine, EngineError};

/// Files that came with the request, kept below the data root until this is dropped; or where they are.
#[derive(Debug)]
pub struct BuildContext {
    files: Files,
    named: NamedContexts,
    site: Site,
}

#[derive(Debug)]
enum Files {
    Here(Context),
    /// The build fetches them.
    There(Place),
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
        Ok(BuildContext { files: Files::Here(files), named: NamedContexts::new(), site })
    }

    /// A context that the build itself fetches: a repository of git (`URL[#REF[:DIRECTORY]]`), or a file by HTTP, which is a
    /// tar archive or a Dockerfile. Blocks.
    pub fn remote_context(&self, address: &str) -> Result<BuildContext, EngineError> {
        let files = Files::There(Place::parse(address)?);
        Ok(BuildContext { files, named: NamedContexts::new(), site: Site::new(&self.shared)? })
    }

    /// Begins a build.
    pub fn build(&self, request: BuildRequest, context: BuildContext) -> Build {
        let (sender, events) = mpsc::channel(EVENTS);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let BuildContext { files, named, site } = context;
            let found = tokio::select! {
                found = imports(&shared, &request) => found.map_err(|error| Failed::from(error).told("", "")),
                () = request.name.cancelled() => Err(BuildFailure::cancelled()),
                () = sender.closed() => return,
            };
            let inside = match found {
                Ok(found) => found,
                Err(failure) => {
                    let _ = sender.send(BuildEvent::Failed(failure)).await;
                    return;
                }
            };
            let imported = Imported::new(request.cache_steps.clone(), inside);
            let job = Arc::new(Job::new(shared, request, named, imported, site, sender));
            let last = tokio::select! {
                built = begin(&job, files) => Some(built),
                () = job.request.name.cancelled() => Some(Err(BuildFailure::cancelled())),
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
            shared.collection.wake();
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

/// What caches say, but those that the caller carries.
async fn imports(shared: &Arc<Shared>, request: &BuildRequest) -> Result<Inside, EngineError> {
    let (looking, mut images) = (shared.clone(), request.cache_images.clone());
    let (here, elsewhere) = stored::told_apart(shared, &request.cache_sources);
    images.extend(here);
    let mut inside = shared.blocking(move || inline::read(&looking, &images)).await?;
    for source in elsewhere {
        stored::read(shared, &source, &request.credentials, &mut inside).await;
    }
    Ok(inside)
}

/// Reads the Dockerfile and builds by it.
async fn begin(job: &Arc<Job>, files: Files) -> Result<ImageId, BuildFailure> {
    let (held, wanted) = (job.clone(), job.request.dockerfile.clone());
    let begun = async {
        match files {
            Files::Here(files) => job.shared.blocking(move || Ok(source::read(&wanted, &files))).await?,
            Files::There(place) => {
                let came = remote_context::fetch(job, place).await?;
                job.shared.blocking(move || Ok(source::read_fetched(&wanted, came, &held.site))).await?
            }
        }
    };
    let Source { name, text, context } = begun.await.map_err(|error: StepError| Failed::from(error).told("", ""))?;
    job.begin_with(context);
    executor::execute(job, &name, &text).await
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
