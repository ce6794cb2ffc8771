//! When is collected by itself: after something came (a pull, a load, a build, a commit), when the settings change, and at the
//! start; and, as long as there is something that may go, every ten minutes, since others fill the disk, too. An engine that has
//! nothing to let go of has no timer.

use std::sync::Arc;
use std::time::Duration;

use dozen_model::error_chain;
use tokio::sync::Notify;

use super::{Asker, CollectionRequest, Disk, collect, inventory};
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

/// Whether there is something that may go, now or later.
async fn look(shared: &Arc<Shared>) -> Result<bool, EngineError> {
    let settings = shared.config.settings.get();
    if !settings.collection.is_on {
        return Ok(false);
    }
    let mut promised_free_bytes = 0;
    for _ in 0..ROUNDS {
        let disk = Disk::of(shared)?;
        let free_bytes = disk.free_bytes.max(promised_free_bytes);
        let is_full = settings.collection.wanted_free(disk.bytes, free_bytes) > free_bytes;
        if !is_full && settings.collection.max_size.is_none() && settings.collection.keep_duration.is_none() {
            break;
        }
        let collection = collect(shared, CollectionRequest::default(), Asker::Engine { promised_free_bytes }).await?;
        if collection.reclaimed_bytes == 0 {
            break;
        }
        promised_free_bytes = collection.free_bytes.saturating_add(collection.reclaimed_bytes);
    }
    let shared_too = shared.clone();
    let has_more = move || {
        let listed = inventory::take(&shared_too, settings.builder.is_swept)?;
        Ok(listed.items.iter().any(|item| item.may_ever_go(settings.collection.images)))
    };
    shared.blocking(has_more).await
}
