//! What a container has changed, and what nobody needs any more: `/containers/{id}/changes`, `/containers/prune` and
//! `/images/prune`.

use std::sync::Arc;

use axum::extract::{Path, State};
use dozen_engine::image::ChangeKind;
use dozen_engine::{Engine, EventKind, Image, Phase, Removal, RemoveOptions, image::written_bytes};
use dozen_model::moment;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use crate::error::{Answer, ApiError, join_failed, ok};
use crate::extract::Query;
use crate::filters::Filters;

pub(super) async fn changes(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    let container = engine.container(&id)?;
    let changes = tokio::task::spawn_blocking(move || container.changes()).await.map_err(join_failed)??;
    let shown = |(path, kind): (Vec<u8>, ChangeKind)| {
        let number = match kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        json!({ "Path": String::from_utf8_lossy(&path), "Kind": number })
    };
    ok(&changes.into_iter().map(shown).collect())
}

/// Containers that do not run.
pub(super) async fn prune_containers(State(engine): State<Engine>, query: Query) -> Answer {
    let filters = Filters::read(&query, &["label", "label!", "until"])?;
    let until = until(&filters, "until")?;
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for snapshot in engine.containers() {
        let is_over = matches!(snapshot.phase, Phase::Created { .. } | Phase::Exited(_));
        let is_wanted = filters.labels(&snapshot.spec.labels) && until.is_none_or(|until| snapshot.created < until);
        // The build removes it, and has not read yet what it has made.
        let is_of_build = snapshot.spec.build_step.is_some();
        if !is_over || !is_wanted || is_of_build {
            continue;
        }
        let upper = snapshot.directory.join("upper");
        let bytes = tokio::task::spawn_blocking(move || written_bytes(&upper)).await.unwrap_or(0);
        let Ok(container) = engine.container(snapshot.id.as_str()) else { continue };
        match container.remove(RemoveOptions { force: false, volumes: false }).await {
            Ok(()) => {
                deleted.push(snapshot.id.to_string());
                reclaimed += bytes;
            }
            // It has been started in between: that is not this request's failure.
            Err(error) => tracing::warn!(container = snapshot.id.short(), %error, "a container was not pruned"),
        }
    }
    engine.announce_prune(EventKind::Container, reclaimed);
    ok(
        &json!({ "ContainersDeleted": null_if_empty(deleted.into_iter().map(Value::from).collect()), "SpaceReclaimed": reclaimed }),
    )
}

/// Images that have no name, or with `dangling=false` all of them, that no container stands on.
pub(super) async fn prune_images(engine: &Engine, query: &Query) -> Answer {
    let filters = Filters::read(query, &["dangling", "label", "label!", "until"])?;
    let dangling = filters.flag("dangling")?.unwrap_or(true);
    let until = until(&filters, "until")?;
    let store = engine.images().clone();
    let images = tokio::task::spawn_blocking(move || store.list()).await.map_err(join_failed)?;
    let images = images.map_err(dozen_engine::EngineError::from)?;
    let filters = Arc::new(filters);
    let mut deleted = Vec::new();
    let before = occupied(engine).await;
    for image in images {
        let filters = filters.clone();
        // Asked again in the moment in which it goes: its names may be another's by then.
        let may_go = move |image: &Image| {
            let labels = image.config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
            (!dangling || image.references.is_empty())
                && filters.labels(&labels.into_iter().collect())
                && until.is_none_or(|until| image.created.is_some_and(|created| created < until))
        };
        if !may_go(&image) {
            continue;
        }
        let id = image.id.clone();
        match engine.prune_image(image, may_go).await {
            Ok(removed) => deleted.extend(removed.into_iter().flatten().map(|removal| match removal {
                Removal::Untagged(name) => json!({ "Untagged": name }),
                Removal::Deleted(id) => json!({ "Deleted": id }),
            })),
            // The others are not to stay for it.
            Err(error) => tracing::warn!(image = id.short(), %error, "an image was not pruned"),
        }
    }
    let reclaimed = before.saturating_sub(occupied(engine).await);
    engine.announce_prune(EventKind::Image, reclaimed);
    ok(&json!({ "ImagesDeleted": null_if_empty(deleted), "SpaceReclaimed": reclaimed }))
}

async fn occupied(engine: &Engine) -> u64 {
    let store = engine.images().clone();
    let usage = tokio::task::spawn_blocking(move || store.disk_usage()).await;
    usage.ok().and_then(Result::ok).map_or(0, |usage| usage.layers_bytes + usage.blobs_bytes)
}

/// `until`, by whatever name: a moment, or how long ago.
pub(super) fn until(filters: &Filters, name: &str) -> Result<Option<Timestamp>, ApiError> {
    match filters.get(name) {
        [] => Ok(None),
        [text] => moment::parse(text, &Zoned::now()).map(Some).ok_or_else(|| {
            ApiError::invalid(format!("invalid until filter: {:?}", text.chars().take(100).collect::<String>()))
        }),
        _ => Err(ApiError::invalid("more than one until filter specified")),
    }
}

pub(super) fn null_if_empty(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { list.into() }
}
