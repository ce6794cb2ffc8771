//! Whether an image may come: what the policy for signatures says of its name, and what the registry has attached to it. The
//! name is the one that was asked for, whichever mirror answers.
//!
//! A signature is of what the name leads to, or, where that is an index, of the manifest in it that is taken: cosign signs the
//! first, podman looks for the second. Either names all that comes by its digest. Signatures that name a repository are asked
//! for first; bundles, which name none, where those do not suffice.

use std::path::PathBuf;
use std::sync::Arc;

use dozen_model::{Digest, ErrorKind, Reference, error_chain};
use dozen_registry::{RegistryError, Repository, Which};
use dozen_trust::{Attached, Found, Listed, Needs, PAYLOAD_BYTES, Policy, Rejected, Rule, listed, signature_tag};

use super::{PullFailure, bundles, refusal};
use crate::EngineError;
use crate::shared::Shared;

/// The policy that held when a pull began; a reload changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vouching(Option<(Arc<Policy>, PathBuf)>);

/// How far it is known that somebody vouches for an image.
pub(super) enum Vouched {
    Yes,
    /// Not for this. Of an index something that it names may be signed.
    NotFor(NotVouched),
}

/// That nobody vouches for it.
#[derive(Clone)]
pub(super) struct NotVouched {
    digest: Digest,
    rejected: Rejected,
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
    pub(crate) fn is_open(&self, name: &Reference) -> Result<bool, EngineError> {
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
        let failed = |error: RegistryError| EngineError::from(refusal::failure(name, &error));
        let mut attached = attached(repository, digest).await.map_err(failed)?;
        let mut judged = rule.judge(name, digest, &attached);
        if judged.is_err() && rule.accepts_bundles() {
            let (candidates, more) = bundles::candidates(repository, digest).await.map_err(failed)?;
            for candidate in candidates {
                let found = bundles::fetched(repository, digest, candidate).await.map_err(failed)?;
                if rule.judge(name, digest, std::slice::from_ref(&found)).is_ok() {
                    return Ok(Vouched::Yes);
                }
                attached.push(found);
            }
            if more > 0 {
                attached.push(Attached::Unusable(format!("there are {more} more, which were not looked at")));
            }
            judged = rule.judge(name, digest, &attached);
        }
        Ok(match judged {
            Ok(()) => Vouched::Yes,
            Err(rejected) => Vouched::NotFor(NotVouched { digest: digest.clone(), rejected }),
        })
    }

    /// That somebody vouches for exactly this: a signature of what it names does not suffice.
    pub(crate) async fn has_to_be(
        &self,
        repository: &Repository,
        name: &Reference,
        digest: &Digest,
    ) -> Result<(), EngineError> {
        match self.vouched(repository, name, digest).await? {
            Vouched::Yes => Ok(()),
            Vouched::NotFor(rejected) => Err(self.explained(repository, name, None, rejected).await),
        }
    }

    /// The refusal of a manifest, and of the index that it is of: what was found is told, at whichever it was, and that there is
    /// something which the rule does not take.
    pub(super) async fn explained(
        &self,
        repository: &Repository,
        name: &Reference,
        index: Option<NotVouched>,
        manifest: NotVouched,
    ) -> EngineError {
        if self.rule(name).is_some_and(|rule| !rule.accepts_bundles()) {
            for NotVouched { digest, rejected } in index.iter().chain([&manifest]) {
                if bundles::are_there(repository, digest).await {
                    return self.refused(rejected.clone().beside_bundles());
                }
            }
        }
        match index {
            Some(index) if manifest.rejected.found == Found::Nothing => self.refused_of(&index),
            _ => self.refused_of(&manifest),
        }
    }

    pub(super) fn refused_of(&self, refusal: &NotVouched) -> EngineError {
        self.refused(refusal.rejected.clone())
    }

    fn refused(&self, rejected: Rejected) -> EngineError {
        let path = self.0.as_ref().map(|(_, path)| path.display().to_string()).unwrap_or_default();
        let signs = "dozen push --sign-by-sigstore-private-key FILE signs, podman push as well, and cosign sign --key FILE \
                     --new-bundle-format=false --use-signing-config=false";
        let hint = match (rejected.kind, rejected.found) {
            ("reject", _) => format!("the rule stands in {path}"),
            (_, Found::Bundles) => format!(
                "{signs}; or the rule, which stands in {path}, says \"sigstoreBundles\": \"acceptWithoutIdentity\": then \
                 whatever its keys have signed may come by any name that it is for"
            ),
            _ => format!("{signs}; the rule stands in {path}"),
        };
        PullFailure { kind: ErrorKind::Forbidden, message: rejected.to_string(), hint: Some(hint) }.into()
    }
}

/// By the tag that cosign gives signatures.
async fn attached(repository: &Repository, digest: &Digest) -> Result<Vec<Attached>, RegistryError> {
    let Some(tag) = signature_tag(digest) else { return Ok(Vec::new()) };
    let manifest = match repository.manifest(&Which::Tag(tag)).await {
        Ok(manifest) => manifest,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return unusable(error).map(|it| vec![it]),
    };
    let all = match listed(&manifest.bytes) {
        Ok(all) => all,
        Err(why) => return Ok(vec![Attached::Unusable(why)]),
    };
    let mut found = Vec::new();
    for one in all {
        found.push(match one {
            Listed::Unusable(why) => Attached::Unusable(why),
            Listed::Signature { payload, size_bytes, signature } => {
                match repository.small_blob(&payload, size_bytes, PAYLOAD_BYTES).await {
                    Ok(payload) => Attached::Signature { payload, signature },
                    Err(error) => unusable(error)?,
                }
            }
        });
    }
    Ok(found)
}

fn is_absent(error: &RegistryError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.status == 404)
}

/// One that is damaged takes nothing from the others. A registry that is not there has said nothing of any.
pub(super) fn unusable(error: RegistryError) -> Result<Attached, RegistryError> {
    match error {
        RegistryError::Document { .. }
        | RegistryError::Digest { .. }
        | RegistryError::Size { .. }
        | RegistryError::TooLarge { .. } => Ok(Attached::Unusable(error_chain(&error))),
        error if is_absent(&error) => Ok(Attached::Unusable(error_chain(&error))),
        error => Err(error),
    }
}
