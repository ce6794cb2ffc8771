//! `/volumes/{name}/snapshots`, ours: what a volume held at one moment.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use dozen_engine::{Engine, VolumeSnapshot};
use dozen_model::VolumeName;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::convert::{fields, request};
use crate::error::{Answer, ApiError, empty, ok, reply};
use crate::extract::Json;

/// `GET /volumes/{name}/snapshots`.
pub(super) async fn list(State(engine): State<Engine>, Path(volume): Path<String>) -> Answer {
    let snapshots: Vec<Value> = engine.volume_snapshots(&volume)?.iter().map(render).collect();
    ok(&json!({ "Snapshots": snapshots }))
}

/// `POST /volumes/{name}/snapshots`.
pub(super) async fn create(State(engine): State<Engine>, Path(volume): Path<String>, Json(body): Json) -> Answer {
    let request: request::VolumeSnapshot = request::read(body, fields::VOLUME_SNAPSHOT)?;
    let name = match request.name.as_str() {
        "" => named_by_time(Timestamp::now()).parse()?,
        name => parse(name)?,
    };
    let made = engine.snapshot_volume(&volume, name, request.pause.unwrap_or(true)).await?;
    Ok(reply(StatusCode::CREATED, &render(&made)))
}

/// `DELETE /volumes/{name}/snapshots/{snapshot}`.
pub(super) async fn remove(State(engine): State<Engine>, Path((volume, name)): Path<(String, String)>) -> Answer {
    engine.remove_volume_snapshot(&volume, parse(&name)?).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /volumes/{name}/snapshots/{snapshot}/restore`.
pub(super) async fn restore(State(engine): State<Engine>, Path((volume, name)): Path<(String, String)>) -> Answer {
    engine.restore_volume(&volume, parse(&name)?).await?;
    empty(StatusCode::NO_CONTENT)
}

fn parse(name: &str) -> Result<VolumeName, ApiError> {
    name.parse().map_err(|_| {
        let name: String = name.chars().take(200).collect();
        ApiError::invalid(format!("invalid snapshot name {name:?}: only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"))
    })
}

/// `20261122-044010.123`, in UTC.
fn named_by_time(now: Timestamp) -> String {
    now.strftime("%Y%m%d-%H%M%S.%3f").to_string()
}

fn render(snapshot: &VolumeSnapshot) -> Value {
    json!({
        "Volume": snapshot.volume.as_str(),
        "Name": snapshot.name.as_str(),
        "CreatedAt": snapshot.created.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_without_a_name_is_called_by_its_time() {
        let name = named_by_time("2026-11-22T04:40:10.123456Z".parse().unwrap());
        assert_eq!(name, "20261122-044010.123");
        assert!(parse(&name).is_ok() && parse("../x").is_err() && parse("").is_err());
    }
}
