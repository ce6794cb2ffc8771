//! The engine's last work when the machine goes down: its containers end as they asked to, by their own signals and each in
//! its own time, while network and disks are still there. The service manager would end them all at once with SIGTERM.
//!
//! Of the ledger nothing is changed: it says of each that it runs, its monitor has written down how it ended, and it was of
//! this boot. That is what a power cut leaves too, and the next engine goes on from there. So no owner may act any more
//! from the first moment on: an end that is seen now is the machine's doing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dozen_model::{ContainerId, error_chain};
use dozen_monitor::protocol::Reply;
use dozen_runtime::Cgroup;

use crate::EngineError;
use crate::container::sharing::joined_by;
use crate::container::snapshot::{Phase, Snapshot};
use crate::container::{Container, launch, pause};
use crate::engine::Engine;
use crate::shared::Shared;

/// Who has been killed, and does not end even so, is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the engine takes its containers along.
#[derive(Debug, Default)]
pub(crate) struct Farewell(AtomicBool);

impl Farewell {
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Engine {
    /// Ends all containers and takes everything of theirs from the host, for a machine that goes down. They run again with
    /// the next engine, as their policies say. The API must not be served any more.
    pub async fn farewell(&self) -> Result<(), EngineError> {
        let shared = self.shared();
        shared.farewell.0.store(true, Ordering::Release);
        let (mut told, mut all_ended) = (HashSet::new(), true);
        loop {
            let running = self.running_but(&told).await;
            if running.is_empty() {
                break;
            }
            let first = not_joined(&running);
            tracing::info!(containers = first.len(), "the machine goes down: they are told to end");
            let now = running.into_iter().filter(|snapshot| first.contains(&snapshot.id));
            let ends: Vec<_> = now.map(|snapshot| tokio::spawn(end(shared.clone(), snapshot))).collect();
            for ended in ends {
                all_ended &= ended.await.unwrap_or(false);
            }
            told.extend(first);
        }
        if !all_ended {
            return Ok(());
        }
        let shared = shared.clone();
        let cleared = tokio::task::spawn_blocking(move || shared.network.retire().and(shared.remove_cgroups())).await;
        cleared.unwrap_or(Err(EngineError::ShuttingDown))
    }

    /// Who runs and has not been told. A start that is under way comes to its end, one way or the other.
    async fn running_but(&self, told: &HashSet<ContainerId>) -> Vec<Arc<Snapshot>> {
        let mut running = Vec::new();
        for snapshot in self.containers().into_iter().filter(|snapshot| !told.contains(&snapshot.id)) {
            let Some(entry) = self.shared().registry.get(&snapshot.id) else { continue };
            let snapshot = Container::new(entry, self.shared().clone()).settled().await;
            if matches!(snapshot.phase, Phase::Running(_)) {
                running.push(snapshot);
            }
        }
        running
    }
}

/// Those that no other one joins: a process ends with the pid namespace that it is in, without having been asked.
fn not_joined(running: &[Arc<Snapshot>]) -> HashSet<ContainerId> {
    let joined: HashSet<&ContainerId> = running.iter().flat_map(|snapshot| joined_by(&snapshot.spec)).collect();
    let free: HashSet<_> = running.iter().map(|snapshot| &snapshot.id).filter(|id| !joined.contains(id)).collect();
    // Nobody can join itself, or one that was made later.
    let chosen = if free.is_empty() { running.iter().map(|snapshot| &snapshot.id).collect() } else { free };
    chosen.into_iter().cloned().collect()
}

/// Whether it has ended, and nothing of it is left on the host. What goes wrong is logged.
async fn end(shared: Arc<Shared>, snapshot: Arc<Snapshot>) -> bool {
    let Some(entry) = shared.registry.get(&snapshot.id) else { return true };
    let container = Container::new(entry, shared.clone());
    let plan = Container::plan_of(&snapshot);
    let (name, grace_s) = (snapshot.name.clone(), plan.grace_s);
    if let Err(error) = container.signal(plan.signal).await {
        tracing::warn!(container = %name, error = error_chain(&error), "cannot be told to end");
    }
    if snapshot.phase.is_paused()
        && let Err(error) = pause::thaw(&shared, &snapshot).await
    {
        tracing::warn!(container = %name, error = error_chain(&error), "cannot move, and so cannot end");
    }
    let has_ended = match grace_s {
        Some(grace_s) => tokio::time::timeout(Duration::from_secs(grace_s), ended(&shared, &snapshot.id)).await.is_ok(),
        None => {
            ended(&shared, &snapshot.id).await;
            true
        }
    };
    if !has_ended {
        tracing::warn!(container = %name, "has not ended within {} s, and is killed", grace_s.unwrap_or_default());
        let cgroup = shared.container_cgroup(&snapshot.id, &snapshot.spec);
        let killed = shared.blocking(move || Ok(Cgroup::open(&cgroup)?.map_or(Ok(()), |cgroup| cgroup.kill())?)).await;
        if let Err(error) = killed {
            tracing::error!(container = %name, error = error_chain(&error), "cannot be killed");
        }
        if tokio::time::timeout(PATIENCE, ended(&shared, &snapshot.id)).await.is_err() {
            tracing::error!(container = %name, "does not end");
            return false;
        }
    }
    let Phase::Running(run) = snapshot.phase.clone() else { return true };
    let (id, releasing) = (snapshot.id.clone(), shared.clone());
    match shared.blocking(move || launch::release(&releasing, &id, &run)).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(container = %name, error = error_chain(&error), "leaves something on the host");
            false
        }
    }
}

/// Its monitor has written down how it ended, and is gone.
async fn ended(shared: &Shared, id: &ContainerId) {
    loop {
        match shared.watch_monitor(id).await {
            Ok(None) => return,
            Ok(Some((mut link, Reply::State { .. }))) => while let Ok(Some(_)) = link.next().await {},
            // It hangs, or does not say what was asked.
            Ok(Some(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
