//! Artifacts: files under a name, which are no images. They are made of what somebody sends, come from registries and go
//! there; the image store keeps them (`image/artifact`).

mod pull;
mod push;
mod referrers;

use std::io::Write;

use dozen_image::{AddedFiles, Artifact, ArtifactAddition, OutgoingArtifact, Selection, Subject};
use dozen_model::{Digest, Reference};
use dozen_registry::{Access, Credentials, Repository, Which};
use dozen_settings::InsecureRegistry;

pub use self::pull::ArtifactPull;
pub use self::referrers::{Referrer, ReferrersRequest};
use crate::container::artifact_files;
use crate::pull::terms;
use crate::shared::Shared;
use crate::{Engine, EngineError};

/// An artifact that is to come from a registry, or to go there.
#[derive(Debug, Clone)]
pub struct ArtifactTransfer {
    /// What it is called, there and here.
    pub reference: Reference,
    /// For its registry.
    pub credentials: Option<Credentials>,
    /// The registry may show any certificate, or have no TLS.
    pub is_insecure: bool,
}

/// What artifacts take of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactUsage {
    /// How many there are.
    pub count: usize,
    /// How many of them a container mounts.
    pub active: usize,
    /// In blocks of the disk, each blob once, without what an image has too.
    pub bytes: u64,
    /// How much of it goes with the artifacts: what a container mounts stays with that.
    pub reclaimable_bytes: u64,
    /// Of what is in none any more, and a container holds.
    pub left_bytes: u64,
}

impl Engine {
    /// All of them, each with its manifest. One that cannot be read is left out, and said in the log.
    pub async fn artifacts(&self) -> Result<Vec<(Artifact, Vec<u8>)>, EngineError> {
        let shared = self.shared.clone();
        let read = move || {
            let mut all = Vec::new();
            for artifact in shared.images.artifacts() {
                match shared.images.artifact_manifest(&artifact) {
                    Ok(manifest) => all.push((artifact, manifest)),
                    Err(error) => {
                        let name = artifact.reference.familiar();
                        tracing::error!(name, error = dozen_model::error_chain(&error), "an artifact cannot be read");
                    }
                }
            }
            Ok(all)
        };
        self.shared.blocking(read).await
    }

    /// One, with its manifest, by its name or its digest's beginning.
    pub async fn artifact(&self, name: &str) -> Result<(Artifact, Vec<u8>), EngineError> {
        let (shared, name) = (self.shared.clone(), name.to_owned());
        let read = move || {
            let artifact = shared.images.artifact(&name)?;
            let manifest = shared.images.artifact_manifest(&artifact)?;
            Ok((artifact, manifest))
        };
        self.shared.blocking(read).await
    }

    /// What they take of the disk.
    pub async fn artifact_usage(&self) -> Result<ArtifactUsage, EngineError> {
        let shared = self.shared.clone();
        let measure = move || {
            let held = artifact_files::held(&shared);
            let own = shared.images.measured_artifacts(&held.files);
            let active = shared.images.artifacts().iter().filter(|one| held.manifests.contains(&one.digest)).count();
            let (bytes, reclaimable_bytes) = (own.bytes, own.reclaimable_bytes);
            Ok(ArtifactUsage { count: own.count, active, bytes, reclaimable_bytes, left_bytes: held.left_bytes })
        };
        self.shared.blocking(measure).await
    }

    /// Makes one of files, or adds them to one. Blocks.
    pub fn add_artifact(&self, addition: &ArtifactAddition, files: AddedFiles<'_>) -> Result<Artifact, EngineError> {
        Ok(self.shared.images.add_artifact(addition, files)?)
    }

    /// What an artifact is to be about: an image, or anything else that a registry has by this name. It has to be in the
    /// repository in which the artifact is going to be, or nobody finds it there.
    pub async fn artifact_subject(&self, of: &Reference, transfer: ArtifactTransfer) -> Result<Subject, EngineError> {
        let name = &transfer.reference;
        if (name.registry(), name.path()) != (of.registry(), of.path()) {
            let message = format!("the subject {} is in another repository than {}", name.familiar(), of.familiar());
            let hint =
                format!("name the artifact {}:TAG: what refers to a manifest lies beside it", name.familiar_name());
            return Err(EngineError::Invalid { message, hint: Some(hint) });
        }
        let repository = repository(&self.shared, &transfer, Access::Pull).await?;
        let found = repository.manifest(&which(name)).await;
        let manifest = found.map_err(|error| EngineError::from(crate::pull::failure(name, &error)))?;
        let size_bytes = manifest.bytes.len() as u64;
        Ok(Subject { media_type: manifest.media_type, digest: manifest.digest, size_bytes })
    }

    /// Prepares one to be given to somebody. Blocks.
    pub fn outgoing_artifact(&self, name: &str) -> Result<OutgoingArtifact, EngineError> {
        Ok(self.shared.images.outgoing_artifact(name)?)
    }

    /// Writes files of one as an archive. Blocks.
    pub fn extract_artifact(
        &self,
        artifact: &OutgoingArtifact,
        wanted: &Selection,
        has_names: bool,
        out: &mut dyn Write,
    ) -> Result<(), EngineError> {
        Ok(artifact.write_archive(wanted, has_names, out)?)
    }

    /// Removes those of these names, or digests; the digests of their manifests. What is not there is an error, before which
    /// the others have gone, unless it is to be ignored.
    pub async fn remove_artifacts(
        &self,
        names: Vec<String>,
        ignores_missing: bool,
    ) -> Result<Vec<Digest>, EngineError> {
        let shared = self.shared.clone();
        let remove = move || {
            let mut removed = Vec::new();
            for name in names {
                match shared.images.remove_artifact(&name) {
                    Ok(artifact) => removed.push(artifact.digest),
                    Err(dozen_image::ImageError::NoSuchArtifact(_)) if ignores_missing => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(removed)
        };
        self.shared.blocking(remove).await
    }
}

async fn repository(
    shared: &std::sync::Arc<Shared>,
    transfer: &ArtifactTransfer,
    access: Access,
) -> Result<Repository, EngineError> {
    let mut terms = terms(shared, transfer.credentials.clone()).await?;
    if transfer.is_insecure {
        terms.settings.insecure.push(InsecureRegistry::Host(transfer.reference.registry().to_owned()));
    }
    Ok(shared.pulls.client().repository(&transfer.reference, access, terms))
}

fn which(name: &Reference) -> Which {
    match (name.digest(), name.tag()) {
        (Some(digest), _) => Which::Digest(digest.clone()),
        (None, tag) => Which::Tag(tag.unwrap_or("latest").to_owned()),
    }
}
