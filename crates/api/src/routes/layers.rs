//! What `dozen load` asks before it sends an archive. Not of Docker's API: a client that gets no answer sends all.

use axum::extract::State;
use dozen_engine::Engine;
use dozen_model::Digest;
use serde_json::json;

use crate::error::{Answer, ApiError, ok};
use crate::extract::Json;

/// `POST /layers/known`: of which of `Digests` the bytes are there, layers' plain tar streams and blobs as they came. They are
/// not held: one may be gone in the next moment.
pub(super) async fn known(State(engine): State<Engine>, Json(body): Json) -> Answer {
    let asked =
        body["Digests"].as_array().ok_or_else(|| ApiError::invalid("\"Digests\" has to be a list of digests"))?;
    let asked: Vec<Digest> = asked.iter().filter_map(|text| text.as_str()?.parse().ok()).collect();
    ok(&json!({ "Known": engine.known_contents(asked) }))
}
