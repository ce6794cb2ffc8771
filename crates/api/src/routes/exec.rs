//! Execs: made in a container, started by their own id.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use dozen_engine::Engine;
use dozen_model::ErrorKind;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::containers::window_size;
use super::logs;
use crate::convert::{exec as shapes, fields, request};
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError, empty, ok, reply};
use crate::extract::{Json, Query};
use crate::shims;
use crate::stream::detach::DetachKeys;
use crate::stream::relay::{self, Input, Output};
use crate::stream::takeover::{Head, response};

pub(super) async fn create(State(engine): State<Engine>, Path(id): Path<String>, Json(body): Json) -> Answer {
    let container = engine.container(&id)?;
    let spec = shapes::spec(request::read(body, fields::EXEC)?)?;
    let exec = container.exec(spec).await?;
    Ok(reply(StatusCode::CREATED, &json!({ "Id": exec.id().as_str() })))
}

pub(super) async fn start(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json,
) -> Answer {
    let request: request::ExecStart = request::read(body, fields::EXEC_START)?;
    let exec = engine.exec(&id)?;
    let spec = exec.snapshot().await?.spec;
    if request.tty && !spec.terminal && !request.detach {
        return Err(ApiError::invalid(format!("Tty: the exec {id} has no terminal"))
            .with_hint("ask for one when the exec is made"));
    }
    // A client that made a terminal and does not say so again wants frames, as Docker reads it.
    let raw = spec.terminal && request.tty;
    let head = Head::for_request(&headers, shims::stream_content_type(version, raw));
    let stream = match exec.start(request.detach, shapes::size(request.console_size)).await.map_err(ApiError::from) {
        Ok(Some(stream)) => stream,
        Ok(None) => return empty(StatusCode::OK),
        // Docker's engine has taken the connection over before it starts the process: clients expect to read there
        // what is wrong with the command, and its code (126, 127) in `inspect`.
        Err(error) if !request.detach && !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {
            let hint = error.hint.map(|hint| format!("\r\nhint: {hint}")).unwrap_or_default();
            let words = logs::complaint(&format!("{}{hint}", error.message), raw);
            return Ok(response(head, move |mut client, _| async move {
                // A client that is gone needs no words.
                let _ = client.write_all(&words).await;
                let _ = client.shutdown().await;
            }));
        }
        Err(error) => return Err(error),
    };
    let keys = match spec.detach_keys.as_str() {
        "" => DetachKeys::default(),
        keys => keys.parse()?,
    };
    let input = Input { forward: spec.stdin, detach: (spec.terminal && spec.stdin).then_some(keys) };
    let output = Output { framed: spec.terminal && !raw, patience: None };
    Ok(response(head, move |client, early| async move {
        if relay::relay(client, early, stream, input, output).await {
            exec.announce_detach();
        }
    }))
}

pub(super) async fn resize(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let size = window_size(&query)?;
    engine.exec(&id)?.resize(size).await?;
    empty(StatusCode::OK)
}

pub(super) async fn inspect(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    ok(&shapes::inspect(&engine.exec(&id)?.snapshot().await?))
}
