//! Images: list, inspect, history, tag, remove, commit. Names have slashes, so paths are taken apart here.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use dozen_engine::image::{ImageError, ManifestKind, ManifestSummary};
use dozen_engine::{CommitOptions, Engine, EngineError, Image, Platform, Removal};
use dozen_model::{ImageId, Reference, moment};
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use super::{archives, housekeeping, image_query, push, search};
use crate::convert::{self, fields};
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError, empty, join_failed, ok, reply};
use crate::extract::{Json, Query};
use crate::filters::Filters;
use crate::shims;
use crate::time::NEVER;

/// `GET /images/{name}/json`, `/history`, `/get`.
pub(super) async fn get(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    if rest == "search" {
        return search::search(&engine, &query, &headers).await;
    }
    match rest.rsplit_once('/') {
        Some((name, "json")) => inspect(&engine, version, name, &query).await,
        Some((name, "history")) => history(&engine, name, &query).await,
        Some((name, "get")) => archives::save_names(engine, vec![name.to_owned()], &query).await,
        _ => Err(ApiError::page_not_found()),
    }
}

/// `POST /images/{name}/tag`, `/push`, `POST /images/prune`.
pub(super) async fn post(
    State(engine): State<Engine>,
    Path(rest): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Answer {
    match (rest.as_str(), rest.rsplit_once('/')) {
        ("prune", _) => housekeeping::prune_images(&engine, &query).await,
        (_, Some((name, "push"))) => push::push(&engine, name, &query, &headers).await,
        (_, Some((name, "tag"))) => tag(&engine, name, &query).await,
        _ => Err(ApiError::page_not_found()),
    }
}

/// `DELETE /images/{name}`.
pub(super) async fn delete(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Answer {
    if query.text("platforms").is_some() {
        return Err(ApiError::not_built("removing some platforms of an image"));
    }
    let removed = engine.remove_image(&name, query.flag("force"), query.flag("noprune")).await?;
    ok(&removed
        .into_iter()
        .map(|removal| match removal {
            Removal::Untagged(name) => json!({ "Untagged": name }),
            Removal::Deleted(id) => json!({ "Deleted": id }),
        })
        .collect())
}

/// `GET /images/json`.
pub(super) async fn list(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer {
    let with_manifests = wants_manifests(&query, version, 47)?;
    let filters = Filters::read(&query, &["before", "dangling", "label", "label!", "reference", "since", "until"])?;
    let mut selection = Selection { dangling: filters.flag("dangling")?, before: None, since: None, filters };
    for (name, place) in [("before", &mut selection.before), ("since", &mut selection.since)] {
        if let Some(image) = selection.filters.get(name).first() {
            *place = engine.image(image).await?.created;
        }
    }
    for text in selection.filters.get("until") {
        let until = moment::parse(text, &Zoned::now());
        let until = until.ok_or_else(|| ApiError::invalid(format!("invalid filter 'until={text}'")))?;
        selection.before = Some(selection.before.map_or(until, |before| before.min(until)));
    }
    // The oldest clients have a parameter of its own for the reference.
    let pattern = query.text("filter").map(str::to_owned);
    let store = engine.images().clone();
    let blocking = store.clone();
    let read = move || {
        let with = |image: Image| {
            let manifests = if with_manifests { Some(blocking.manifests(&image.id)?) } else { None };
            Ok((image, manifests))
        };
        blocking.list()?.into_iter().map(with).collect::<Result<Vec<_>, ImageError>>()
    };
    let mut images = tokio::task::spawn_blocking(read).await.map_err(join_failed)?.map_err(EngineError::from)?;
    images.sort_by_key(|(image, _)| std::cmp::Reverse(image.created));
    let all = query.flag("all");
    let parents: std::collections::BTreeSet<ImageId> =
        images.iter().filter_map(|(image, _)| image.parent.clone()).collect();
    let users = users(&engine);
    let rows = images.iter().filter_map(|(image, manifests)| {
        // An untagged image that others are made from is a step on the way: shown on demand only.
        let is_step = image.references.is_empty() && image.repo_digests.is_empty() && parents.contains(&image.id);
        if (is_step || store.is_of_an_index(image)) && !all {
            return None;
        }
        let names = selection.names(image, pattern.as_deref())?;
        let mut row = row(image, &names);
        shims::image(version, &mut row);
        shims::image_row(version, &mut row);
        if let Some(manifests) = manifests {
            row["Manifests"] = manifests.iter().map(|manifest| summary(manifest, &users)).collect();
        }
        Some(row)
    });
    ok(&rows.collect())
}

/// Which images a listing shows, and which of their names.
struct Selection {
    filters: Filters,
    dangling: Option<bool>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Selection {
    fn names(&self, image: &Image, pattern: Option<&str>) -> Option<Vec<String>> {
        let created = image.created.unwrap_or(Timestamp::UNIX_EPOCH);
        let labels = labels(image);
        let shown = self.dangling.is_none_or(|dangling| image.references.is_empty() == dangling)
            && self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.filters.labels(&labels);
        let patterns: Vec<&str> = self.filters.get("reference").iter().map(String::as_str).chain(pattern).collect();
        let names: Vec<String> = image
            .references
            .iter()
            .filter(|name| patterns.is_empty() || patterns.iter().any(|pattern| reference_matches(name, pattern)))
            .map(Reference::familiar)
            .collect();
        (shown && (patterns.is_empty() || !names.is_empty())).then_some(names)
    }
}

/// `debian`, `debian:*`, `team/*:1`: a pattern over the name, or over the name with its tag.
fn reference_matches(reference: &Reference, pattern: &str) -> bool {
    let familiar = reference.familiar();
    let full = reference.to_string();
    let name = reference.familiar_name();
    [familiar.as_str(), full.as_str(), name.as_str()].into_iter().any(|text| glob(pattern.as_bytes(), text.as_bytes()))
}

/// `*` and `?`, neither of which takes a slash (Go's path.Match without classes). Linear in the text for each `*`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(b'?') if text[place] != b'/' => {
                at += 1;
                place += 1;
            }
            Some(letter) if *letter == text[place] => {
                at += 1;
                place += 1;
            }
            _ => match star {
                Some((star_at, star_place)) if text[star_place] != b'/' => {
                    star = Some((star_at, star_place + 1));
                    at = star_at + 1;
                    place = star_place + 1;
                }
                _ => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

fn labels(image: &Image) -> BTreeMap<String, String> {
    let labels = image.raw.get("config").and_then(|config| config.get("Labels"));
    labels.and_then(|labels| serde_json::from_value(labels.clone()).ok()).unwrap_or_default()
}

pub(super) fn row(image: &Image, names: &[String]) -> Value {
    json!({
        "Id": image.id.to_string(),
        "ParentId": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "RepoTags": names,
        "RepoDigests": image.repo_digests.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "Created": image.created.map_or(0, Timestamp::as_second),
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Labels": labels(image),
        "Containers": -1,
    })
}

/// Whether manifests are to be told of. Before the version that has them they are a parameter of nobody's.
fn wants_manifests(query: &Query, version: ApiVersion, since: u16) -> Result<bool, ApiError> {
    if version.minor < since {
        query.refuse("manifests")?;
    }
    Ok(query.flag("manifests"))
}

/// The containers of each image.
fn users(engine: &Engine) -> BTreeMap<ImageId, Vec<String>> {
    let mut users: BTreeMap<ImageId, Vec<String>> = BTreeMap::new();
    for container in engine.containers() {
        users.entry(container.spec.image.clone()).or_default().push(container.id.to_string());
    }
    users
}

/// Docker's ImageManifestSummary.
fn summary(manifest: &ManifestSummary, users: &BTreeMap<ImageId, Vec<String>>) -> Value {
    let mut summary = json!({
        "ID": manifest.digest,
        "Descriptor": manifest.descriptor,
        "Available": manifest.available,
        "Size": { "Content": manifest.content_bytes, "Total": manifest.content_bytes },
    });
    summary["Kind"] = match &manifest.kind {
        ManifestKind::Image { platform, image, unpacked_bytes } => {
            let mut shown = json!({ "architecture": "", "os": "" });
            if let Some(Platform { os, architecture, variant }) = platform {
                shown = json!({ "architecture": architecture, "os": os });
                if let Some(variant) = variant {
                    shown["variant"] = json!(variant);
                }
            }
            summary["ImageData"] = json!({
                "Platform": shown,
                "Containers": image.as_ref().and_then(|image| users.get(image)).cloned().unwrap_or_default(),
                "Size": { "Unpacked": unpacked_bytes },
            });
            summary["Size"]["Total"] = json!(manifest.content_bytes + unpacked_bytes);
            json!("image")
        }
        ManifestKind::Attestation { of } => {
            summary["AttestationData"] = json!({ "For": of });
            json!("attestation")
        }
        ManifestKind::Unknown => json!("unknown"),
    };
    summary
}

async fn inspect(engine: &Engine, version: ApiVersion, name: &str, query: &Query) -> Answer {
    let with_manifests = wants_manifests(query, version, 48)?;
    let platform = image_query::platform(query)?;
    if with_manifests && platform.is_some() {
        return Err(ApiError::invalid("conflicting options: manifests and platform options cannot both be set"));
    }
    let image = engine.image_for(name, platform).await?;
    let text = |field: &str| image.raw.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let comment = image.raw.get("history").and_then(Value::as_array).and_then(|history| history.last());
    let comment = comment.and_then(|step| step.get("comment")).and_then(Value::as_str).unwrap_or("");
    let mut config = convert::image::config(&image.raw);
    shims::healthcheck(version, &mut config);
    let mut value = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.references.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": image.repo_digests.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "Parent": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "Comment": comment,
        "Created": image.created.map_or(NEVER.to_owned(), |created| created.to_string()),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config,
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": image.size_bytes,
        "GraphDriver": { "Name": "overlay2", "Data": null },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>() },
        "Metadata": { "LastTagTime": NEVER },
    });
    let variant = text("variant");
    if !variant.is_empty() {
        value["Variant"] = json!(variant);
    }
    shims::image(version, &mut value);
    shims::inspected_image(version, &mut value);
    if with_manifests {
        let (images, id) = (engine.images().clone(), image.id.clone());
        let found = tokio::task::spawn_blocking(move || images.manifests(&id)).await.map_err(join_failed)?;
        let (found, users) = (found.map_err(EngineError::from)?, users(engine));
        value["Manifests"] = found.iter().map(|manifest| summary(manifest, &users)).collect();
    }
    ok(&value)
}

async fn history(engine: &Engine, name: &str, query: &Query) -> Answer {
    // Of one that is not unpacked nothing is known of the layers: it is unpacked.
    let image = engine.image_to_run(name, image_query::platform(query)?).await?;
    let (images, name) = (engine.images().clone(), image.id.to_string());
    let entries = tokio::task::spawn_blocking(move || images.history(&name)).await.map_err(join_failed)?;
    let entries = entries.map_err(EngineError::from)?;
    ok(&entries
        .into_iter()
        .map(|entry| {
            json!({
                "Id": entry.id.map_or("<missing>".to_owned(), |id| id.to_string()),
                "Created": entry.created.map_or(0, Timestamp::as_second),
                "CreatedBy": entry.created_by,
                "Tags": if entry.tags.is_empty() { Value::Null } else { json!(entry.tags) },
                "Size": entry.size_bytes,
                "Comment": entry.comment,
            })
        })
        .collect())
}

async fn tag(engine: &Engine, name: &str, query: &Query) -> Answer {
    let target = image_query::target(query)?
        .ok_or_else(|| ApiError::invalid("no name is given: the parameter \"repo\" is missing"))?;
    engine.tag_image(name, target).await?;
    empty(StatusCode::CREATED)
}

/// `POST /commit`.
pub(super) async fn commit(State(engine): State<Engine>, query: Query, Json(mut body): Json) -> Answer {
    fields::check(&mut body, fields::COMMIT)?;
    let container =
        query.text("container").ok_or_else(|| ApiError::invalid("the parameter \"container\" is missing"))?;
    let options = CommitOptions {
        reference: image_query::target(&query)?,
        author: query.text("author").map(str::to_owned),
        comment: query.text("comment").map(str::to_owned),
        changes: image_query::changes(&query),
        created: image_query::created(&query)?,
        pause: query.flag_or("pause", true),
    };
    let id = engine.commit(container, options).await?;
    Ok(reply(StatusCode::CREATED, &json!({ "Id": id.to_string() })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, want) in [
            ("debian", "debian:12", true),
            ("debian:*", "debian:12", true),
            ("deb*", "debian:12", true),
            ("debian:1?", "debian:12", true),
            ("*", "team/app", false),
            ("*/app", "team/app", true),
            ("*:12", "debian:12", true),
            ("docker.io/library/debian:12", "debian:12", true),
            ("alpine", "debian:12", false),
            ("", "debian", false),
        ] {
            assert_eq!(reference_matches(&name.parse().unwrap(), pattern), want, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn matching_ends(pattern in "[a*?/]{0,12}", text in "[a/]{0,30}") {
            let _ = glob(pattern.as_bytes(), text.as_bytes());
        }
    }
}
