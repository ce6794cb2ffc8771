//! `POST /containers/{id}/update`.

use axum::extract::{Path, State};
use dozen_engine::{Engine, HostResources};
use serde_json::{Value, json};

use crate::convert::{log, request, resources, restart};
use crate::error::{Answer, ApiError, ok};
use crate::extract::Json;

pub(super) async fn update(State(engine): State<Engine>, Path(id): Path<String>, Json(body): Json) -> Answer {
    let container = engine.container(&id)?;
    let asked: resources::UpdateRequest = request::read(body, resources::UPDATE)?;
    let mut warnings = Vec::new();
    let change = resources::change(&asked.resources, HostResources::of_host(), &mut warnings)?;
    let policy = &asked.restart_policy;
    let policy = if policy.name.is_empty() { None } else { Some(restart::policy(policy, false)?) };
    let later = container
        .update(change, policy, log::change(asked.log_config))
        .await
        .map_err(|error| ApiError::from(error).context(format_args!("Cannot update container {}", container.id())))?;
    warnings.extend(later);
    ok(&json!({ "Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) } }))
}
