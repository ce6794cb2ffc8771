//! What builds keep for the next: `POST /build/prune`, and how `GET /system/df` shows it.

use axum::extract::{Extension, State};
use dozen_engine::{CacheEntry, CachePrune, Engine};
use serde_json::{Value, json};

use super::housekeeping::{null_if_empty, until};
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError, ok};
use crate::extract::Query;
use crate::filters::Filters;

const V1_42: ApiVersion = ApiVersion { minor: 42 };
const V1_48: ApiVersion = ApiVersion { minor: 48 };

/// BuildKit's fields that can be asked for, and Docker's (moby, daemon/internal/builder-next/builder.go).
const FILTERS: [&str; 11] =
    ["until", "unused-for", "id", "type", "description", "inuse", "shared", "private", "label", "label!", "parent"];

/// `POST /build/prune`.
pub(super) async fn prune(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer {
    let pruned = engine.prune_build_cache(wanted(&query, version)?).await?;
    let ids = pruned.ids.into_iter().map(Value::from).collect();
    ok(&json!({ "CachesDeleted": null_if_empty(ids), "SpaceReclaimed": pruned.reclaimed_bytes }))
}

/// What may go.
fn wanted(query: &Query, version: ApiVersion) -> Result<CachePrune, ApiError> {
    let filters = Filters::read(query, &FILTERS)?;
    if filters.has("parent") {
        return Err(ApiError::not_built("the filter 'parent' of the build cache")
            .with_hint("its steps are kept one by one: filter by id, type, description or until"));
    }
    if filters.has("until") && filters.has("unused-for") {
        return Err(ApiError::invalid("conflicting filters: \"until\" and \"unused-for\""));
    }
    let text = |name: &str| match filters.get(name) {
        [] => Ok(None),
        [value] => Ok(Some(value.clone())),
        _ => Err(ApiError::invalid("filters expect only one value")),
    };
    let bytes = |name: &str| match query.text(name) {
        None => Ok(0),
        Some(value) => value.parse::<u64>().map_err(|_| {
            let value: String = value.chars().take(100).collect();
            ApiError::invalid(format!("{name} is in bytes and expects an integer, got {value}"))
        }),
    };
    let since = |name: &str| until(&filters, name);
    let is_new = version >= V1_48;
    let new = |name: &str| if is_new { bytes(name) } else { Ok(0) };
    let reserved_bytes = match new("reserved-space")? {
        0 => bytes("keep-storage")?,
        reserved => reserved,
    };
    let private = filters.flag("private")?.map(|is_private| !is_private);
    Ok(CachePrune {
        all: query.flag("all"),
        unused_since: since("until")?.or(since("unused-for")?),
        id: text("id")?,
        kind: text("type")?,
        description: text("description")?,
        in_use: filters.flag("inuse")?,
        is_shared: filters.flag("shared")?.into_iter().chain(private).collect(),
        // Nothing in the cache has labels.
        nothing: !filters.labels(&Default::default()),
        reserved_bytes,
        max_used_bytes: new("max-used-space")?,
        min_free_bytes: new("min-free-space")?,
    })
}

/// In `GET /system/df`.
pub(super) fn shown(entries: &[CacheEntry], version: ApiVersion) -> Vec<Value> {
    let row = |entry: &CacheEntry| {
        let mut row = json!({
            "ID": entry.id,
            "Type": entry.kind(),
            "Description": entry.description,
            "InUse": entry.in_use,
            "Shared": entry.is_shared,
            "Size": entry.size_bytes,
            "CreatedAt": entry.created.to_string(),
            "LastUsedAt": entry.last_used.to_string(),
            "UsageCount": entry.uses,
        });
        // Nothing has parents: a step's layer stands by itself.
        if version < V1_42 {
            row["Parent"] = json!("");
        }
        row
    };
    entries.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, minor: u16) -> Result<CachePrune, String> {
        wanted(&Query::from(query), ApiVersion { minor }).map_err(|error| error.message)
    }

    fn filters(text: &str) -> Result<CachePrune, String> {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        read(&format!("filters={encoded}"), 48)
    }

    #[test]
    fn parameters_are_dockers() {
        let p = CachePrune::default;
        for (query, minor, expected) in [
            ("", 48, p()),
            ("all=1", 41, CachePrune { all: true, ..p() }),
            ("all=0&keep-storage=7", 41, CachePrune { reserved_bytes: 7, ..p() }),
            // Who does not know the new ones does not mean them.
            (
                "keep-storage=7&reserved-space=8&max-used-space=9&min-free-space=1",
                47,
                CachePrune { reserved_bytes: 7, ..p() },
            ),
            (
                "keep-storage=7&reserved-space=8&max-used-space=9&min-free-space=1",
                48,
                CachePrune { reserved_bytes: 8, max_used_bytes: 9, min_free_bytes: 1, ..p() },
            ),
            ("keep-storage=7", 48, CachePrune { reserved_bytes: 7, ..p() }),
        ] {
            assert_eq!(read(query, minor), Ok(expected), "{query} 1.{minor}");
        }
        assert!(read("keep-storage=1GB", 48).unwrap_err().contains("keep-storage is in bytes and expects an integer"));
    }

    #[test]
    fn filters_act_or_are_refused() {
        let p = CachePrune::default;
        let text = |text: &str| Some(text.to_owned());
        for (given, expected) in [
            (r#"{"until":["1700000000"]}"#, CachePrune { unused_since: "2023-11-14T22:13:20Z".parse().ok(), ..p() }),
            (
                r#"{"unused-for":["1700000000"]}"#,
                CachePrune { unused_since: "2023-11-14T22:13:20Z".parse().ok(), ..p() },
            ),
            (r#"{"id":{"abc":true}}"#, CachePrune { id: text("abc"), ..p() }),
            (
                r#"{"type":["regular"],"description":["RUN x"]}"#,
                CachePrune { kind: text("regular"), description: text("RUN x"), ..p() },
            ),
            (
                r#"{"inuse":["true"],"shared":["1"],"private":["true"]}"#,
                CachePrune { in_use: Some(true), is_shared: vec![true, false], ..p() },
            ),
            (r#"{"label":["a=b"]}"#, CachePrune { nothing: true, ..p() }),
            (r#"{"label!":["a=b"]}"#, p()),
        ] {
            assert_eq!(filters(given), Ok(expected), "{given}");
        }
        for (given, words) in [
            (r#"{"parent":["x"]}"#, "the filter 'parent' of the build cache is not built yet"),
            (r#"{"colour":["x"]}"#, "invalid filter 'colour'"),
            (r#"{"id":["x","y"]}"#, "filters expect only one value"),
            (r#"{"until":["x"]}"#, "invalid until filter"),
            (r#"{"until":["1h"],"unused-for":["1h"]}"#, "conflicting filters"),
            (r#"{"inuse":["perhaps"]}"#, "invalid filter 'inuse=perhaps'"),
        ] {
            assert!(filters(given).unwrap_err().contains(words), "{given}");
        }
    }
}
