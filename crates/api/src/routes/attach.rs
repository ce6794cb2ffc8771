//! `POST /containers/{id}/attach`, and `GET …/attach/ws` by WebSocket: the streams, the log so far, or both without losing or doubling a byte in between.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use dozen_engine::{AttachOptions, Engine, LogOptions, LogStream};
use dozen_model::error_chain;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::logs::Format;
use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError};
use crate::extract::Query;
use crate::shims;
use crate::stream::relay::{self, Input, Output};
use crate::stream::takeover::{Head, Session, response};
use crate::stream::websocket;

pub(super) async fn attach(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Answer {
    let begun = begin(&engine, &id, &query, false).await?;
    let head = Head::for_request(&headers, shims::stream_content_type(version, begun.terminal));
    Ok(response(head, begun.session))
}

pub(super) async fn attach_websocket(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Answer {
    let accept = match websocket::accept(&headers) {
        Ok(accept) => accept,
        Err(refused) => return Ok(refused.into()),
    };
    let begun = begin(&engine, &id, &query, shims::websocket_has_all_streams(version)).await?;
    Ok(response(Head::WebSocket { accept }, move |client, early| async move {
        // Whoever wants for descriptors has no streams.
        let Ok((inner, end)) = UnixStream::pair() else { return };
        tokio::join!(websocket::bridge(client, early, inner, !begun.terminal), (begun.session)(end, Bytes::new()));
    }))
}

/// An attachment that waits for its client.
struct Begun {
    terminal: bool,
    session: Session,
}

/// `all`: of the streams, whatever is asked for.
async fn begin(engine: &Engine, id: &str, query: &Query, all: bool) -> Result<Begun, ApiError> {
    let detach_keys = query.text("detachKeys").map(str::parse).transpose()?;
    let container = engine.container(id)?;
    let (log, stream) = (query.flag("logs"), query.flag("stream"));
    let wants = |name: &str| all || query.flag(name);
    let options = AttachOptions { stdin: wants("stdin"), stdout: wants("stdout"), stderr: wants("stderr"), log };
    let terminal = container.snapshot().spec.process.terminal;
    let wanted = LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
    if !stream {
        let entries = if log { Some(container.logs(wanted).await?) } else { None };
        let session = move |mut client: UnixStream, _| async move {
            if let Some(entries) = entries {
                write(&mut client, entries, terminal, None).await;
            }
        };
        return Ok(Begun { terminal, session: Box::new(move |client, early| Box::pin(session(client, early))) });
    }
    let pending = container.attach(options).await?;
    let not_running = pending.not_running;
    let patience = not_running.is_none().then_some(relay::ONLOOKERS_PATIENCE);
    let output = Output { patience, framed: false };
    let input =
        Input { forward: options.stdin, detach: (terminal && options.stdin).then(|| detach_keys.unwrap_or_default()) };
    let session = move |mut client: UnixStream, early: Bytes| async move {
        let read = async |client: &mut UnixStream, part| match container.logs(part).await {
            Ok(entries) => write(client, entries, terminal, output.patience).await,
            Err(error) => {
                tracing::debug!(error = error_chain(&error), "an attachment goes without the log");
                true
            }
        };
        if let (true, Some(until)) = (log, not_running)
            && !read(&mut client, LogOptions { until: Some(until), ..wanted.clone() }).await
        {
            return;
        }
        let Some(stream) = relay::connected(&client, pending).await else { return };
        if let (true, None) = (log, not_running)
            && !read(&mut client, LogOptions { end: stream.log_end, ..wanted }).await
        {
            return;
        }
        if relay::relay(client, early, stream, input, output).await {
            container.announce_detach();
        }
    };
    Ok(Begun { terminal, session: Box::new(move |client, early| Box::pin(session(client, early))) })
}

/// A part of the log. False if the client has gone, or has read nothing for as long as the patience with it.
async fn write(client: &mut UnixStream, mut entries: LogStream, terminal: bool, patience: Option<Duration>) -> bool {
    let format = Format { terminal, timestamps: false, details: false };
    while let Some(batch) = entries.recv().await {
        let batch = format.batch(batch);
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let written = client.write(rest);
            let written = match patience {
                Some(patience) => tokio::time::timeout(patience, written).await.unwrap_or(Ok(0)),
                None => written.await,
            };
            match written {
                Ok(count @ 1..) => rest = &rest[count..],
                _ => return false,
            }
        }
    }
    true
}
