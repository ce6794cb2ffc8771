//! A build's cache that its client carries: what it says of steps comes in the body's first line, and layers come and go one
//! by one while the build goes on. Ours.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use dozen_engine::{CacheStep, Engine};
use dozen_model::Digest;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::{Answer, ApiError, empty, join_failed};
use crate::extract::Query;
use crate::routes::archives::{ChannelReader, PIECES, pump, stream};

/// A step as it stands in the body's first line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Carried {
    key: Digest,
    #[serde(default)]
    layer: Option<Digest>,
    created: Timestamp,
    #[serde(default)]
    description: String,
}

impl From<Carried> for CacheStep {
    fn from(Carried { key, layer, created, description }: Carried) -> Self {
        Self { key, layer, created, description, is_of_image: false }
    }
}

/// As it is told.
pub(super) fn shown(step: &CacheStep) -> Value {
    json!({
        "Key": step.key,
        "Layer": step.layer,
        "Created": step.created,
        "Description": step.description,
        "IsOfImage": step.is_of_image,
    })
}

/// `PUT /build/carried/layer?id=&layer=`: one that the build wants, plain or compressed.
pub(in crate::routes) async fn bring(State(engine): State<Engine>, query: Query, body: Body) -> Answer {
    let (build, layer) = named(&query)?;
    let (blob, pieces) = mpsc::channel(PIECES);
    tokio::spawn(pump(body, blob));
    let bring = move || engine.bring_layer(&build, &layer, ChannelReader::new(pieces));
    tokio::task::spawn_blocking(bring).await.map_err(join_failed)??;
    empty(StatusCode::NO_CONTENT)
}

/// `DELETE /build/carried/layer?id=&layer=&why=`: the client has not got what the build wants.
pub(in crate::routes) async fn lack(State(engine): State<Engine>, query: Query) -> Answer {
    let (build, layer) = named(&query)?;
    let why: String = query.text("why").unwrap_or("its client has not got it").chars().take(1000).collect();
    engine.lack_layer(&build, &layer, &why)?;
    empty(StatusCode::NO_CONTENT)
}

/// `GET /build/carried/layer?id=&layer=`: the plain stream of one that the build offers; nothing (204), if only the client has
/// it.
pub(in crate::routes) async fn take(State(engine): State<Engine>, query: Query) -> Answer {
    let (build, layer) = named(&query)?;
    match engine.offered_layer(&build, &layer)? {
        Some(layer) => stream("application/x-tar", move |out| layer.write(out)).await,
        None => empty(StatusCode::NO_CONTENT),
    }
}

/// `POST /build/carried/taken?id=`: the client has what it wants, and the build may end.
pub(in crate::routes) async fn taken(State(engine): State<Engine>, query: Query) -> Answer {
    engine.cache_is_taken(&build(&query)?)?;
    empty(StatusCode::NO_CONTENT)
}

fn named(query: &Query) -> Result<(String, Digest), ApiError> {
    let layer = query.text("layer").ok_or_else(|| ApiError::invalid("name a layer: layer=sha256:…"))?;
    let layer = layer.parse::<Digest>().map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok((build(query)?, layer))
}

fn build(query: &Query) -> Result<String, ApiError> {
    query.text("id").map(str::to_owned).ok_or_else(|| ApiError::invalid("build ID not provided"))
}
