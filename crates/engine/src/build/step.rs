//! One step: found in the cache, or done and written down.

use std::sync::Arc;

use dozen_build::copy::{self, Placing, Selection, Sources};
use dozen_build::key::{self, Below};
use dozen_build::operation::{Copy, MakeDirectory, Mount, Operation, Origin, Run, Source};
use dozen_build::tree::{PlainTree, Tree};
use dozen_dockerfile::MountSpec;
use dozen_image::{KeptStep, NewLayer, StepLayer};
use dozen_model::Digest;

use super::contexts::Taken;
use super::failure::StepError;
use super::flights::Flight;
use super::graph::Graph;
use super::job::Job;
use super::remote::{self, Remote};
use super::{CacheStep, StepId, layer, repository, run, shell};
use crate::failpoint::failpoint;

/// What became of a step.
pub(super) struct Performed {
    pub(super) kept: KeptStep,
    /// It had been done before.
    pub(super) was_cached: bool,
    /// What it is known by, the quickest first.
    pub(super) keys: Vec<Digest>,
}

impl Performed {
    /// As it travels: once for each key.
    pub(super) fn told(&self, description: &str) -> Vec<CacheStep> {
        let step = |key: &Digest| CacheStep {
            key: key.clone(),
            layer: self.kept.layer.clone(),
            created: self.kept.created,
            description: description.to_owned(),
            is_of_image: false,
        };
        self.keys.iter().map(step).collect()
    }
}

/// A step that had been done before.
struct Found {
    kept: KeptStep,
    /// By this engine, and not by one whose cache the caller has named.
    is_ours: bool,
}

impl Found {
    fn performed(self, keys: Vec<Digest>) -> Performed {
        Performed { kept: self.kept, was_cached: true, keys }
    }
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
            contents.push(match self.graph.taken(origin).await {
                Taken::Layers(layers) => key::of_layers(&layers),
                files @ Taken::Files(_) => self.digest_of_part(files, part(spec)).await?,
            });
        }
        let key = self.key(operation, self.below, &contents);
        let ran = self
            .once(&[key], async |flight| {
                self.bring(self.below).await?;
                run::run(self, run, flight).await.map(StepLayer::from)
            })
            .await;
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
        let taken = self.graph.taken(&copy.origin).await;
        // A commit says all of what is taken from it, too.
        let repositories = repository::resolve_all(self.job, copy).await?;
        let quick = match &taken {
            Taken::Layers(layers) => Some(key::of_layers(layers)),
            Taken::Files(_) if repositories.len() < copy.sources.len() => None,
            Taken::Files(_) => Some(key::of_commits(repositories.iter().map(|it| &it.chosen))),
        };
        let quick = quick.map(|contents| self.key_of_copy(operation, copy, &[contents]));
        if let Some(key) = &quick
            && let Some(found) = self.found(key)
        {
            let others = self.other_keys(key, &found);
            return Ok(found.performed(std::iter::once(key.clone()).chain(others).collect()));
        }
        if let Some(promised) = remote::promised(copy)
            && let (key, Some(found)) = self.found_with(operation, copy, &promised)?
        {
            return Ok(found.performed(vec![key]));
        }
        let mut changed = None;
        if let Some(known) = remote::known(self.job, copy).await?
            && let (key, Some(found)) = self.found_with(operation, copy, &known.before)?
        {
            changed = remote::changed(self.job, &known).await?;
            if changed.is_none() {
                return Ok(found.performed(vec![key]));
            }
        }
        let remotes = match changed {
            Some(remote) => vec![remote],
            None => remote::fetch_all(self.job, copy, repositories).await?,
        };
        if let Taken::Layers(layers) = &taken {
            self.bring(layers).await?;
        }
        let (job, wanted) = (self.job.clone(), copy.clone());
        let selected = self.job.shared.blocking(move || Ok(select(&job, &wanted, &taken, &remotes)));
        let (origin, selection) = selected.await??;
        let key = self.key_of_copy(operation, copy, &[selection.digest().clone()]);
        let keys: Vec<Digest> = quick.into_iter().chain([key]).collect();
        self.once(&keys, async |_| {
            self.bring(self.below).await?;
            let (job, wanted, below) = (self.job.clone(), copy.clone(), self.below.to_vec());
            let made = move || Ok(layer_of_copy(&job, &wanted, origin, selection, &below));
            Ok(self.job.shared.blocking(made).await??.into())
        })
        .await
    }

    /// What the step is known by with a file of which nothing but the digest is known, and what was made of it, if it was.
    fn found_with(
        &self,
        operation: &Operation,
        copy: &Copy,
        remote: &Remote,
    ) -> Result<(Digest, Option<Found>), StepError> {
        let sources = Sources { origin: &PlainTree::empty(), fetched: &[remote.fetched()] };
        let key = self.key_of_copy(operation, copy, &[copy::select(copy, &sources)?.digest().clone()]);
        let found = self.found(&key);
        Ok((key, found))
    }

    async fn make_directory(&self, operation: &Operation, wanted: &MakeDirectory) -> Result<Performed, StepError> {
        let key = self.key(operation, self.below, &[]);
        self.once(&[key], async |_| {
            self.bring(self.below).await?;
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
        let (added, description) = (keys.to_vec(), self.description.to_owned());
        if let Some(found) = self.found(key) {
            // What others say is not written down as ours.
            if let (true, Some(layer), [_, _, ..]) = (found.is_ours, found.kept.layer.clone(), keys) {
                let add = move || Ok(images.add_step(&added[..1], StepLayer::Known(layer), &description)?);
                self.job.shared.blocking(add).await?;
            }
            return Ok(found.performed(keys.to_vec()));
        }
        let made = perform(&flight).await?;
        failpoint("build.step.done");
        let kept = self.job.shared.blocking(move || Ok(images.add_step(&added, made, &description)?)).await?;
        Ok(Performed { kept, was_cached: false, keys: keys.to_vec() })
    }

    fn found(&self, key: &Digest) -> Option<Found> {
        if self.anew {
            return None;
        }
        let images = &self.job.shared.images;
        let ours = images.cached_step(key).map(|kept| Found { kept, is_ours: true });
        ours.or_else(|| Some(Found { kept: self.job.imported.find(images, key)?, is_ours: false }))
    }

    /// What else a step is known by that was found by its quickest key: who takes it along may find it by the others.
    fn other_keys(&self, key: &Digest, found: &Found) -> Vec<Digest> {
        match (self.job.request.takes_cache(), found.is_ours) {
            (false, _) => Vec::new(),
            (true, true) => self.job.shared.images.other_keys(key),
            (true, false) => self.job.imported.other_keys(key),
        }
    }

    /// Their files are needed.
    async fn bring(&self, layers: &[Digest]) -> Result<(), StepError> {
        self.job.imported.bring(self.job, layers).await
    }

    fn key(&self, operation: &Operation, below: &[Digest], contents: &[Digest]) -> Digest {
        key::of(operation, Below::Layers(below), contents, &self.job.circumstances)
    }

    fn key_of_copy(&self, operation: &Operation, copy: &Copy, contents: &[Digest]) -> Digest {
        let below = if copy.link { Below::Anything } else { Below::Layers(self.below) };
        key::of(operation, below, contents, &self.job.circumstances)
    }

    /// Of a path in a context with all that is below it.
    async fn digest_of_part(&self, files: Taken, path: &str) -> Result<Digest, StepError> {
        let everything = everything(Origin::Context, path);
        let job = self.job.clone();
        let selected = self.job.shared.blocking(move || Ok(select(&job, &everything, &files, &[])));
        Ok(selected.await??.1.digest().clone())
    }
}

/// What copies a path with all that is below it.
pub(super) fn everything(origin: Origin, path: &str) -> Copy {
    Copy {
        origin,
        sources: vec![Source::Path(path.to_owned())],
        destination: "/".to_owned(),
        owner: None,
        mode: None,
        link: true,
        parents: false,
        exclude: Vec::new(),
        add: None,
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
fn origin_tree(job: &Job, taken: &Taken) -> Result<Arc<dyn Tree>, StepError> {
    Ok(match taken {
        Taken::Files(context) => context.clone(),
        Taken::Layers(layers) => job.root_of(layers)?.into_tree(),
    })
}

type SelectedFrom = (Arc<dyn Tree>, Selection);

fn select(job: &Job, wanted: &Copy, taken: &Taken, remotes: &[Remote]) -> Result<SelectedFrom, StepError> {
    let origin = origin_tree(job, taken)?;
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
