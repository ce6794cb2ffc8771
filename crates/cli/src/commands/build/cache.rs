//! `--cache-from` and `--cache-to`: what has been built is found again on other machines. A cache lies in a directory of this
//! side's ([`format`]), or in an image of the engine's. What the engine wants of a directory it is brought while it builds;
//! what it has made it gives before it ends.

mod export;
mod format;
mod import;
mod options;

use dozen_model::{ContainerId, Digest};
use serde_json::{Value, json};

pub(super) use self::format::Step;
use self::import::Imports;
use self::options::{CacheFrom, CacheTo, Destination};
use super::progress::Progress;
use crate::client::Query;
use crate::commands::Context;
use crate::failure::Failure;

/// The caches of one build.
#[derive(Debug)]
pub(super) struct Caches {
    /// By which the engine knows the build that they are for.
    id: String,
    images: Vec<String>,
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
        let (mut images, mut imports, mut warnings) = (Vec::new(), Imports::default(), Vec::new());
        for source in options::sources(from)? {
            match source {
                CacheFrom::Image(name) => images.push(name),
                CacheFrom::Directory(layout, choice) => {
                    if let Err(why) = imports.add(&layout, &choice) {
                        warnings.push(format!("no cache is imported from {}: {why}", layout.root.display()));
                    }
                }
            }
        }
        let (mut is_inline, mut destinations) = (false, Vec::new());
        for destination in options::destinations(to)? {
            match destination {
                CacheTo::Inline => is_inline = true,
                CacheTo::Directory(destination) => {
                    export::prepare(&destination)?;
                    destinations.push(destination);
                }
            }
        }
        Ok(Self { id, images, imports, is_inline, destinations, warnings })
    }

    /// What the engine is told of them beside the body.
    pub(super) fn ask(&self, mut query: Query) -> Query {
        if !self.images.is_empty() {
            query = query.with("cachefrom", &json!(self.images).to_string());
        }
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

    /// For the body's first line; nothing if there is nothing to say.
    pub(super) fn described(&self) -> Option<Value> {
        let steps = &self.imports.steps;
        (!steps.is_empty()).then(|| steps.iter().map(Step::described).collect())
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
