//! The one owner of a container's state: a task that takes commands in order, asks `lifecycle` what becomes of
//! it, carries the effects out and publishes the next snapshot.

mod askers;
mod effects;
mod erase;
mod health;
mod oom;
mod places;
mod requests;
mod restart;
mod start;

use std::sync::Arc;
use std::time::Duration;

use dozen_model::{ContainerName, EndpointSpec, ErrorKind, NetworkId, error_chain};
use dozen_monitor::protocol::Failure;
use jiff::Timestamp;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::askers::Changed;
use self::askers::{Asked, Askers, Reply, WaitingClients, failure};
use crate::EngineError;
use crate::container::attach::{AttachOptions, PendingAttach};
use crate::container::change::SpecChange;
use crate::container::health::HealthResult;
use crate::container::lifecycle::{Effect, Input, Life, Refusal, StopPlan, Terms, Wish, decide};
use crate::container::pause;
use crate::container::snapshot::{Phase, Snapshot};
use crate::shared::Shared;

/// Commands that may wait in a mailbox before their senders wait too.
const MAILBOX: usize = 64;
/// What could not be written or removed is tried again after so long, and then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(crate) enum Command {
    Start {
        reply: Reply,
    },
    /// Someone kills it. Answered with a change if there was nobody to kill, and it does not start again.
    ByHand {
        reply: Reply,
    },
    Pause {
        reply: Reply,
    },
    Unpause {
        reply: Reply,
    },
    /// Answered once it has ended.
    Stop {
        plan: StopPlan,
        reply: Reply,
    },
    /// Answered once it runs again.
    Restart {
        plan: StopPlan,
        reply: Reply,
    },
    Attach {
        options: AttachOptions,
        reply: oneshot::Sender<Result<PendingAttach, EngineError>>,
    },
    Rename {
        name: ContainerName,
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Answered once the ledger, what runs and everyone who looks know of it, with what of it is for the next start.
    Change {
        change: SpecChange,
        reply: oneshot::Sender<Result<Vec<String>, EngineError>>,
    },
    /// Answered once the ledger, what runs and everyone who looks know of it.
    Connect {
        place: Box<EndpointSpec>,
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// The same. The network is known by its id or its name.
    Disconnect {
        network: NetworkId,
        name: String,
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Answered once it is gone.
    Remove {
        force: bool,
        volumes: bool,
        reply: Reply,
    },
    /// From the task that checks its health, of the run that has started then. Answered once it is noted.
    Checked {
        started: Timestamp,
        result: HealthResult,
        reply: oneshot::Sender<()>,
    },
    /// From the task that watches the memory of the run that has started then: so many were killed, or nobody.
    OutOfMemory {
        started: Timestamp,
        kills: Option<u64>,
    },
    /// From the task that watches the monitor.
    Ended(crate::ExitStatus),
    /// From the task that brings it to its end.
    CannotEnd(Failure),
}

/// How everyone else reaches a container: its owner's mailbox and its latest snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) mailbox: mpsc::Sender<Command>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Held for reading from a request to the monitor until the world has been told of it. What the monitor says later
    /// is passed on only when nobody holds it, so that `kill` comes before `die`, `exec_start` before `exec_die`.
    pub(crate) news: Arc<RwLock<()>>,
    /// Held for reading while someone in the container must be able to move, for writing while it is paused.
    pub(crate) moves: Arc<RwLock<()>>,
    /// True once what an engine before this one has left is taken up.
    pub(crate) taken_up: watch::Receiver<bool>,
}

impl Entry {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }
}

pub(crate) struct Owner {
    shared: Arc<Shared>,
    /// What is decided. Everyone else sees what of it has been published.
    life: Life,
    snapshots: watch::Sender<Arc<Snapshot>>,
    mailbox: mpsc::Receiver<Command>,
    /// Weak, so that an owner does not keep its own mailbox open.
    own_mailbox: mpsc::WeakSender<Command>,
    news: Arc<RwLock<()>>,
    moves: Arc<RwLock<()>>,
    /// From the moment that nobody moves to when everyone has been told.
    stillness: Option<OwnedRwLockWriteGuard<()>>,
    /// When it starts again by itself.
    restart_at: Option<Instant>,
    /// When the run started whose health is checked.
    checked_run: Option<Timestamp>,
    /// When the run started whose memory is watched.
    memory_of_run: Option<Timestamp>,
    waiting_clients: WaitingClients,
    askers: Askers,
    unfinished: Option<Unfinished>,
    /// What the disk knows, whatever happens to the machine: whether it runs again then.
    runs_after_boot: bool,
    erased: bool,
}

/// The ledger does not know yet what has happened, or what is to be erased is still there.
struct Unfinished {
    again_at: Instant,
    pause: Duration,
    failure: Failure,
}

enum Failed {
    Refused(Refusal),
    Error(EngineError),
}

impl Owner {
    /// Starts the owner of a container whose row stands in the ledger. A container that was running, or on its
    /// way in or out, is taken up where a crash left it.
    pub(crate) fn spawn(shared: Arc<Shared>, snapshot: Snapshot, wish: Wish) -> Entry {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let life = Life { phase: snapshot.phase.clone(), wish, restarts: snapshot.restarts.clone() };
        let runs_after_boot = life.runs_after_boot(snapshot.spec.restart).unwrap_or(false);
        let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
        let own_mailbox = sender.downgrade();
        let (news, moves) = (Arc::new(RwLock::new(())), Arc::new(RwLock::new(())));
        let (is_taken_up, taken_up) = watch::channel(false);
        let entry = Entry { mailbox: sender, snapshots: receiver, news: news.clone(), moves: moves.clone(), taken_up };
        // Known before the task begins: what an interrupted removal takes away again must not come back.
        shared.registry.insert(entry.clone());
        let (waiting_clients, askers) = (WaitingClients::default(), Askers::default());
        let (unfinished, erased) = (None, false);
        let (stillness, restart_at, checked_run, memory_of_run) = (None, None, None, None);
        let mut owner = Self {
            shared,
            life,
            snapshots,
            mailbox,
            own_mailbox,
            news,
            moves,
            stillness,
            restart_at,
            checked_run,
            memory_of_run,
            waiting_clients,
            askers,
            unfinished,
            runs_after_boot,
            erased,
        };
        tokio::spawn(async move {
            owner.take_up().await;
            is_taken_up.send_replace(true);
            owner.serve().await;
        });
        entry
    }

    async fn serve(mut self) {
        while !self.erased {
            let Some(command) = self.next_command().await else { break };
            self.obey(command).await;
        }
        // Whoever waits for the removal sees the snapshots end; those who asked for it are told after.
        let (mut askers, erased) = (std::mem::take(&mut self.askers), self.erased);
        drop(self);
        if erased {
            askers.answer(Asked::Removal, &Ok(()));
        }
    }

    /// Meanwhile, and before it, what is unfinished is tried again. `None`: it is gone, or nobody can ask any more.
    async fn next_command(&mut self) -> Option<Command> {
        loop {
            let again_at = self.unfinished.as_ref().map(|unfinished| unfinished.again_at);
            let due = self.due();
            let command = tokio::select! {
                command = self.mailbox.recv() => Some(command?),
                () = sleep_until(again_at) => None,
                () = due => {
                    if self.shared.farewell.has_begun() {
                        return None;
                    }
                    self.restart_by_itself().await;
                    continue;
                }
            };
            if self.shared.farewell.has_begun() {
                return None;
            }
            if again_at.is_some() {
                self.finish().await;
            }
            match command {
                // Who asks something of a container that is gone finds that out by the lost command.
                _ if self.erased => return None,
                Some(command) => return Some(command),
                None => {}
            }
        }
    }

    /// A client that went away does not wait for its answer: every failed send below is that.
    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start { reply } => {
                let started = match self.apply(Input::Start).await {
                    Err(Failed::Refused(Refusal::AlreadyRunning)) => Ok(Changed::Already),
                    other => other.map(|()| Changed::Yes).map_err(|failed| self.explain(failed)),
                };
                drop(reply.send(started));
            }
            Command::ByHand { reply } => {
                let is_waiting = matches!(self.life.phase, Phase::Waiting(_));
                let marked = self.apply(Input::ByHand).await;
                let changed = if is_waiting && marked.is_ok() { Changed::Yes } else { Changed::Already };
                drop(reply.send(Ok(changed)));
            }
            Command::Pause { reply } => {
                let paused = self.apply(Input::Pause).await.map_err(|failed| self.explain_pause(failed));
                drop(reply.send(paused.map(|()| Changed::Yes)));
            }
            Command::Unpause { reply } => {
                let unpaused = self.apply(Input::Unpause).await.map_err(|failed| self.explain_pause(failed));
                drop(reply.send(unpaused.map(|()| Changed::Yes)));
            }
            Command::Stop { plan, reply } => match self.apply(Input::Stop(plan)).await {
                // It was only about to run.
                Ok(()) if matches!(self.life.phase, Phase::Exited(_)) => drop(reply.send(Ok(Changed::Yes))),
                Ok(()) => self.askers.add(Asked::Stop, reply),
                Err(Failed::Refused(Refusal::NotRunning)) => drop(reply.send(Ok(Changed::Already))),
                Err(failed) => drop(reply.send(Err(self.explain(failed)))),
            },
            Command::Restart { plan, reply } => match self.apply(Input::Restart(plan)).await {
                Ok(()) if matches!(self.life.wish, Wish::Restart(_)) => self.askers.add(Asked::Restart, reply),
                other => drop(reply.send(other.map(|()| Changed::Yes).map_err(|failed| self.explain(failed)))),
            },
            Command::Remove { force, volumes, reply } => match self.apply(Input::Remove { force, volumes }).await {
                Ok(()) => self.askers.add(Asked::Removal, reply),
                Err(failed) => drop(reply.send(Err(self.explain(failed)))),
            },
            Command::Attach { options, reply } => drop(reply.send(self.attach(options).await)),
            Command::Rename { name, reply } => drop(reply.send(self.rename(name).await)),
            Command::Connect { place, reply } => drop(reply.send(self.connect_to(*place).await)),
            Command::Disconnect { network, name, reply } => drop(reply.send(self.disconnect(network, name).await)),
            Command::Change { change, reply } => drop(reply.send(self.change(change).await)),
            Command::Checked { started, result, reply } => {
                self.note_check(started, result).await;
                let _ = reply.send(());
            }
            Command::OutOfMemory { started, kills } => self.note_out_of_memory(started, kills).await,
            Command::Ended(status) => drop(self.apply(Input::Ended(status)).await),
            Command::CannotEnd(why) => {
                drop(self.apply(Input::GivenUp).await);
                self.askers.refuse_all(&why);
            }
        }
    }

    /// Asks what becomes of the container, and does it.
    async fn apply(&mut self, input: Input) -> Result<(), Failed> {
        let snapshot = self.snapshot();
        let terms = Terms { auto_remove: snapshot.spec.auto_remove, policy: snapshot.spec.restart };
        let (next, effects) = decide(&self.life, input, terms).map_err(Failed::Refused)?;
        let before = std::mem::replace(&mut self.life, next);
        if matches!((&before.wish, &self.life.wish), (Wish::Restart(_), Wish::Stop(_) | Wish::Remove { .. })) {
            let message = format!("container {} was stopped or removed before it could start again", snapshot.name);
            self.askers.answer(Asked::Restart, &Err(Failure { kind: ErrorKind::Conflict, message, hint: None }));
        }
        let mut result = Ok(());
        for effect in effects {
            let done = match effect {
                Effect::Save => match self.write(false).await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        self.life = before;
                        return Err(Failed::Error(error));
                    }
                },
                Effect::Record => {
                    self.record().await;
                    Ok(())
                }
                Effect::ReleaseRun(run) => self.release(*run).await,
                Effect::Publish(action) => {
                    self.publish(action);
                    Ok(())
                }
                Effect::Announce(action) => {
                    self.announce(&self.snapshot(), action);
                    Ok(())
                }
                Effect::Launch => Box::pin(self.launch()).await,
                Effect::End(plan) => {
                    self.bring_to_end(plan);
                    Ok(())
                }
                Effect::Freeze => match pause::freeze(&self.shared, &snapshot, &self.moves).await {
                    Ok(stillness) => {
                        self.stillness = Some(stillness);
                        Ok(())
                    }
                    Err(error) => {
                        self.life = before;
                        self.record().await;
                        return Err(Failed::Error(error));
                    }
                },
                Effect::Thaw => match pause::thaw(&self.shared, &snapshot).await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        self.life = before;
                        return Err(Failed::Error(error));
                    }
                },
                Effect::Await(pause_ms) => {
                    self.await_restart(pause_ms);
                    Ok(())
                }
                Effect::StartAgain => Box::pin(self.start_again()).await,
                Effect::RemoveItself { volumes } => Box::pin(self.remove_itself(volumes)).await,
                Effect::Erase { volumes } => Box::pin(self.erase(volumes)).await,
            };
            // A teardown goes on past a failure; the first is reported, each is logged.
            if let Err(error) = done {
                tracing::error!(container = snapshot.id.short(), error = error_chain(&error), "an effect failed");
                result = result.and(Err(Failed::Error(error)));
            }
        }
        self.stillness = None;
        if matches!(self.life.phase, Phase::Exited(_) | Phase::Waiting(_)) {
            self.askers.answer(Asked::Stop, &Ok(()));
        }
        result
    }

    // ---- what could not be done ----

    fn postpone(&mut self, error: &EngineError, what: &str) {
        let pause = self.unfinished.as_ref().map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let again_at = Instant::now() + pause;
        tracing::error!(container = self.snapshot().id.short(), error = error_chain(error), again_in = ?pause, "{what}");
        self.unfinished = Some(Unfinished { again_at, pause, failure: failure(error) });
    }

    async fn finish(&mut self) {
        match self.life.phase {
            Phase::Removing { .. } => drop(self.apply(Input::Remove { force: false, volumes: false }).await),
            _ => self.record().await,
        }
    }

    // ---- small things ----

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshots.send_modify(|snapshot| change(Arc::make_mut(snapshot)));
    }

    fn explain(&self, failed: Failed) -> EngineError {
        let name = self.snapshot().name.clone();
        match failed {
            Failed::Error(error) => error,
            Failed::Refused(refusal @ (Refusal::Running | Refusal::Restarting | Refusal::Paused)) => {
                let why = match refusal {
                    Refusal::Paused => "container is paused and must be unpaused first",
                    Refusal::Restarting => {
                        "container is restarting: stop the container before removing or force remove"
                    }
                    _ => "container is running: stop the container before removing or force remove",
                };
                EngineError::Conflict {
                    message: format!("cannot remove container \"/{name}\": {why}"),
                    hint: Some(format!("dozen rm -f {name}")),
                }
            }
            Failed::Refused(Refusal::Removing) => EngineError::Conflict {
                message: format!("removal of container {name} is already in progress"),
                hint: None,
            },
            Failed::Refused(Refusal::NotRunning) => EngineError::NotRunning(name.to_string()),
            Failed::Refused(Refusal::AlreadyRunning | Refusal::Stale | Refusal::NotPaused | Refusal::Ending) => {
                EngineError::Conflict { message: format!("container {name} is running already"), hint: None }
            }
        }
    }
}

/// At this moment, if there is one.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
