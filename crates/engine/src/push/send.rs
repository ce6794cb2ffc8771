//! What a push does.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_image::{LayerBlob, LayerForm, Outgoing, OutgoingBlob, OutgoingBlobs, OutgoingManifest, OutgoingPart};
use dozen_model::{Digest, ErrorKind, Reference, ReferenceError};
use dozen_registry::{Access, RegistryError, Uploads};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::blob::{Blob, BlobError};
use super::told::Told;
use super::{PushEvent, PushRequest, PushStep, refusal};
use crate::engine::emit_push;
use crate::pull::terms;
use crate::shared::Shared;
use crate::{EngineError, PullFailure};

/// All that a request asks for.
pub(super) async fn push(shared: &Arc<Shared>, request: &PushRequest, told: &Told) -> Result<(), EngineError> {
    let name = &request.reference;
    told.say(PushEvent::Begins { repository: format!("{}/{}", name.registry(), name.path()) });
    let tags = tags(shared, request)?;
    let terms = terms(shared, request.credentials.clone()).await?;
    let uploads = Arc::new(Uploads::new(shared.pulls.client.repository(name, Access::Push, terms)));
    for name in tags {
        Pushing { shared, request, told, uploads: uploads.clone(), name }.push().await?;
    }
    Ok(())
}

/// The names that are to go, in order. Docker's words for those that are not there.
fn tags(shared: &Shared, request: &PushRequest) -> Result<Vec<Reference>, EngineError> {
    let wanted = &request.reference;
    let is_of = |name: &Reference| (name.registry(), name.path()) == (wanted.registry(), wanted.path());
    let images = shared.images.list()?;
    let mut all: Vec<Reference> =
        images.into_iter().flat_map(|image| image.references).filter(|name| is_of(name)).collect();
    all.sort();
    let missing = |message: String| {
        let (kind, hint) = (ErrorKind::NotFound, Some("images and their names: dozen images".to_owned()));
        EngineError::from(PullFailure { kind, message, hint })
    };
    if all.is_empty() {
        let name = wanted.familiar_name();
        return Err(missing(format!("An image does not exist locally with the tag: {name}")));
    }
    if !request.all_tags {
        all.retain(|name| name.tag() == wanted.tag());
        if all.is_empty() {
            return Err(missing(format!("tag does not exist: {}", wanted.familiar())));
        }
    }
    Ok(all)
}

/// One tag on its way.
struct Pushing<'a> {
    shared: &'a Arc<Shared>,
    request: &'a PushRequest,
    told: &'a Told,
    uploads: Arc<Uploads>,
    name: Reference,
}

impl Pushing<'_> {
    async fn push(&self) -> Result<(), EngineError> {
        let part = self.request.platform.clone().map_or(OutgoingPart::All, OutgoingPart::Platform);
        let mut outgoing = self.outgoing(part).await?;
        let mut instead = None;
        if !self.has_all(outgoing.absent()).await? {
            instead = Some(root(&outgoing.manifests(&BTreeMap::new())));
            outgoing = self.outgoing(OutgoingPart::Own).await?;
        }
        let sent = self.send_blobs(outgoing.blobs()).await?;
        let manifests = outgoing.manifests(&sent);
        let (Some(digest), Some(OutgoingManifest { bytes, .. })) = (self.put(&manifests).await?, manifests.last())
        else {
            return Ok(());
        };
        self.name_it(&outgoing, &digest).await?;
        let tag = self.name.tag().unwrap_or_default().to_owned();
        self.told.say(PushEvent::Done { digest, size_bytes: bytes.len() as u64, tag });
        if let Some(index) = instead {
            self.told.say(PushEvent::InsteadOfIndex { index, manifest: root(&manifests) });
        }
        Ok(())
    }

    async fn outgoing(&self, part: OutgoingPart) -> Result<Arc<Outgoing>, EngineError> {
        let (images, name, recompression) = (self.shared.images.clone(), self.name.clone(), self.request.recompression);
        self.shared.blocking(move || Ok(Arc::new(images.outgoing(&name, &part, recompression)?))).await
    }

    /// Whether the registry has manifests that an index names and that are not here.
    async fn has_all(&self, absent: &[Digest]) -> Result<bool, EngineError> {
        for digest in absent {
            if !self.uploads.has_manifest(digest).await.map_err(|error| self.failed(&error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Layers several at once, as they are shown, the topmost first; then configurations.
    async fn send_blobs(&self, outgoing: &Arc<OutgoingBlobs>) -> Result<BTreeMap<Digest, LayerBlob>, EngineError> {
        let at_once = usize::from(self.shared.config.settings.get().registries.uploads.get());
        for layer in outgoing.layers().iter().rev() {
            self.told.layer(&layer.id, PushStep::Preparing);
        }
        for layer in outgoing.layers().iter().rev().skip(at_once) {
            self.told.layer(&layer.id, PushStep::Waiting);
        }
        let turns = Arc::new(Semaphore::new(at_once));
        let mut sending = JoinSet::new();
        let layers = outgoing.layers().iter().rev().map(|layer| (layer, true));
        for (blob, is_shown) in layers.chain(outgoing.configurations().iter().map(|blob| (blob, false))) {
            let (one, turns) = (self.blob(outgoing, blob, is_shown), turns.clone());
            sending.spawn(async move {
                // Nobody closes it.
                let _turn = turns.acquire_owned().await;
                one.send().await
            });
        }
        let mut sent = BTreeMap::new();
        while let Some(done) = sending.join_next().await {
            let done = done.unwrap_or_else(|error| {
                let source = std::io::Error::other(error);
                Err(BlobError::Engine(EngineError::System { action: "finish a layer".into(), source }))
            });
            match done {
                Ok((id, blob)) => _ = sent.insert(id, blob),
                // The others are given up, with what they have begun.
                Err(BlobError::Registry(error)) => return Err(self.failed(&error)),
                Err(BlobError::Engine(error)) => return Err(error),
            }
        }
        Ok(sent)
    }

    fn blob(&self, outgoing: &Arc<OutgoingBlobs>, blob: &OutgoingBlob, is_shown: bool) -> Blob {
        Blob {
            shared: self.shared.clone(),
            uploads: self.uploads.clone(),
            outgoing: outgoing.clone(),
            told: self.told.clone(),
            name: self.name.clone(),
            form: self.request.recompression.map_or_else(LayerForm::default, |wanted| wanted.form),
            is_anew: self.request.recompression.is_some_and(|wanted| wanted.is_forced),
            blob: blob.clone(),
            is_shown,
        }
    }

    /// The last is what the tag leads to; gives the digest by which the registry knows that, which may be by another
    /// algorithm than ours.
    async fn put(&self, manifests: &[OutgoingManifest]) -> Result<Option<Digest>, EngineError> {
        let mut known = None;
        for (number, OutgoingManifest { digest, media_type, bytes }) in manifests.iter().enumerate() {
            let is_last = number + 1 == manifests.len();
            let name = if is_last { self.name.tag().unwrap_or_default() } else { digest.as_str() };
            let put = self.uploads.put_manifest(name, digest, media_type, bytes).await;
            known = Some(put.map_err(|error| self.failed(&error))?);
        }
        Ok(known)
    }

    /// The image has its name by digest from now on, as if it had been pulled.
    async fn name_it(&self, outgoing: &Arc<Outgoing>, digest: &Digest) -> Result<(), EngineError> {
        let text = format!("{}/{}@{digest}", self.name.registry(), self.name.path());
        let by_digest: Reference = text
            .parse()
            .map_err(|error: ReferenceError| EngineError::Invalid { message: error.to_string(), hint: None })?;
        let (shared, outgoing, name) = (self.shared.clone(), outgoing.clone(), self.name.clone());
        let write = move || {
            shared.images.add_repo_digest(&outgoing, &by_digest)?;
            emit_push(&shared, outgoing.image(), &name);
            Ok(())
        };
        self.shared.blocking(write).await
    }

    fn failed(&self, error: &RegistryError) -> EngineError {
        refusal::failure(&self.name, error).into()
    }
}

/// The descriptor of what a tag leads to.
fn root(manifests: &[OutgoingManifest]) -> Value {
    manifests.last().map_or(Value::Null, |OutgoingManifest { digest, media_type, bytes }| {
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    })
}
