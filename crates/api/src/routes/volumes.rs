//! Volumes of the local driver.

use std::path::Path as FsPath;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dozen_engine::{Engine, EventKind, Volume, VolumeSpec};
use dozen_model::{ContainerId, VolumeName};
use serde_json::{Value, json};

use crate::convert::{fields, request, volume_driver};
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError, empty, ok, reply};
use crate::extract::{Json, Query};
use crate::filters::Filters;
use crate::shims;

/// The label by which Docker knows a volume that was given no name.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

pub(super) async fn list(State(engine): State<Engine>, query: Query) -> Answer {
    let filters = Filters::read(&query, &["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.flag("dangling")?;
    let volumes: Vec<Value> = engine
        .volumes()
        .iter()
        .filter(|volume| {
            (!filters.has("name") || filters.matches("name", volume.name.as_str()))
                && filters.any("driver", |wanted| wanted == "local")
                && filters.labels(&volume.labels)
                && dangling.is_none_or(|dangling| engine.volume_users(&volume.name).is_empty() == dangling)
        })
        .map(render)
        .collect();
    ok(&json!({ "Volumes": volumes, "Warnings": null }))
}

pub(super) async fn create(State(engine): State<Engine>, Json(body): Json) -> Answer {
    let request: request::Volume = request::read(body, fields::VOLUME)?;
    volume_driver::check(&request.driver, &request.name)?;
    let anonymous = request.name.is_empty();
    let name = if anonymous {
        // 64 random hexadecimal digits, which is what a fresh id is too.
        ContainerId::random().as_str().parse()?
    } else {
        request.name.parse().map_err(|_| {
            ApiError::invalid(format!(
                "create {0}: {0:?} includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
                request.name.chars().take(200).collect::<String>()
            ))
        })?
    };
    let volume = engine
        .create_volume(VolumeSpec { name, labels: request.labels, anonymous, options: request.driver_opts })
        .await?;
    Ok(reply(StatusCode::CREATED, &render(&volume)))
}

pub(super) async fn inspect(State(engine): State<Engine>, Path(name): Path<String>) -> Answer {
    ok(&render(&engine.volume(&name)?))
}

pub(super) async fn remove(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Answer {
    let force = query.flag("force");
    let Ok(parsed) = name.parse::<VolumeName>() else {
        // No volume can have this name.
        return if force { empty(StatusCode::NO_CONTENT) } else { Err(engine_has_no(&name)) };
    };
    engine.remove_volume(&parsed, force).await?;
    empty(StatusCode::NO_CONTENT)
}

fn engine_has_no(name: &str) -> ApiError {
    dozen_engine::EngineError::NoSuchVolume(name.chars().take(200).collect()).into()
}

/// Volumes that no container has. Only anonymous ones since 1.42, unless `all` is asked for.
pub(super) async fn prune(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer {
    let filters = Filters::read(&query, &["all", "label", "label!"])?;
    let all = filters.flag("all")?.unwrap_or_else(|| shims::prune_takes_named_volumes(version));
    let (mut deleted, mut reclaimed) = (Vec::new(), 0u64);
    for volume in engine.volumes() {
        // In another's file system nothing is reclaimed: as Docker.
        let wanted = (all || volume.anonymous) && filters.labels(&volume.labels) && volume.options.is_empty();
        if !wanted || !engine.volume_users(&volume.name).is_empty() {
            continue;
        }
        let mountpoint = volume.mountpoint.clone();
        let bytes = tokio::task::spawn_blocking(move || disk_usage(&mountpoint)).await.unwrap_or(0);
        let name = volume.name.clone();
        match engine.prune_volume(volume).await {
            Ok(true) => {
                deleted.push(name.to_string());
                reclaimed += bytes;
            }
            // A container has taken it in between, or it is another by now.
            Ok(false) => {}
            // It has snapshots: that is not this request's failure.
            Err(error) => tracing::warn!(volume = %name, %error, "a volume was not pruned"),
        }
    }
    engine.announce_prune(EventKind::Volume, reclaimed);
    ok(&json!({ "VolumesDeleted": deleted, "SpaceReclaimed": reclaimed }))
}

/// Bytes on disk below a directory that nobody writes to; symbolic links are not followed.
fn disk_usage(directory: &FsPath) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    bytes
}

pub(super) fn render(volume: &Volume) -> Value {
    let mut shown = json!({
        "Name": volume.name.as_str(),
        "Driver": "local",
        "Mountpoint": volume.mountpoint,
        "CreatedAt": volume.created.to_string(),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": (!volume.options.is_empty()).then_some(&volume.options),
    });
    if volume.anonymous {
        shown["Labels"][ANONYMOUS] = json!("");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_usage_counts_files_and_follows_no_link() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("d/file"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("root")).unwrap();
        let bytes = disk_usage(directory.path());
        assert!((10_000..1_000_000).contains(&bytes), "{bytes}");
    }
}
