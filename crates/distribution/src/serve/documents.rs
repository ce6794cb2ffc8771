//! Manifests and lists: what is small enough to be in memory.

use dozen_model::Digest;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::Body;
use super::{Answer, Server, header, intake, query, set};
use crate::access::caller::Caller;
use crate::hasher::{Algorithm, Hasher};
use crate::manifest::{self, LARGEST_BYTES, OCI_INDEX};
use crate::metrics::{Cached, Kept};
use crate::name::{ManifestReference, RepositoryName};
use crate::page::{Page, percent_encoded};
use crate::refusal::{Kind, Refusal};
use crate::route::parameter;
use crate::store::{PutManifest, Referrer};
use crate::webhook::What;

/// A list of referrers is a manifest, too: no larger than others (distribution-spec 1.1, "Listing Referrers").
const LARGEST_REFERRERS_BYTES: usize = LARGEST_BYTES - (64 << 10);
/// Names of repositories that are looked through at once for who sees only some of them.
const SEEN_AT_ONCE: usize = 1000;

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
            // Distribution-spec 1.1, "Warnings".
            set(&mut response, "warning", "299 - \"the upstream cannot be asked: this may be old\"");
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

    pub(super) async fn list_tags(&self, request: &Request<Incoming>, name: &RepositoryName) -> Answer {
        let page = Page::parse(query(request))?;
        let tags = self.store.index.tags(name, page.after.clone(), page.count.saturating_add(1)).await?;
        let (tags, link) = page.cut(tags, &format!("/v2/{name}/tags/list"));
        Ok(list(&json!({ "name": name.as_str(), "tags": tags }), link))
    }

    /// Those that the caller sees.
    pub(super) async fn list_repositories(&self, request: &Request<Incoming>, caller: &Caller) -> Answer {
        let page = Page::parse(query(request))?;
        let wanted = page.count.saturating_add(1);
        let (mut names, mut after) = (Vec::new(), page.after.clone());
        while names.len() < wanted {
            let limit = if caller.sees_all() { wanted } else { wanted.max(SEEN_AT_ONCE) };
            let mut found = self.store.index.repositories(after, limit).await?;
            let is_last = found.len() < limit;
            after = found.last().cloned().unwrap_or_default();
            found.retain(|name| caller.sees_all() || name.parse().is_ok_and(|name| caller.sees(&name)));
            names.append(&mut found);
            if is_last {
                break;
            }
        }
        names.truncate(wanted);
        let (names, link) = page.cut(names, "/v2/_catalog");
        Ok(list(&json!({ "repositories": names }), link))
    }

    pub(super) async fn list_referrers(
        &self,
        request: &Request<Incoming>,
        name: &RepositoryName,
        subject: &Digest,
    ) -> Answer {
        let wanted = parameter(query(request), "artifactType").filter(|text| !text.is_empty());
        let after = parameter(query(request), "last").unwrap_or_default();
        let referrers = self.store.index.referrers(name, subject, wanted.clone(), after, LARGEST_REFERRERS_BYTES);
        let (found, is_more) = referrers.await?;
        let manifests: Vec<_> = found.iter().map(descriptor).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let mut response = json_document(&index, OCI_INDEX);
        if let (Some(last), true) = (found.last(), is_more) {
            let filter = wanted.as_deref().map(|wanted| format!("&artifactType={}", encoded_type(wanted)));
            let next = format!(
                "</v2/{name}/referrers/{subject}?last={}{}>; rel=\"next\"",
                percent_encoded(&last.digest),
                filter.unwrap_or_default()
            );
            set(&mut response, "link", &next);
        }
        if wanted.is_some() {
            set(&mut response, "oci-filters-applied", "artifactType");
        }
        Ok(response)
    }
}

fn tag_of(reference: &ManifestReference) -> Option<String> {
    match reference {
        ManifestReference::Tag(tag) => Some(tag.as_str().to_owned()),
        ManifestReference::Digest(_) => None,
    }
}

pub(super) fn descriptor(referrer: &Referrer) -> Value {
    let mut descriptor = json!({
        "mediaType": referrer.media_type, "digest": referrer.digest, "size": referrer.size_bytes,
    });
    if let Some(artifact_type) = &referrer.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    match serde_json::from_str(&referrer.annotations) {
        Ok(Value::Object(annotations)) if !annotations.is_empty() => {
            descriptor["annotations"] = Value::Object(annotations);
        }
        _ => {}
    }
    descriptor
}

/// A media type as a query has it. It is what the client has said, so it may be anything.
fn encoded_type(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn list(value: &Value, link: Option<String>) -> Response<Body> {
    let mut response = json_document(value, "application/json");
    if let Some(link) = link {
        set(&mut response, "link", &link);
    }
    response
}

pub(super) fn json_document(value: &Value, content_type: &str) -> Response<Body> {
    let text = value.to_string();
    let length = text.len();
    let mut response = Response::new(Body::whole(text));
    set(&mut response, "content-type", content_type);
    set(&mut response, "content-length", &length.to_string());
    response
}
