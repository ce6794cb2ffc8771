//! Whether what is attached to an image is what a rule wants.

use dozen_model::{Digest, Reference};

use crate::bundle::{Envelope, signed_image};
use crate::payload::Statement;
use crate::policy::{Bundles, Requirement, Rule, Signed};

/// So many reasons are told: there may be as many signatures as somebody likes.
const TOLD: usize = 3;

const OF_NO_KEY: &str = "cryptographic signature verification failed: it is of none of the rule's keys";

/// What was found beside an image. Nothing of it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// A payload and its signature.
    #[expect(missing_docs, reason = "plain")]
    Signature { payload: Vec<u8>, signature: Vec<u8> },
    /// As cosign 3 makes it.
    Bundle(Vec<u8>),
    /// Something that is none, with the reason.
    Unusable(String),
}

/// What there was beside an image that may not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    #[expect(missing_docs, reason = "plain")]
    Nothing,
    /// Of which nothing was good.
    Signatures,
    /// Those too that the rule does not take.
    Bundles,
}

/// Why an image may not come. Its words are those of containers/image, as podman and skopeo say them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Source image rejected: the rule for {scope} of the signature policy ({kind}) refuses {name} ({digest}): {why}"
)]
pub struct Rejected {
    /// As the policy has it.
    pub scope: String,
    /// Of the requirement.
    pub kind: &'static str,
    /// What was asked for.
    pub name: String,
    /// What that leads to, as far as it was looked at.
    pub digest: String,
    /// What was missing.
    pub why: String,
    #[expect(missing_docs, reason = "its type says it")]
    pub found: Found,
}

impl Rejected {
    /// With more about the same: there are bundles, which this rule does not take.
    #[must_use]
    pub fn beside_bundles(mut self) -> Self {
        self.why
            .push_str("; there is a bundle as cosign 3 makes it, which names no repository, and the rule takes none");
        self.found = Found::Bundles;
        self
    }
}

impl Rule<'_> {
    /// Whether an image of this name and digest may come, with all that was found beside it: each requirement wants a
    /// signature, and one that is good is enough.
    ///
    /// # Errors
    /// It may not.
    pub fn judge(&self, name: &Reference, digest: &Digest, attached: &[Attached]) -> Result<(), Rejected> {
        for requirement in self.requirements() {
            let found = if attached.is_empty() { Found::Nothing } else { Found::Signatures };
            let why = match requirement {
                Requirement::Anything => continue,
                Requirement::Reject => "nothing may come from there".to_owned(),
                Requirement::Signed(signed) => match signed.judge(name, digest, attached) {
                    Ok(()) => continue,
                    Err(why) => why,
                },
            };
            return Err(Rejected { found, ..self.rejected(requirement, name, digest.as_str(), why) });
        }
        Ok(())
    }

    /// The refusal of what may not come whatever it is; `None`: there is something that may.
    pub fn refusal(&self, name: &Reference) -> Option<Rejected> {
        let never = self.requirements().iter().find(|it| matches!(it, Requirement::Reject))?;
        let digest = name.digest().map_or("its digest was not asked for", |digest| digest.as_str());
        Some(self.rejected(never, name, digest, "nothing may come from there".to_owned()))
    }

    /// The refusal of what cannot be signed; `None`: nothing has to be.
    pub fn refusal_of_unsigned(&self, name: &Reference, what: &str) -> Option<Rejected> {
        let wanting = self.requirements().iter().find(|it| !matches!(it, Requirement::Anything))?;
        Some(self.rejected(wanting, name, what, "a signature was required, and it has none".to_owned()))
    }

    fn rejected(&self, requirement: &Requirement, name: &Reference, digest: &str, why: String) -> Rejected {
        Rejected {
            scope: self.scope().to_owned(),
            kind: requirement.kind(),
            name: name.to_string(),
            digest: digest.to_owned(),
            why,
            found: Found::Nothing,
        }
    }
}

impl Signed {
    fn judge(&self, name: &Reference, digest: &Digest, attached: &[Attached]) -> Result<(), String> {
        let mut reasons = Vec::new();
        for one in attached {
            match self.judge_one(name, digest, one) {
                Ok(()) => return Ok(()),
                Err(why) => reasons.push(why),
            }
        }
        if reasons.is_empty() {
            return Err("A signature was required, but no signature exists".to_owned());
        }
        reasons.dedup();
        let others = reasons.len().saturating_sub(TOLD);
        reasons.truncate(TOLD);
        let more = if others > 0 { format!(" (and {others} others)") } else { String::new() };
        Err(format!("None of the signatures were accepted, reasons: {}{more}", reasons.join("; ")))
    }

    fn judge_one(&self, name: &Reference, digest: &Digest, attached: &Attached) -> Result<(), String> {
        let (payload, signature) = match attached {
            Attached::Signature { payload, signature } => (payload, signature),
            Attached::Bundle(bundle) => return self.judge_bundle(digest, bundle),
            Attached::Unusable(why) => return Err(why.clone()),
        };
        // First who said it, then what it says.
        if !self.keys.iter().any(|key| key.verifies(payload, signature)) {
            return Err(OF_NO_KEY.to_owned());
        }
        let statement = Statement::read(payload)?;
        if statement.digest != *digest {
            return Err(format!("it is for {}, another image", statement.digest));
        }
        match self.identity.accepts(name, &statement.name) {
            true => Ok(()),
            false => {
                let wanted = self.identity.wanted(name);
                Err(format!("Signature for identity {} is not accepted: wanted is {wanted}", statement.name))
            }
        }
    }

    /// No name is in it: that is what such a rule says.
    fn judge_bundle(&self, digest: &Digest, bundle: &[u8]) -> Result<(), String> {
        match self.bundles {
            Bundles::No => return Err("a bundle names no repository, and the rule takes none".to_owned()),
            Bundles::WithoutIdentity => {}
        }
        let envelope = Envelope::read(bundle)?;
        let signed = envelope.signed();
        if !self.keys.iter().any(|key| key.verifies_envelope(&signed, &envelope.signature)) {
            return Err(OF_NO_KEY.to_owned());
        }
        match signed_image(&envelope.payload)? {
            image if image == *digest => Ok(()),
            other => Err(format!("it is for {other}, another image")),
        }
    }
}
