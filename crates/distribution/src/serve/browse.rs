//! What the page for browsers shows (`crate::web`): more than the specification's lists say, and nobody's pull. Nothing is
//! asked of an upstream for it.

use std::os::unix::fs::FileExt;

use dozen_model::Digest;
use http::Request;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::documents::json_document;
use super::lists::descriptor;
use super::{Answer, Server, query};
use crate::access::caller::Caller;
use crate::name::{ManifestReference, RepositoryName};
use crate::page::Page;
use crate::refusal::{Kind, Refusal};
use crate::route::Browse;
use crate::store::{Content, DescribedManifest, TagSummary, pieces_of};

/// Of a list, at once.
const MOST_ENTRIES: usize = 100;
/// Names that are looked through at once for who sees only some of them.
const SEEN_AT_ONCE: usize = 1000;
/// Of referrers, with their annotations.
const REFERRERS_BYTES: usize = 256 << 10;
/// A longer blob is none that anybody reads.
const LARGEST_DOCUMENT_BYTES: u64 = 1 << 20;

impl Server {
    pub(super) async fn browse(&self, request: &Request<Incoming>, what: &Browse, caller: &Caller) -> Answer {
        let told = match what {
            Browse::Repositories => self.browse_repositories(request, caller).await?,
            Browse::Tags(name) => self.browse_tags(request, name).await?,
            Browse::Manifest(name, reference) => self.browse_manifest(name, reference).await?,
            Browse::Document(name, digest) => json!({ "content": self.document(name, digest).await? }),
        };
        let mut response = json_document(&told, "application/json");
        super::set(&mut response, "cache-control", "no-store");
        Ok(response)
    }

    async fn browse_repositories(&self, request: &Request<Incoming>, caller: &Caller) -> Result<Value, Refusal> {
        let page = Page::parse(query(request))?;
        let wanted = page.count.clamp(1, MOST_ENTRIES);
        let (mut all, mut after) = (Vec::new(), page.after);
        let next = 'pages: loop {
            let limit = if caller.sees_all() { wanted + 1 } else { SEEN_AT_ONCE };
            let names = self.store.index.repositories(after.clone(), limit).await?;
            let is_last = names.len() < limit;
            for name in names {
                if all.len() == wanted {
                    break 'pages Some(after);
                }
                after.clone_from(&name);
                if let Ok(name) = name.parse::<RepositoryName>()
                    && caller.sees(&name)
                {
                    // One by one: others have their turn in between.
                    match self.repository(&name).await {
                        Ok(told) => all.push(told),
                        // It was collected since the list was read.
                        Err(refusal) if refusal.kind == Kind::NameUnknown => {}
                        Err(refusal) => return Err(refusal),
                    }
                }
            }
            if is_last {
                break None;
            }
        };
        Ok(json!({ "repositories": all, "next": next, "is_limited": !caller.sees_all() }))
    }

    async fn repository(&self, name: &RepositoryName) -> Result<Value, Refusal> {
        let summary = self.store.index.repository_summary(name).await?;
        let upstream = self.source(name).map(|source| source.host().to_owned());
        Ok(json!({
            "name": name.as_str(), "tags": summary.tags, "bytes": summary.bytes, "pushed_at": summary.pushed_at,
            "upstream": upstream,
        }))
    }

    async fn browse_tags(&self, request: &Request<Incoming>, name: &RepositoryName) -> Result<Value, Refusal> {
        let page = Page::parse(query(request))?;
        let wanted = page.count.clamp(1, MOST_ENTRIES);
        let mut tags = self.store.index.tag_summaries(name, page.after, wanted + 1).await?;
        let is_last = tags.len() <= wanted;
        tags.truncate(wanted);
        let next = tags.last().filter(|_| !is_last).map(|tag| tag.name.clone());
        Ok(json!({ "tags": tags.iter().map(tag).collect::<Vec<_>>(), "next": next }))
    }

    async fn browse_manifest(&self, name: &RepositoryName, reference: &ManifestReference) -> Result<Value, Refusal> {
        let described = self.store.index.describe(name, reference).await?;
        let digest: Result<Digest, _> = described.digest.parse();
        let (referrers, is_more) = match digest {
            Ok(digest) => self.store.index.referrers(name, &digest, None, String::new(), REFERRERS_BYTES).await?,
            Err(_) => (Vec::new(), false),
        };
        let mut told = manifest(&described);
        told["referrers"] = referrers.iter().map(descriptor).collect();
        told["has_more_referrers"] = json!(is_more);
        Ok(told)
    }

    /// A blob that is no longer than a document, as text; what is none of it is replaced.
    async fn document(&self, name: &RepositoryName, digest: &Digest) -> Result<String, Refusal> {
        let (content, size_bytes) = self.store.open_blob(name, digest).await?;
        if size_bytes > LARGEST_DOCUMENT_BYTES {
            let words = format!("it has {size_bytes} bytes: too many to be read");
            return Err(Refusal::new(Kind::Unsupported, words));
        }
        let mut bytes = Vec::new();
        match content {
            _ if size_bytes == 0 => {}
            Content::File(file) => {
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = vec![0; usize::try_from(size_bytes).unwrap_or_default()];
                    file.read_exact_at(&mut bytes, 0).map(|()| bytes)
                });
                let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                let failed = |error| Refusal::of_disk("read", std::path::Path::new("a blob"), &error);
                bytes = read.map_err(failed)?;
            }
            Content::Object(bucket, file) => {
                let mut pieces = pieces_of(&bucket, &file, 0..size_bytes).await?;
                while let Some(piece) = pieces.recv().await {
                    bytes.extend_from_slice(&piece.map_err(|error| Refusal::of_bucket("read", "a blob", &error))?);
                }
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn tag(tag: &TagSummary) -> Value {
    json!({
        "name": tag.name, "digest": tag.digest, "media_type": tag.media_type, "artifact_type": tag.artifact_type,
        "pushed_at": tag.pushed_at, "pulled_at": tag.pulled_at, "bytes": tag.bytes, "platforms": tag.platforms,
    })
}

fn manifest(described: &DescribedManifest) -> Value {
    let children: Map<_, _> = described
        .children
        .iter()
        .map(|(digest, child)| (digest.clone(), json!({ "is_here": child.is_here, "bytes": child.bytes })))
        .collect();
    json!({
        "digest": described.digest, "media_type": described.media_type, "artifact_type": described.artifact_type,
        "content": String::from_utf8_lossy(&described.content), "tags": described.tags,
        "pushed_at": described.named_at, "pulled_at": described.pulled_at, "bytes": described.bytes,
        "missing": described.missing, "children": children,
    })
}
