//! `GET /distribution/{name}/json`: what a registry has by a name. With `manifests=1`, which is ours, the documents themselves.
//! `POST /distribution/{name}/list` and `/signature`, ours as well: a list of manifests, or a signature, goes there.
//! `GET /distribution/{name}/referrers`, ours: what refers to what it has by that name.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use dozen_engine::{
    ArtifactTransfer, Distribution, DistributionManifest, DistributionRequest, Engine, ManifestListPush,
    ReferrersRequest,
};
use dozen_model::{Reference, base64};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{image_query, registry_auth, signature};
use crate::error::{Answer, ApiError, ok};
use crate::extract::{Json, Query};

/// See the module.
pub(super) async fn inspect(
    State(engine): State<Engine>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    if let Some(name) = rest.strip_suffix("/referrers") {
        return referrers(&engine, name, &headers, &query).await;
    }
    let name = rest.strip_suffix("/json").ok_or_else(ApiError::page_not_found)?;
    let reference: Reference = name.parse()?;
    let with_manifests = query.flag("manifests");
    let request = DistributionRequest {
        reference,
        credentials: registry_auth::credentials(&headers),
        is_insecure: query.flag("insecure"),
        with_manifests,
    };
    let found = engine.distribution(&request).await?;
    let mut answer = described(&found);
    if with_manifests {
        let manifests = found.manifests.iter().map(|it| json!({ "Descriptor": descriptor(it), "Raw": raw(it) }));
        answer["Manifests"] = manifests.collect();
        answer["Raw"] = json!(raw(&found.root));
        answer["IsIndex"] = json!(found.is_index);
    }
    ok(&answer)
}

async fn referrers(engine: &Engine, name: &str, headers: &HeaderMap, query: &Query) -> Answer {
    let of = ArtifactTransfer {
        reference: name.parse()?,
        credentials: registry_auth::credentials(headers),
        is_insecure: query.flag("insecure"),
    };
    let artifact_type = query.text("artifactType").map(str::to_owned);
    let request = ReferrersRequest { of, platform: image_query::platform(query)?, artifact_type };
    let (subject, found) = engine.referrers(&request).await?;
    ok(&json!({ "Subject": subject, "Referrers": found }))
}

/// What is to be pushed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct List {
    media_type: String,
    /// The document.
    list: String,
    /// What it names, by digest, in whichever repositories of the registry.
    manifests: Vec<Reference>,
}

/// See the module.
pub(super) async fn post(
    State(engine): State<Engine>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    query: Query,
    Json(body): Json,
) -> Answer {
    if let Some(name) = rest.strip_suffix("/signature") {
        return signature::push(&engine, name, &headers, &query, body).await;
    }
    let name = rest.strip_suffix("/list").ok_or_else(ApiError::page_not_found)?;
    let List { media_type, list, manifests } =
        List::deserialize(body).map_err(|error| ApiError::invalid(format!("invalid manifest list: {error}")))?;
    let request = ManifestListPush {
        reference: name.parse()?,
        media_type,
        bytes: list.into_bytes(),
        members: manifests,
        credentials: registry_auth::credentials(&headers),
        is_insecure: query.flag("insecure"),
    };
    let pushed = engine.push_manifest_list(&request).await?;
    ok(&json!({ "Digest": pushed.digest, "Manifests": pushed.taken_over }))
}

/// Docker's DistributionInspect.
fn described(found: &Distribution) -> Value {
    let root = DistributionManifest { platform: None, ..found.root.clone() };
    let platforms = if found.platforms.is_empty() { Value::Null } else { json!(found.platforms) };
    json!({ "Descriptor": descriptor(&root), "Platforms": platforms })
}

fn descriptor(manifest: &DistributionManifest) -> Value {
    let mut descriptor =
        json!({ "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len() });
    if let Some(platform) = &manifest.platform {
        descriptor["platform"] = platform.clone();
    }
    descriptor
}

fn raw(manifest: &DistributionManifest) -> String {
    base64::encode(&manifest.bytes)
}
