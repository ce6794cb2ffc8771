//! A handle on one container: what can be asked of it.

use std::sync::Arc;
use std::time::Duration;

use dozen_model::{ContainerId, ContainerName, ErrorKind, Signal};
use dozen_monitor::protocol::{Request, WindowSize};
use tokio::sync::{oneshot, watch};

use crate::exec::Exec;
use crate::monitor_link::MonitorLink;
use crate::owner::{Changed, Command, Entry};
use crate::shared::Shared;
use crate::snapshot::{ExitStatus, Phase, Snapshot};
use crate::top::{self, Top};
use crate::{AttachOptions, EngineError, ExecSpec, LogOptions, LogStream, PendingAttach, logs, rescue};

/// How long a container may take to stop after the first signal, unless it says otherwise, in seconds.
const DEFAULT_STOP_TIMEOUT_S: i64 = 10;

/// How to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopOptions {
    /// In place of the container's own.
    pub signal: Option<Signal>,
    /// In place of the container's own; negative: wait for ever.
    pub timeout_s: Option<i64>,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first.
    pub force: bool,
    /// Its anonymous volumes go with it.
    pub volumes: bool,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// It is not running, now or later.
    NotRunning,
    /// It ends for the next time.
    NextExit,
    /// It is gone.
    Removed,
}

/// A registered wait: what happens from now on is not missed.
#[derive(Debug)]
pub struct Waiter {
    condition: WaitCondition,
    exits_before: u64,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Waiter {
    /// The exit status, once the condition holds; `None` for a container that never ran.
    pub async fn wait(mut self) -> Option<ExitStatus> {
        let (condition, exits_before) = (self.condition, self.exits_before);
        let holds = |snapshot: &Arc<Snapshot>| match condition {
            WaitCondition::NotRunning => !matches!(snapshot.phase, Phase::Running(_) | Phase::Starting { .. }),
            WaitCondition::NextExit => snapshot.exits > exits_before,
            WaitCondition::Removed => false,
        };
        // An error means that the owner is gone: the container was removed, and every condition holds.
        drop(self.snapshots.wait_for(holds).await);
        let snapshot = self.snapshots.borrow();
        match &snapshot.phase {
            // Docker's code of a start that failed.
            Phase::Created { last_failure: Some(failure) } => Some(ExitStatus {
                exit_code: failure.exit_code,
                started: snapshot.created,
                finished: snapshot.created,
                out_of_memory: false,
                error: None,
            }),
            _ => snapshot.last_exit.clone(),
        }
    }
}

/// A handle on one container. Handles never keep a container alive.
#[derive(Clone)]
pub struct Container {
    pub(crate) id: ContainerId,
    pub(crate) entry: Entry,
    pub(crate) shared: Arc<Shared>,
}

impl Container {
    pub(crate) fn new(entry: Entry, shared: Arc<Shared>) -> Self {
        Self { id: entry.snapshot().id.clone(), entry, shared }
    }

    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// As it is now; never waits.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.entry.snapshot()
    }

    /// Starts it.
    pub async fn start(&self) -> Result<Changed, EngineError> {
        self.ask(|reply| Command::Start { reply }).await
    }

    /// Asks it to stop, then kills it. It goes on if whoever asked goes away.
    pub async fn stop(&self, options: StopOptions) -> Result<Changed, EngineError> {
        let container = self.clone();
        to_the_end(async move { container.stop_and_wait(options).await }).await
    }

    async fn stop_and_wait(&self, options: StopOptions) -> Result<Changed, EngineError> {
        let snapshot = self.settled().await;
        if snapshot.phase.run().is_none() {
            return Ok(Changed::Already);
        }
        let stop = snapshot.spec.stop;
        let signal = options.signal.unwrap_or(stop.signal);
        let mut timeout_s = options.timeout_s.or(stop.timeout_s).unwrap_or(DEFAULT_STOP_TIMEOUT_S);
        let ended = self.wait(WaitCondition::NotRunning);
        match self.signal(signal).await {
            // It cannot be asked, so it is killed, which does not need the monitor.
            Err(EngineError::MonitorHangs { .. }) => timeout_s = 0,
            sent => sent?,
        }
        let stopped_by_itself = match u64::try_from(timeout_s) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended.wait()).await.is_ok(),
            Err(_) => {
                ended.wait().await;
                true
            }
        };
        if !stopped_by_itself {
            rescue::end(self).await?;
        }
        self.shared.announce(&self.snapshot(), "stop", None);
        Ok(Changed::Yes)
    }

    /// Stops it if it runs, and starts it. It goes on if whoever asked goes away.
    pub async fn restart(&self, options: StopOptions) -> Result<(), EngineError> {
        let container = self.clone();
        to_the_end(async move {
            container.stop_and_wait(options).await?;
            container.start().await?;
            container.shared.announce(&container.snapshot(), "restart", None);
            Ok(())
        })
        .await
    }

    /// Sends a signal to process 1. After SIGKILL it returns once the container has ended.
    pub async fn kill(&self, signal: Signal) -> Result<(), EngineError> {
        let snapshot = self.settled().await;
        if snapshot.phase.run().is_none() {
            return Err(EngineError::Conflict {
                message: format!("cannot kill container: {}: container {} is not running", snapshot.name, snapshot.id),
                hint: None,
            });
        }
        if signal == Signal::KILL {
            rescue::end(self).await?
        } else {
            self.signal(signal).await?
        }
        self.shared.announce(&snapshot, "kill", [("signal".to_owned(), signal.number().to_string())]);
        Ok(())
    }

    /// Removes it with its layer, log and directory.
    pub async fn remove(&self, options: RemoveOptions) -> Result<(), EngineError> {
        let container = self.clone();
        to_the_end(async move { container.remove_and_wait(options).await }).await
    }

    async fn remove_and_wait(&self, options: RemoveOptions) -> Result<(), EngineError> {
        if options.force && self.settled().await.phase.run().is_some() {
            rescue::end(self).await?;
        }
        let gone = self.wait(WaitCondition::Removed);
        let result = self.ask(|reply| Command::Remove { volumes: options.volumes, reply }).await;
        match result {
            // It was removing itself (`--rm`): then it is gone, which is what was asked.
            Err(EngineError::NoSuchContainer(_)) => {
                gone.wait().await;
                Ok(())
            }
            other => other,
        }
    }

    /// Gives it another name.
    pub async fn rename(&self, name: ContainerName) -> Result<(), EngineError> {
        self.ask(|reply| Command::Rename { name, reply }).await
    }

    /// Registers a wait at once.
    pub fn wait(&self, condition: WaitCondition) -> Waiter {
        let snapshots = self.entry.snapshots.clone();
        let exits_before = snapshots.borrow().exits;
        Waiter { condition, exits_before, snapshots }
    }

    /// Registers an attachment; also before the start, which then misses nothing.
    pub async fn attach(&self, options: AttachOptions) -> Result<PendingAttach, EngineError> {
        self.ask(|reply| Command::Attach { options, reply }).await
    }

    /// Its log.
    pub async fn logs(&self, options: LogOptions) -> Result<LogStream, EngineError> {
        logs::read(self, options)
    }

    /// Size of its terminal.
    pub async fn resize(&self, size: WindowSize) -> Result<(), EngineError> {
        self.request(&Request::Resize(size)).await
    }

    /// Its processes; `arguments` are `ps` options.
    pub async fn top(&self, arguments: &str) -> Result<Top, EngineError> {
        if self.snapshot().phase.run().is_none() {
            return Err(EngineError::NotRunning(self.id.to_string()));
        }
        let (cgroup, columns) = (self.shared.container_cgroup(&self.id), top::Columns::parse(arguments)?);
        self.shared.blocking(move || top::processes(&cgroup, columns)).await
    }

    /// Registers an exec, to be started by its id.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, EngineError> {
        let snapshot = self.snapshot();
        if snapshot.phase.run().is_none() {
            return Err(EngineError::NotRunning(self.id.to_string()));
        }
        let action = format!("exec_create: {}", spec.arguments.join(" "));
        let id = self.shared.execs.register(self.id.clone(), spec);
        self.shared.announce(&snapshot, &action, [("execID".to_owned(), id.to_string())]);
        Ok(Exec { id, container: self.clone() })
    }

    /// The snapshot once no start is under way: what comes in the middle of one acts on what comes of it.
    async fn settled(&self) -> Arc<Snapshot> {
        let mut snapshots = self.entry.snapshots.clone();
        // An error means that the container is gone, and its last snapshot is as good as any.
        drop(snapshots.wait_for(|snapshot| !matches!(snapshot.phase, Phase::Starting { .. })).await);
        snapshots.borrow().clone()
    }

    /// A container that ended a moment ago cannot be reached, and need not be.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<(), EngineError> {
        let request = Request::Signal { signal: signal.number(), all: false };
        match self.request(&request).await {
            Err(EngineError::System { .. } | EngineError::NotRunning(_)) => Ok(()),
            // Process 1 is gone and its record is being written.
            Err(EngineError::Monitor(failure)) if failure.kind == ErrorKind::Conflict => Ok(()),
            other => other,
        }
    }

    async fn request(&self, request: &Request) -> Result<(), EngineError> {
        if self.snapshot().phase.run().is_none() {
            return Err(EngineError::NotRunning(self.id.to_string()));
        }
        MonitorLink::request(&self.shared.run_directory(&self.id), request).await.map(drop)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        let gone = || EngineError::NoSuchContainer(self.id.to_string());
        self.entry.mailbox.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Runs to its end, also if nobody waits for it any more: a client that hangs up must not stop a stop half-way.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::spawn(work).await.unwrap_or(Err(EngineError::ShuttingDown))
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Container({})", self.id.short())
    }
}
