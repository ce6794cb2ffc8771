//! `POST /system/gc`, ours: what goes when the disk fills up, at once, or told beforehand.

use std::time::Duration;

use axum::extract::State;
use dozen_engine::{Collection, CollectionItem, CollectionRequest, Engine, Fate, Phase};
use dozen_model::{MountSource, moment};
use serde_json::{Value, json};

use crate::error::{Answer, ApiError, ok};
use crate::extract::Query;

/// The label of docker compose on all that it makes.
const PROJECT: &str = "com.docker.compose.project";

/// `dry-run`, `explain` (nothing goes either, and containers and volumes are listed, too, which takes a walk through them), and
/// in place of what the settings say `free-space`, `images` and `unused-for`.
pub(super) async fn collect(State(engine): State<Engine>, query: Query) -> Answer {
    let request = request(&query)?;
    let collection = engine.collect(request).await?;
    let mut items: Vec<Value> = collection.items.iter().map(row).collect();
    if query.flag("explain") {
        items.extend(never(&engine).await?);
    }
    let Collection { reclaimed_bytes, free_bytes, wanted_free_bytes, .. } = collection;
    ok(&json!({
        "Items": items,
        "SpaceReclaimed": reclaimed_bytes,
        "FreeSpace": free_bytes,
        "WantedFreeSpace": wanted_free_bytes,
    }))
}

fn request(query: &Query) -> Result<CollectionRequest, ApiError> {
    fn read<T>(
        query: &Query,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        example: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = query.text(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let bad = || {
            let shown: String = text.chars().take(100).collect();
            ApiError::invalid(format!("invalid {name} {shown:?}")).with_hint(example.to_owned())
        };
        parse(text).map(Some).ok_or_else(bad)
    }
    let duration = |text: &str| u64::try_from(moment::duration_ns(text)?).ok().map(Duration::from_nanos);
    Ok(CollectionRequest {
        free_space: read(query, "free-space", |text| text.parse().ok(), "write 20GB, or 20% of the disk")?,
        images: read(query, "images", |text| text.parse().ok(), "it is none, dangling or unused")?,
        unused_for: read(query, "unused-for", duration, "write 48h")?,
        is_dry_run: query.flag("dry-run") || query.flag("explain"),
    })
}

fn row(item: &CollectionItem) -> Value {
    json!({
        "Type": item.kind,
        "ID": item.id,
        "Name": item.name,
        "Size": item.size_bytes,
        "LastUsedAt": item.last_used.to_string(),
        "Fate": match item.fate {
            Fate::Removed => "removed",
            Fate::Goes => "goes",
            Fate::Stays => "stays",
        },
        "Why": item.why,
    })
}

/// What no collection takes, and whose it is.
async fn never(engine: &Engine) -> Result<Vec<Value>, ApiError> {
    let (written, held) = (engine.container_usage().await?, engine.volume_usage().await?);
    let stays = |kind: &str, id: &str, name: &str, size: Option<&u64>, why: String| {
        let size = size.copied().unwrap_or(0);
        json!({ "Type": kind, "ID": id, "Name": name, "Size": size, "LastUsedAt": "", "Fate": "stays", "Why": why })
    };
    let containers = engine.containers();
    let of_project = |name: &str, project: Option<&String>| match project {
        Some(project) => format!("{name} of the Compose project {project}"),
        None => name.to_owned(),
    };
    let mut rows = Vec::new();
    for snapshot in &containers {
        let does = if matches!(snapshot.phase, Phase::Running(_) | Phase::Starting { .. }) {
            "it runs"
        } else {
            "it does not run"
        };
        let whose = match (&snapshot.spec.build_step, snapshot.spec.labels.get(PROJECT)) {
            (Some(_), _) => "; it is a build's".to_owned(),
            (None, Some(project)) => format!("; it is of the Compose project {project}"),
            (None, None) => String::new(),
        };
        let why = format!("no container goes by itself: {does}{whose}");
        rows.push(stays("container", snapshot.id.as_str(), snapshot.name.as_str(), written.get(&snapshot.id), why));
    }
    for volume in engine.volumes() {
        let has = |mount: &dozen_model::Mount| matches!(&mount.source, MountSource::Volume { name, .. } if *name == volume.name);
        let users = containers.iter().filter(|snapshot| snapshot.spec.mounts.iter().any(has));
        let users: Vec<String> =
            users.map(|snapshot| of_project(snapshot.name.as_str(), snapshot.spec.labels.get(PROJECT))).collect();
        let why = match (users.as_slice(), volume.labels.get(PROJECT)) {
            ([], None) => "no container has it".to_owned(),
            ([], Some(project)) => format!("it is of the Compose project {project}, and no container has it"),
            (users, _) => format!("container {} has it", users.join(", ")),
        };
        let why = format!("no volume goes by itself: {why}");
        rows.push(stays("volume", volume.name.as_str(), volume.name.as_str(), held.get(&volume.name), why));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_changes_nothing() {
        for (query, is_dry_run) in
            [("", false), ("explain=0", false), ("dry-run=1", true), ("explain=1", true), ("explain=1&dry-run=0", true)]
        {
            assert_eq!(
                request(&Query::from(query)).ok().map(|request| request.is_dry_run),
                Some(is_dry_run),
                "{query}"
            );
        }
    }
}
