//! Manifests: each is small enough to be in memory.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::Body;
use super::{Answer, Server, header, intake, set};
use crate::hasher::{Algorithm, Hasher};
use crate::manifest::{self, LARGEST_BYTES};
use crate::metrics::{Cached, Kept};
use crate::name::{ManifestReference, RepositoryName};
use crate::refusal::{Kind, Refusal};
use crate::store::PutManifest;
use crate::webhook::What;

/// `GET /v2/`.
pub(super) fn base() -> Response<Body> {
    json_document(&json!({}), "application/json")
}

impl Server {
    pub(super) async fn read_manifest(&self, name: &RepositoryName, reference: &ManifestReference) -> Answer {
        let (manifest, is_stale) = match (&self.options.upstreams, self.source(name)) {
            (Some(upstreams), Some(source)) => {
                let metrics = &self.options.watch.metrics;
                let given = upstreams.manifest(&self.store, &source, name, reference).await;
                let given = given.inspect_err(|_| metrics.cached(Kept::Manifest, Cached::Failed, 0))?;
                metrics.cached(Kept::Manifest, given.how, given.manifest.content.len() as u64);
                if let Some(pulls) = source.remaining_pulls() {
                    metrics.remaining_pulls(source.host(), pulls);
                }
                (given.manifest, given.how == Cached::Stale)
            }
            _ => (self.store.manifest(name, reference, !self.options.read_only).await?, false),
        };
        let length = manifest.content.len();
        let mut response = Response::new(Body::whole(manifest.content));
        set(&mut response, "content-type", &manifest.media_type);
        set(&mut response, "content-length", &length.to_string());
        set(&mut response, "docker-content-digest", &manifest.digest);
        set(&mut response, "etag", &format!("\"{}\"", manifest.digest));
        if is_stale {
            may_be_old(&mut response);
        }
        let what = What {
            digest: Some(manifest.digest),
            tag: tag_of(reference),
            size_bytes: Some(length as u64),
            media_type: Some(manifest.media_type),
            is_manifest: true,
            ..What::default()
        };
        self.note(&mut response, "pull", name, what);
        Ok(response)
    }

    pub(super) async fn put_manifest(
        &self,
        request: &mut Request<Incoming>,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) -> Answer {
        let stall = self.options.stall;
        let ending = |_| Refusal::new(Kind::Ending, "the registry is going down");
        let place = self.manifests.acquire().await.map_err(ending)?;
        // One that comes byte by byte would keep its place for ever.
        let whole = tokio::time::timeout(stall * 2, intake::whole(request.body_mut(), LARGEST_BYTES, stall));
        let late = |_| Refusal::new(Kind::Stalled, format!("the manifest has not come in {:?}", stall * 2));
        let content = whole.await.map_err(late)??;
        let content = content.ok_or_else(|| {
            Refusal::new(Kind::ManifestTooLarge, format!("a manifest has up to {LARGEST_BYTES} bytes"))
        })?;
        let manifest = manifest::parse(&content, header(request, "content-type"))?;
        let (digest, tag) = match reference {
            ManifestReference::Tag(tag) => (Hasher::of(Algorithm::Sha256, &content), Some(tag.clone())),
            ManifestReference::Digest(digest) => {
                let found = Hasher::of(Algorithm::of(digest), &content);
                if found != *digest {
                    let words = format!("provided digest did not match uploaded content: it has {found}");
                    return Err(Refusal::new(Kind::DigestInvalid, words));
                }
                (found, None)
            }
        };
        let subject = manifest.subject.clone();
        let (media_type, size) = (manifest.media_type.clone(), content.len() as u64);
        let put = PutManifest {
            repository: name.clone(),
            digest,
            tag,
            manifest,
            content,
            quota_bytes: None,
            is_cached: false,
        };
        let digest = put.digest.clone();
        self.store.put_manifest(put).await?;
        drop(place);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::CREATED;
        set(&mut response, "location", &format!("/v2/{name}/manifests/{digest}"));
        set(&mut response, "docker-content-digest", digest.as_str());
        if let Some(subject) = subject {
            // So a client knows that no tag is needed for others to find it.
            set(&mut response, "oci-subject", subject.as_str());
        }
        let what = What {
            digest: Some(digest.to_string()),
            tag: tag_of(reference),
            size_bytes: Some(size),
            media_type: Some(media_type),
            is_manifest: true,
            ..What::default()
        };
        self.note(&mut response, "push", name, what);
        Ok(response)
    }

    pub(super) async fn delete_manifest(&self, name: &RepositoryName, reference: &ManifestReference) -> Answer {
        self.store.delete_manifest(name, reference).await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        let digest = match reference {
            ManifestReference::Digest(digest) => Some(digest.to_string()),
            ManifestReference::Tag(_) => None,
        };
        let what = What { digest, tag: tag_of(reference), is_manifest: true, ..What::default() };
        self.note(&mut response, "delete", name, what);
        Ok(response)
    }
}

/// Distribution-spec 1.1, "Warnings".
pub(super) fn may_be_old(response: &mut Response<Body>) {
    set(response, "warning", "299 - \"the upstream cannot be asked: this may be old\"");
}

fn tag_of(reference: &ManifestReference) -> Option<String> {
    match reference {
        ManifestReference::Tag(tag) => Some(tag.as_str().to_owned()),
        ManifestReference::Digest(_) => None,
    }
}

pub(super) fn json_document(value: &Value, content_type: &str) -> Response<Body> {
    let text = value.to_string();
    let length = text.len();
    let mut response = Response::new(Body::whole(text));
    set(&mut response, "content-type", content_type);
    set(&mut response, "content-length", &length.to_string());
    response
}
