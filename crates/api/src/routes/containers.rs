//! Containers: create, start, stop, and what else can be asked of one.

use std::collections::{BTreeMap, BTreeSet};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use dozen_engine::{
    Changed, CreateRequest, Engine, EngineError, ExitStatus, RemoveOptions, StopOptions, WaitCondition, WindowSize,
};
use dozen_model::{ImageId, Signal};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::specify::{Specified, specify};
use crate::convert::create::ImageDefaults;
use crate::convert::listing::{self, Listing};
use crate::convert::{defaults as engine_defaults, fields, inspect as shapes, request};
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError, empty, join_failed, ok, reply};
use crate::extract::{Json, Query};
use crate::rows::Rows;
use crate::{shims, sizes};

pub(super) async fn list(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer {
    let listing = Listing::read(&query)?;
    let ancestors = ancestors(&engine, listing.ancestors()).await?;
    let now = Timestamp::now();
    let mountpoint = mountpoints(&engine);
    let selected = listing.select(engine.containers(), &ancestors)?;
    let mut named: BTreeMap<&str, Option<ImageId>> = BTreeMap::new();
    let mut rows = Rows::new();
    for snapshot in &selected {
        let spec = &snapshot.spec;
        if !named.contains_key(spec.image_name.as_str()) {
            named.insert(&spec.image_name, engine.image(&spec.image_name).await.ok().map(|image| image.id));
        }
        let image = listing::image_name(spec, named[spec.image_name.as_str()].as_ref());
        let mut row = listing::row(snapshot, &image, now, &mountpoint);
        if query.flag("size") {
            sizes::add(&engine, snapshot, &mut row).await;
        }
        shims::container(version, &mut row);
        rows.push(&row);
    }
    rows.answer()
}

/// The images of these names and those made from them. One that is not here has no containers.
async fn ancestors(engine: &Engine, names: &[String]) -> Result<BTreeSet<ImageId>, ApiError> {
    let mut roots = Vec::new();
    for name in names {
        roots.extend(engine.image(name).await.ok().map(|image| image.id));
    }
    if roots.is_empty() {
        return Ok(BTreeSet::new());
    }
    let images = engine.images().clone();
    let images = tokio::task::spawn_blocking(move || images.list()).await.map_err(join_failed)?;
    let images = images.map_err(EngineError::from)?;
    let parents = images.into_iter().filter_map(|image| Some((image.id, image.parent?))).collect();
    Ok(listing::descendants(roots, &parents))
}

pub(super) async fn create(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
    Json(mut body): Json,
) -> Answer {
    let platform = super::image_query::platform(&query)?;
    let name = query.text("name").map(|name| name.trim_start_matches('/').parse()).transpose()?;
    shims::healthcheck(version, &mut body);
    let mut request: request::Create = request::read(body, fields::CREATE)?;
    engine_defaults::merge(&mut request, &engine.settings());
    if request.image.is_empty() {
        let message = "config cannot be empty in order to create a container";
        return Err(ApiError::invalid(message).with_hint("set Image to a name or an id"));
    }
    let image = engine.image_to_run(&request.image, platform).await?;
    super::mounted::prepare(&engine, version, &image.id, &mut request.host_config.mounts).await?;
    let defaults = ImageDefaults::of(&image.raw)?;
    let Specified { spec, own_ids, mut warnings } = specify(&engine, &request, image.id.clone(), &defaults)?;
    let (container, more) = engine.create(CreateRequest { name, spec, own_ids }).await?;
    warnings.extend(more);
    Ok(reply(StatusCode::CREATED, &json!({ "Id": container.id().as_str(), "Warnings": warnings })))
}

pub(super) async fn inspect(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    let container = engine.container(&id)?;
    let execs = engine.execs_of(container.id());
    let snapshot = container.snapshot();
    let mut shown = shapes::inspect(&snapshot, &execs, &mountpoints(&engine));
    shims::healthcheck(version, &mut shown["Config"]);
    if query.flag("size") {
        sizes::add(&engine, &snapshot, &mut shown).await;
    }
    shims::container(version, &mut shown);
    ok(&shown)
}

fn mountpoints(engine: &Engine) -> impl Fn(&str) -> Option<String> + '_ {
    |name| engine.volume(name).ok().map(|volume| volume.mountpoint.display().to_string())
}

pub(super) async fn start(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    if query.text("checkpoint").is_some() || query.text("checkpoint-dir").is_some() {
        return Err(ApiError::not_built("starting from a checkpoint"));
    }
    changed(engine.container(&id)?.start().await?)
}

pub(super) async fn stop(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let options = stop_options(&query)?;
    changed(engine.container(&id)?.stop(options).await?)
}

pub(super) async fn restart(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let options = stop_options(&query)?;
    engine.container(&id)?.restart(options).await?;
    empty(StatusCode::NO_CONTENT)
}

fn stop_options(query: &Query) -> Result<StopOptions, ApiError> {
    Ok(StopOptions { signal: query.text("signal").map(str::parse).transpose()?, timeout_s: query.number("t")? })
}

/// Docker answers 304 where there was nothing to do.
fn changed(changed: Changed) -> Answer {
    empty(match changed {
        Changed::Yes => StatusCode::NO_CONTENT,
        Changed::Already => StatusCode::NOT_MODIFIED,
    })
}

pub(super) async fn kill(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let signal = match query.text("signal") {
        Some(text) => text.parse()?,
        None => Signal::KILL,
    };
    let words = || format!("cannot kill container: {id}");
    let container = engine.container(&id).map_err(|error| ApiError::from(error).context(words()))?;
    match container.kill(signal).await {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        Err(error @ EngineError::NotRunning(_)) => Err(ApiError::from(error).context(words())),
        Err(error) => Err(error.into()),
    }
}

/// The head is sent at once: the CLI waits for it before it starts the container.
pub(super) async fn wait(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    let condition = match query.text("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiter = engine.container(&id)?.wait(condition);
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        tokio::select! {
            status = waiter.wait() => {
                let mut answer = waited(status);
                shims::waited(version, &mut answer);
                let _ = sender.send(Ok(format!("{answer}\n").into())).await;
            }
            () = sender.closed() => {}
        }
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn waited(status: Option<ExitStatus>) -> Value {
    let mut value = json!({ "StatusCode": status.as_ref().map_or(0, |status| status.exit_code) });
    if let Some(message) = status.and_then(|status| status.error) {
        value["Error"] = json!({ "Message": message });
    }
    value
}

pub(super) async fn rename(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let name = query.text("name").unwrap_or("").trim_start_matches('/');
    if name.is_empty() {
        return Err(ApiError::invalid("Neither old nor new names may be empty"));
    }
    engine.container(&id)?.rename(name.parse()?).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn resize(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let size = window_size(&query)?;
    engine.container(&id)?.resize(size).await?;
    empty(StatusCode::OK)
}

/// `h` and `w`: rows and columns.
pub(super) fn window_size(query: &Query) -> Result<WindowSize, ApiError> {
    let side = |name: &str| {
        query.number::<u16>(name)?.ok_or_else(|| ApiError::invalid(format!("the parameter {name:?} is missing")))
    };
    Ok(WindowSize { rows: side("h")?, columns: side("w")? })
}

pub(super) async fn top(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let top = engine.container(&id)?.top(query.text("ps_args").unwrap_or_default()).await?;
    ok(&json!({ "Titles": top.titles, "Processes": top.processes }))
}

pub(super) async fn remove(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    query.refuse("link")?;
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v") };
    engine.container(&id)?.remove(options).await?;
    empty(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_answers_dockers_way() {
        assert_eq!(waited(None), json!({"StatusCode": 0}));
        let exit = |error: Option<&str>| ExitStatus {
            exit_code: 255,
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            out_of_memory: false,
            error: error.map(str::to_owned),
        };
        assert_eq!(waited(Some(exit(None))), json!({"StatusCode": 255}));
        assert_eq!(waited(Some(exit(Some("why")))), json!({"StatusCode": 255, "Error": {"Message": "why"}}));
    }

    #[test]
    fn parameters_parse_or_are_refused() {
        assert_eq!(window_size(&Query::from("h=24&w=80")), Ok(WindowSize { rows: 24, columns: 80 }));
        assert!(window_size(&Query::from("h=24")).is_err());
        assert!(window_size(&Query::from("h=99999&w=1")).is_err());
        let options = stop_options(&Query::from("t=-1&signal=INT")).unwrap();
        assert_eq!((options.timeout_s, options.signal.map(Signal::number)), (Some(-1), Some(2)));
        assert!(stop_options(&Query::from("t=x")).is_err());
    }
}
