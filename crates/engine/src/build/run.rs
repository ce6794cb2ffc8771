//! RUN: the command in a container of ours, on the layers so far; what it changed is the layer.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dozen_build::operation::Run;
use dozen_dockerfile::instruction::{RunNetwork, RunSecurity};
use dozen_image::NewLayer;
use dozen_model::{BuildStep, ContainerSpec, Digest, NetworkMode, ProcessSpec, RestartPolicy, StdinMode, StopSpec};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::failure::StepError;
use super::flights::Flight;
use super::job::Job;
use super::mounts::{self, Mounted};
use super::shell::Left;
use super::step::Here;
use super::stubs::Stubs;
use super::{BuildEvent, StepId};
use crate::container::Container;
use crate::container::snapshot::{ExitStatus, Phase};
use crate::failpoint::failpoint;
use crate::{AttachOptions, CreateRequest, EngineError, OutputStream, StdioStream, WaitCondition};

/// The name of the host that a step finds, BuildKit's own: one that is another each time would make what a step writes
/// another each time.
const HOSTNAME: &str = "buildkitsandbox";

/// Where programs look for an SSH agent (ssh-agent(1)).
const AGENT: &str = "SSH_AUTH_SOCK";

/// Runs it, and gives what it changed.
pub(super) async fn run(here: &Here<'_>, step: &Run, flight: &Flight) -> Result<NewLayer, StepError> {
    let Here { job, id, below, .. } = *here;
    let mut mounted = mounts::prepare(job, here.graph, step).await?;
    let spec = specification(here, step, &mounted)?;
    let stubs = Stubs::of(&spec.mounts);
    failpoint("build.run.before");
    let secrets = std::mem::take(&mut mounted.secret_environment);
    let kept = job.request.debug_shell.then(|| (spec.clone(), secrets.clone()));
    let request = CreateRequest { name: None, spec, own_ids: job.request.own_ids };
    let running = job.begin_step(request, mounted).await?;
    let container = running.container.clone();
    let given = job.shared.secrets.give(container.id(), secrets);
    failpoint("build.run.created");
    let mut telling = Telling { job, flight, id, lost_bytes: 0 };
    telling.tell(BuildEvent::Running(id, container.id().clone())).await;
    let ran = follow(&mut telling, &container).await;
    drop(given);
    let layer = match ran {
        Ok(status) if status.exit_code == 0 && status.error.is_none() => {
            let (job, below, container) = (job.clone(), below.to_vec(), container);
            let shared = job.shared.clone();
            shared.blocking(move || layer_of(&job, &below, &stubs, &container)).await.map_err(StepError::from)
        }
        Ok(status) => {
            let arguments = step.arguments.clone();
            if let Some((spec, secrets)) = kept {
                let left = Some(Box::new(Left { running, spec, secrets }));
                return Err(StepError::Command { arguments, status, left });
            }
            Err(StepError::Command { arguments, status, left: None })
        }
        Err(error) => Err(error.into()),
    };
    failpoint("build.run.packed");
    running.end().await;
    layer
}

/// Its changes as a layer. Somebody else may remove the container meanwhile, or start it again: what is read then is not
/// what the command has left, and no layer. Either is published before the first file is another.
///
/// The directory is taken away from the container, which from then on nobody can start or copy from. Blocks.
fn layer_of(job: &Job, below: &[Digest], stubs: &Stubs, container: &Container) -> Result<NewLayer, EngineError> {
    let check = || {
        let snapshot = container.snapshot();
        let has_happened = match &snapshot.phase {
            // It may have ended well for all that, and half done.
            Phase::Exited(_) if snapshot.restarts.is_stopped_by_hand => "stopped",
            Phase::Exited(_) if snapshot.exits == 1 && !snapshot.is_restarting => return Ok(snapshot),
            Phase::Removing { .. } => "removed",
            _ => "started again",
        };
        Err(EngineError::Conflict {
            message: format!("container {}, which ran this step, was {has_happened} by somebody else", snapshot.name),
            hint: Some("build again, and leave containers of builds alone".into()),
        })
    };
    let snapshot = check()?;
    let made = job.site.root_of(&job.shared, below).and_then(|root| {
        let images = &job.shared.images;
        let upper = snapshot.directory.join("upper");
        let clear = |upper: &Path| {
            let cleared = stubs.clear(root.as_fd(), upper);
            cleared.map_err(EngineError::system(|| format!("clear {}", upper.display())))
        };
        let Some(taken) = images.take(&upper)? else {
            clear(&upper)?;
            return Ok(images.layer_of(&upper, job.latest_s())?);
        };
        clear(taken.directory())?;
        let is_seen = job.shared.views.has(&snapshot.id);
        let made = if is_seen { images.copy_taken(taken, job.latest_s()) } else { images.adopt(taken, job.latest_s()) };
        Ok(made?)
    });
    check()?;
    made
}

/// Its output is told as it comes. How it ended.
async fn follow(telling: &mut Telling<'_>, container: &Container) -> Result<ExitStatus, EngineError> {
    let ended = container.wait(WaitCondition::NextExit);
    let options = AttachOptions { stdin: false, stdout: true, stderr: true, log: false };
    let attached = container.attach(options).await?;
    container.start().await?;
    let mut stream = attached.connected().await?;
    while let Some((output, bytes)) = frame(&mut stream).await {
        telling.tell(BuildEvent::Output(telling.id, output, bytes)).await;
    }
    ended.wait().await.ok_or_else(|| EngineError::NoSuchContainer(container.id().to_string()))
}

/// How long a client may read nothing before others that wait for its step do without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells what a step says. Its client is waited for, which holds the command up; not where another build waits for the
/// step: what the client does not read then it never hears.
struct Telling<'a> {
    job: &'a Arc<Job>,
    flight: &'a Flight,
    id: StepId,
    lost_bytes: usize,
}

impl Telling<'_> {
    async fn tell(&mut self, event: BuildEvent) {
        let events = &self.job.events;
        if self.lost_bytes > 0 {
            let text = format!("[{} bytes of output are not shown]\n", self.lost_bytes);
            let lost = BuildEvent::Output(self.id, OutputStream::Stderr, text.into_bytes());
            if events.try_send(lost).is_ok() {
                self.lost_bytes = 0;
            } else if self.flight.is_awaited() {
                return self.lose(&event);
            }
        }
        loop {
            match timeout(PATIENCE, events.reserve()).await {
                Ok(Ok(place)) => return place.send(event),
                // The build is about to end.
                Ok(Err(_)) => return,
                Err(_) if self.flight.is_awaited() => return self.lose(&event),
                Err(_) => {}
            }
        }
    }

    fn lose(&mut self, event: &BuildEvent) {
        if let BuildEvent::Output(_, _, bytes) = event {
            self.lost_bytes += bytes.len();
        }
    }
}

/// The next piece of output; `None` at the end (Docker's Engine API, "Stream format").
pub(super) async fn frame(stream: &mut StdioStream) -> Option<(OutputStream, Vec<u8>)> {
    let mut header = [0; 8];
    stream.socket.read_exact(&mut header).await.ok()?;
    let output = if header[0] == 2 { OutputStream::Stderr } else { OutputStream::Stdout };
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    stream.socket.read_exact(&mut bytes).await.ok()?;
    Some((output, bytes))
}

/// What the container is: as the caller of the build said, with the step's own words above that.
fn specification(here: &Here<'_>, step: &Run, mounted: &Mounted) -> Result<ContainerSpec, StepError> {
    let job = here.job;
    let base = &job.request.container;
    let is_said = |name: &str| step.environment.iter().any(|(said, _)| said == name);
    let trust = mounts::trust(job).filter(|(name, _)| !is_said(name)).map(|(name, path)| format!("{name}={path}"));
    let agent = mounted.agent.iter().filter(|_| !is_said(AGENT)).map(|path| format!("{AGENT}={path}"));
    let said = step.environment.iter().chain(&step.proxies).map(|(name, value)| format!("{name}={value}"));
    let mut isolation = base.isolation.clone();
    if step.security == RunSecurity::Insecure {
        job.check_entitled("security.insecure")?;
        isolation.privileged = true;
    }
    let network = match step.network {
        RunNetwork::Default => base.network.clone(),
        RunNetwork::None => NetworkMode::None,
        RunNetwork::Host => {
            job.check_entitled("network.host")?;
            NetworkMode::Host
        }
    };
    let (entrypoint, command) = (Vec::new(), step.arguments.clone());
    Ok(ContainerSpec {
        hostname: Some(HOSTNAME.to_owned()),
        process: ProcessSpec {
            entrypoint,
            command,
            environment: said.chain(trust).chain(agent).collect(),
            working_directory: step.working_directory.clone(),
            user: step.user.parse().map_err(|error: dozen_model::UserSpecError| StepError::said(error.to_string()))?,
            stdin: StdinMode::Closed,
            attach: [false, true, true],
            ..ProcessSpec::default()
        },
        stop: StopSpec::default(),
        mounts: mounted.mounts.clone(),
        endpoints: if network == base.network { base.endpoints.clone() } else { None },
        network,
        isolation,
        restart: RestartPolicy::No,
        auto_remove: false,
        health: None,
        build_step: Some(BuildStep { layers: here.below.to_vec() }),
        ..base.clone()
    })
}
