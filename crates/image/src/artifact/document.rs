//! The manifest of an artifact: read, and made (OCI image-spec 1.1, manifest.md).

use std::collections::{BTreeMap, BTreeSet};

use dozen_model::Digest;
use dozen_model::json::memory_of;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::ImageError;
use crate::places::LayerBlob;
use crate::save::MANIFEST;

/// A manifest may have so many bytes: registries take no more (OCI distribution-spec, "Pushing Manifests").
pub const MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// An artifact may have so many files.
const MOST_FILES: usize = 1000;
/// What a manifest may take of memory, read.
const MEMORY_LIMIT: usize = 16 * 1024 * 1024;
/// Of an artifact whose type nobody has said. There has to be one where the configuration is empty (manifest.md,
/// "artifactType"); this is what others write then.
const UNKNOWN_TYPE: &str = "application/vnd.unknown.artifact.v1";
/// The empty configuration (manifest.md, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(super) const EMPTY_BYTES: &[u8] = b"{}";
/// The name of a file (annotations.md, "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";
const CREATED: &str = "org.opencontainers.image.created";

/// What of a manifest is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactDocument {
    /// What the artifact is: its type, or else its configuration's.
    pub artifact_type: String,
    /// What it is about.
    pub subject: Option<Digest>,
    /// In order.
    pub files: Vec<ArtifactFile>,
    config: LayerBlob,
}

/// A file.
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactFile {
    /// Its bytes and its kind.
    pub blob: LayerBlob,
    /// Its name, if it has one.
    pub title: Option<String>,
    /// Further notes on it.
    pub annotations: BTreeMap<String, String>,
}

/// What an artifact is about, in the repository where it is going to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's words")]
pub struct Subject {
    pub media_type: String,
    pub digest: Digest,
    pub size_bytes: u64,
}

/// What a manifest is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum NewDocument {
    /// A new artifact.
    New {
        #[expect(missing_docs, reason = "plain")]
        artifact_type: Option<String>,
        #[expect(missing_docs, reason = "plain")]
        subject: Option<Subject>,
        /// When, by RFC 3339.
        created: String,
    },
    /// The manifest of one that gets more files.
    Appended(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    artifact_type: Option<String>,
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    subject: Option<About>,
}

#[derive(Deserialize)]
struct About {
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl ArtifactDocument {
    /// Reads a manifest, anybody's.
    ///
    /// # Errors
    /// It is none, or beyond the bounds.
    pub fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let wrong = |what: String| ImageError::Pull(format!("the artifact's manifest: {what}"));
        if bytes.len() > MANIFEST_BYTES || memory_of(bytes) > MEMORY_LIMIT {
            return Err(wrong(format!("it has {} bytes, which is too much to be read", bytes.len())));
        }
        let Written { artifact_type, config, layers, subject } =
            serde_json::from_slice(bytes).map_err(|error| wrong(format!("it is malformed: {error}")))?;
        if layers.len() > MOST_FILES {
            return Err(wrong(format!("it has {} files, and {MOST_FILES} at the most are kept", layers.len())));
        }
        let files: Vec<ArtifactFile> = layers.into_iter().map(file).collect();
        let config = file(config).blob;
        let mut sizes = BTreeMap::new();
        for blob in files.iter().map(|file| &file.blob).chain([&config]) {
            if *sizes.entry(&blob.digest).or_insert(blob.size_bytes) != blob.size_bytes {
                return Err(wrong(format!("it says two sizes of {}", blob.digest)));
            }
        }
        let artifact_type = artifact_type.filter(|kind| !kind.is_empty()).unwrap_or_else(|| config.media_type.clone());
        Ok(Self { artifact_type, subject: subject.map(|about| about.digest), files, config })
    }

    /// Configuration and files.
    pub fn blobs(&self) -> impl Iterator<Item = &LayerBlob> {
        [&self.config].into_iter().chain(self.files.iter().map(|file| &file.blob))
    }

    /// Bytes of all files.
    pub fn files_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.blob.size_bytes).fold(0, u64::saturating_add)
    }
}

fn file(descriptor: Descriptor) -> ArtifactFile {
    let Descriptor { media_type, digest, size, annotations } = descriptor;
    let mut annotations = annotations.unwrap_or_default();
    let title = annotations.remove(TITLE).filter(|title| !title.is_empty());
    ArtifactFile { blob: LayerBlob { digest, size_bytes: size, media_type }, title, annotations }
}

impl NewDocument {
    /// The manifest, with further files.
    ///
    /// # Errors
    /// Two files have one name, or it would be beyond the bounds.
    pub fn with(&self, files: &[ArtifactFile]) -> Result<Vec<u8>, ImageError> {
        let mut manifest = match self {
            Self::New { artifact_type, subject, created } => {
                let mut manifest = json!({
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "artifactType": artifact_type.as_deref().unwrap_or(UNKNOWN_TYPE),
                    "config": { "mediaType": EMPTY, "digest": empty_digest(), "size": EMPTY_BYTES.len(), "data": "e30=" },
                    "layers": [],
                    "annotations": { CREATED: created },
                });
                if let Some(Subject { media_type, digest, size_bytes }) = subject {
                    manifest["subject"] = json!({ "mediaType": media_type, "digest": digest, "size": size_bytes });
                }
                manifest
            }
            Self::Appended(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| ImageError::Pull(format!("the artifact's manifest: it is malformed: {error}")))?,
        };
        let mut titles: BTreeSet<String> = match self {
            Self::New { .. } => BTreeSet::new(),
            Self::Appended(bytes) => {
                ArtifactDocument::read(bytes)?.files.into_iter().filter_map(|file| file.title).collect()
            }
        };
        for file in files {
            if let Some(title) = &file.title
                && !titles.insert(title.clone())
            {
                return Err(ImageError::Conflict(format!("{title}: file already exists in artifact")));
            }
            let LayerBlob { digest, size_bytes, media_type } = &file.blob;
            let mut annotations: Map<String, Value> =
                file.annotations.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
            annotations.extend(file.title.iter().map(|title| (TITLE.to_owned(), json!(title))));
            let mut layer = json!({ "mediaType": media_type, "digest": digest, "size": size_bytes });
            if !annotations.is_empty() {
                layer["annotations"] = Value::Object(annotations);
            }
            match manifest.get_mut("layers").and_then(Value::as_array_mut) {
                Some(layers) => layers.push(layer),
                None => manifest["layers"] = json!([layer]),
            }
        }
        let bytes = manifest.to_string().into_bytes();
        ArtifactDocument::read(&bytes)?;
        Ok(bytes)
    }
}

/// Of the empty configuration.
pub(super) fn empty_digest() -> Digest {
    use sha2::{Digest as _, Sha256};
    Digest::from_sha256(Sha256::digest(EMPTY_BYTES).into())
}
