//! `GET /distribution/{name}/json`: what a registry has by a name. With `manifests=1`, which is ours, the documents themselves.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use dozen_engine::{Distribution, DistributionManifest, DistributionRequest, Engine};
use dozen_model::{Reference, base64};
use serde_json::{Value, json};

use super::registry_auth;
use crate::error::{Answer, ApiError, ok};
use crate::extract::Query;

/// See the module.
pub(super) async fn inspect(
    State(engine): State<Engine>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
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
