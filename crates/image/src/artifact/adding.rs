//! Files become an artifact, or are added to one: all of them, or none.

use std::collections::BTreeMap;
use std::io::Read;

use dozen_model::{Digest, Reference};
use jiff::Timestamp;
use tar::EntryType;

use super::document::{ArtifactDocument, ArtifactFile, EMPTY_BYTES, NewDocument, Subject};
use super::selection::check_title;
use super::{Artifact, NameTaken, NewArtifact};
use crate::ImageError;
use crate::places::LayerBlob;
use crate::store::ImageStore;
use crate::tarball::TarReader;

/// What is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactAddition {
    /// Its name.
    pub reference: Reference,
    /// Whether there is one already.
    pub to: AdditionTo,
    /// The media type of each file; `None`: what it looks like.
    pub file_type: Option<String>,
    /// Notes on each file.
    pub annotations: BTreeMap<String, String>,
}

/// Where files go.
#[derive(Debug, Clone, PartialEq)]
pub enum AdditionTo {
    /// Into a new artifact.
    New {
        #[expect(missing_docs, reason = "plain")]
        artifact_type: Option<String>,
        #[expect(missing_docs, reason = "plain")]
        subject: Option<Subject>,
        #[expect(missing_docs, reason = "plain")]
        created: Timestamp,
        /// In the place of one that has the name.
        replaces: bool,
    },
    /// Behind the files of the one that has the name.
    Existing,
}

/// The files.
pub enum AddedFiles<'r> {
    /// One, by its name.
    #[expect(missing_docs, reason = "plain")]
    One { title: String, bytes: &'r mut dyn Read },
    /// Those of a tar archive, which has nothing else in it.
    Archive(&'r mut dyn Read),
}

impl std::fmt::Debug for AddedFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if let Self::One { .. } = self { "One" } else { "Archive" })
    }
}

impl ImageStore {
    /// See the module. Blocks.
    pub fn add_artifact(&self, addition: &ArtifactAddition, files: AddedFiles<'_>) -> Result<Artifact, ImageError> {
        let name = &addition.reference;
        let known = self.0.read_state().artifacts.get(name).cloned();
        let (begun, taken) = match &addition.to {
            AdditionTo::New { artifact_type, subject, created, replaces } => {
                let taken = if *replaces { NameTaken::Replace } else { NameTaken::Refuse };
                // Before anything is read.
                taken.check(known.as_deref(), name)?;
                let (artifact_type, subject) = (artifact_type.clone(), subject.clone());
                (NewDocument::New { artifact_type, subject, created: created.to_string() }, taken)
            }
            AdditionTo::Existing => {
                let known = known.ok_or_else(|| ImageError::NoSuchArtifact(name.familiar()))?;
                let manifest = self.artifact_manifest(&known)?;
                (NewDocument::Appended(manifest), NameTaken::ReplaceOnly(known.digest.clone()))
            }
        };
        let staged = self.new_artifact()?;
        match &begun {
            NewDocument::New { .. } => _ = staged.keep(staged.read(&mut &EMPTY_BYTES[..])?),
            NewDocument::Appended(manifest) => {
                for blob in ArtifactDocument::read(manifest)?.blobs() {
                    if !staged.take_known(&blob.digest, blob.size_bytes)? {
                        let (path, expected) = (self.0.blob_path(&blob.digest), blob.digest.to_string());
                        return Err(ImageError::Damaged { path, expected });
                    }
                }
            }
        }
        let mut added = Vec::new();
        match files {
            AddedFiles::One { title, bytes } => added.push(addition.take(&staged, title, bytes)?),
            AddedFiles::Archive(archive) => {
                let mut archive = TarReader::new(archive);
                while let Some(entry) = archive.next_entry().map_err(ImageError::reading)? {
                    let title = String::from_utf8(entry.path);
                    let is_file = entry.kind == EntryType::Regular && entry.sparse.is_none();
                    let (Ok(title), true) = (title, is_file) else {
                        return Err(ImageError::ArtifactFile(
                            "an artifact is made of files, and of nothing else".into(),
                        ));
                    };
                    added.push(addition.take(&staged, title, &mut archive.data())?);
                }
            }
        }
        if added.is_empty() {
            return Err(ImageError::ArtifactFile("an artifact has to have a file".to_owned()));
        }
        staged.install(name.clone(), &begun.with(&added)?, &taken)
    }
}

impl ArtifactAddition {
    fn take(&self, staged: &NewArtifact, title: String, bytes: &mut dyn Read) -> Result<ArtifactFile, ImageError> {
        check_title(&title)?;
        let blob = staged.read(bytes)?;
        let media_type = self.file_type.clone().unwrap_or_else(|| blob.media_type().to_owned());
        let (digest, size_bytes): (Digest, u64) = staged.keep(blob);
        let blob = LayerBlob { digest, size_bytes, media_type };
        Ok(ArtifactFile { blob, title: Some(title), annotations: self.annotations.clone() })
    }
}
