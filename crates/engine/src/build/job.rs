//! A build that goes on: what all of its steps share.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dozen_build::context::Context;
use dozen_build::key::Circumstances;
use dozen_build::plan::build_date;
use dozen_model::{ContainerId, error_chain};
use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, RwLock, mpsc};

use super::contexts::NamedContexts;
use super::failure::StepError;
use super::imported::Imported;
use super::mounts::Mounted;
use super::site::Site;
use super::{BuildEvent, BuildRequest};
use crate::container::Container;
use crate::shared::Shared;
use crate::{CreateRequest, Engine, EngineError, RemoveOptions};

/// See the module.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) request: BuildRequest,
    /// Its files, once they are there.
    context: OnceLock<Arc<Context>>,
    pub(super) named: NamedContexts,
    /// What others have done before.
    pub(super) imported: Imported,
    pub(super) circumstances: Circumstances,
    pub(super) site: Site,
    began: Timestamp,
    pub(super) events: mpsc::Sender<BuildEvent>,
    /// Containers that run its steps.
    running: Mutex<Running>,
    /// Held to be read by who makes one of them.
    making: Arc<RwLock<()>>,
    /// Held while somebody is in a shell where a step has failed; whether somebody was.
    pub(super) shell: AsyncMutex<bool>,
}

/// What a step's container has for as long as it is there.
#[derive(Default)]
struct Held {
    _mounted: Option<Mounted>,
    _turn: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Running {
    /// The build is given up, or done: none is to come any more.
    is_over: bool,
    /// Each with what it has: a cache is given back only when nobody writes to it any more.
    steps: Vec<(Container, Held)>,
}

impl Job {
    pub(super) fn new(
        shared: Arc<Shared>,
        request: BuildRequest,
        named: NamedContexts,
        imported: Imported,
        site: Site,
        events: mpsc::Sender<BuildEvent>,
    ) -> Self {
        let of_run = &request.container;
        let circumstances = Circumstances {
            network: Some(format!("{:?} {:?}", of_run.network, of_run.endpoints)),
            hosts: of_run.extra_hosts.clone(),
            shm_size_bytes: Some(of_run.shm_size_bytes),
            ulimits: of_run.resources.ulimits.clone(),
            // What is wrong with it is said when the build is planned.
            source_date_epoch: build_date(&request.given).ok().flatten(),
        };
        let (context, running, began) = (OnceLock::new(), Mutex::default(), Timestamp::now());
        let (making, shell) = (Arc::default(), AsyncMutex::default());
        Self { shared, request, context, named, imported, circumstances, site, began, events, running, making, shell }
    }

    /// The files are there: steps may begin. The first that are said count.
    pub(super) fn begin_with(&self, context: Context) {
        self.context.get_or_init(|| Arc::new(context));
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        self.context.get().expect("no step begins before the files are there")
    }

    pub(super) fn engine(&self) -> Engine {
        Engine { shared: self.shared.clone() }
    }

    /// Waits for whoever listens; if nobody does any more, the build is about to end.
    pub(super) async fn tell(&self, event: BuildEvent) {
        let _ = self.events.send(event).await;
    }

    /// SOURCE_DATE_EPOCH, if it is said: later times become it.
    pub(super) fn latest_s(&self) -> Option<i64> {
        self.circumstances.source_date_epoch
    }

    /// When the build began.
    pub(super) fn began(&self) -> Timestamp {
        self.began
    }

    /// The time of what the build makes by itself: seconds and nanoseconds.
    pub(super) fn now(&self) -> (i64, u32) {
        (self.latest_s().unwrap_or_else(|| self.began.as_second()), 0)
    }

    /// A part of a context as files of this build's own, for a mount. Blocks.
    pub(super) fn unpack_part(&self, context: &Context, part: &str) -> Result<PathBuf, EngineError> {
        let directory = self.site.directory()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, &directory, flags, Mode::empty());
        let opened = opened.map_err(EngineError::system(|| format!("open {}", directory.display())))?;
        match context.unpack(part, opened.as_fd(), "part") {
            Ok(Some(_)) => Ok(directory.join("part")),
            Ok(None) => Err(EngineError::Invalid {
                message: format!("failed to compute cache key: \"/{part}\": not found"),
                hint: Some(
                    "look whether it is there, below the context, and whether .dockerignore leaves it out".into(),
                ),
            }),
            Err(error) => Err(super::context_failed(error)),
        }
    }

    /// What a step may do only if the caller says so.
    pub(super) fn check_entitled(&self, entitlement: &str) -> Result<(), StepError> {
        if self.request.entitlements.iter().any(|allowed| allowed == entitlement) {
            return Ok(());
        }
        Err(StepError::with_hint(
            format!("{entitlement} is not allowed"),
            format!("if you trust this Dockerfile: --allow {entitlement}"),
        ))
    }

    /// Makes the container of a step, when its turn comes.
    pub(super) async fn begin_step(
        self: &Arc<Self>,
        request: CreateRequest,
        mounted: Mounted,
    ) -> Result<RunningStep, EngineError> {
        let turn = self.shared.builds.run().await.ok_or(EngineError::ShuttingDown)?;
        self.begin(request, Held { _mounted: Some(mounted), _turn: Some(turn) }).await
    }

    /// Makes another container for a step whose first one is still there: the mounts and the turn are that one's.
    pub(super) async fn begin_beside(self: &Arc<Self>, request: CreateRequest) -> Result<RunningStep, EngineError> {
        self.begin(request, Held::default()).await
    }

    /// From the first moment on the container is removed, with the step or with the build: it is made by a task of its own,
    /// since a container whose maker is given up in the middle is made all the same.
    async fn begin(self: &Arc<Self>, request: CreateRequest, held: Held) -> Result<RunningStep, EngineError> {
        let job = self.clone();
        let making = self.making.clone().read_owned().await;
        let made = tokio::spawn(async move {
            let _making = making;
            let (container, _) = job.engine().create(request).await?;
            let is_wanted = {
                let mut running = job.running();
                running.steps.push((container.clone(), held));
                !running.is_over
            };
            let step = RunningStep { job, container };
            if is_wanted {
                return Ok(step);
            }
            step.end().await;
            Err(EngineError::ShuttingDown)
        });
        made.await.unwrap_or_else(|error| Err(EngineError::system(|| "make the container of a step".into())(error)))
    }

    /// Removes what a build has left running, and makes no more.
    pub(super) async fn end_all(self: &Arc<Self>) {
        self.running().is_over = true;
        let _nobody_makes_one = self.making.write().await;
        let left: Vec<Container> = self.running().steps.iter().map(|(container, _)| container.clone()).collect();
        for container in left {
            RunningStep { job: self.clone(), container }.end().await;
        }
    }

    /// Removes what runs; more may be made.
    pub(super) async fn end_and_go_on(self: &Arc<Self>) {
        self.end_all().await;
        self.running().is_over = false;
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container that runs a step.
#[derive(Debug)]
pub(super) struct RunningStep {
    job: Arc<Job>,
    pub(super) container: Container,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl RunningStep {
    /// The step is over.
    pub(super) async fn end(self) {
        remove(&self.container).await;
        let id: &ContainerId = self.container.id();
        self.job.running().steps.retain(|(other, _)| other.id() != id);
    }
}

/// One that resists is the next engine's to remove.
pub(crate) async fn remove(container: &Container) {
    match container.remove(RemoveOptions { force: true, volumes: true }).await {
        Ok(()) | Err(EngineError::NoSuchContainer(_)) => {}
        Err(error) => {
            let error = error_chain(&error);
            tracing::warn!(container = container.id().short(), error, "cannot remove the container of a build's step");
        }
    }
}
