//! The owner's part of a restart that nobody has asked for: the pause before it, and whom it waits for.

use std::time::Duration;

use dozen_model::{ContainerId, ContainerSpec, IpcMode, NetworkMode, PidMode, error_chain};
use tokio::time::Instant;

use super::{Entry, Failed, Owner};
use crate::EngineError;
use crate::container::lifecycle::{Input, Refusal};
use crate::container::pause;
use crate::container::snapshot::Phase;
use crate::failpoint::failpoint;

/// Those that it joins are waited for so long; then it tries, and tries again later if it must.
const PATIENCE: Duration = Duration::from_secs(10);
/// A restart that could not even be written down is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

impl Owner {
    pub(super) fn await_restart(&mut self, pause_ms: u64) {
        self.restart_at = Some(Instant::now() + Duration::from_millis(pause_ms));
    }

    /// Ends when it is to start again: the pause is over, and those that it joins run, or will not.
    pub(super) fn due(&self) -> impl Future<Output = ()> + use<> {
        let due_at = self.restart_at.filter(|_| matches!(self.life.phase, Phase::Waiting(_)));
        let (shared, snapshot) = (self.shared.clone(), self.snapshot());
        async move {
            super::sleep_until(due_at).await;
            let Some(due_at) = due_at else { return };
            let joined: Vec<Entry> = joined_by(&snapshot.spec).filter_map(|id| shared.registry.get(id)).collect();
            // After that it tries all the same.
            drop(tokio::time::timeout_at(due_at + PATIENCE, settled(joined)).await);
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

/// Those without which it cannot start.
fn joined_by(spec: &ContainerSpec) -> impl Iterator<Item = &ContainerId> {
    let network = if let NetworkMode::Container(other) = &spec.network { Some(other) } else { None };
    let processes = if let PidMode::Container(other) = &spec.sharing.pid { Some(other) } else { None };
    let memory = if let IpcMode::Container(other) = &spec.sharing.ipc { Some(other) } else { None };
    network.into_iter().chain(processes).chain(memory)
}

/// None of them is on its way up any more.
async fn settled(entries: Vec<Entry>) {
    for mut entry in entries {
        // An error means that it is gone.
        drop(entry.taken_up.wait_for(|taken_up| *taken_up).await);
        let is_settled = |phase: &Phase| !matches!(phase, Phase::Starting { .. } | Phase::Waiting(_));
        drop(entry.snapshots.wait_for(|snapshot| is_settled(&snapshot.phase)).await);
    }
}
