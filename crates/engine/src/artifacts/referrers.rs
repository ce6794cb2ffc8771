//! What a registry has about an image, or about anything else that it has.

use dozen_image::Platform;
use dozen_model::Digest;
pub use dozen_registry::Referrer;
use dozen_registry::{Access, RegistryError};

use super::{ArtifactTransfer, repository, which};
use crate::pull::failure;
use crate::{Engine, EngineError, remote_manifest};

/// What is asked.
#[derive(Debug, Clone)]
pub struct ReferrersRequest {
    /// Of what, and who asks.
    pub of: ArtifactTransfer,
    /// Of an index the manifest for this platform.
    pub platform: Option<Platform>,
    /// Of this type alone.
    pub artifact_type: Option<String>,
}

impl Engine {
    /// What refers to what a name leads to, and the digest of that.
    ///
    /// # Errors
    /// The registry has nothing of this name.
    pub async fn referrers(&self, request: &ReferrersRequest) -> Result<(Digest, Vec<Referrer>), EngineError> {
        let name = &request.of.reference;
        let failed = |error: RegistryError| EngineError::from(failure(name, &error));
        let repository = repository(&self.shared, &request.of, Access::Pull).await?;
        let digest = match (&request.platform, name.digest()) {
            (Some(platform), _) => {
                let asked = remote_manifest::DistributionRequest {
                    reference: name.clone(),
                    credentials: request.of.credentials.clone(),
                    is_insecure: request.of.is_insecure,
                    with_manifests: false,
                };
                let found = self.distribution(&asked).await?.manifest_for(platform);
                found.ok_or_else(|| EngineError::Invalid {
                    message: format!("no matching manifest for {platform} in the manifest list entries"),
                    hint: Some(format!("which there are: dozen manifest inspect {}", name.familiar())),
                })?
            }
            (None, Some(digest)) => digest.clone(),
            (None, None) => repository.manifest(&which(name)).await.map_err(failed)?.digest,
        };
        let found = repository.referrers(&digest, request.artifact_type.as_deref()).await.map_err(failed)?;
        Ok((digest, found))
    }
}
