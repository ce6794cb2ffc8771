//! `POST /containers/{id}/update`.

use axum::extract::{Path, State};
use dozen_engine::{Engine, HostResources};
use serde_json::json;

use crate::convert::{request, resources};
use crate::error::{Answer, ApiError, ok};
use crate::extract::Json;

pub(super) async fn update(State(engine): State<Engine>, Path(id): Path<String>, Json(body): Json) -> Answer {
    let container = engine.container(&id)?;
    let asked: resources::Resources = request::read(body, resources::UPDATE)?;
    let mut warnings = Vec::new();
    let change = resources::change(&asked, HostResources::of_host(), &mut warnings)?;
    // A restart policy would change here, as one more `SpecChange`.
    container
        .update(change)
        .await
        .map_err(|error| ApiError::from(error).context(format_args!("Cannot update container {}", container.id())))?;
    ok(&json!({ "Warnings": warnings }))
}
