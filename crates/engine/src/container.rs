//! A handle on one container: what can be asked of it.
//!
//! Inside: `snapshot` is its state, `lifecycle` decides, `owner` acts, `rescue` does so past a monitor that hangs;
//! `change` gives it another spec; `launch`, `oci` and `files` start it; `attach`, `commit`, `exec`, `export`, `logs` and `top` are asked of it.

pub(crate) mod archive;
pub(crate) mod artifact_files;
pub(crate) mod attach;
pub(crate) mod cdi;
pub(crate) mod change;
pub(crate) mod changes;
pub(crate) mod commit;
mod devices;
pub(crate) mod difference;
pub(crate) mod exec;
mod export;
pub(crate) mod files;
pub(crate) mod health;
pub(crate) mod hold;
pub(crate) mod ids;
pub(crate) mod launch;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod mounts;
pub(crate) mod oci;
pub(crate) mod oom;
pub(crate) mod owner;
pub(crate) mod pause;
mod rescue;
mod resources;
pub(crate) mod restart;
pub(crate) mod secrets;
pub(crate) mod sharing;
pub(crate) mod snapshot;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod update;
mod upper;
pub(crate) mod user_namespace;
pub(crate) mod view;

use std::sync::Arc;
use std::time::Duration;

use dozen_model::{ContainerId, ContainerName, ErrorKind, RestartPolicy, Signal};
use dozen_monitor::protocol::{Request, WindowSize};
use tokio::sync::{oneshot, watch};

use crate::container::exec::Exec;
use crate::container::lifecycle::StopPlan;
use crate::container::owner::{Changed, Command, Entry};
use crate::container::snapshot::{ExitStatus, Phase, Snapshot};
use crate::container::top::Top;
use crate::failpoint::failpoint;
use crate::monitor_link::MonitorLink;
use crate::shared::Shared;
use crate::{AttachOptions, EngineError, ExecSpec, LogOptions, LogStream, PendingAttach};

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
    /// It is gone, or it turned out that it cannot be removed for now: then the status says why.
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
    /// Whether the run that it was registered in has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.snapshots.borrow().exits > self.exits_before
    }

    /// The exit status, once the condition holds; `None` for a container that never ran.
    pub async fn wait(mut self) -> Option<ExitStatus> {
        let (condition, exits_before) = (self.condition, self.exits_before);
        let holds = |snapshot: &Arc<Snapshot>| {
            let ended = snapshot.exits > exits_before;
            match condition {
                // One that was started again meanwhile had ended.
                WaitCondition::NotRunning => {
                    ended || !matches!(snapshot.phase, Phase::Running(_) | Phase::Starting { .. } | Phase::Waiting(_))
                }
                WaitCondition::NextExit => ended,
                WaitCondition::Removed => matches!(snapshot.phase, Phase::Removing { failure: Some(_), .. }),
            }
        };
        // An error means that the owner is gone: the container was removed, and every condition holds.
        drop(self.snapshots.wait_for(holds).await);
        let snapshot = self.snapshots.borrow();
        let never = || ExitStatus {
            exit_code: 0,
            started: snapshot.created,
            finished: snapshot.created,
            out_of_memory: false,
            error: None,
        };
        match &snapshot.phase {
            // Nobody shall hang on a removal that may take until someone has made room on the disk.
            Phase::Removing { failure: Some(why), .. } if condition == WaitCondition::Removed => {
                let why = format!("container {} is not removed yet: {why}; it is tried again", snapshot.name);
                Some(ExitStatus { error: Some(why), ..snapshot.last_exit.clone().unwrap_or_else(never) })
            }
            // Docker's code of a start that failed.
            Phase::Created { last_failure: Some(failure) } => {
                Some(ExitStatus { exit_code: failure.exit_code, ..never() })
            }
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
        let plan = self.plan(options);
        self.ask(|reply| Command::Stop { plan, reply }).await
    }

    /// Stops it if it runs, and starts it; `--rm` does not remove it in between. It goes on if whoever asked goes away.
    pub async fn restart(&self, options: StopOptions) -> Result<(), EngineError> {
        let plan = self.plan(options);
        self.ask(|reply| Command::Restart { plan, reply }).await.map(drop)
    }

    /// How it is stopped where nobody says how.
    pub(crate) fn plan_of(snapshot: &Snapshot) -> StopPlan {
        Self::plan_with(snapshot, StopOptions::default())
    }

    fn plan(&self, options: StopOptions) -> StopPlan {
        Self::plan_with(&self.snapshot(), options)
    }

    fn plan_with(snapshot: &Snapshot, options: StopOptions) -> StopPlan {
        let stop = snapshot.spec.stop;
        let timeout_s = options.timeout_s.or(stop.timeout_s).unwrap_or(DEFAULT_STOP_TIMEOUT_S);
        StopPlan { signal: options.signal.unwrap_or(stop.signal), grace_s: u64::try_from(timeout_s).ok() }
    }

    /// What a stop does, from the first signal to the end of this run.
    pub(crate) async fn bring_to_end(&self, plan: StopPlan, ended: Waiter) -> Result<(), EngineError> {
        if ended.is_over() {
            return Ok(());
        }
        if plan.signal == Signal::KILL {
            return rescue::end(self).await;
        }
        match self.signal(plan.signal).await {
            // It cannot be asked, so it is killed, which does not need the monitor.
            Err(EngineError::MonitorHangs { .. }) => return rescue::end_with_monitor(self).await,
            sent => sent?,
        }
        self.thaw().await;
        failpoint("end.signalled");
        let ended = ended.wait();
        let Some(grace_s) = plan.grace_s else {
            ended.await;
            return Ok(());
        };
        if tokio::time::timeout(Duration::from_secs(grace_s), ended).await.is_ok() {
            return Ok(());
        }
        failpoint("end.grace_over");
        rescue::end(self).await
    }

    /// Sends a signal to process 1. After SIGKILL it returns once the container has ended.
    pub async fn kill(&self, signal: Signal) -> Result<(), EngineError> {
        let mut snapshot = self.settled().await;
        let is_to_end = signal == Signal::KILL || signal == snapshot.spec.stop.signal;
        if is_to_end && snapshot.spec.restart != RestartPolicy::No {
            if self.ask(|reply| Command::ByHand { reply }).await? == Changed::Yes {
                // It was about to start again, and is not.
                return Ok(());
            }
            snapshot = self.settled().await;
        }
        if snapshot.phase.run().is_none() {
            return Err(EngineError::Conflict {
                message: format!("cannot kill container: {}: container {} is not running", snapshot.name, snapshot.id),
                hint: None,
            });
        }
        if signal == Signal::KILL {
            return rescue::end(self).await;
        }
        self.signal(signal).await?;
        if is_to_end {
            self.thaw().await;
        }
        Ok(())
    }

    /// Removes it with its layer, log and directory. It goes on if whoever asked goes away.
    pub async fn remove(&self, options: RemoveOptions) -> Result<(), EngineError> {
        let gone = self.wait(WaitCondition::Removed);
        let RemoveOptions { force, volumes } = options;
        match self.ask(|reply| Command::Remove { force, volumes, reply }).await {
            // It was removing itself (`--rm`): then it is gone, which is what was asked.
            Err(EngineError::NoSuchContainer(_)) => {
                gone.wait().await;
                Ok(())
            }
            other => other.map(drop),
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
        self.request(&Request::Resize(size)).await?;
        let attributes = [("height".to_owned(), size.rows.to_string()), ("width".to_owned(), size.columns.to_string())];
        self.shared.announce(&self.snapshot(), "resize", attributes);
        Ok(())
    }

    /// Its client has left by the keys for it, and it goes on.
    pub fn announce_detach(&self) {
        self.shared.announce(&self.snapshot(), "detach", None);
    }

    /// Its processes; `arguments` are `ps` options.
    pub async fn top(&self, arguments: &str) -> Result<Top, EngineError> {
        let snapshot = self.snapshot();
        if snapshot.phase.run().is_none() {
            return Err(EngineError::NotRunning(self.id.to_string()));
        }
        let (cgroup, columns) = (self.shared.container_cgroup(&self.id, &self.snapshot().spec), top::parse(arguments)?);
        let top = self.shared.blocking(move || top::processes(&cgroup, &columns)).await?;
        self.shared.announce(&snapshot, "top", None);
        Ok(top)
    }

    /// Registers an exec, to be started by its id.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, EngineError> {
        let snapshot = self.snapshot();
        pause::check_moves(&snapshot, "exec")?;
        let action = format!("exec_create: {}", spec.arguments.join(" "));
        let id = self.shared.execs.register(self.id.clone(), spec);
        self.shared.announce(&snapshot, &action, [("execID".to_owned(), id.to_string())]);
        Ok(Exec { id, container: self.clone() })
    }

    /// The snapshot once no start is under way: what comes in the middle of one acts on what comes of it.
    pub(crate) async fn settled(&self) -> Arc<Snapshot> {
        let mut snapshots = self.entry.snapshots.clone();
        // An error means that the container is gone, and its last snapshot is as good as any.
        drop(snapshots.wait_for(|snapshot| !matches!(snapshot.phase, Phase::Starting { .. })).await);
        snapshots.borrow().clone()
    }

    /// A container that ended a moment ago cannot be reached, and need not be.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<(), EngineError> {
        let request = Request::Signal { signal: signal.number(), all: false };
        // Until the world has been told, so that this comes before what the signal does.
        let _told = self.entry.news.read().await;
        match self.request(&request).await {
            Ok(()) => {
                let number = signal.number().to_string();
                self.shared.announce(&self.snapshot(), "kill", [("signal".to_owned(), number)]);
                Ok(())
            }
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

    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        let gone = || EngineError::NoSuchContainer(self.id.to_string());
        self.entry.mailbox.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Container({})", self.id.short())
    }
}
