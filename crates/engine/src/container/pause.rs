//! `pause`: nobody in a container moves, until `unpause`, or until it is to end.
//!
//! Not a hold ([`super::hold`]), which ends with the engine that has it: this one stays. The ledger says that it is wanted,
//! and the cgroup's freezer whether it is so; where they differ, a new engine believes the freezer.

use std::sync::Arc;
use std::time::Duration;

use dozen_model::error_chain;
use dozen_runtime::Cgroup;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::EngineError;
use crate::container::Container;
use crate::container::owner::Command;
use crate::container::snapshot::{Phase, Snapshot};
use crate::failpoint::failpoint;
use crate::shared::Shared;

/// How long a pause waits for processes that are being started in the container. A commit may take longer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Container {
    /// Nobody in it moves any more.
    pub async fn pause(&self) -> Result<(), EngineError> {
        self.ask(|reply| Command::Pause { reply }).await.map(drop)
    }

    /// All in it go on.
    pub async fn unpause(&self) -> Result<(), EngineError> {
        self.ask(|reply| Command::Unpause { reply }).await.map(drop)
    }

    /// A signal that is to end it is heeded by those only who move (in cgroup version 1 even SIGKILL is).
    pub(super) async fn thaw(&self) {
        if self.snapshot().phase.is_paused()
            && let Err(error) = self.unpause().await
            && self.snapshot().phase.is_paused()
        {
            tracing::error!(container = self.id.short(), error = error_chain(&error), "a container stays paused");
        }
    }
}

/// That a process can be brought into it, in Docker's words. `what` is to be done.
pub(crate) fn check_moves(snapshot: &Snapshot, what: &str) -> Result<(), EngineError> {
    let (id, name) = (&snapshot.id, &snapshot.name);
    match &snapshot.phase {
        Phase::Running(run) if run.is_paused => Err(EngineError::Conflict {
            message: format!("Container {id} is paused, unpause the container before {what}"),
            hint: Some(format!("dozen unpause {name}")),
        }),
        Phase::Running(_) => Ok(()),
        Phase::Waiting(_) => Err(is_restarting(snapshot)),
        _ => Err(EngineError::NotRunning(id.to_string())),
    }
}

/// Nobody is in it at the moment.
pub(super) fn is_restarting(snapshot: &Snapshot) -> EngineError {
    let message = format!("Container {} is restarting, wait until the container is running", snapshot.id);
    EngineError::Conflict { message, hint: None }
}

/// Stops everyone. What it returns is to be dropped once the world has been told.
pub(super) async fn freeze(
    shared: &Shared,
    snapshot: &Snapshot,
    moves: &Arc<RwLock<()>>,
) -> Result<OwnedRwLockWriteGuard<()>, EngineError> {
    let busy = || EngineError::Conflict {
        message: format!("cannot pause container {}: it is being committed, or a process started in it", snapshot.name),
        hint: Some("try again".to_owned()),
    };
    let nobody = tokio::time::timeout(PATIENCE, moves.clone().write_owned()).await.map_err(|_| busy())?;
    let cgroup = shared.container_cgroup(&snapshot.id, &snapshot.spec);
    failpoint("freeze.before");
    let freeze = move || Ok(Cgroup::open(&cgroup)?.map_or(Ok(()), |cgroup| cgroup.pause())?);
    shared.blocking(freeze).await?;
    failpoint("freeze.after");
    Ok(nobody)
}

/// Lets everyone go on.
pub(crate) async fn thaw(shared: &Shared, snapshot: &Snapshot) -> Result<(), EngineError> {
    let cgroup = shared.container_cgroup(&snapshot.id, &snapshot.spec);
    failpoint("thaw.before");
    shared.blocking(move || Ok(Cgroup::open(&cgroup)?.map_or(Ok(()), |cgroup| cgroup.resume())?)).await?;
    failpoint("thaw.after");
    Ok(())
}

/// Whether nobody in it moves: the freezer knows.
pub(super) async fn is_still(shared: &Shared, snapshot: &Snapshot) -> Result<bool, EngineError> {
    let cgroup = shared.container_cgroup(&snapshot.id, &snapshot.spec);
    shared.blocking(move || Ok(Cgroup::open(&cgroup)?.map_or(Ok(false), |cgroup| cgroup.is_paused())?)).await
}
