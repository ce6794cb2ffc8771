//! `--cache-from` and `--cache-to`: what has been built is found again on other machines. A cache lies in a directory of this
//! side's ([`format`]), in a registry, or in an image of the engine's. What the engine wants of a directory it is brought
//! while it builds; what it has made it gives before it ends. Registries it asks itself.

mod export;
mod format;
mod import;
mod options;

use std::collections::BTreeSet;

pub(super) use dozen_build::carried::Step;
use dozen_model::{ContainerId, Digest, Reference};
use serde_json::{Value, json};

use self::import::Imports;
use self::options::{CacheFrom, CacheTo, Deposit, Destination};
use super::progress::Progress;
use crate::client::Query;
use crate::commands::Context;
use crate::failure::Failure;

/// The caches of one build.
#[derive(Debug)]
pub(super) struct Caches {
    /// By which the engine knows the build that they are for.
    id: String,
    /// As the engine is told of those in registries.
    sources: Vec<Value>,
    deposits: Vec<Deposit>,
    /// Whom the engine asks.
    registries: BTreeSet<String>,
    imports: Imports,
    is_inline: bool,
    destinations: Vec<Destination>,
    /// What cannot be imported, and why: that fails no build.
    pub warnings: Vec<String>,
}

impl Caches {
    /// Reads what is to be read, and refuses what could not be written once all is built.
    pub(super) fn prepare(from: &[&str], to: &[&str]) -> Result<Self, Failure> {
        let id = ContainerId::random().as_str().to_owned();
        let (mut sources, mut imports, mut warnings) = (Vec::new(), Imports::default(), Vec::new());
        let mut names: Vec<String> = Vec::new();
        for source in options::sources(from)? {
            match source {
                CacheFrom::Registry { name, may_be_image } => {
                    sources.push(json!({ "Name": name, "MayBeImage": may_be_image }));
                    names.push(name);
                }
                CacheFrom::Directory(layout, choice) => {
                    if let Err(why) = imports.add(&layout, &choice) {
                        warnings.push(format!("no cache is imported from {}: {why}", layout.root.display()));
                    }
                }
            }
        }
        let (mut is_inline, mut destinations, mut deposits) = (false, Vec::new(), Vec::new());
        for destination in options::destinations(to)? {
            match destination {
                CacheTo::Inline => is_inline = true,
                CacheTo::Directory(destination) => {
                    export::prepare(&destination)?;
                    destinations.push(destination);
                }
                CacheTo::Registry(deposit) => {
                    names.push(deposit.name.clone());
                    deposits.push(deposit);
                }
            }
        }
        let registry = |name: String| Some(name.parse::<Reference>().ok()?.registry().to_owned());
        let registries = names.into_iter().filter_map(registry).collect();
        Ok(Self { id, sources, deposits, registries, imports, is_inline, destinations, warnings })
    }

    /// What the engine is told of them beside the body.
    pub(super) fn ask(&self, mut query: Query) -> Query {
        if self.is_inline {
            query = query.with("cacheto", "inline");
        }
        if !self.destinations.is_empty() {
            query = query.with("cacheto", "client");
        }
        if !self.destinations.is_empty() || !self.imports.steps.is_empty() {
            query = query.with("buildid", &self.id);
        }
        query
    }

    /// For the body's first line: what there is to say, by the members' names.
    pub(super) fn described(&self) -> Vec<(&'static str, Value)> {
        let all = [
            ("CacheSteps", self.imports.steps.iter().map(format::described).collect::<Vec<_>>()),
            ("CacheFrom", self.sources.clone()),
            ("CacheTo", self.deposits.iter().map(deposited).collect()),
        ];
        // An older engine knows not all of them.
        all.into_iter().filter(|(_, said)| !said.is_empty()).map(|(name, said)| (name, Value::Array(said))).collect()
    }

    /// Where the engine has to say who we are.
    pub(super) fn registries(&self) -> &BTreeSet<String> {
        &self.registries
    }

    /// Brings the engine a layer that it wants, or says that there is none. What comes of it the engine says.
    pub(super) async fn bring(&self, context: &Context, layer: Digest) {
        self.imports.bring(context, &self.id, layer).await;
    }

    /// Takes the steps along that have been done.
    pub(super) async fn take(&self, context: &Context, steps: &[Step], progress: &mut Progress) -> Result<(), Failure> {
        for destination in &self.destinations {
            let export = export::Export { context, build: &self.id, destination, imports: &self.imports };
            if let Err(why) = export.take(steps, progress).await {
                let said = format!("failed to export cache to {}: {why}", destination.layout.root.display());
                if !destination.ignores_errors {
                    return Err(Failure::new(format!("ERROR: {said}"))
                        .with_hint("the image is there; ignore-error=true lets the build succeed without its cache"));
                }
                progress.warn(&said);
            }
        }
        let path = format!("/build/carried/taken{}", Query::new().with("id", &self.id));
        Ok(context.client.post_for_nothing(&path, None).await?)
    }
}

fn deposited(deposit: &Deposit) -> Value {
    let Deposit { name, has_all, compression, level, forces_compression, ignores_errors } = deposit;
    json!({
        "Name": name, "HasAll": has_all, "Compression": compression, "CompressionLevel": level,
        "ForcesCompression": forces_compression, "IgnoresErrors": ignores_errors,
    })
}
