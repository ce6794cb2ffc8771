//! Manifests: what a tag leads to, and the bytes of one, which are believed once they give the digest.

use dozen_fetch::Answer;
use dozen_model::Digest;
use http::{HeaderMap, HeaderValue, Method, header};
use sha2::{Sha256, Sha512};

use crate::client::{Asked, Need};
use crate::document::{ACCEPTED, Document, document, essence};
use crate::{Endpoint, RegistryError, Repository};

/// OCI distribution-spec, "Pushing Manifests": at least so much is to be taken, and nobody takes more.
const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// Which manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub enum Which {
    Tag(String),
    Digest(Digest),
}

/// What a tag leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest or index; not yet verified.
    pub digest: Digest,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its bytes give it.
    pub digest: Digest,
    /// As it came.
    pub bytes: Vec<u8>,
    /// Without parameters.
    pub media_type: String,
    /// What it is.
    pub kind: Document,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => f.write_str(digest.as_str()),
        }
    }
}

impl Repository {
    /// What a tag leads to, without its bytes, which some registries count. `None`: this one does not say so.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn resolve(&self, tag: &str) -> Result<Option<Resolved>, RegistryError> {
        let asked = self.asked(Method::HEAD, &Which::Tag(tag.to_owned()));
        let found = self.of_each_able(Need::Resolve, |endpoint| Box::pin(self.ask(endpoint, &asked))).await;
        match found {
            Ok(answer) => Ok(said(&answer).map(|digest| Resolved { digest })),
            // There is no body in which it could say why; and there are some that know GET alone.
            Err(RegistryError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A manifest, verified: by the digest that is asked for, or else by the one that the registry gives.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn manifest(&self, which: &Which) -> Result<Manifest, RegistryError> {
        let asked = self.asked(Method::GET, which);
        let need = if let Which::Tag(_) = which { Need::Resolve } else { Need::Pull };
        self.of_each_able(need, |endpoint| Box::pin(self.get(endpoint, which, &asked))).await
    }

    async fn get(&self, endpoint: &Endpoint, which: &Which, asked: &Asked) -> Result<Manifest, RegistryError> {
        let answer = self.ask(endpoint, asked).await?;
        self.read(endpoint, which, &asked.what, answer).await
    }

    async fn read(
        &self,
        endpoint: &Endpoint,
        which: &Which,
        what: &str,
        mut answer: Answer,
    ) -> Result<Manifest, RegistryError> {
        let promised = match which {
            Which::Digest(digest) => Some(digest.clone()),
            Which::Tag(_) => said(&answer),
        };
        let media_type = essence(answer.field("content-type").unwrap_or_default());
        let bytes = self.body(endpoint, what, &mut answer, MANIFEST_BYTES).await?;
        let found = digest_of(&bytes, promised.as_ref().map_or("sha256", Digest::algorithm));
        let (what, host) = (what.to_owned(), endpoint.host.clone());
        if promised.is_some_and(|promised| promised != found) {
            return Err(RegistryError::Digest { what, host, found });
        }
        match document(&media_type, &bytes) {
            Ok(kind) => Ok(Manifest { digest: found, bytes, media_type, kind }),
            Err(source) => Err(RegistryError::Document { what, host, source }),
        }
    }

    fn asked(&self, method: Method, which: &Which) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPTED));
        let below = format!("{}/manifests/{which}", self.name());
        Asked { method, below, headers, what: format!("the manifest {which}") }
    }
}

/// `Docker-Content-Digest` (OCI distribution-spec, "Pulling manifests").
fn said(answer: &Answer) -> Option<Digest> {
    answer.field("docker-content-digest")?.parse().ok()
}

pub(crate) fn digest_of(bytes: &[u8], algorithm: &str) -> Digest {
    use sha2::Digest as _;
    match algorithm {
        "sha512" => Digest::from_sha512(Sha512::digest(bytes).into()),
        _ => Digest::from_sha256(Sha256::digest(bytes).into()),
    }
}
