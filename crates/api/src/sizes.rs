//! How much a container has written: Docker's SizeRw.

use dozen_engine::image::written_bytes;
use dozen_engine::{Engine, Snapshot};
use serde_json::{Value, json};

/// Adds `SizeRw` and `SizeRootFs` to what is shown of a container.
pub(crate) async fn add(engine: &Engine, snapshot: &Snapshot, shown: &mut Value) {
    let written = snapshot.directory.join("upper");
    // Walking a tree takes its time, which other requests do not wait for.
    let written = tokio::task::spawn_blocking(move || written_bytes(&written)).await.unwrap_or(0);
    // An image that was removed by force has no size any more.
    let image = engine.image(&snapshot.spec.image.to_string()).await.map_or(0, |image| image.size_bytes);
    shown["SizeRw"] = json!(written);
    shown["SizeRootFs"] = json!(written + image);
}
