//! Caches that go to registries (`--cache-to type=registry`). Layers come first, as a push sends them: one that the registry
//! has stays where it is, or is taken over from the repository that it was imported from, and others are packed. Then follow
//! the configuration and the manifest, so the tag leads to what it did until all is there, whoever is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dozen_build::carried::{self, CONFIG, Descriptor, MANIFEST, Step};
use dozen_image::{LayerBlob, LayerForm, OutgoingBlob, OutgoingBlobs, Recompression};
use dozen_model::{Classified, Digest, Reference, error_chain};
use dozen_registry::{Access, Found, RegistryError, Uploads};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::failure::StepError;
use super::job::Job;
use super::{BuildEvent, CacheStep};
use crate::EngineError;
use crate::pull::terms;
use crate::push::blob::{Blob, BlobError};
use crate::push::refusal;
use crate::push::told::Told;

/// A place in a registry that a cache goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDestination {
    /// With its tag.
    pub reference: Reference,
    /// As the caller wrote it.
    pub name: String,
    /// Of all stages, and not only what the image is made of (`mode=max`).
    pub has_all: bool,
    /// How layers are compressed that are not yet.
    pub form: LayerForm,
    /// Those that are, in another way, too (`force-compression`).
    pub is_forced: bool,
    /// A cache that cannot be written fails no build.
    pub ignores_errors: bool,
}

/// Takes the steps along to all places that the build's caller has named.
pub(super) async fn all(job: &Arc<Job>, steps: &[CacheStep]) -> Result<(), StepError> {
    for destination in &job.request.cache_destinations {
        let name = &destination.name;
        let Err(error) = take(job, destination, steps).await else { continue };
        let said = format!("failed to export cache to {name}: {}", error_chain(&error));
        if !destination.ignores_errors {
            let hint = "the image is there; ignore-error=true lets the build succeed without its cache";
            return Err(StepError::with_hint(said, error.hint().unwrap_or_else(|| hint.to_owned())));
        }
        job.tell(BuildEvent::Warning(said)).await;
        job.tell(BuildEvent::Exporting(name.clone(), None)).await;
    }
    Ok(())
}

/// One cache on its way to one place.
struct Deposit {
    job: Arc<Job>,
    destination: CacheDestination,
    uploads: Arc<Uploads>,
}

async fn take(job: &Arc<Job>, destination: &CacheDestination, steps: &[CacheStep]) -> Result<(), EngineError> {
    let CacheDestination { reference, name, has_all, .. } = destination;
    let tell = |line: String| job.tell(BuildEvent::Exporting(name.clone(), Some(line)));
    tell("preparing build cache for export".to_owned()).await;
    let mut wanted: Vec<&CacheStep> = steps.iter().filter(|step| *has_all || step.is_of_image).collect();
    let terms = terms(&job.shared, job.request.credentials.get(reference.registry()).cloned()).await?;
    let uploads = Arc::new(Uploads::new(job.shared.pulls.client.repository(reference, Access::Push, terms)));
    let deposit = Arc::new(Deposit { job: job.clone(), destination: destination.clone(), uploads });

    let turns = Arc::new(Semaphore::new(usize::from(job.shared.config.settings.get().registries.uploads.get())));
    let mut sending = JoinSet::new();
    let all: BTreeSet<Digest> = wanted.iter().filter_map(|step| step.layer.clone()).collect();
    for diff_id in all {
        let (deposit, turns) = (deposit.clone(), turns.clone());
        sending.spawn(async move {
            // Nobody closes it.
            let _turn = turns.acquire_owned().await;
            let sent = deposit.layer(&diff_id).await;
            (diff_id, sent)
        });
    }
    let mut layers: BTreeMap<Digest, Descriptor> = BTreeMap::new();
    while let Some(ended) = sending.join_next().await {
        let (diff_id, sent) = ended.map_err(|error| EngineError::system(|| "send a layer".into())(error))?;
        if let Some(layer) = sent? {
            tell(format!("writing layer {diff_id} done")).await;
            layers.insert(diff_id, layer);
        } else {
            // Of a cache that was imported: nothing has needed it, and so nobody has noticed.
            let said = format!("the layer {diff_id} of an imported cache cannot be had, and is left out");
            job.tell(BuildEvent::Warning(said)).await;
            wanted.retain(|step| step.layer.as_ref() != Some(&diff_id));
        }
    }
    let diff_ids: Vec<Digest> = layers.keys().cloned().collect();
    let layers: Vec<Descriptor> = layers.into_values().collect();
    let steps: Vec<Step> = wanted.into_iter().map(written).collect();
    let config = deposit.document(carried::config(&steps, &diff_ids)).await?;
    tell(format!("writing config {} done", config.digest)).await;
    let manifest = carried::manifest(&config, &layers);
    let digest = Digest::from_sha256(Sha256::digest(&manifest).into());
    let tag = reference.tag().unwrap_or("latest");
    let put = deposit.uploads.put_manifest(tag, &digest, MANIFEST, &manifest).await;
    put.map_err(|error| deposit.failed(&error))?;
    tell(format!("writing cache manifest {digest} done")).await;
    job.tell(BuildEvent::Exporting(name.clone(), None)).await;
    Ok(())
}

fn written(step: &CacheStep) -> Step {
    let CacheStep { key, layer, created, description, is_of_image } = step.clone();
    Step { key, layer, created, description, is_of_image }
}

impl Deposit {
    /// Sees to it that the registry has a layer. `None`: nobody has it.
    async fn layer(&self, diff_id: &Digest) -> Result<Option<Descriptor>, EngineError> {
        if let Some(there) = self.is_there(diff_id).await? {
            return Ok(Some(there));
        }
        let mut going = self.going(diff_id);
        if going.is_none() {
            match self.job.imported.bring(&self.job, std::slice::from_ref(diff_id)).await {
                Ok(()) => going = self.going(diff_id),
                Err(StepError::Engine(error)) => return Err(error),
                Err(_) => {}
            }
        }
        let Some(going) = going.map(Arc::new) else { return Ok(None) };
        let Some(layer) = going.layers().first().cloned() else { return Ok(None) };
        self.send(going, layer).await.map(Some)
    }

    /// A blob of it that came with an imported cache lies in the same registry.
    async fn is_there(&self, diff_id: &Digest) -> Result<Option<Descriptor>, EngineError> {
        let CacheDestination { reference, form, is_forced, .. } = &self.destination;
        let Some(stored) = self.job.imported.stored(diff_id) else { return Ok(None) };
        let (registry, repository) = &stored.place;
        if registry != reference.registry() || (*is_forced && stored.media_type != form.media_type()) {
            return Ok(None);
        }
        let other = Some(repository.clone()).filter(|repository| repository != reference.path());
        let elsewhere: Vec<String> = other.into_iter().collect();
        let found = self.uploads.find(&stored.blob.digest, &elsewhere).await.map_err(|error| self.failed(&error))?;
        let descriptor = || Descriptor {
            media_type: stored.media_type.clone(),
            digest: stored.blob.digest.clone(),
            size: stored.blob.size_bytes,
        };
        Ok((!matches!(found, Found::Nowhere(_))).then(descriptor))
    }

    fn going(&self, diff_id: &Digest) -> Option<OutgoingBlobs> {
        let CacheDestination { form, is_forced, .. } = self.destination;
        // One that is kept compressed so is no other at another level.
        let recompression = is_forced.then_some(Recompression { form, is_forced: false });
        self.job.shared.images.outgoing_layer(diff_id, recompression)
    }

    async fn document(&self, bytes: Vec<u8>) -> Result<Descriptor, EngineError> {
        let going = Arc::new(self.job.shared.images.outgoing_document(CONFIG, bytes));
        let document = going.configurations()[0].clone();
        self.send(going, document).await
    }

    async fn send(&self, outgoing: Arc<OutgoingBlobs>, blob: OutgoingBlob) -> Result<Descriptor, EngineError> {
        let blob = Blob {
            shared: self.job.shared.clone(),
            uploads: self.uploads.clone(),
            outgoing,
            told: Told::default(),
            name: self.destination.reference.clone(),
            form: self.destination.form,
            is_anew: false,
            blob,
            is_shown: false,
        };
        match blob.send().await {
            Ok((_, LayerBlob { digest, size_bytes, media_type })) => {
                Ok(Descriptor { media_type, digest, size: size_bytes })
            }
            Err(BlobError::Registry(error)) => Err(self.failed(&error)),
            Err(BlobError::Engine(error)) => Err(error),
        }
    }

    fn failed(&self, error: &RegistryError) -> EngineError {
        refusal::failure(&self.destination.reference, error).into()
    }
}
