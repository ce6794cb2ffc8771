//! The stages of a build, planned, with what they begin from; and who waits for which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dozen_build::context::Context;
use dozen_build::operation::{Operation, Origin};
use dozen_build::plan::{BaseImage, Options, Planning, StagePlan, build_date, unused_arguments};
use dozen_dockerfile::scope::GlobalScope;
use dozen_dockerfile::stages::{Base, Stages};
use dozen_dockerfile::{Dockerfile, named};
use dozen_image::{HeldLayers, Image, ImageError, Platform, PlatformError};
use dozen_model::Digest;
use serde_json::Value;
use tokio::sync::watch;

use super::bring::{bring, bring_beside};
use super::contexts::{self, NamedContext, Taken};
use super::failure::{Failed, StepError};
use super::foreign;
use super::job::Job;
use super::{CacheStep, StepId, StepStarted};
use crate::EngineError;

/// See the module.
pub(super) struct Graph {
    pub(super) target: usize,
    pub(super) stages: BTreeMap<usize, Stage>,
    /// What steps take files from by names that are no stage's.
    others: BTreeMap<String, Other>,
    context: Arc<Context>,
    /// What the caller should know.
    pub(super) warnings: Vec<String>,
}

/// A stage that is needed.
pub(super) struct Stage {
    pub(super) plan: StagePlan,
    pub(super) base: StageBase,
    /// Its name, or its number.
    pub(super) name: String,
    /// The FROM as it is shown.
    pub(super) from: String,
    /// What its programs are for.
    platform: Platform,
    built: watch::Sender<Option<Arc<Built>>>,
}

/// What a stage begins from.
pub(super) enum StageBase {
    Empty,
    Image(HeldImage),
    Stage(usize),
    /// All files of a named context.
    Files(String),
}

/// What a name means that is no stage's.
enum Other {
    Image(HeldImage),
    Files(Arc<Context>),
}

/// An image whose layers stay.
#[derive(Clone)]
pub(super) struct HeldImage {
    /// As it was asked for.
    name: String,
    pub(super) image: Image,
    _held: HeldLayers,
}

/// A stage that is done.
#[derive(Debug)]
pub(super) struct Built {
    /// All its layers, lowest first, those of its base among them.
    pub(super) layers: Vec<Digest>,
    /// The document of its image.
    pub(super) configuration: Value,
    /// What was done for it: of each step, once for each key, the quickest first.
    pub(super) steps: Vec<Vec<CacheStep>>,
    /// Those that its own steps made.
    pub(super) _held: Vec<HeldLayers>,
}

impl Graph {
    /// Looks at the file, finds the images and plans what the target needs.
    pub(super) async fn plan(job: &Arc<Job>, file: &Dockerfile) -> Result<Self, Failed> {
        let given = &job.request.given;
        let mut file = file.clone();
        let replaced = named::replace_stages(&mut file, &job.named);
        let file = &file;
        let global = GlobalScope::new(file, given)?;
        let stages = Stages::new(file, &global)?;
        let target = stages.target(&given.target_stage)?;
        build_date(given)?;
        let planning = Planning::new(file, &stages, &global, given);
        // Without a word of it each image is taken for what runs here best.
        let wanted = job.request.platform.as_ref().map(of);
        let (others, context) = (BTreeMap::new(), job.context().clone());
        let mut graph = Self { target, stages: BTreeMap::new(), others, context, warnings: Vec::new() };
        let mut needed = stages.needed(target);
        let mut left = needed.clone();
        while let Some(number) = left.pop_first() {
            let from = &file.stages.get(number).expect("it is one of the file").from;
            let here = Failed::at(from.span);
            let base = match stages.base_of(number) {
                Base::Empty => StageBase::Empty,
                Base::Stage(stage) => StageBase::Stage(*stage),
                Base::Image(name) => {
                    let platform = match stages.platform_of(number) {
                        Some(text) => Some(
                            text.parse().map_err(|error: PlatformError| here(StepError::said(error.to_string())))?,
                        ),
                        None => wanted.clone(),
                    };
                    match find(job, name, platform, stages.near(name)).await.map_err(&here)? {
                        Other::Image(image) => StageBase::Image(image),
                        files @ Other::Files(_) => {
                            graph.others.insert(name.clone(), files);
                            StageBase::Files(name.clone())
                        }
                    }
                }
            };
            let mut options = Options { is_given: replaced.contains(&number), ..Options::default() };
            if number == target {
                options.labels = job.request.labels.clone();
                options.platform = job.request.platform.clone();
            }
            let begins = match &base {
                StageBase::Empty | StageBase::Files(_) => BaseImage::Empty,
                StageBase::Image(image) => BaseImage::Image(&image.image.raw),
                StageBase::Stage(stage) => BaseImage::Stage(&graph.stages[stage].plan),
            };
            let plan = planning.stage(number, begins, &options)?;
            let platform = match &base {
                StageBase::Empty | StageBase::Files(_) => of(&given.target_platform),
                StageBase::Image(image) => Platform::of_config(&image.image.raw),
                StageBase::Stage(stage) => graph.stages[stage].platform.clone(),
            };
            if let Some(run) = plan.steps.iter().find(|step| matches!(step.operation, Some(Operation::Run(_)))) {
                let (platform, span) = (platform.clone(), run.span);
                let checked = job.shared.blocking(move || Ok(foreign::check(&platform))).await?;
                checked.map_err(Failed::at(span))?;
            }
            for name in plan.images() {
                if !graph.others.contains_key(name) {
                    let other = find(job, name, wanted.clone(), stages.near(name)).await.map_err(&here)?;
                    graph.others.insert(name.to_owned(), other);
                }
            }
            // What only the triggers of its base name is needed too, with all that that needs.
            for origin in plan.origins().into_iter().filter(|origin| *origin < number) {
                let more: BTreeSet<usize> = stages.needed(origin).difference(&needed).copied().collect();
                needed.extend(&more);
                left.extend(more);
            }
            let alias = from.value.alias.as_ref().map(|alias| alias.name.text.clone());
            let stage = Stage {
                plan,
                base,
                name: alias.unwrap_or_else(|| format!("stage-{number}")),
                from: from.line.clone(),
                platform,
                built: watch::Sender::new(None),
            };
            graph.stages.insert(number, stage);
        }
        let plans = graph.stages.values().map(|stage| &stage.plan);
        let warning = unused_arguments(plans, &global, given);
        graph.warnings.extend(warning);
        Ok(graph)
    }

    /// What is told of a step that begins: of a stage the one with this number, from 1, the FROM being the first.
    pub(super) fn started(&self, stage: usize, number: usize, text: &str, source: &str) -> StepStarted {
        let steps = |stage: &Stage| 1 + stage.plan.steps.len();
        StepStarted {
            id: StepId(self.first_step(stage) + number - 1),
            stage: self.stages[&stage].name.clone(),
            number,
            count: steps(&self.stages[&stage]),
            total: self.stages.values().map(steps).sum(),
            text: text.to_owned(),
            source: source.to_owned(),
        }
    }

    /// The number of a stage's FROM among all steps, from 1.
    pub(super) fn first_step(&self, stage: usize) -> usize {
        1 + self.stages.range(..stage).map(|(_, stage)| 1 + stage.plan.steps.len()).sum::<usize>()
    }

    /// The images that the build takes anything from, by the names that it has for them.
    pub(super) fn taken_images(&self) -> impl Iterator<Item = (&str, &Image)> {
        let bases = self.stages.values().filter_map(|stage| match &stage.base {
            StageBase::Image(held) => Some(held),
            StageBase::Empty | StageBase::Stage(_) | StageBase::Files(_) => None,
        });
        let others = self.others.values().filter_map(|other| match other {
            Other::Image(held) => Some(held),
            Other::Files(_) => None,
        });
        bases.chain(others).map(|held| (held.name.as_str(), &held.image))
    }

    /// A stage once it is done. Who waits for one that fails is given up with the build.
    pub(super) async fn built(&self, stage: usize) -> Arc<Built> {
        let mut built = self.stages[&stage].built.subscribe();
        let found = built.wait_for(Option::is_some).await.expect("the sender is this graph's");
        found.clone().expect("it was waited for")
    }

    /// A stage is done.
    pub(super) fn finish(&self, stage: usize, built: Arc<Built>) {
        self.stages[&stage].built.send_replace(Some(built));
    }

    /// All that was done, once all stages are: those of the image first, in order.
    pub(super) async fn steps(&self) -> Vec<CacheStep> {
        let of_image = self.chain();
        let mut steps = self.steps_of_image().await.concat();
        for stage in self.stages.keys().filter(|stage| !of_image.contains(stage)) {
            steps.extend(self.built(*stage).await.steps.concat());
        }
        steps
    }

    /// What was done for the image itself, by its stage and by those that this stands upon: as [`Built::steps`].
    pub(super) async fn steps_of_image(&self) -> Vec<Vec<CacheStep>> {
        let mut steps = Vec::new();
        for stage in self.chain() {
            steps.extend(self.built(stage).await.steps.clone());
        }
        steps.iter_mut().flatten().for_each(|step| step.is_of_image = true);
        steps
    }

    /// The target and what it stands upon, the lowest first.
    fn chain(&self) -> Vec<usize> {
        let below = |stage: &usize| match self.stages[stage].base {
            StageBase::Stage(base) => Some(base),
            _ => None,
        };
        let mut chain: Vec<usize> = std::iter::successors(Some(self.target), below).collect();
        chain.reverse();
        chain
    }

    /// What files are taken from; a stage once it is done.
    pub(super) async fn taken(&self, origin: &Origin) -> Taken {
        match origin {
            Origin::Context => Taken::Files(self.context.clone()),
            Origin::Empty => Taken::Layers(Vec::new()),
            Origin::Image(name) => match &self.others[name] {
                Other::Image(held) => Taken::Layers(held.image.diff_ids.to_vec()),
                Other::Files(context) => Taken::Files(context.clone()),
            },
            Origin::Stage(stage) => Taken::Layers(self.built(*stage).await.layers.clone()),
        }
    }
}

/// A named context, or the image of the name, its layers held.
async fn find(job: &Arc<Job>, name: &str, platform: Option<Platform>, near: Option<&str>) -> Result<Other, StepError> {
    match named::find(&job.named, name) {
        Some(NamedContext::Files(context)) => Ok(Other::Files(context.clone())),
        Some(NamedContext::Image(image)) => find_image(job, image, platform, None).await.map(Other::Image),
        Some(NamedContext::NotSent) => Err(contexts::not_sent(name)),
        None => find_image(job, name, platform, near).await.map(Other::Image),
    }
}

/// An image by its name, its layers held. One that is not here is pulled, and any if that is asked for.
async fn find_image(
    job: &Arc<Job>,
    name: &str,
    platform: Option<Platform>,
    near: Option<&str>,
) -> Result<HeldImage, StepError> {
    // What is here for another platform keeps its name: see below.
    if job.request.pull && !matches!(look(job, name, platform.clone()).await, Err(error) if is_of_another(&error)) {
        bring(job, name, platform.clone(), near).await?;
    }
    let found = match look(job, name, platform.clone()).await {
        Err(EngineError::Image(ImageError::NoSuchImage(_))) => {
            bring(job, name, platform.clone(), near).await?;
            look(job, name, platform).await
        }
        // The name stays what it is here; of the other platform comes what its own digest names.
        Err(EngineError::Image(ImageError::NoSuchPlatform(message))) => {
            match bring_beside(job, name, platform.as_ref()).await? {
                Some(other) => look(job, &other, platform).await,
                None => Err(EngineError::Image(ImageError::NoSuchPlatform(message))),
            }
        }
        found => found,
    };
    found.map_err(|error| match &error {
        EngineError::Image(ImageError::NoSuchPlatform(message)) => {
            let hint = "bring one for it (dozen pull --platform), or name with FROM --platform= what there is";
            StepError::with_hint(format!("failed to resolve source metadata for {name}: {message}"), hint)
        }
        _ => StepError::Engine(error),
    })
}

fn is_of_another(error: &EngineError) -> bool {
    matches!(error, EngineError::Image(ImageError::NoSuchPlatform(_)))
}

async fn look(job: &Arc<Job>, name: &str, platform: Option<Platform>) -> Result<HeldImage, EngineError> {
    let (shared, wanted) = (job.shared.clone(), name.to_owned());
    let found = job.shared.blocking(move || {
        // It may be removed between the two.
        loop {
            let image = shared.images.prepare_for(&wanted, platform.as_ref())?;
            if let Some(held) = shared.images.hold_layers(&image.diff_ids) {
                shared.images.note_use(&image.id);
                return Ok(HeldImage { name: wanted, image, _held: held });
            }
            shared.images.find_after_changes(&image.id)?;
        }
    });
    found.await
}

fn of(platform: &dozen_dockerfile::scope::Platform) -> Platform {
    let variant = Some(platform.variant.as_str()).filter(|variant| !variant.is_empty());
    Platform::new(&platform.os, &platform.architecture, variant)
}
