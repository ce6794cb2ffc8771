//! A signature goes to a registry, beside the image that it is of. Who signs is the client: a private key stays where its
//! owner is, and the engine, which may be on another machine, sees the payload, the signature and the public key.

use dozen_model::{Digest, Reference};
use dozen_registry::{Access, Credentials, Document, RegistryError, Repository, Uploads, Which};
use dozen_settings::InsecureRegistry;
use dozen_trust::{MANIFEST_TYPE, PublicKey, attach, signature_tag};
use sha2::{Digest as _, Sha256};

use crate::pull::terms;
use crate::push::refusal;
use crate::{Engine, EngineError};

/// What is to be attached.
#[derive(Debug, Clone)]
pub struct SignaturePush {
    /// The image, of whose name the repository counts.
    pub reference: Reference,
    /// What was signed: it names the image's digest.
    pub payload: Vec<u8>,
    /// Of the payload.
    pub signature: Vec<u8>,
    /// Whose it is.
    pub key: PublicKey,
    /// For the registry.
    pub credentials: Option<Credentials>,
    /// The registry may show any certificate, or have no TLS.
    pub is_insecure: bool,
}

/// A signature that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedSignature {
    /// Of the image that it is of.
    pub image: Digest,
    /// Where it is.
    pub tag: String,
}

impl Engine {
    /// Attaches it, beside those that are there. Of two who do so at the same time the later one's is there: a registry knows no
    /// better.
    ///
    /// # Errors
    /// It is none, or the registry does not take it.
    pub async fn push_signature(&self, request: &SignaturePush) -> Result<PushedSignature, EngineError> {
        let SignaturePush { reference, payload, signature, key, credentials, is_insecure } = request;
        let invalid = |message: String| EngineError::Invalid { message, hint: None };
        let attached = |there: Option<&[u8]>| {
            attach(there, payload, signature, key).map_err(|error| invalid(format!("cannot sign: {error}")))
        };
        // What is no signature goes to no registry.
        let Some(alone) = attached(None)? else { return Err(invalid("cannot sign: there is nothing".to_owned())) };
        let image = alone.image;
        let no_tag = || invalid(format!("cannot sign: no tag is long enough for signatures of {image}"));
        let tag = signature_tag(&image).ok_or_else(no_tag)?;
        let failed = |error: RegistryError| EngineError::from(refusal::failure(reference, &error));
        let mut terms = terms(&self.shared, credentials.clone()).await?;
        if *is_insecure {
            terms.settings.insecure.push(InsecureRegistry::Host(reference.registry().to_owned()));
        }
        let repository = self.shared.pulls.client().repository(reference, Access::Push, terms);
        let there = there(&repository, &tag).await.map_err(failed)?;
        if let Some(attachment) = attached(there.as_deref())? {
            let uploads = Uploads::new(repository);
            for blob in attachment.blobs {
                uploads.small_blob(blob).await.map_err(failed)?;
            }
            let digest = Digest::from_sha256(Sha256::digest(&attachment.manifest).into());
            let put = uploads.put_manifest(&tag, &digest, MANIFEST_TYPE, &attachment.manifest).await;
            put.map_err(failed)?;
        }
        Ok(PushedSignature { image, tag })
    }
}

/// The signatures that an image has.
async fn there(repository: &Repository, tag: &str) -> Result<Option<Vec<u8>>, RegistryError> {
    match repository.manifest(&Which::Tag(tag.to_owned())).await {
        Ok(manifest) if manifest.kind == Document::Image => Ok(Some(manifest.bytes)),
        Ok(_) => Ok(Some(b"{}".to_vec())),
        Err(error) if error.refusal().is_some_and(|refusal| refusal.status == 404) => Ok(None),
        Err(error) => Err(error),
    }
}
