//! One step: found in the cache, or done and written down.

use std::sync::Arc;

use dozen_build::copy::{self, Placing, Selection, Sources};
use dozen_build::key::{self, Below};
use dozen_build::operation::{Copy, MakeDirectory, Mount, Operation, Origin, Run, Source};
use dozen_build::tree::{PlainTree, Tree};
use dozen_dockerfile::MountSpec;
use dozen_image::{KeptStep, NewLayer, StepLayer};
use dozen_model::Digest;

use super::failure::StepError;
use super::flights::Flight;
use super::graph::Graph;
use super::job::Job;
use super::remote::{self, Remote};
use super::{StepId, layer, run, shell};
use crate::failpoint::failpoint;

/// What became of a step.
pub(super) struct Performed {
    pub(super) kept: KeptStep,
    /// It had been done before.
    pub(super) was_cached: bool,
}

/// A step and what it stands upon.
pub(super) struct Here<'a> {
    pub(super) job: &'a Arc<Job>,
    pub(super) graph: &'a Arc<Graph>,
    pub(super) id: StepId,
    /// For people.
    pub(super) description: &'a str,
    /// The layers below, lowest first.
    pub(super) below: &'a [Digest],
    /// Nothing is taken from the cache.
    pub(super) anew: bool,
}

impl Here<'_> {
    /// What the operation makes.
    pub(super) async fn perform(&self, operation: &Operation) -> Result<Performed, StepError> {
        match operation {
            Operation::Run(run) => self.run(operation, run).await,
            Operation::Copy(copy) => self.copy(operation, copy).await,
            Operation::MakeDirectory(directory) => self.make_directory(operation, directory).await,
        }
    }

    async fn run(&self, operation: &Operation, run: &Run) -> Result<Performed, StepError> {
        let mut contents = Vec::new();
        for mount in &run.mounts {
            let Mount::Taking(spec, origin) = mount else { continue };
            contents.push(match self.graph.layers_of(origin).await {
                Some(layers) => key::of_layers(&layers),
                None => self.digest_of_part(part(spec)).await?,
            });
        }
        let key = self.key(operation, self.below, &contents);
        let ran = self.once(&[key], async |flight| run::run(self, run, flight).await.map(StepLayer::from)).await;
        // Others who want the same step do not wait for whoever is in a shell.
        match ran {
            Err(mut error) => {
                shell::open(self.job, self.id, &mut error).await;
                Err(error)
            }
            done => done,
        }
    }

    /// By the files that it takes. Those of a stage are known by its layers, too, and then need not be read to be found.
    async fn copy(&self, operation: &Operation, copy: &Copy) -> Result<Performed, StepError> {
        if copy.sources.iter().any(|source| matches!(source, Source::Git(_))) {
            return Err(StepError::with_hint(
                "ADD of a repository is not built yet",
                "clone it in a RUN, put it into the context, or name an archive of it by its URL",
            ));
        }
        let layers = self.graph.layers_of(&copy.origin).await;
        let quick = layers.as_ref().map(|layers| self.key_of_copy(operation, copy, &[key::of_layers(layers)]));
        if let Some(kept) = quick.as_ref().and_then(|key| self.found(key)) {
            return Ok(Performed { kept, was_cached: true });
        }
        if let Some(promised) = remote::promised(copy) {
            let sources = Sources { origin: &PlainTree::empty(), fetched: &[promised.fetched()] };
            let key = self.key_of_copy(operation, copy, &[copy::select(copy, &sources)?.digest().clone()]);
            if let Some(kept) = self.found(&key) {
                return Ok(Performed { kept, was_cached: true });
            }
        }
        let remotes = remote::fetch_all(self.job, copy).await?;
        let (job, wanted, from) = (self.job.clone(), copy.clone(), layers.clone());
        let selected = self.job.shared.blocking(move || Ok(select(&job, &wanted, from.as_deref(), &remotes)));
        let (origin, selection) = selected.await??;
        let key = self.key_of_copy(operation, copy, &[selection.digest().clone()]);
        let keys: Vec<Digest> = quick.into_iter().chain([key]).collect();
        self.once(&keys, async |_| {
            let (job, wanted, below) = (self.job.clone(), copy.clone(), self.below.to_vec());
            let made = move || Ok(layer_of_copy(&job, &wanted, origin, selection, &below));
            Ok(self.job.shared.blocking(made).await??.into())
        })
        .await
    }

    async fn make_directory(&self, operation: &Operation, wanted: &MakeDirectory) -> Result<Performed, StepError> {
        let key = self.key(operation, self.below, &[]);
        self.once(&[key], async |_| {
            let (job, wanted, below) = (self.job.clone(), wanted.clone(), self.below.to_vec());
            let made = move || Ok(layer::of_directory(&job, &wanted, &below));
            let made = self.job.shared.blocking(made).await??;
            Ok(made.map_or(StepLayer::None, StepLayer::from))
        })
        .await
    }

    /// Whoever asks for the same at the same time waits and finds it. The last key is the one that says all.
    async fn once(
        &self,
        keys: &[Digest],
        perform: impl AsyncFnOnce(&Flight) -> Result<StepLayer, StepError>,
    ) -> Result<Performed, StepError> {
        let Some(key) = keys.last() else { return Err(StepError::said("a step has no key")) };
        let flight = self.job.shared.builds.enter(key).await;
        let images = self.job.shared.images.clone();
        let (keys, description) = (keys.to_vec(), self.description.to_owned());
        if let Some(kept) = self.found(key) {
            if let (Some(layer), [_, _, ..]) = (kept.layer.clone(), keys.as_slice()) {
                let added = move || Ok(images.add_step(&keys[..1], StepLayer::Known(layer), &description)?);
                self.job.shared.blocking(added).await?;
            }
            return Ok(Performed { kept, was_cached: true });
        }
        let made = perform(&flight).await?;
        failpoint("build.step.done");
        let kept = self.job.shared.blocking(move || Ok(images.add_step(&keys, made, &description)?)).await?;
        Ok(Performed { kept, was_cached: false })
    }

    fn found(&self, key: &Digest) -> Option<KeptStep> {
        if self.anew { None } else { self.job.shared.images.cached_step(key) }
    }

    fn key(&self, operation: &Operation, below: &[Digest], contents: &[Digest]) -> Digest {
        key::of(operation, Below::Layers(below), contents, &self.job.circumstances)
    }

    fn key_of_copy(&self, operation: &Operation, copy: &Copy, contents: &[Digest]) -> Digest {
        let below = if copy.link { Below::Anything } else { Below::Layers(self.below) };
        key::of(operation, below, contents, &self.job.circumstances)
    }

    /// Of a path in the context with all that is below it.
    async fn digest_of_part(&self, path: &str) -> Result<Digest, StepError> {
        let everything = Copy {
            origin: Origin::Context,
            sources: vec![Source::Path(path.to_owned())],
            destination: "/".to_owned(),
            owner: None,
            mode: None,
            link: true,
            parents: false,
            exclude: Vec::new(),
            add: None,
        };
        let job = self.job.clone();
        let selected = self.job.shared.blocking(move || Ok(select(&job, &everything, None, &[])));
        Ok(selected.await??.1.digest().clone())
    }
}

/// What of its origin a mount shows.
pub(super) fn part(spec: &MountSpec) -> &str {
    match spec {
        MountSpec::Bind { source, .. } | MountSpec::Cache { source, .. } => source.as_deref().unwrap_or("/"),
        MountSpec::Tmpfs { .. } | MountSpec::Secret { .. } | MountSpec::Ssh { .. } => "/",
    }
}

/// A tree that is copied from, for as long as it is needed. Blocks.
fn origin_tree(job: &Job, layers: Option<&[Digest]>) -> Result<Arc<dyn Tree>, StepError> {
    Ok(match layers {
        None => job.context.clone(),
        Some(layers) => job.root_of(layers)?.into_tree(),
    })
}

type SelectedFrom = (Arc<dyn Tree>, Selection);

fn select(job: &Job, wanted: &Copy, layers: Option<&[Digest]>, remotes: &[Remote]) -> Result<SelectedFrom, StepError> {
    let origin = origin_tree(job, layers)?;
    let fetched: Vec<_> = remotes.iter().map(Remote::fetched).collect();
    let selection = copy::select(wanted, &Sources { origin: &*origin, fetched: &fetched })?;
    Ok((origin, selection))
}

fn layer_of_copy(
    job: &Job,
    wanted: &Copy,
    origin: Arc<dyn Tree>,
    selection: Selection,
    below: &[Digest],
) -> Result<NewLayer, StepError> {
    let root = job.root_of(below)?;
    let owner = wanted.owner.as_deref().map(|text| root.owner(text)).transpose()?;
    let spool = || job.site.nameless_file().map_err(std::io::Error::other);
    let placing = Placing { destination: root.tree(), owner, made_at: job.now(), spool: &spool };
    layer::of_entries(job, selection.into_entries(&placing, &*origin)?)
}
