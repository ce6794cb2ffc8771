//! Lists: tags, repositories, and what is about a manifest (distribution-spec 1.1, "Content Discovery").

use dozen_model::Digest;
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::Body;
use super::documents::{json_document, may_be_old};
use super::{Answer, Server, query, set};
use crate::access::caller::Caller;
use crate::manifest::{LARGEST_BYTES, OCI_INDEX};
use crate::metrics::{Cached, Kept};
use crate::name::RepositoryName;
use crate::page::{Page, percent_encoded, query_encoded};
use crate::route::parameter;
use crate::store::Referrer;

/// A list of referrers is a manifest, too: no larger than others (distribution-spec 1.1, "Listing Referrers").
const LARGEST_REFERRERS_BYTES: usize = LARGEST_BYTES - (64 << 10);
/// Names of repositories that are looked through at once for who sees only some of them.
const SEEN_AT_ONCE: usize = 1000;

impl Server {
    pub(super) async fn list_tags(&self, request: &Request<Incoming>, name: &RepositoryName) -> Answer {
        let page = Page::parse(query(request))?;
        let (tags, how) = match (&self.options.upstreams, self.source(name)) {
            (Some(upstreams), Some(source)) => {
                let told = upstreams.tags(&self.store, &source, name, &page).await;
                told.map(|(tags, how)| (tags, Some(how))).inspect_err(|_| self.list_failed())?
            }
            _ => (self.store.index.tags(name, page.after.clone(), page.count.saturating_add(1)).await?, None),
        };
        let (tags, link) = page.cut(tags, &format!("/v2/{name}/tags/list"));
        // As it was called by who asks.
        let called = request.extensions().get().unwrap_or(name);
        Ok(self.listed(list(&json!({ "name": called.as_str(), "tags": tags }), link), how))
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
        let ((found, is_more), how) = match (&self.options.upstreams, self.source(name)) {
            (Some(upstreams), Some(source)) => {
                let of = (name, subject);
                let told = upstreams
                    .referrers(&self.store, &source, of, wanted.as_deref(), &after, LARGEST_REFERRERS_BYTES)
                    .await;
                told.map(|(told, how)| (told, Some(how))).inspect_err(|_| self.list_failed())?
            }
            _ => {
                let referrers =
                    self.store.index.referrers(name, subject, wanted.clone(), after, LARGEST_REFERRERS_BYTES);
                (referrers.await?, None)
            }
        };
        let manifests: Vec<_> = found.iter().map(descriptor).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let mut response = json_document(&index, OCI_INDEX);
        if let (Some(last), true) = (found.last(), is_more) {
            let filter = wanted.as_deref().map(|wanted| format!("&artifactType={}", query_encoded(wanted)));
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
        Ok(self.listed(response, how))
    }

    /// `how`: of an upstream's.
    fn listed(&self, mut response: Response<Body>, how: Option<Cached>) -> Response<Body> {
        if let Some(how) = how {
            let bytes = response.headers().get("content-length").and_then(|text| text.to_str().ok()?.parse().ok());
            self.options.watch.metrics.cached(Kept::List, how, bytes.unwrap_or_default());
        }
        if how == Some(Cached::Stale) {
            may_be_old(&mut response);
        }
        response
    }

    fn list_failed(&self) {
        self.options.watch.metrics.cached(Kept::List, Cached::Failed, 0);
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

fn list(value: &Value, link: Option<String>) -> Response<Body> {
    let mut response = json_document(value, "application/json");
    if let Some(link) = link {
        set(&mut response, "link", &link);
    }
    response
}
