//! What `dozen load` asks before it sends an archive. Not of Docker's API: a client that gets no answer sends all.

use axum::extract::State;
use dozen_engine::Engine;
use dozen_model::Digest;
use serde_json::json;

use crate::error::{Answer, ApiError, ok};
use crate::extract::Json;

/// `POST /layers/known`: which of the layers in `DiffIDs`, digests of plain tar streams, are there. They are not held:
/// one may be gone in the next moment.
pub(super) async fn known(State(engine): State<Engine>, Json(body): Json) -> Answer {
    let asked =
        body["DiffIDs"].as_array().ok_or_else(|| ApiError::invalid("\"DiffIDs\" has to be a list of digests"))?;
    let is_known = |text: &&str| text.parse::<Digest>().is_ok_and(|digest| engine.has_layer(&digest));
    let known: Vec<&str> = asked.iter().filter_map(|text| text.as_str()).filter(is_known).collect();
    ok(&json!({ "Known": known }))
}
