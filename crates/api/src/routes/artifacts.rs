//! Artifacts, by the routes of podman's API (docs.podman.io, "libpod/artifacts"), since Docker's has none for them. Ours are,
//! of `pull` and `push`: `progress`, for a stream of what happens; of `add`: `archive`, for several files in one tar archive, all of which are added or none; `subject`; and `created`.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dozen_engine::image::{AddedFiles, AdditionTo, Artifact, ArtifactAddition, Selection};
use dozen_engine::{ArtifactPull, ArtifactTransfer, Engine, EngineError, PullEvent, Push, PushEvent};
use dozen_model::{Digest, Reference};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::archives::{ChannelReader, PIECES, pump, stream};
use super::{image_query, registry_auth};
use crate::error::{Answer, ApiError, join_failed, ok, reply};
use crate::extract::Query;

/// `GET /libpod/artifacts/json`, `…/{name}/json`, `…/{name}/extract`.
pub(super) async fn get(State(engine): State<Engine>, Path(rest): Path<String>, query: Query) -> Answer {
    if rest == "json" {
        let all = engine.artifacts().await?;
        return ok(&all.iter().map(|(artifact, manifest)| described(artifact, manifest)).collect::<Value>());
    }
    if let Some(name) = rest.strip_suffix("/json") {
        let (artifact, manifest) = engine.artifact(name).await?;
        return ok(&described(&artifact, &manifest));
    }
    let Some(name) = rest.strip_suffix("/extract") else { return Err(ApiError::page_not_found()) };
    let (name, wanted) = (name.to_owned(), selection(&query)?);
    let has_names = !query.flag("excludetitle");
    stream("application/x-tar", move |out| {
        let artifact = engine.outgoing_artifact(&name)?;
        engine.extract_artifact(&artifact, &wanted, has_names, out)
    })
    .await
}

/// `POST /libpod/artifacts/add`, `…/pull`, `…/{name}/push`.
pub(super) async fn post(
    State(engine): State<Engine>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Answer {
    if rest == "add" {
        return add(engine, &headers, &query, body).await;
    }
    if rest == "pull" {
        let transfer = transfer(required(&query, "name")?, &headers, &query)?;
        if query.flag("progress") {
            return Ok(pulling(engine.watch_artifact_pull(transfer)));
        }
        let digest = engine.pull_artifact(&transfer).await?;
        return ok(&json!({ "ArtifactDigest": digest }));
    }
    let Some(name) = rest.strip_suffix("/push") else { return Err(ApiError::page_not_found()) };
    // What is named by its digest goes where its name says.
    let reference = engine.artifact(name).await?.0.reference;
    let transfer = transfer(&reference.to_string(), &headers, &query)?;
    if query.flag("progress") {
        return Ok(pushing(engine.watch_artifact_push(name.to_owned(), transfer)));
    }
    let digest = engine.push_artifact(name, &transfer).await?;
    ok(&json!({ "ArtifactDigest": digest }))
}

/// What happens, in the words of a pull of an image; the digest in the end. The answer's body owns the pull.
fn pulling(pull: ArtifactPull) -> Response {
    let stream = futures_util::stream::unfold(Some(pull), |pull| async move {
        let mut pull = pull?;
        match pull.next().await {
            Ok(event) => {
                let told = match event? {
                    PullEvent::Resolved(digest) => last(&digest),
                    event => super::pull::lines(&event),
                };
                Some((Ok::<_, Infallible>(told), Some(pull)))
            }
            Err(error) => Some((Ok(super::pull::failure(ApiError::from(error))), None)),
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
}

/// The same of a push.
fn pushing(push: Push) -> Response {
    let stream = futures_util::stream::unfold(Some(push), |push| async move {
        let mut push = push?;
        match push.next().await {
            Ok(event) => {
                let told = match event? {
                    PushEvent::Done { digest, .. } => last(&digest),
                    event => super::push::lines(&event),
                };
                Some((Ok::<_, Infallible>(told), Some(push)))
            }
            Err(error) => Some((Ok(super::pull::failure(ApiError::from(error))), None)),
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
}

fn last(digest: &Digest) -> Bytes {
    format!("{}\r\n", super::push::aux(json!({ "ArtifactDigest": digest }))).into()
}

/// `DELETE /libpod/artifacts/{name}`, `…/remove?artifacts=…&all=…`.
pub(super) async fn delete(State(engine): State<Engine>, Path(rest): Path<String>, query: Query) -> Answer {
    let (names, ignores_missing) = if rest == "remove" {
        let named: Vec<String> = query.all("artifacts").map(str::to_owned).collect();
        match (query.flag("all"), named.is_empty()) {
            (true, true) => {
                let all = engine.images().artifacts();
                // One that somebody else removes meanwhile is gone, which was asked.
                (all.into_iter().map(|artifact| artifact.reference.to_string()).collect(), true)
            }
            (false, false) => (named, query.flag("ignore")),
            (true, false) => {
                let words = "when setting all to true, you may not pass any artifact names or digests";
                return Err(ApiError::invalid(words));
            }
            (false, true) => return Err(ApiError::invalid("an artifact or all option must be specified")),
        }
    } else {
        (vec![rest], false)
    };
    let removed = engine.remove_artifacts(names, ignores_missing).await?;
    ok(&json!({ "ArtifactDigests": removed }))
}

async fn add(engine: Engine, headers: &HeaderMap, query: &Query, body: Body) -> Answer {
    let reference: Reference = required(query, "name")?.parse()?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("an artifact is added by a tag, and not by a digest"));
    }
    let is_archive = query.flag("archive");
    let title = if is_archive { String::new() } else { required(query, "fileName")?.to_owned() };
    let artifact_type = query.text("artifactMIMEType").map(media_type).transpose()?;
    let subject = query.text("subject").map(str::parse::<Reference>).transpose()?;
    let to = match query.flag("append") {
        true => {
            let others =
                [("type", artifact_type.is_some()), ("replace", query.flag("replace")), ("subject", subject.is_some())];
            if let Some((other, _)) = others.iter().find(|(_, is_there)| *is_there) {
                return Err(ApiError::invalid(format!("append option is not compatible with {other} option")));
            }
            AdditionTo::Existing
        }
        false => {
            let subject = match subject {
                Some(subject) => {
                    let transfer = transfer(&subject.to_string(), headers, query)?;
                    Some(engine.artifact_subject(&reference, transfer).await?)
                }
                None => None,
            };
            let created = image_query::created(query)?.unwrap_or_else(Timestamp::now);
            AdditionTo::New { artifact_type, subject, created, replaces: query.flag("replace") }
        }
    };
    let file_type = query.text("fileMIMEType").map(media_type).transpose()?;
    let annotations = annotations(query)?;
    let addition = ArtifactAddition { reference, to, file_type, annotations };
    let (archive, pieces) = mpsc::channel(PIECES);
    tokio::spawn(pump(body, archive));
    let add = move || {
        let mut bytes = ChannelReader::new(pieces);
        let files = match is_archive {
            true => AddedFiles::Archive(&mut bytes),
            false => AddedFiles::One { title, bytes: &mut bytes },
        };
        engine.add_artifact(&addition, files)
    };
    let added = tokio::task::spawn_blocking(add).await.map_err(join_failed)?;
    let added = added.map_err(|error: EngineError| ApiError::from(error))?;
    Ok(reply(StatusCode::CREATED, &json!({ "ArtifactDigest": added.digest })))
}

/// As podman's engine describes one, with the digest beside it.
fn described(artifact: &Artifact, manifest: &[u8]) -> Value {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    json!({ "Manifest": manifest, "Name": artifact.reference.familiar(), "Digest": artifact.digest })
}

fn selection(query: &Query) -> Result<Selection, ApiError> {
    match (query.text("digest"), query.text("title")) {
        (Some(_), Some(_)) => Err(ApiError::invalid("cannot specify both digest and title")),
        (None, None) => Ok(Selection::All),
        (None, Some(title)) => Ok(Selection::Title(title.to_owned())),
        (Some(digest), None) => {
            let digest = digest.parse::<Digest>().map_err(|error| ApiError::invalid(error.to_string()))?;
            Ok(Selection::Digest(digest))
        }
    }
}

/// How a registry is reached. How often it is asked again is a setting of the engine's.
fn transfer(name: &str, headers: &HeaderMap, query: &Query) -> Result<ArtifactTransfer, ApiError> {
    for other in ["retry", "retryDelay", "retrydelay"] {
        if query.text(other).is_some() {
            return Err(ApiError::not_built(format_args!("the parameter {other:?}"))
                .with_hint("how often a registry is asked again: \"max-download-attempts\" in daemon.json"));
        }
    }
    Ok(ArtifactTransfer {
        reference: name.parse()?,
        credentials: registry_auth::credentials(headers),
        is_insecure: !query.flag_or("tlsVerify", true),
    })
}

fn annotations(query: &Query) -> Result<BTreeMap<String, String>, ApiError> {
    /// The name of a file: it has that already (podman-artifact-add(1)).
    const TITLE: &str = "org.opencontainers.image.title";
    let mut all = BTreeMap::new();
    for annotation in query.all("annotations") {
        let Some((name, text)) = annotation.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(ApiError::invalid(format!("invalid annotation {annotation:?}: want NAME=TEXT")));
        };
        if name == TITLE {
            return Err(ApiError::invalid(format!("cannot override filename with {TITLE} annotation")));
        }
        all.insert(name.to_owned(), text.to_owned());
    }
    Ok(all)
}

/// RFC 6838, section 4.2: type and subtype of some letters each; parameters may follow.
fn media_type(text: &str) -> Result<String, ApiError> {
    let is_name = |name: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        (1..=127).contains(&name.len()) && name.bytes().all(is_letter)
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_valid = essence.split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype));
    match is_valid && !text.contains(|letter: char| letter.is_control()) && text.len() <= 300 {
        true => Ok(text.to_owned()),
        false => Err(ApiError::invalid(format!("invalid media type {text:?}: want TYPE/SUBTYPE"))),
    }
}

fn required<'q>(query: &'q Query, name: &'q str) -> Result<&'q str, ApiError> {
    query.text(name).ok_or_else(|| ApiError::invalid(format!("{name} parameter is required")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read_or_refused() {
        for text in ["text/plain", "text/plain; charset=utf-8", "application/vnd.example.a+json", "a/b"] {
            assert_eq!(media_type(text).as_deref(), Ok(text));
        }
        for text in
            ["", "text", "text/", "/plain", "te xt/plain", "text/plain\n", "a/b/c", &format!("a/{}", "b".repeat(128))]
        {
            assert_eq!(media_type(text).unwrap_err().status(), 400, "{text:?}");
        }
    }

    #[test]
    fn what_is_asked_is_read() {
        let of = |query: &str| selection(&Query::from(query));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(of(""), Ok(Selection::All));
        assert_eq!(of("title=a%20b"), Ok(Selection::Title("a b".into())));
        assert_eq!(of(&format!("digest={digest}")), Ok(Selection::Digest(digest.parse().unwrap())));
        for query in ["digest=aaaa".to_owned(), format!("title=a&digest={digest}")] {
            assert_eq!(of(&query).unwrap_err().status(), 400, "{query}");
        }
        let noted = annotations(&Query::from("annotations=a=b&annotations=c=d=e")).unwrap();
        assert_eq!(noted, BTreeMap::from([("a".into(), "b".into()), ("c".into(), "d=e".into())]));
        for query in ["annotations=a", "annotations==b", "annotations=org.opencontainers.image.title=x"] {
            assert_eq!(annotations(&Query::from(query)).unwrap_err().status(), 400, "{query}");
        }
        let how = |query: &str| transfer("r.example/a:1", &HeaderMap::new(), &Query::from(query));
        assert!(how("tlsVerify=false").unwrap().is_insecure);
        assert!(!how("tlsVerify=true").unwrap().is_insecure && !how("").unwrap().is_insecure);
        assert_eq!(how("retry=3").unwrap_err().status(), 501);
    }
}
