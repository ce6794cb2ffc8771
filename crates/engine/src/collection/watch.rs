//! When is collected by itself: after something came (a pull, a load, a build, a commit), when the settings change, and at the
//! start; and, as long as there is something that may go, every ten minutes, since others fill the disk, too. An engine that has
//! nothing to let go of has no timer.

use std::sync::Arc;
use std::time::Duration;

use dozen_model::error_chain;
use dozen_settings::CollectedImages;
use tokio::sync::Notify;

use super::{CollectionRequest, Disk, collect};
use crate::EngineError;
use crate::events::EventKind;
use crate::shared::Shared;

/// How often is looked, while there is something that may go.
const EVERY: Duration = Duration::from_secs(600);
/// So often at the most is collected in a row, while less is free than is to be.
const ROUNDS: usize = 3;

/// Wakes who collects.
#[derive(Debug, Default)]
pub(crate) struct Watch(Notify);

impl Watch {
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }
}

/// Whether there may be more on the disk than before, or other settings.
pub(crate) fn is_moved_by(kind: EventKind, action: &str) -> bool {
    match kind {
        EventKind::Image => ["pull", "load", "import", "tag"].contains(&action),
        EventKind::Container => action == "commit",
        EventKind::Daemon => action == "reload",
        _ => false,
    }
}

/// For as long as the engine lives.
pub(crate) fn begin(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        loop {
            let has_more = look(&shared).await.unwrap_or_else(|error| {
                tracing::error!(error = error_chain(&error), "nothing is collected; it is tried again");
                true
            });
            let woken = shared.collection.0.notified();
            match has_more {
                true => drop(tokio::time::timeout(EVERY, woken).await),
                false => woken.await,
            }
        }
    });
}

/// Whether there is something that may go.
async fn look(shared: &Arc<Shared>) -> Result<bool, EngineError> {
    let settings = shared.config.settings.get();
    if !settings.collection.is_on {
        return Ok(false);
    }
    for _ in 0..ROUNDS {
        let disk = Disk::of(shared)?;
        let is_full = settings.collection.wanted_free(disk.bytes, disk.free_bytes) > disk.free_bytes;
        if !is_full && settings.collection.max_size.is_none() && settings.collection.keep_duration.is_none() {
            break;
        }
        let collection = collect(shared, CollectionRequest::default(), true).await?;
        if collection.reclaimed_bytes == 0 {
            break;
        }
    }
    let images = shared.images.clone();
    let has_images = settings.collection.images != CollectedImages::None;
    let has_more = move || Ok(!images.cached_steps().is_empty() || (has_images && !images.list()?.is_empty()));
    shared.blocking(has_more).await
}
