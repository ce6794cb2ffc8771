//! What is said of an image that has been built, if whoever builds wants that: where it comes from, and which packages are
//! in it. `dozen-build` says it; here is looked for what it says.

use std::sync::Arc;

use dozen_build::operation::{Operation, Source};
use dozen_build::packages::{self, Inventory};
use dozen_build::provenance::{self, Dependency, ImageDigest, Mode, Provenance, docker_url};
use dozen_build::{spdx, statement};
use dozen_image::{Attestation, Image, Platform};
use dozen_model::{ContainerId, Digest, Reference};
use jiff::Timestamp;
use serde_json::Value;

use super::BuildEvent;
use super::failure::StepError;
use super::graph::{Built, Graph};
use super::job::Job;
use super::root::Root;

/// What is to be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestations {
    /// Where the image comes from.
    pub provenance: Option<ProvenanceWanted>,
    /// Which packages are in it.
    pub bill_of_materials: bool,
}

/// How much is told of where an image comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProvenanceWanted {
    /// Values of build arguments and the Dockerfile, too.
    pub is_full: bool,
    /// Who builds, as an address; empty: nobody has said.
    pub builder: String,
}

/// Something that is said, before it is known of which manifest.
pub(super) struct Said {
    predicate_type: &'static str,
    /// What clients call a file of it.
    file: &'static str,
    predicate: Value,
}

/// The longest part of a statement that is told at once.
const PART_BYTES: usize = 256 << 10;

/// All that is to be said; nothing if nobody asks. `name` and `text` are the Dockerfile's.
pub(super) async fn gather(
    job: &Arc<Job>,
    graph: &Graph,
    built: &Built,
    (name, text): (&str, &str),
) -> Result<Vec<Said>, StepError> {
    let wanted = &job.request.attestations;
    let mut said = Vec::new();
    if let Some(ProvenanceWanted { is_full, builder }) = &wanted.provenance {
        let invocation = ContainerId::random();
        let provenance = Provenance {
            mode: if *is_full { Mode::Maximum } else { Mode::Minimum },
            builder,
            dockerfile: (name, text),
            given: &job.request.given,
            secrets: job.request.secrets.keys().map(String::as_str).collect(),
            agents: job.request.agents.keys().map(String::as_str).collect(),
            dependencies: &dependencies(graph),
            invocation: invocation.short(),
            began: job.began(),
            finished: Timestamp::now(),
        };
        let predicate = provenance.predicate();
        said.push(Said { predicate_type: provenance::PREDICATE_TYPE, file: "provenance.json", predicate });
    }
    if wanted.bill_of_materials {
        let (held, layers) = (job.clone(), built.layers.clone());
        let found = job.shared.blocking(move || Ok(inventory(&held, &layers))).await??;
        let created = job.latest_s().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let name = job.request.tags.first().map_or_else(|| "image".to_owned(), Reference::familiar);
        let predicate = spdx::document(&found, &name, created.unwrap_or_else(Timestamp::now));
        said.push(Said { predicate_type: spdx::PREDICATE_TYPE, file: "sbom.spdx.json", predicate });
    }
    Ok(said)
}

/// Blocks.
fn inventory(job: &Job, layers: &[Digest]) -> Result<Inventory, StepError> {
    match job.root_of(layers)? {
        Root::Empty(_) => Ok(Inventory::default()),
        Root::Layers(tree) => packages::find(&tree).map_err(|error| {
            StepError::with_hint(
                format!("the bill of materials: {}", dozen_model::error_chain(&error)),
                "build without --sbom",
            )
        }),
    }
}

/// The statements about an image of these names, whose manifest is this. Each with the name of a file of it.
pub(super) fn statements(
    said: &[Said],
    tags: &[Reference],
    configuration: &Value,
    manifest: &Digest,
) -> Vec<(&'static str, Attestation)> {
    let platform = Platform::of_config(configuration).to_string();
    let names: Vec<String> = tags.iter().map(|tag| docker_url(&tag.familiar(), &platform)).collect();
    let attestation = |said: &Said| {
        let Said { predicate_type, file, predicate } = said;
        let statement = statement::statement(predicate_type, predicate, &names, manifest);
        (*file, Attestation { predicate_type: (*predicate_type).to_owned(), statement })
    };
    said.iter().map(attestation).collect()
}

/// Tells them to whoever keeps them beside files.
pub(super) async fn tell(job: &Arc<Job>, statements: Vec<(&'static str, Attestation)>) {
    for (file, Attestation { statement, .. }) in statements {
        let text = String::from_utf8_lossy(&statement);
        let mut rest = &*text;
        while !rest.is_empty() {
            let (part, left) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
            job.tell(BuildEvent::Statement(file, part.to_owned())).await;
            rest = left;
        }
    }
}

/// What the build has taken, each once.
fn dependencies(graph: &Graph) -> Vec<Dependency> {
    let images = graph.taken_images().map(|(name, image)| Dependency::Image {
        name: name.to_owned(),
        platform: Platform::of_config(&image.raw).to_string(),
        digest: digest_of(name, image),
    });
    let steps = graph.stages.values().flat_map(|stage| &stage.plan.steps);
    let files = steps.filter_map(|step| match &step.operation {
        Some(Operation::Copy(copy)) => Some(copy),
        _ => None,
    });
    let files = files.flat_map(|copy| {
        let checksum = copy.add.as_ref().and_then(|add| add.checksum.as_ref()?.parse::<Digest>().ok());
        copy.sources.iter().filter_map(move |source| match source {
            Source::Url(_) => Some(Dependency::File(source.shown().into_owned(), checksum.clone())),
            _ => None,
        })
    });
    let mut all: Vec<Dependency> = images.chain(files).collect();
    all.sort();
    all.dedup();
    all
}

/// That of the manifest by which it is known under this name, or else under any.
fn digest_of(name: &str, image: &Image) -> ImageDigest {
    let wanted = name.parse::<Reference>().ok().map(|name| name.familiar_name());
    let of_name = image.repo_digests.iter().find(|known| Some(known.familiar_name()) == wanted);
    match of_name.or(image.repo_digests.first()).and_then(Reference::digest) {
        Some(digest) => ImageDigest::Manifest(digest.clone()),
        None => ImageDigest::Configuration(image.id.digest().clone()),
    }
}
