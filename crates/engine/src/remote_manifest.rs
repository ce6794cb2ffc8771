//! What a registry has by a name, without bringing it here: the manifest or index, and for which platforms it is.

use dozen_image::{DOCUMENT_BYTES, Platform};
use dozen_model::json::memory_of;
use dozen_model::{Digest, Reference};
use dozen_registry::{Access, Credentials, Document, RegistryError, Repository, Which};
use dozen_settings::InsecureRegistry;
use serde::Deserialize;
use serde_json::Value;

use crate::pull::{failure, terms};
use crate::{Engine, EngineError};

/// An index with more manifests is not taken apart.
const MOST_MANIFESTS: usize = 200;
/// Of a document in memory, read: so much as an image's may take.
const MEMORY_BYTES: usize = 32 * 1024 * 1024;

/// What is asked of a registry.
#[derive(Debug, Clone)]
pub struct DistributionRequest {
    /// A tag or a digest.
    pub reference: Reference,
    /// For its registry.
    pub credentials: Option<Credentials>,
    /// The registry may show any certificate, or have no TLS.
    pub is_insecure: bool,
    /// Of an index its manifests are wanted, too.
    pub with_manifests: bool,
}

/// A manifest or an index, verified.
#[derive(Debug, Clone, PartialEq)]
pub struct DistributionManifest {
    /// Its media type, as it says it.
    pub media_type: String,
    #[expect(missing_docs, reason = "plain")]
    pub digest: Digest,
    /// As it came.
    pub bytes: Vec<u8>,
    /// What it is for, as it is written (OCI image-spec, image-index.md, "platform"), if that is said.
    pub platform: Option<Value>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// What the name leads to.
    pub root: DistributionManifest,
    /// It is an index, or Docker's manifest list.
    pub is_index: bool,
    /// For what it is: of an index one for each manifest.
    pub platforms: Vec<Value>,
    /// Of an index, if they were wanted.
    pub manifests: Vec<DistributionManifest>,
}

/// An entry of an index, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default, rename = "mediaType")]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    platform: Option<Value>,
}

impl Engine {
    /// Asks a registry for what a name leads to.
    ///
    /// # Errors
    /// It has none, or what it has is none.
    pub async fn distribution(&self, request: &DistributionRequest) -> Result<Distribution, EngineError> {
        let name = &request.reference;
        let failed = |error: RegistryError| EngineError::from(failure(name, &error));
        let repository = self.repository(request).await?;
        let which = match (name.digest(), name.tag()) {
            (Some(digest), _) => Which::Digest(digest.clone()),
            (None, tag) => Which::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let root = repository.manifest(&which).await.map_err(failed)?;
        let is_index = root.kind == Document::Index;
        let document = read(&root.bytes);
        let media_type = said(&document, &root.media_type);
        let (mut platforms, mut manifests) = (Vec::new(), Vec::new());
        let mut platform = None;
        if is_index {
            let entries = entries(&document).map_err(|why| invalid(name, &why))?;
            platforms
                .extend(entries.iter().map(|entry| entry.platform.clone().unwrap_or_else(|| serde_json::json!({}))));
            for entry in entries.into_iter().filter(|_| request.with_manifests) {
                let manifest = repository.manifest(&Which::Digest(entry.digest.clone())).await.map_err(failed)?;
                let (bytes, digest, platform) = (manifest.bytes, entry.digest, entry.platform);
                manifests.push(DistributionManifest { media_type: entry.media_type, digest, bytes, platform });
            }
        } else {
            platform = platform_of(&repository, &document).await.map_err(failed)?;
            platforms.extend(platform.clone());
        }
        let root = DistributionManifest { media_type, digest: root.digest, bytes: root.bytes, platform };
        Ok(Distribution { root, is_index, platforms, manifests })
    }

    async fn repository(&self, request: &DistributionRequest) -> Result<Repository, EngineError> {
        let mut terms = terms(&self.shared, request.credentials.clone()).await?;
        if request.is_insecure {
            terms.settings.insecure.push(InsecureRegistry::Host(request.reference.registry().to_owned()));
        }
        Ok(self.shared.pulls.client().repository(&request.reference, Access::Pull, terms))
    }
}

impl Distribution {
    /// The manifest for exactly this platform, of an index.
    pub fn manifest_for(&self, wanted: &Platform) -> Option<Digest> {
        let document = read(&self.root.bytes);
        let is_wanted = |entry: &Entry| {
            let platform = entry.platform.as_ref().and_then(|it| Platform::deserialize(it).ok());
            platform.is_some_and(|platform| wanted.names(&platform))
        };
        entries(&document).ok()?.into_iter().find(is_wanted).map(|entry| entry.digest)
    }
}

/// What is no JSON says nothing, nor does what would take more memory than it may.
fn read(document: &[u8]) -> Value {
    match memory_of(document) > MEMORY_BYTES {
        true => Value::Null,
        false => serde_json::from_slice(document).unwrap_or_default(),
    }
}

/// What a document says that it is, which counts more than what came with it.
fn said(document: &Value, came: &str) -> String {
    document["mediaType"].as_str().filter(|said| !said.is_empty()).unwrap_or(came).to_owned()
}

fn entries(document: &Value) -> Result<Vec<Entry>, String> {
    let entries =
        Vec::<Entry>::deserialize(&document["manifests"]).map_err(|error| format!("it is malformed: {error}"))?;
    match entries.len() {
        count if count > MOST_MANIFESTS => {
            Err(format!("it has {count} manifests, and {MOST_MANIFESTS} at the most are read"))
        }
        _ => Ok(entries),
    }
}

/// Of an image's configuration. What is no image has none.
async fn platform_of(repository: &Repository, manifest: &Value) -> Result<Option<Value>, RegistryError> {
    let digest = manifest["config"]["digest"].as_str().and_then(|digest| digest.parse::<Digest>().ok());
    let (Some(digest), Some(size_bytes)) = (digest, manifest["config"]["size"].as_u64()) else { return Ok(None) };
    let bytes = repository.small_blob(&digest, size_bytes, DOCUMENT_BYTES).await?;
    Ok(platform(&read(&bytes)))
}

/// What of a configuration is its platform.
fn platform(configuration: &Value) -> Option<Value> {
    const FIELDS: [&str; 5] = ["architecture", "os", "os.version", "os.features", "variant"];
    let is_there = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    let fields = FIELDS.iter().filter_map(|name| Some((*name, configuration.get(*name).filter(is_there)?)));
    let found: serde_json::Map<_, _> = fields.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    (found.contains_key("architecture") || found.contains_key("os")).then_some(Value::Object(found))
}

fn invalid(name: &Reference, why: &str) -> EngineError {
    EngineError::Invalid { message: format!("the index of {}: {why}", name.familiar()), hint: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    #[test]
    fn a_configuration_says_its_platform() {
        let config = json!({ "architecture": "arm", "os": "linux", "variant": "v7", "config": {}, "os.version": "" });
        assert_eq!(platform(&config), Some(json!({ "architecture": "arm", "os": "linux", "variant": "v7" })));
        assert_eq!(platform(&json!({})), None);
    }

    #[test]
    fn what_would_fill_the_memory_is_not_read() {
        let of = |count: usize| read(format!("[{}{{}}]", "{},".repeat(count)).as_bytes());
        assert_eq!(of(1), json!([{}, {}]));
        assert_eq!(of(60_000), Value::Null);
    }

    #[test]
    fn of_an_index_the_right_manifest_is_found() {
        let entry =
            |letter, platform: Value| json!({ "mediaType": "m", "digest": digest(letter), "platform": platform });
        let of = |architecture: &str, variant: &str| json!({ "os": "linux", "architecture": architecture, "variant": variant });
        let index = json!({ "manifests": [
            entry('a', of("amd64", "")), entry('b', of("arm", "v6")), entry('c', of("arm64", "v8")),
            { "mediaType": "m", "digest": digest('d') },
        ] });
        let root = DistributionManifest {
            media_type: "i".into(),
            digest: digest('e'),
            bytes: index.to_string().into_bytes(),
            platform: None,
        };
        let found = Distribution { root, is_index: true, platforms: Vec::new(), manifests: Vec::new() };
        for (wanted, want) in [
            ("linux/amd64", Some('a')),
            ("linux/arm/v6", Some('b')),
            ("linux/arm64", Some('c')),
            ("linux/arm/v7", None),
            ("windows/amd64", None),
        ] {
            assert_eq!(found.manifest_for(&wanted.parse().unwrap()), want.map(digest), "{wanted}");
        }
    }

    #[test]
    fn an_index_has_an_end() {
        let many = json!({ "manifests": vec![json!({ "digest": digest('a') }); MOST_MANIFESTS + 1] });
        assert!(entries(&many).unwrap_err().starts_with("it has 201 manifests"));
        assert!(entries(&json!({ "manifests": [{ "digest": "x" }] })).unwrap_err().starts_with("it is malformed"));
    }
}
