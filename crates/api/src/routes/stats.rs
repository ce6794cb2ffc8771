//! `GET /containers/{id}/stats`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use dozen_engine::{Container, Engine, StatsSample, runtime::Cgroup};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::convert::stats as shapes;
use crate::error::{Answer, ApiError, ok};
use crate::extract::Query;
use crate::host;

/// A document each second, until the container's run ends; or one, which with `one-shot` knows of none before it.
pub(super) async fn stats(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Answer {
    let container = engine.container(&id)?;
    let (streams, one_shot) = (query.flag_or("stream", true), query.flag("one-shot"));
    if streams && one_shot {
        return Err(ApiError::invalid("cannot have stream=true and one-shot=true"));
    }
    if one_shot {
        return ok(&match container.stats_once().await? {
            Some(sample) => document(&container, None, &sample),
            None => shapes::none(&container.snapshot()),
        });
    }
    let Some(mut samples) = container.stats() else { return ok(&shapes::none(&container.snapshot())) };
    if !streams {
        let before = samples.next().await;
        let now = match &before {
            Some(_) => samples.next().await,
            None => None,
        };
        return ok(&match now {
            Some(now) => document(&container, before.as_deref(), &now),
            None => shapes::none(&container.snapshot()),
        });
    }
    let (sender, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        let mut before: Option<Arc<StatsSample>> = None;
        loop {
            let now = tokio::select! {
                now = samples.next() => now,
                // The client has left.
                () = sender.closed() => return,
            };
            let Some(now) = now else { return };
            let line = format!("{}\n", document(&container, before.as_deref(), &now));
            if sender.send(Ok(line.into())).await.is_err() {
                return;
            }
            before = Some(now);
        }
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn document(container: &Container, before: Option<&StatsSample>, now: &StatsSample) -> Value {
    shapes::stats(&container.snapshot(), before, now, Cgroup::version() == 2, host::memory_bytes())
}
