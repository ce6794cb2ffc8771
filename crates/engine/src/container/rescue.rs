//! Ending a container, with its monitor or without: one that is stopped, or whose disk hangs, must not keep a
//! container from being killed.

use std::pin::pin;

use dozen_model::Signal;
use dozen_monitor::protocol::ExitRecord;
use dozen_monitor::{client, exit};
use dozen_runtime::Cgroup;
use jiff::Timestamp;

use crate::EngineError;
use crate::container::{Container, WaitCondition};
use crate::failpoint::failpoint;
use crate::monitor_link::PATIENCE;

/// Kills a container and waits until it has ended. A monitor that does not answer is killed with it.
pub(crate) async fn end(container: &Container) -> Result<(), EngineError> {
    let mut ended = pin!(container.wait(WaitCondition::NotRunning).wait());
    loop {
        match container.signal(Signal::KILL).await {
            Err(EngineError::MonitorHangs { .. }) => return end_with_monitor(container).await,
            sent => sent?,
        }
        container.thaw().await;
        // A process may take long to die, but a monitor may also have been stopped after it had answered: then the
        // next signal finds it out.
        if tokio::time::timeout(PATIENCE, &mut ended).await.is_ok() {
            return Ok(());
        }
    }
}

/// Kills the container's processes, records their end and kills the monitor. Its death is what the engine waits for as
/// ever, and whatever is left then is swept.
pub(crate) async fn end_with_monitor(container: &Container) -> Result<(), EngineError> {
    let shared = &container.shared;
    let ended = container.wait(WaitCondition::NotRunning);
    tracing::warn!(container = container.id.short(), "its monitor does not answer and is killed with it");
    let (cgroup, data, run) = (
        shared.container_cgroup(&container.id, &container.snapshot().spec),
        shared.data_directory(&container.id),
        shared.run_directory(&container.id),
    );
    let kill = move || {
        failpoint("rescue.before");
        let cgroup = Cgroup::open(&cgroup)?;
        let mut oom_kills = 0;
        if let Some(cgroup) = cgroup {
            oom_kills = cgroup.oom_kills().unwrap_or(0);
            cgroup.kill()?;
        }
        failpoint("rescue.killed");
        let record = ExitRecord {
            exit_code: 128 + Signal::KILL.number(),
            finished_at: Timestamp::now().to_string(),
            out_of_memory: oom_kills > 0,
            oom_kills,
            error: Some("the container's monitor did not answer and was killed with it".into()),
        };
        // A monitor that has come to its senses meanwhile knows better.
        if !matches!(exit::read(&data), Ok(Some(_)))
            && let Err(error) = exit::write(&data, &record)
        {
            tracing::error!(error = dozen_model::error_chain(&error), "cannot write an exit record");
        }
        failpoint("rescue.recorded");
        client::kill(&run).map_err(EngineError::system(|| format!("kill the monitor at {}", run.display())))?;
        failpoint("rescue.after");
        Ok(())
    };
    shared.blocking(kill).await?;
    ended.wait().await;
    Ok(())
}
