//! `/build/caches`, ours: cache mounts, as archives and as a list. Their names are mostly paths, and so no part of one.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use dozen_engine::{CacheEntry, Engine};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::archives::{ChannelReader, PIECES, pump, stream};
use crate::error::{Answer, ApiError, empty, join_failed, ok};
use crate::extract::Query;

/// `GET /build/caches`.
pub(super) async fn list(State(engine): State<Engine>) -> Answer {
    let entries = engine.build_cache_mounts().await?;
    ok(&json!({ "Caches": entries.iter().filter_map(render).collect::<Vec<_>>() }))
}

/// `DELETE /build/caches?name=`.
pub(super) async fn remove(State(engine): State<Engine>, query: Query) -> Answer {
    let name = named(&query)?;
    tokio::task::spawn_blocking(move || engine.remove_cache_mount(&name)).await.map_err(join_failed)??;
    empty(StatusCode::NO_CONTENT)
}

/// `GET /build/caches/export?name=`: what it holds as one archive.
pub(super) async fn export(State(engine): State<Engine>, query: Query) -> Answer {
    let name = named(&query)?;
    stream("application/x-tar", move |out| engine.export_cache_mount(&name, out)).await
}

/// `PUT /build/caches/import?name=`: an archive into one that is missing or empty.
pub(super) async fn import(State(engine): State<Engine>, query: Query, body: Body) -> Answer {
    let name = named(&query)?;
    let (archive, pieces) = mpsc::channel(PIECES);
    tokio::spawn(pump(body, archive));
    let import = move || engine.import_cache_mount(&name, &mut ChannelReader::new(pieces));
    tokio::task::spawn_blocking(import).await.map_err(join_failed)??;
    empty(StatusCode::NO_CONTENT)
}

fn named(query: &Query) -> Result<String, ApiError> {
    query.text("name").map(str::to_owned).ok_or_else(|| ApiError::invalid("name a cache mount: ?name="))
}

fn render(entry: &CacheEntry) -> Option<Value> {
    Some(json!({
        "ID": entry.id,
        "Name": entry.mount_name()?,
        "InUse": entry.in_use,
        "Size": entry.size_bytes,
        "CreatedAt": entry.created.to_string(),
        "LastUsedAt": entry.last_used.to_string(),
        "UsageCount": entry.uses,
    }))
}
