//! A build from its beginning to its end: the file is read, the stages are planned, those that can go on side by side, and
//! the target's layers become an image.

use std::sync::Arc;

use dozen_build::operation::{Operation, Origin};
use dozen_build::plan::{Done, image_configuration};
use dozen_dockerfile::{Dockerfile, parse};
use dozen_image::HeldLayers;
use dozen_model::{Digest, ImageId, Reference};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::attest::{self, Said};
use super::failure::{Failed, StepError};
use super::graph::{Built, Graph, StageBase};
use super::job::Job;
use super::step::{self, Here};
use super::{BuildEvent, BuildFailure, CacheStep, StepId, deposit, inline};
use crate::EngineError;
use crate::engine::emit_image;
use crate::failpoint::failpoint;

/// Builds it. `name` and `text` are the Dockerfile's.
pub(super) async fn execute(job: &Arc<Job>, name: &str, text: &str) -> Result<ImageId, BuildFailure> {
    let file = match parse(text) {
        Ok(file) => file,
        Err(failure) => return Err(Failed::from(failure.error).told(name, text)),
    };
    loop {
        match build(job, &file, (name, text)).await {
            // What was promised and cannot be had is made here.
            Err(Failed { error: StepError::Cache { layer, why }, .. }) if job.imported.forget(&layer) => {
                job.end_and_go_on().await;
                let said = format!(
                    "the layer {layer} of an imported cache cannot be had, and what needs it is done anew: {why}"
                );
                job.tell(BuildEvent::Warning(said)).await;
            }
            ended => return ended.map_err(|failed| failed.told(name, text)),
        }
    }
}

/// `dockerfile`: its name and its text.
async fn build(job: &Arc<Job>, file: &Dockerfile, dockerfile: (&str, &str)) -> Result<ImageId, Failed> {
    let graph = Arc::new(Graph::plan(job, file).await?);
    for warning in job.imported.take_warnings().into_iter().chain(graph.warnings.iter().cloned()) {
        job.tell(BuildEvent::Warning(warning)).await;
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
        let failed = match ended {
            Ok(Ok(())) => continue,
            Ok(Err(failed)) => failed,
            Err(error) => EngineError::system(|| "finish a stage".into())(error).into(),
        };
        // Somebody may be in a shell where another stage has failed.
        let _nobody = job.shell.lock().await;
        // The others are given up: what they run is removed with the build.
        tasks.shutdown().await;
        return Err(failed);
    }
    let built = graph.built(graph.target).await;
    job.imported.bring(job, &built.layers).await?;
    let said = attest::gather(job, &graph, &built, dockerfile).await?;
    failpoint("build.image.before");
    let id = install(job, &graph, &built, said).await?;
    if !job.request.cache_destinations.is_empty() {
        deposit::all(job, &graph.steps().await).await?;
    }
    if job.request.is_cache_taken {
        offer(job, &graph).await;
    }
    Ok(id)
}

/// Lets the caller take along what was done, and waits until that is so.
async fn offer(job: &Arc<Job>, graph: &Graph) {
    let steps = graph.steps().await;
    let exchange = job.request.name.exchange();
    exchange.offer(steps.iter().filter_map(|step| step.layer.clone()));
    job.tell(BuildEvent::CacheReady(steps)).await;
    exchange.taken().await;
}

/// One stage, step by step.
async fn stage(job: &Arc<Job>, graph: &Arc<Graph>, number: usize) -> Result<(), Failed> {
    let this = &graph.stages[&number];
    let mut held: Vec<HeldLayers> = Vec::new();
    let mut known: Vec<Vec<CacheStep>> = Vec::new();
    let mut done = Vec::with_capacity(this.plan.steps.len());
    let first = graph.first_step(number);
    let named = |stage: &String| stage.eq_ignore_ascii_case(&this.name) || *stage == number.to_string();
    let anew = job.request.no_cache || job.request.no_cache_stages.iter().any(named);
    let (mut layers, base): (Vec<Digest>, Option<Value>) = match &this.base {
        StageBase::Empty => (Vec::new(), None),
        StageBase::Image(image) => (image.image.diff_ids.to_vec(), Some((*image.image.raw).clone())),
        StageBase::Stage(stage) => {
            let built = graph.built(*stage).await;
            (built.layers.clone(), Some(built.configuration.clone()))
        }
        StageBase::Files(name) => {
            let here = Here { job, graph, id: StepId(first), description: &this.from, below: &[], anew };
            let copy = Operation::Copy(step::everything(Origin::Image(name.clone()), "/"));
            let performed = here.perform(&copy).await?;
            known.push(performed.told(&this.from));
            let kept = performed.kept;
            held.push(kept.held);
            let layers: Vec<Digest> = kept.layer.into_iter().collect();
            let base = layers_of_files(name, &layers, kept.created);
            (layers, Some(base))
        }
    };
    for (index, step) in this.plan.steps.iter().enumerate() {
        let id = StepId(first + index + 1);
        job.tell(BuildEvent::Step(graph.started(number, index + 2, &step.text, &step.source))).await;
        let mut made = Done::default();
        let mut event = BuildEvent::Done(id);
        if let Some(operation) = &step.operation {
            let here = Here { job, graph, id, description: &step.text, below: &layers, anew };
            let performed = here.perform(operation).await.map_err(Failed::in_step(id, step.span))?;
            known.push(performed.told(&step.text));
            if performed.was_cached {
                event = BuildEvent::Cached(id);
            }
            let kept = performed.kept;
            layers.extend(kept.layer.clone());
            made = Done { layer: kept.layer, created: Some(kept.created) };
            held.push(kept.held);
        }
        done.push(made);
        job.tell(event).await;
    }
    let created = job.latest_s().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let configuration = image_configuration(base.as_ref(), &this.plan, &done, created);
    graph.finish(number, Arc::new(Built { layers, configuration, steps: known, _held: held }));
    Ok(())
}

/// What an image says of itself whose only layer is a named context: the words are BuildKit's.
fn layers_of_files(name: &str, layers: &[Digest], created: Timestamp) -> Value {
    let (said, comment) = (format!("local source for {name}"), "buildkit.exporter.image.v0");
    let entry = |_| json!({ "created": created, "created_by": said, "comment": comment });
    json!({
        "rootfs": { "type": "layers", "diff_ids": layers },
        "history": layers.iter().map(entry).collect::<Value>(),
    })
}

/// The image with its names and with what is said of it, for everyone to see.
async fn install(job: &Arc<Job>, graph: &Graph, built: &Built, said: Vec<Said>) -> Result<ImageId, StepError> {
    let (shared, tags) = (job.shared.clone(), job.request.tags.clone());
    let (mut configuration, layers) = (built.configuration.clone(), built.layers.clone());
    if job.request.has_inline_cache {
        // The quickest key alone, which each build knows: so the image is the same however it was built.
        let steps = graph.steps_of_image().await;
        inline::write(&mut configuration, steps.iter().filter_map(|keys| keys.first()));
    }
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
