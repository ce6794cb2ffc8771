//! An artifact goes to a registry: what it has not got of configuration and files, then the manifest. One that is about
//! another manifest is put into the list of what is about that.

use std::sync::Arc;

use dozen_image::{LayerForm, OutgoingArtifact, OutgoingBlob};
use dozen_model::{Digest, Reference};
use dozen_registry::{Access, RegistryError, Uploads};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{ArtifactTransfer, Referrer, repository};
use crate::push::blob::{Blob, BlobError};
use crate::push::refusal;
use crate::push::told::Told;
use crate::{Engine, EngineError, Push, PushEvent, PushStep};

/// Of a manifest that does not say what it is.
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Engine {
    /// See the module; gives the digest of its manifest. `name`: as the store finds it.
    ///
    /// # Errors
    /// There is none of this name, or the registry does not take it.
    pub async fn push_artifact(&self, name: &str, transfer: &ArtifactTransfer) -> Result<Digest, EngineError> {
        self.send_artifact(name, transfer, None).await
    }

    /// The same, watched: [`PushEvent::Done`] has the digest.
    pub fn watch_artifact_push(&self, name: String, transfer: ArtifactTransfer) -> Push {
        let engine = self.clone();
        Push::watched(|told| async move { engine.send_artifact(&name, &transfer, Some(&told)).await.map(drop) })
    }

    async fn send_artifact(
        &self,
        name: &str,
        transfer: &ArtifactTransfer,
        told: Option<&Told>,
    ) -> Result<Digest, EngineError> {
        let (shared, wanted) = (self.shared.clone(), name.to_owned());
        let outgoing = self.shared.blocking(move || Ok(shared.images.outgoing_artifact(&wanted)?)).await?;
        let name = &transfer.reference;
        let failed = |error: RegistryError| EngineError::from(refusal::failure(name, &error));
        let uploads = Arc::new(Uploads::new(repository(&self.shared, transfer, Access::Push).await?));
        let at_once = usize::from(self.shared.config.settings.get().registries.uploads.get());
        let turns = Arc::new(Semaphore::new(at_once));
        if let Some(told) = told {
            outgoing.blobs.layers().iter().for_each(|blob| told.layer(&blob.id, PushStep::Preparing));
        }
        let mut sending = JoinSet::new();
        for blob in outgoing.blobs.layers() {
            let (one, turns) = (self.blob(&outgoing, blob, &uploads, name, told), turns.clone());
            sending.spawn(async move {
                // Nobody closes it.
                let _turn = turns.acquire_owned().await;
                one.send().await.map(drop)
            });
        }
        while let Some(done) = sending.join_next().await {
            match done.map_err(|error| EngineError::system(|| "finish a blob".into())(std::io::Error::other(error)))? {
                Ok(()) => {}
                Err(BlobError::Registry(error)) => return Err(failed(error)),
                Err(BlobError::Engine(error)) => return Err(error),
            }
        }
        let (digest, bytes) = (&outgoing.artifact.digest, &outgoing.manifest);
        let tag = name.digest().map_or_else(|| name.tag().unwrap_or("latest"), Digest::as_str);
        let described = described(&outgoing);
        match &outgoing.document.subject {
            Some(subject) => uploads.put_referrer(tag, subject, &described, bytes).await,
            None => uploads.put_manifest(tag, digest, &described.media_type, bytes).await.map(drop),
        }
        .map_err(failed)?;
        if let Some(told) = told {
            let (digest, size_bytes, tag) = (digest.clone(), described.size_bytes, tag.to_owned());
            told.say(PushEvent::Done { digest, size_bytes, tag });
        }
        Ok(digest.clone())
    }

    fn blob(
        &self,
        outgoing: &OutgoingArtifact,
        blob: &OutgoingBlob,
        uploads: &Arc<Uploads>,
        name: &Reference,
        told: Option<&Told>,
    ) -> Blob {
        Blob {
            shared: self.shared.clone(),
            uploads: uploads.clone(),
            outgoing: outgoing.blobs.clone(),
            told: told.cloned().unwrap_or_default(),
            name: name.clone(),
            form: LayerForm::default(),
            is_anew: false,
            blob: blob.clone(),
            is_shown: told.is_some(),
        }
    }
}

/// As a list of referrers has it (OCI distribution-spec, "Listing Referrers": with the manifest's own annotations).
fn described(outgoing: &OutgoingArtifact) -> Referrer {
    let manifest: Value = serde_json::from_slice(&outgoing.manifest).unwrap_or_default();
    let noted = manifest["annotations"].as_object().into_iter().flatten();
    let annotations = noted.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect();
    Referrer {
        media_type: manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned(),
        digest: outgoing.artifact.digest.clone(),
        size_bytes: outgoing.manifest.len() as u64,
        artifact_type: outgoing.document.artifact_type.clone(),
        annotations,
    }
}
