//! The owner's part of a restart that nobody has asked for: the pause before it, and whom it waits for.

use std::time::Duration;

use dozen_model::error_chain;
use tokio::time::Instant;

use super::{Entry, Failed, Owner};
use crate::EngineError;
use crate::container::lifecycle::{Input, Refusal};
use crate::container::pause;
use crate::container::sharing::joined_by;
use crate::container::snapshot::{Phase, Snapshot};
use crate::failpoint::failpoint;

/// Each of those that come first is waited for so long, once those before it are there; then it tries all the same, and
/// tries again later if it must.
const PATIENCE: Duration = Duration::from_secs(10);
/// A restart that could not even be written down is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

impl Owner {
    pub(super) fn await_restart(&mut self, pause_ms: u64) {
        self.restart_at = Some(Instant::now() + Duration::from_millis(pause_ms));
    }

    /// Ends when it is to start again: the pause is over, and those that it joins run, or will not. When engine or machine
    /// have started, so do those that were made before it: it may have been made to find them by their names.
    pub(super) fn due(&self) -> impl Future<Output = ()> + use<> {
        let due_at = self.restart_at.filter(|_| matches!(self.life.phase, Phase::Waiting(_)));
        let (shared, snapshot) = (self.shared.clone(), self.snapshot());
        async move {
            super::sleep_until(due_at).await;
            let joined: Vec<Entry> = joined_by(&snapshot.spec).filter_map(|id| shared.registry.get(id)).collect();
            let earlier =
                if snapshot.restarts.is_of_a_beginning() { shared.registry.made_before(&snapshot) } else { Vec::new() };
            settled(earlier, |other| is_on_its_way(other) && other.restarts.is_of_a_beginning()).await;
            settled(joined, is_on_its_way).await;
        }
    }

    pub(super) async fn restart_by_itself(&mut self) {
        self.restart_at = None;
        failpoint("restart.due");
        let snapshot = self.snapshot();
        let reason = snapshot.restarts.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        let (id, count) = (snapshot.id.short(), snapshot.restarts.count);
        tracing::info!(container = id, count, reason, "a container starts again");
        if let Err(Failed::Error(error)) = self.apply(Input::Due).await {
            tracing::error!(container = id, error = error_chain(&error), "a container could not be restarted");
        }
        if matches!(self.life.phase, Phase::Waiting(_)) && self.restart_at.is_none() {
            self.restart_at = Some(Instant::now() + AGAIN);
        }
    }

    /// Docker's words on a pause that cannot be.
    pub(super) fn explain_pause(&self, failed: Failed) -> EngineError {
        let snapshot = self.snapshot();
        let (id, name) = (&snapshot.id, &snapshot.name);
        let conflict = |message: String, hint: Option<String>| EngineError::Conflict { message, hint };
        match failed {
            Failed::Refused(Refusal::Paused) => {
                conflict(format!("Container {id} is already paused"), Some(format!("dozen unpause {name}")))
            }
            Failed::Refused(Refusal::NotPaused) => conflict(format!("Container {id} is not paused"), None),
            Failed::Refused(Refusal::Restarting) => pause::is_restarting(&snapshot),
            Failed::Refused(Refusal::Ending) => {
                conflict(format!("cannot pause container {name}: it is being stopped"), None)
            }
            Failed::Refused(Refusal::NotRunning) => EngineError::NotRunning(id.to_string()),
            other => self.explain(other),
        }
    }
}

fn is_on_its_way(snapshot: &Snapshot) -> bool {
    matches!(snapshot.phase, Phase::Starting { .. } | Phase::Waiting(_))
}

/// None of them is waited for any more.
async fn settled(entries: Vec<Entry>, is_awaited: impl Fn(&Snapshot) -> bool) {
    for mut entry in entries {
        let settled = async {
            // An error means that it is gone.
            drop(entry.taken_up.wait_for(|taken_up| *taken_up).await);
            drop(entry.snapshots.wait_for(|snapshot| !is_awaited(snapshot)).await);
        };
        drop(tokio::time::timeout(PATIENCE, settled).await);
    }
}
