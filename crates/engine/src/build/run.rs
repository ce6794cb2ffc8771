//! RUN: the command in a container of ours, on the layers so far; what it changed is the layer.

use std::os::fd::AsFd;
use std::sync::Arc;

use dozen_build::operation::Run;
use dozen_dockerfile::instruction::{RunNetwork, RunSecurity};
use dozen_image::NewLayer;
use dozen_model::{BuildStep, ContainerSpec, NetworkMode, ProcessSpec, RestartPolicy, StdinMode, StopSpec};
use tokio::io::AsyncReadExt;

use super::failure::StepError;
use super::job::Job;
use super::mounts::{self, Mounted};
use super::step::Here;
use super::stubs::Stubs;
use super::{BuildEvent, StepId};
use crate::container::Container;
use crate::container::snapshot::ExitStatus;
use crate::failpoint::failpoint;
use crate::{AttachOptions, CreateRequest, EngineError, OutputStream, StdioStream, WaitCondition};

/// The name of the host that a step finds, BuildKit's own: one that is another each time would make what a step writes
/// another each time.
const HOSTNAME: &str = "buildkitsandbox";

/// Runs it, and gives what it changed.
pub(super) async fn run(here: &Here<'_>, step: &Run) -> Result<NewLayer, StepError> {
    let Here { job, id, below, .. } = *here;
    let mounted = mounts::prepare(job, here.graph, step).await?;
    let spec = specification(here, step, &mounted)?;
    let stubs = Stubs::of(&spec.mounts);
    let request = CreateRequest { name: None, spec, own_ids: job.request.own_ids };
    failpoint("build.run.before");
    let (container, _) = job.engine().create(request).await?;
    // Whatever happens from here on, it is removed: by this, or when the build is given up.
    let running = job.begin_run(container.clone());
    failpoint("build.run.created");
    job.tell(BuildEvent::Running(id, container.id().clone())).await;
    let ran = follow(job, id, &container).await;
    let layer = match ran {
        Ok(status) if status.exit_code == 0 && status.error.is_none() => {
            let (job, below, upper) = (job.clone(), below.to_vec(), container.snapshot().directory.join("upper"));
            let latest = job.latest_s();
            let shared = job.shared.clone();
            shared
                .blocking(move || {
                    let root = job.site.root_of(&job.shared, &below)?;
                    let cleared = stubs.clear(root.as_fd(), &upper);
                    cleared.map_err(EngineError::system(|| format!("clear {}", upper.display())))?;
                    Ok(job.shared.images.layer_of(&upper, latest)?)
                })
                .await
                .map_err(StepError::from)
        }
        Ok(status) => Err(StepError::Command { arguments: step.arguments.clone(), status }),
        Err(error) => Err(error.into()),
    };
    failpoint("build.run.packed");
    drop(mounted);
    running.end().await;
    layer
}

/// Its output is told as it comes. How it ended.
async fn follow(job: &Arc<Job>, id: StepId, container: &Container) -> Result<ExitStatus, EngineError> {
    let ended = container.wait(WaitCondition::NextExit);
    let options = AttachOptions { stdin: false, stdout: true, stderr: true, log: false };
    let attached = container.attach(options).await?;
    container.start().await?;
    let mut stream = attached.connected().await?;
    while let Some((output, bytes)) = frame(&mut stream).await {
        job.tell(BuildEvent::Output(id, output, bytes)).await;
    }
    ended.wait().await.ok_or(EngineError::ShuttingDown)
}

/// The next piece of output; `None` at the end (Docker's Engine API, "Stream format").
async fn frame(stream: &mut StdioStream) -> Option<(OutputStream, Vec<u8>)> {
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
            environment: said.chain(trust).collect(),
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
