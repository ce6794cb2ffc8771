//! Whether an image may come: what the policy for signatures says of its name, and what the registry has attached to it. The
//! name is the one that was asked for, whichever mirror answers.
//!
//! A signature is of what the name leads to, or, where that is an index, of the manifest in it that is taken: cosign signs the
//! first, podman looks for the second. Either names all that comes by its digest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dozen_model::{Digest, ErrorKind, Reference, base64, error_chain, is_tag};
use dozen_registry::{Document, RegistryError, Repository, Which};
use dozen_trust::{Attached, Needs, Policy, Rejected, Rule};
use serde::Deserialize;

use super::{PullFailure, refusal};
use crate::EngineError;
use crate::shared::Shared;

/// Of signatures that are looked at; whoever may attach more may take away all.
const MOST_SIGNATURES: usize = 32;
/// Of one payload. containers/image's own have some 300.
const PAYLOAD_BYTES: u64 = 64 * 1024;

/// cosign's specs/SIGNATURE_SPEC.md, "Properties".
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The policy that held when a pull began; a reload changes nothing of it.
#[derive(Debug, Clone)]
pub(crate) struct Vouching(Option<(Arc<Policy>, PathBuf)>);

/// How far it is known that somebody vouches for an image.
pub(super) enum Vouched {
    Yes,
    /// Not for this. Of an index something that it names may be signed.
    NotFor(Rejected),
}

impl Vouching {
    pub(crate) fn of(shared: &Shared) -> Self {
        let settings = shared.config.settings.get();
        Self(settings.registries.signature_policy.as_ref().map(|it| (it.policy.clone(), it.path.clone())))
    }

    fn rule(&self, name: &Reference) -> Option<Rule<'_>> {
        let (policy, _) = self.0.as_ref()?;
        Some(policy.rule_for(name)).filter(|rule| rule.needs() == Needs::Signatures)
    }

    /// Whether nobody has to vouch for images of this name. Where none may come, the registry is not even asked.
    pub(super) fn is_open(&self, name: &Reference) -> Result<bool, EngineError> {
        let Some(rule) = self.rule(name) else { return Ok(true) };
        match rule.refusal(name) {
            Some(rejected) => Err(self.refused(rejected)),
            None => Ok(false),
        }
    }

    /// The same for what is never signed: the refusal names it.
    pub(crate) fn of_unsigned(&self, name: &Reference, what: &str) -> Result<(), EngineError> {
        let rejected = self.rule(name).and_then(|rule| rule.refusal_of_unsigned(name, what));
        rejected.map_or(Ok(()), |rejected| Err(self.refused(rejected)))
    }

    /// Asks the registry for what is attached to a manifest or an index, and judges it.
    pub(super) async fn vouched(
        &self,
        repository: &Repository,
        name: &Reference,
        digest: &Digest,
    ) -> Result<Vouched, EngineError> {
        let Some(rule) = self.rule(name) else { return Ok(Vouched::Yes) };
        let attached = attached(repository, digest).await;
        let attached = attached.map_err(|error| EngineError::from(refusal::failure(name, &error)))?;
        Ok(match rule.judge(name, digest, &attached) {
            Ok(()) => Vouched::Yes,
            Err(rejected) => Vouched::NotFor(rejected),
        })
    }

    pub(super) fn refused(&self, rejected: Rejected) -> EngineError {
        let path = self.0.as_ref().map(|(_, path)| path.display().to_string()).unwrap_or_default();
        let hint = match rejected.kind {
            "reject" => format!("the rule stands in {path}"),
            _ => format!("who may sign it: dozen push --sign-by-sigstore-private-key FILE; the rule stands in {path}"),
        };
        PullFailure { kind: ErrorKind::Forbidden, message: rejected.to_string(), hint: Some(hint) }.into()
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// By the tag that cosign gives signatures.
async fn attached(repository: &Repository, digest: &Digest) -> Result<Vec<Attached>, RegistryError> {
    let tag = signature_tag(digest);
    if !is_tag(&tag) {
        return Ok(Vec::new());
    }
    let manifest = match repository.manifest(&Which::Tag(tag)).await {
        Ok(manifest) if manifest.kind == Document::Image => manifest,
        Ok(_) => return Ok(vec![Attached::Unusable("what is attached is an index".to_owned())]),
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return unusable(error).map(|it| vec![it]),
    };
    let layers = match serde_json::from_slice::<Manifest>(&manifest.bytes) {
        Ok(manifest) => manifest.layers,
        Err(error) => return Ok(vec![Attached::Unusable(format!("what is attached is malformed: {error}"))]),
    };
    let mut found = Vec::new();
    for layer in layers.iter().filter(|layer| layer.media_type == PAYLOAD_TYPE).take(MOST_SIGNATURES) {
        let signature = layer.annotations.get(SIGNATURE).and_then(|text| base64::decode(text));
        let Some(signature) = signature else {
            found.push(Attached::Unusable("it is a payload without a signature".to_owned()));
            continue;
        };
        found.push(match repository.small_blob(&layer.digest, layer.size, PAYLOAD_BYTES).await {
            Ok(payload) => Attached::Signature { payload, signature },
            Err(error) => unusable(error)?,
        });
    }
    Ok(found)
}

/// The tag at which an image's signatures are (cosign's specs/SIGNATURE_SPEC.md, "Tag-based discovery").
fn signature_tag(digest: &Digest) -> String {
    format!("{}-{}.sig", digest.algorithm(), digest.hex())
}

fn is_absent(error: &RegistryError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.status == 404)
}

/// One that is damaged takes nothing from the others. A registry that is not there has said nothing of any.
fn unusable(error: RegistryError) -> Result<Attached, RegistryError> {
    match error {
        RegistryError::Document { .. }
        | RegistryError::Digest { .. }
        | RegistryError::Size { .. }
        | RegistryError::TooLarge { .. } => Ok(Attached::Unusable(error_chain(&error))),
        error if is_absent(&error) => Ok(Attached::Unusable(error_chain(&error))),
        error => Err(error),
    }
}
