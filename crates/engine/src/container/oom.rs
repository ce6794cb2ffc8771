//! Hearing of it when a container's memory runs out, for the event `oom`.
//!
//! The kernel counts whom it kills. What has been told of is kept with the run, so that an engine tells what happened while
//! there was none, and nothing twice; and the monitor writes the count into the record of the end, for the cgroup goes
//! before anyone could look again.

use std::time::Duration;

use dozen_model::error_chain;
use dozen_runtime::{Cgroup, OomWatch};
use jiff::Timestamp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::EngineError;
use crate::container::Container;
use crate::container::owner::Command;

/// Who runs out of memory again and again is told of so often at most.
const PAUSE: Duration = Duration::from_millis(100);
/// Version 1 of cgroups tells before it kills: it is looked for so often whom.
const LOOKS: u32 = 10;

/// Watches until the run that has started then is over.
pub(crate) async fn watch(container: Container, started: Timestamp) {
    let mut snapshots = container.entry.snapshots.clone();
    let is_over = snapshots.wait_for(|snapshot| snapshot.phase.run().is_none_or(|run| run.started != started));
    let watched = async {
        if let Err(error) = serve(&container, started).await {
            // A machine without such a controller; or the run is over, and the cgroup gone.
            tracing::debug!(container = container.id.short(), error = error_chain(&error), "memory is not watched");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = is_over => {}
        () = watched => {}
    }
}

async fn serve(container: &Container, started: Timestamp) -> Result<(), EngineError> {
    let shared = &container.shared;
    let name = shared.container_cgroup(&container.id, &container.snapshot().spec);
    let open = {
        let name = name.clone();
        move || Ok(Cgroup::open(&name)?.map(|cgroup| cgroup.watch_oom()).transpose()?)
    };
    let Some(oom) = shared.blocking(open).await? else { return Ok(()) };
    let interest = if oom.is_early() { Interest::READABLE } else { Interest::PRIORITY };
    // The descriptor is the watch's own, and stays the same as long as it is registered.
    #[expect(deprecated, reason = "what takes its place is unsafe, and this crate is not where that is at home")]
    let mut oom = AsyncFd::with_interest(oom, interest).map_err(EngineError::system(|| "watch memory".to_owned()))?;
    let count = || {
        let name = name.clone();
        shared.blocking(move || Ok(Cgroup::open(&name)?.map(|cgroup| cgroup.oom_kills()).transpose()?.unwrap_or(0)))
    };
    let mut known = 0;
    let mut has_run_out = false;
    loop {
        // Also before anything is heard: it may have happened while there was no engine.
        let mut kills = count().await?;
        for _ in 0..LOOKS {
            if kills > known || !has_run_out {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            kills = count().await?;
        }
        if kills > known || has_run_out {
            let kills = (kills > std::mem::replace(&mut known, kills)).then_some(kills);
            let news = Command::OutOfMemory { started, kills };
            if container.entry.mailbox.send(news).await.is_err() {
                return Ok(());
            }
        }
        has_run_out = next(&mut oom).await?;
    }
}

/// Waits for something to happen: true if memory has run out, and nobody may have been killed for it.
async fn next(oom: &mut AsyncFd<OomWatch>) -> Result<bool, EngineError> {
    let is_early = oom.get_ref().is_early();
    let interest = if is_early { Interest::READABLE } else { Interest::PRIORITY };
    loop {
        let ready = oom.ready_mut(interest).await;
        let mut ready = ready.map_err(EngineError::system(|| "wait for news of memory".to_owned()))?;
        ready.clear_ready();
        let happened = ready.get_inner_mut().happened()?;
        tokio::time::sleep(PAUSE).await;
        // Version 2 tells of much else with the same word.
        if happened {
            return Ok(is_early);
        }
    }
}
