//! `pause` and `unpause`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use dozen_engine::Engine;

use crate::error::{Answer, empty};

pub(super) async fn pause(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    engine.container(&id)?.pause().await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn unpause(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    engine.container(&id)?.unpause().await?;
    empty(StatusCode::NO_CONTENT)
}
