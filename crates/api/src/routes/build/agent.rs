//! `POST /build/agent`: the connection becomes the way to an SSH agent of the client's. From then on the engine asks, in the
//! agent's own messages, and the client answers.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use dozen_engine::Engine;

use super::intake;
use crate::error::{Answer, ApiError};
use crate::extract::Json;
use crate::listening::Way;
use crate::stream::takeover::{Head, response};

const RAW_STREAM: &str = "application/vnd.docker.raw-stream";

pub(in crate::routes) async fn agent(
    State(engine): State<Engine>,
    Extension(way): Extension<Way>,
    headers: HeaderMap,
    Json(body): Json,
) -> Answer {
    intake::check_way(way, "agents")?;
    // In the body, since who knows it has the agent.
    let name = body.get("Name").and_then(serde_json::Value::as_str);
    let waiting = engine.expect_agent(name.ok_or_else(|| ApiError::invalid("the agent has no Name"))?)?;
    Ok(response(Head::for_request(&headers, RAW_STREAM), move |client, early| async move {
        // Nothing has been asked yet.
        if early.is_empty() {
            waiting.serve(client).await;
        }
    }))
}
