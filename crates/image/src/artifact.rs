//! Artifacts: files under a name, and a manifest that says what they are, as registries keep them (OCI image-spec 1.1,
//! manifest.md, "Guidelines for Artifact Usage"). They are no images: nothing is unpacked, and nothing runs from them.
//!
//! A name leads to one manifest. Manifest, configuration and files lie below `content/` with the other blobs, as they came;
//! a row says which of them a name needs, and what none needs any more goes ([`crate::collect`]). So two artifacts, or an
//! artifact and an image, share what they have in common.

mod adding;
mod document;
mod lease;
mod media_type;
mod mounted;
mod rows;
mod selection;
mod staging;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dozen_ledger::{Durability, LedgerError};
use dozen_model::{Digest, Reference};

pub use self::adding::{AddedFiles, AdditionTo, ArtifactAddition};
pub use self::document::{ArtifactDocument, ArtifactFile, MANIFEST_BYTES, NewDocument, Subject};
pub(crate) use self::lease::Lease;
#[cfg(any(test, fuzzing))]
pub(crate) use self::mounted::named;
pub use self::rows::ARTIFACTS;
pub(crate) use self::rows::read;
pub use self::selection::Selection;
pub use self::staging::{ArtifactBlob, NameTaken, NewArtifact};
use crate::ImageError;
use crate::failpoint::failpoint;
use crate::outgoing::{OutgoingBlobs, document};
use crate::places::LayerBlob;
use crate::state::State;
use crate::store::{ImageStore, Inner};
use crate::tree::disk_bytes;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name.
    pub reference: Reference,
    /// Of its manifest.
    pub digest: Digest,
    /// Bytes of its files.
    pub files_bytes: u64,
    /// All that it needs: the manifest itself, the configuration, the files.
    pub(crate) blobs: BTreeSet<Digest>,
}

/// What artifacts take of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactUsage {
    /// How many there are.
    pub count: usize,
    /// In blocks of the disk, each blob once, without what an image has too.
    pub bytes: u64,
    /// How much of it goes with the artifacts.
    pub reclaimable_bytes: u64,
}

/// An artifact that is read: to be sent, or to be given to somebody.
#[derive(Debug)]
pub struct OutgoingArtifact {
    /// Its name and digest.
    pub artifact: Artifact,
    /// As it is stored.
    pub manifest: Vec<u8>,
    /// The same, read.
    pub document: ArtifactDocument,
    /// Configuration and files, each once.
    pub blobs: Arc<OutgoingBlobs>,
}

impl ImageStore {
    /// All artifacts, by name.
    pub fn artifacts(&self) -> Vec<Artifact> {
        self.0.read_state().artifacts.values().map(|artifact| Artifact::clone(artifact)).collect()
    }

    /// The artifact of a name, or of the beginning of its manifest's digest, as podman-artifact(1) has it.
    pub fn artifact(&self, name: &str) -> Result<Artifact, ImageError> {
        self.0.read_state().find_artifact(name).map(|artifact| Artifact::clone(&artifact))
    }

    /// Prepares an artifact to be read: all of it is there until nobody reads it any more. Blocks.
    pub fn outgoing_artifact(&self, name: &str) -> Result<OutgoingArtifact, ImageError> {
        let (artifact, lease) = self.0.lease_artifact(name)?;
        let manifest = self.artifact_manifest(&artifact)?;
        let document = ArtifactDocument::read(&manifest)?;
        let mut seen = BTreeSet::new();
        let blobs = document.blobs().filter(|blob| seen.insert(blob.digest.clone())).cloned();
        let blobs = Arc::new(OutgoingBlobs::of_files(&self.0, blobs.collect::<Vec<LayerBlob>>(), lease));
        Ok(OutgoingArtifact { artifact, manifest, document, blobs })
    }

    /// The manifest of an artifact, compared with its digest. Blocks.
    pub fn artifact_manifest(&self, artifact: &Artifact) -> Result<Vec<u8>, ImageError> {
        let digest = &artifact.digest;
        let read = document(&self.0.blob_path(digest), digest);
        read.inspect_err(|error| self.0.note_damage(digest, error))
    }

    /// What they take of the disk, and would give back while somebody holds these files. Blocks.
    pub fn measured_artifacts(&self, held: &BTreeSet<Digest>) -> ArtifactUsage {
        let (count, files) = {
            let state = self.0.read_state();
            let by_targets = state.needed_by_targets();
            let needed: BTreeSet<&Digest> = state.artifacts.values().flat_map(|artifact| &artifact.blobs).collect();
            let own = needed.into_iter().filter(|digest| !by_targets.contains(digest) && !state.is_of_image(digest));
            let files: Vec<_> = own.map(|digest| (self.0.blob_path(digest), held.contains(digest))).collect();
            (state.artifacts.len(), files)
        };
        let mut usage = ArtifactUsage { count, bytes: 0, reclaimable_bytes: 0 };
        for (file, is_held) in files {
            let bytes = disk_bytes(&file);
            usage.bytes += bytes;
            usage.reclaimable_bytes += if is_held { 0 } else { bytes };
        }
        usage
    }

    /// Removes an artifact, and what only it needed. Blocks.
    pub fn remove_artifact(&self, name: &str) -> Result<Artifact, ImageError> {
        let inner = &self.0;
        let _change = inner.lock_change();
        let artifact = inner.read_state().find_artifact(name)?;
        failpoint("image.artifact.remove.before");
        let reference = artifact.reference.clone();
        inner.ledger.write_essential(Durability::Power, move |connection| rows::delete(connection, &reference))?;
        failpoint("image.artifact.remove.rows");
        inner.write_state().artifacts.remove(&artifact.reference);
        inner.sweep_layers();
        Ok(Artifact::clone(&artifact))
    }
}

impl Inner {
    /// Puts what was staged in place and gives it its name. All or nothing.
    fn install_artifact(
        &self,
        staged: &NewArtifact,
        artifact: Artifact,
        taken: &NameTaken,
    ) -> Result<Artifact, ImageError> {
        failpoint("image.artifact.staged");
        let _change = self.lock_change();
        taken.check(self.read_state().artifacts.get(&artifact.reference).map(Arc::as_ref), &artifact.reference)?;
        let (mut paths, mut blobs) = (Vec::new(), Vec::new());
        let installed = staged.place(&artifact.blobs, &mut paths, &mut blobs).and_then(|()| {
            staged.sync()?;
            failpoint("image.artifact.synced");
            let (row, blobs) = (artifact.clone(), blobs.clone());
            self.ledger.write(Durability::Power, move |connection| {
                blobs.iter().try_for_each(|(digest, size)| crate::schema::insert_blob(connection, digest, *size))?;
                rows::insert(connection, &row)?;
                Ok::<_, LedgerError>(())
            })?;
            Ok(())
        });
        if installed.is_err() {
            paths.iter().for_each(|path: &std::path::PathBuf| self.discard(path));
        }
        installed?;
        failpoint("image.artifact.rows");
        let mut state = self.write_state();
        state.blobs.extend(blobs);
        let before = state.artifacts.insert(artifact.reference.clone(), artifact.clone().into());
        drop(state);
        if before.is_some() {
            // What the name led to before.
            self.sweep_layers();
        }
        Ok(artifact)
    }

    /// A blob that is here and was not found to be damaged, by its file.
    fn sound_blob(&self, digest: &Digest) -> Option<std::path::PathBuf> {
        let state = self.read_state();
        let is_file = state.owns_content(digest) && !state.is_damaged(digest);
        is_file.then(|| self.blob_path(digest)).filter(|path| Path::exists(path))
    }
}

impl State {
    fn find_artifact(&self, name: &str) -> Result<Arc<Artifact>, ImageError> {
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference
            && let Some(artifact) = self.artifacts.get(reference)
        {
            return Ok(artifact.clone());
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_prefix =
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if is_prefix {
            let mut found = self.artifacts.values().filter(|artifact| artifact.digest.hex().starts_with(digits));
            match (found.next(), found.next()) {
                (Some(artifact), None) => return Ok(artifact.clone()),
                (Some(_), Some(_)) => return Err(ImageError::AmbiguousArtifact(name.to_owned())),
                _ => {}
            }
        }
        Err(ImageError::NoSuchArtifact(reference.map_or_else(|_| name.to_owned(), |name| name.familiar())))
    }
}

#[cfg(test)]
mod tests;
