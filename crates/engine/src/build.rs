//! Builds: a Dockerfile and a context become an image.

use std::collections::BTreeMap;
use std::io::Read;

use dozen_dockerfile::scope::Given;
use dozen_model::{ContainerId, HostEntry, ImageId, Reference, Ulimit};
use tokio::sync::mpsc;

use crate::{Engine, EngineError};

/// What is to be built, and how.
#[derive(Debug, Clone, Default)]
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
    /// `--network`: `default`, `none`, `host`, a network or `container:NAME`.
    pub network: Option<String>,
    /// `--add-host`, for RUN alone.
    pub hosts: Vec<HostEntry>,
    /// Of /dev/shm.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`, for RUN alone.
    pub ulimits: Vec<Ulimit>,
    /// `--memory`, for RUN alone.
    pub memory_bytes: Option<u64>,
    /// `--memory-swap`; -1: as much as there is.
    pub memory_swap_bytes: Option<i64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// `--cpu-period`, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_memory_nodes: Option<String>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--secret`, by id: never in a log, in an error or in the cache.
    pub secrets: BTreeMap<String, Secret>,
    /// Whoever may: `--allow security.insecure`, `network.host`.
    pub entitlements: Vec<String>,
    /// SOURCE_DATE_EPOCH, in seconds: the time of everything.
    pub source_date_epoch: Option<i64>,
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
pub struct BuildContext {}

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
    /// The instruction, as it is shown: in one line.
    pub text: String,
}

/// Why a build has failed.
#[derive(Debug)]
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
    /// Takes in a context: a tar archive, plain or compressed with gzip, bzip2, xz or zstd. Blocks.
    pub fn build_context(&self, archive: impl Read) -> Result<BuildContext, EngineError> {
        let _ = archive;
        Err(not_yet())
    }

    /// Begins a build.
    pub fn build(&self, request: BuildRequest, context: BuildContext) -> Build {
        let _ = (request, context);
        let (sender, events) = mpsc::channel(64);
        let failure =
            BuildFailure { message: not_yet().to_string(), excerpt: None, hint: None, exit_code: None };
        let _ = sender.try_send(BuildEvent::Failed(failure));
        Build { events }
    }
}

fn not_yet() -> EngineError {
    EngineError::NotBuilt { message: "building is not built yet".into(), hint: None }
}
