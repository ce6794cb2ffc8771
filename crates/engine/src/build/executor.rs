//! A build from its beginning to its end: the file is read, the stages are planned, those that can go on side by side, and
//! the target's layers become an image.

use std::sync::Arc;

use dozen_build::plan::{Done, image_configuration};
use dozen_dockerfile::{Dockerfile, Span, parse};
use dozen_image::HeldLayers;
use dozen_model::{Digest, ImageId, Reference};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use super::attest::{self, Said};
use super::failure::StepError;
use super::graph::{Built, Graph, StageBase};
use super::job::Job;
use super::step::Here;
use super::{BuildEvent, BuildFailure, StepId};
use crate::EngineError;
use crate::engine::emit_image;
use crate::failpoint::failpoint;

/// Why, and of which instruction.
type Failed = (StepError, Option<Span>);

/// Builds it. `name` and `text` are the Dockerfile's.
pub(super) async fn execute(job: &Arc<Job>, name: &str, text: &str) -> Result<ImageId, BuildFailure> {
    let file = match parse(text) {
        Ok(file) => file,
        Err(failure) => return Err(StepError::File(failure.error).told(name, text, None)),
    };
    build(job, &file, (name, text)).await.map_err(|(error, span)| error.told(name, text, span))
}

/// `dockerfile`: its name and its text.
async fn build(job: &Arc<Job>, file: &Dockerfile, dockerfile: (&str, &str)) -> Result<ImageId, Failed> {
    let graph = Arc::new(Graph::plan(job, file).await?);
    for warning in &graph.warnings {
        job.tell(BuildEvent::Warning(warning.clone())).await;
    }
    // In the order of the file, whichever goes on first.
    for (number, stage) in &graph.stages {
        let from = graph.started(*number, 1, &stage.from, &stage.from);
        let id = from.id;
        job.tell(BuildEvent::Step(from)).await;
        job.tell(BuildEvent::Done(id)).await;
    }
    let mut tasks = JoinSet::new();
    for number in graph.stages.keys().copied() {
        let (job, graph) = (job.clone(), graph.clone());
        tasks.spawn(async move { stage(&job, &graph, number).await });
    }
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(EngineError::system(|| "finish a stage".into()))?;
        if ended.is_err() {
            // Somebody may be in a shell where another stage has failed.
            let _nobody = job.shell.lock().await;
        }
        // The others are given up: what they run is removed with the build.
        ended?;
    }
    let built = graph.built(graph.target).await;
    let said = attest::gather(job, &graph, &built, dockerfile).await?;
    failpoint("build.image.before");
    Ok(install(job, &built, said).await?)
}

/// One stage, step by step.
async fn stage(job: &Arc<Job>, graph: &Arc<Graph>, number: usize) -> Result<(), Failed> {
    let this = &graph.stages[&number];
    let (mut layers, base): (Vec<Digest>, Option<Value>) = match &this.base {
        StageBase::Empty => (Vec::new(), None),
        StageBase::Image(image) => (image.image.diff_ids.to_vec(), Some((*image.image.raw).clone())),
        StageBase::Stage(stage) => {
            let built = graph.built(*stage).await;
            (built.layers.clone(), Some(built.configuration.clone()))
        }
    };
    let mut held: Vec<HeldLayers> = Vec::new();
    let mut done = Vec::with_capacity(this.plan.steps.len());
    let first = graph.first_step(number);
    let named = |stage: &String| stage.eq_ignore_ascii_case(&this.name) || *stage == number.to_string();
    let anew = job.request.no_cache || job.request.no_cache_stages.iter().any(named);
    for (index, step) in this.plan.steps.iter().enumerate() {
        let id = StepId(first + index + 1);
        job.tell(BuildEvent::Step(graph.started(number, index + 2, &step.text, &step.source))).await;
        let mut made = Done::default();
        let mut event = BuildEvent::Done(id);
        if let Some(operation) = &step.operation {
            let here = Here { job, graph, id, description: &step.text, below: &layers, anew };
            let performed = here.perform(operation).await.map_err(|error| (error, Some(step.span)))?;
            let kept = performed.kept;
            if performed.was_cached {
                event = BuildEvent::Cached(id);
            }
            layers.extend(kept.layer.clone());
            made = Done { layer: kept.layer, created: Some(kept.created) };
            held.push(kept.held);
        }
        done.push(made);
        job.tell(event).await;
    }
    let created = job.latest_s().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let configuration = image_configuration(base.as_ref(), &this.plan, &done, created);
    graph.finish(number, Arc::new(Built { layers, configuration, _held: held }));
    Ok(())
}

/// The image with its names and with what is said of it, for everyone to see.
async fn install(job: &Arc<Job>, built: &Built, said: Vec<Said>) -> Result<ImageId, StepError> {
    let (shared, tags) = (job.shared.clone(), job.request.tags.clone());
    let (configuration, layers) = (built.configuration.clone(), built.layers.clone());
    let added = job.shared.blocking(move || {
        let names: Vec<String> = tags.iter().map(Reference::familiar).collect();
        let mut statements = Vec::new();
        let id = match said.is_empty() {
            true => shared.images.add_image(&configuration, layers, tags)?,
            false => shared.images.add_attested_image(&configuration, layers, tags.clone(), |manifest| {
                statements = attest::statements(&said, &tags, &configuration, manifest);
                statements.iter().map(|(_, attestation)| attestation.clone()).collect()
            })?,
        };
        names.iter().for_each(|name| emit_image(&shared, "tag", &id, name));
        Ok((id, statements))
    });
    let (id, statements) = added.await?;
    failpoint("build.image.after");
    attest::tell(job, statements).await;
    Ok(id)
}
