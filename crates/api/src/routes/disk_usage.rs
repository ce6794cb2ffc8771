//! `GET /system/df`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::extract::{Extension, State};
use dozen_engine::{Engine, EngineError, EngineUsage};
use dozen_model::{ImageId, Reference};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{build_cache, images, volumes};
use crate::convert::listing;
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError, join_failed, ok};
use crate::extract::Query;
use crate::shims;

/// The last is ours.
const KINDS: [&str; 5] = ["container", "image", "volume", "build-cache", "engine"];

/// Images, containers, volumes, the build cache, and what the engine keeps beside them, with their sizes on disk; `type`
/// chooses among them.
pub(super) async fn disk_usage(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer {
    let kinds: Vec<&str> = query.all("type").collect();
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(kind)) {
        return Err(ApiError::invalid(format!("unknown object type: {unknown}")));
    }
    let wants = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let mut shown = json!({});
    let usage = if wants("image") || wants("container") { Some(engine.image_usage().await?) } else { None };
    let sizes: BTreeMap<&ImageId, (u64, u64)> = usage
        .iter()
        .flat_map(|usage| &usage.images)
        .map(|image| (&image.id, (image.size_bytes, image.shared_bytes)))
        .collect();
    if wants("image") {
        let store = engine.images().clone();
        let list = tokio::task::spawn_blocking(move || store.list()).await.map_err(join_failed)?;
        let mut users: BTreeMap<ImageId, u64> = BTreeMap::new();
        for snapshot in engine.containers() {
            *users.entry(snapshot.spec.image.clone()).or_default() += 1;
        }
        let rows = list.map_err(EngineError::from)?.into_iter().map(|image| {
            let names: Vec<String> = image.references.iter().map(Reference::familiar).collect();
            let mut row = images::row(&image, &names);
            let (size, shared) = sizes.get(&image.id).copied().unwrap_or_default();
            row["Size"] = json!(size);
            row["SharedSize"] = json!(shared);
            row["Containers"] = json!(users.get(&image.id).copied().unwrap_or(0));
            shims::image(version, &mut row);
            shims::image_row(version, &mut row);
            row
        });
        shown["Images"] = rows.collect();
        // They lie beside the images, and no removal of an image gives them back.
        let artifacts = engine.artifact_usage().await?;
        let size = artifacts.bytes + artifacts.left_bytes;
        if artifacts.count > 0 || size > 0 {
            // Ours.
            shown["Artifacts"] = json!({
                "Count": artifacts.count,
                "Active": artifacts.active,
                "Size": size,
                "Reclaimable": artifacts.reclaimable_bytes,
            });
        }
        let layers_size = usage.as_ref().map_or(0, |usage| usage.layers_bytes + usage.blobs_bytes);
        shown["LayersSize"] = json!(layers_size.saturating_sub(artifacts.bytes));
    }
    if wants("container") {
        shown["Containers"] = containers(&engine, version, &sizes).await?;
    }
    if wants("volume") {
        let (sizes, snapshots) = (engine.volume_usage().await?, engine.snapshot_usage().await?);
        let row = |volume: dozen_engine::Volume| {
            let mut row = volumes::render(&volume);
            row["UsageData"] = json!({
                "Size": sizes.get(&volume.name).copied().unwrap_or(0),
                "RefCount": engine.volume_users(&volume.name).len(),
            });
            // Ours: no client of Docker's has a place for them, and its own size is what a removal gives back.
            if let Some((count, bytes)) = snapshots.get(&volume.name) {
                row["UsageData"]["Snapshots"] = json!({ "Count": count, "Size": bytes });
            }
            row
        };
        let own = engine.volumes().into_iter().filter(|volume| volume.options.is_empty());
        shown["Volumes"] = own.map(row).collect();
    }
    // Ours. Clients of Docker's have no place for it.
    if kinds.is_empty()
        && let Some(bytes) = engine.own_registry_usage().await?
    {
        shown["Registry"] = json!({ "Size": bytes });
    }
    if wants("build-cache") {
        let entries = engine.build_cache().await?;
        shown["BuildCache"] = json!(build_cache::shown(&entries, version));
        if version < (ApiVersion { minor: 42 }) {
            shown["BuilderSize"] = json!(entries.iter().map(|entry| entry.size_bytes).sum::<u64>());
        }
    }
    if wants("engine") {
        shown["Engine"] = engine_row(&engine.engine_usage().await?);
    }
    ok(&shown)
}

/// Ours: with it, all sizes together are what du(1) says of the data root.
fn engine_row(usage: &EngineUsage) -> Value {
    let places = |places: &BTreeMap<PathBuf, u64>| -> Value {
        places.iter().map(|(path, size)| json!({ "Path": path.display().to_string(), "Size": size })).collect()
    };
    let logs = usage.logs.iter().map(|(id, size)| json!({ "Container": id.as_str(), "Size": size }));
    json!({
        "Logs": logs.collect::<Value>(),
        "Unfinished": places(&usage.unfinished),
        "Ledger": { "Size": usage.ledger_bytes },
        "Records": { "Size": usage.records_bytes },
        "Unowned": places(&usage.unowned),
    })
}

async fn containers(
    engine: &Engine,
    version: ApiVersion,
    images: &BTreeMap<&ImageId, (u64, u64)>,
) -> Result<Value, ApiError> {
    let sizes = engine.container_usage().await?;
    let mountpoint = |name: &str| engine.volume(name).ok().map(|volume| volume.mountpoint.display().to_string());
    let mut rows = Vec::new();
    for snapshot in engine.containers() {
        let named = engine.image(&snapshot.spec.image_name).await.ok().map(|image| image.id);
        let name = listing::image_name(&snapshot.spec, named.as_ref());
        let mut row = listing::row(&snapshot, &name, Timestamp::now(), &mountpoint);
        let written = sizes.get(&snapshot.id).copied().unwrap_or(0);
        row["SizeRw"] = json!(written);
        row["SizeRootFs"] = json!(written + images.get(&snapshot.spec.image).map_or(0, |(size, _)| *size));
        shims::container(version, &mut row);
        rows.push(row);
    }
    Ok(rows.into())
}
