//! The one owner of a container's state: a task that takes commands in order, asks `lifecycle` what becomes of
//! it, carries the effects out and publishes the next snapshot.

use std::sync::Arc;

use dozen_model::{Classified, ContainerName, ErrorKind, MountSource, NetworkMode, VolumeName, error_chain};
use dozen_monitor::protocol::{ExitRecord, Reply};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::EngineError;
use crate::attach::{AttachOptions, PendingAttach, StdioStream};
use crate::events::EventKind;
use crate::failpoint::failpoint;
use crate::launch;
use crate::lifecycle::{Effect, Input, Refusal, decide};
use crate::monitor_link::MonitorLink;
use crate::rows;
use crate::shared::Shared;
use crate::snapshot::{ExitStatus, Phase, Run, Snapshot, StartFailure};
use crate::volumes::remove_tree;

/// Commands that may wait in a mailbox before their senders wait too.
const MAILBOX: usize = 64;

/// Whether a request found something to do (Docker answers 304 when it did not).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub enum Changed {
    Yes,
    Already,
}

pub(crate) enum Command {
    Start {
        reply: oneshot::Sender<Result<Changed, EngineError>>,
    },
    Attach {
        options: AttachOptions,
        reply: oneshot::Sender<Result<PendingAttach, EngineError>>,
    },
    Rename {
        name: ContainerName,
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    Remove {
        volumes: bool,
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// From the task that watches the monitor.
    Ended(ExitStatus),
}

/// How everyone else reaches a container: its owner's mailbox and its latest snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) mailbox: mpsc::Sender<Command>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Entry {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }
}

type AttachReply = oneshot::Sender<Result<StdioStream, EngineError>>;

pub(crate) struct Owner {
    shared: Arc<Shared>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    mailbox: mpsc::Receiver<Command>,
    /// Weak, so that an owner does not keep its own mailbox open.
    own_mailbox: mpsc::WeakSender<Command>,
    /// Clients that came before the start.
    waiting_clients: Vec<(AttachOptions, AttachReply)>,
}

impl Owner {
    /// Starts the owner of a container whose row stands in the ledger. A container that was running, or on its
    /// way in or out, is taken up where a crash left it.
    pub(crate) fn spawn(shared: Arc<Shared>, snapshot: Snapshot) -> Entry {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let phase = snapshot.phase.clone();
        let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
        let own_mailbox = sender.downgrade();
        let entry = Entry { mailbox: sender, snapshots: receiver };
        // Known before the task begins: what an interrupted removal takes away again must not come back.
        shared.registry.insert(entry.clone());
        let mut owner = Self { shared, snapshots, mailbox, own_mailbox, waiting_clients: Vec::new() };
        tokio::spawn(async move {
            owner.take_up(phase).await;
            owner.serve().await;
        });
        entry
    }

    async fn serve(mut self) {
        while !self.is_erased() {
            let Some(command) = self.mailbox.recv().await else { return };
            // A client that went away does not wait for its answer: every failed send below is that.
            match command {
                Command::Start { reply } => drop(reply.send(self.start().await)),
                Command::Attach { options, reply } => drop(reply.send(self.attach(options).await)),
                Command::Rename { name, reply } => drop(reply.send(self.rename(name).await)),
                Command::Ended(status) => drop(self.apply(Input::Ended(status)).await),
                Command::Remove { volumes, reply } => match self.remove(volumes).await {
                    Ok(()) => {
                        // Whoever waits for the removal sees the snapshots end; the one who asked is told after.
                        drop(self);
                        drop(reply.send(Ok(())));
                        return;
                    }
                    Err(error) => drop(reply.send(Err(error))),
                },
            }
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A container that removed itself is no longer known.
    fn is_erased(&self) -> bool {
        self.shared.registry.get(&self.snapshot().id).is_none()
    }

    async fn start(&mut self) -> Result<Changed, EngineError> {
        match self.apply(Input::Start).await {
            Ok(()) => Ok(Changed::Yes),
            Err(Failed::Refused(Refusal::AlreadyRunning)) => Ok(Changed::Already),
            Err(failed) => Err(self.explain(failed)),
        }
    }

    async fn remove(&mut self, volumes: bool) -> Result<(), EngineError> {
        let (next, effects) = {
            let snapshot = self.snapshot();
            decide(&snapshot.phase, Input::Remove, false).map_err(|refusal| self.explain(Failed::Refused(refusal)))?
        };
        self.publish(next);
        self.save().await?;
        if effects.contains(&Effect::Erase) {
            self.erase(volumes).await?;
        }
        Ok(())
    }

    async fn rename(&mut self, name: ContainerName) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        failpoint("rename.before");
        let (id, wanted) = (snapshot.id.clone(), name.clone());
        let ledger = self.shared.ledger.clone();
        let taken = self.shared.blocking(move || Ok(rows::rename_container(&ledger, id, wanted)?)).await?;
        if let Err(holder) = taken {
            return Err(EngineError::NameInUse { name: name.to_string(), holder: holder.to_string() });
        }
        failpoint("rename.row");
        self.shared.registry.rename(&snapshot.id, name.clone());
        let old = snapshot.name.to_string();
        self.update(|snapshot| snapshot.name = name);
        self.shared.announce(&self.snapshot(), "rename", [("oldName".to_owned(), format!("/{old}"))]);
        Ok(())
    }

    /// A running container's client is connected at once, an earlier one when it starts.
    async fn attach(&mut self, options: AttachOptions) -> Result<PendingAttach, EngineError> {
        let snapshot = self.snapshot();
        let terminal = snapshot.spec.process.terminal;
        let (sender, stream) = oneshot::channel();
        match &snapshot.phase {
            Phase::Running(_) => drop(sender.send(self.connect(options).await)),
            Phase::Removing => return Err(self.explain(Failed::Refused(Refusal::Removing))),
            _ => self.waiting_clients.push((options, sender)),
        }
        Ok(PendingAttach { terminal, stream })
    }

    async fn connect(&self, options: AttachOptions) -> Result<StdioStream, EngineError> {
        let snapshot = self.snapshot();
        let AttachOptions { stdin, stdout, stderr } = options;
        let request = dozen_monitor::protocol::Request::Attach { stdin, stdout, stderr };
        let (link, _) = MonitorLink::request(&self.shared.run_directory(&snapshot.id), &request).await?;
        Ok(StdioStream { socket: link.into_stream(), terminal: snapshot.spec.process.terminal })
    }

    /// Asks what becomes of the container, and does it.
    async fn apply(&mut self, input: Input) -> Result<(), Failed> {
        let snapshot = self.snapshot();
        let (next, effects) = decide(&snapshot.phase, input, snapshot.spec.auto_remove).map_err(Failed::Refused)?;
        self.publish(next);
        let mut result = Ok(());
        for effect in effects {
            let done = match effect {
                Effect::Save => self.save().await,
                // What the ledger does not know of must not run: a crash would leave it without an owner.
                Effect::Launch if result.is_err() => {
                    let message = "the ledger could not be written".to_owned();
                    let failure = StartFailure { exit_code: 128, message };
                    drop(Box::pin(self.apply(Input::StartFailed(failure))).await);
                    Ok(())
                }
                Effect::Launch => Box::pin(self.launch()).await,
                Effect::ReleaseRun(run) => self.release(*run).await,
                Effect::Erase => self.erase(false).await,
                Effect::Announce(action) => {
                    self.announce(action);
                    Ok(())
                }
                Effect::RemoveItself => {
                    failpoint("remove_itself.before");
                    Box::pin(self.remove(true)).await
                }
            };
            // A teardown goes on past a failure; the first is reported, each is logged.
            if let Err(error) = done {
                tracing::error!(container = snapshot.id.short(), error = error_chain(&error), "an effect failed");
                result = result.and(Err(Failed::Error(error)));
            }
        }
        result
    }

    /// Network, monitor, process; on failure all of it is undone and the failure kept for inspect.
    async fn launch(&mut self) -> Result<(), EngineError> {
        let result = self.try_launch().await;
        if let Err(error) = &result {
            // A monitor that fails undoes all; one that was killed does not.
            let id = self.snapshot().id.clone();
            self.shared.sweep(&id).await;
            let exit_code = launch::docker_exit_code(error);
            let failure = StartFailure { exit_code, message: error_chain(error) };
            for (_, client) in self.waiting_clients.drain(..) {
                drop(client.send(Err(EngineError::NotRunning(self.snapshots.borrow().name.to_string()))));
            }
            drop(Box::pin(self.apply(Input::StartFailed(failure))).await);
        }
        result
    }

    async fn try_launch(&mut self) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        let shared = self.shared.clone();
        let prepared = {
            let snapshot = snapshot.clone();
            self.shared.blocking(move || launch::prepare(&shared, &snapshot)).await?
        };
        let run = prepared.run.clone();
        self.accept(Input::Prepared(run.clone()))?;
        self.save().await?;
        // Everyone who shall miss nothing is connected before the process may run.
        let run_directory = self.shared.run_directory(&snapshot.id);
        let (link, _) = MonitorLink::request(&run_directory, &dozen_monitor::protocol::Request::Watch).await?;
        failpoint("launch.watched");
        for (options, client) in std::mem::take(&mut self.waiting_clients) {
            drop(client.send(self.connect(options).await));
        }
        self.shared.blocking(move || Ok(prepared.pending.go()?)).await?;
        failpoint("launch.go");
        self.watch(link, run.started);
        self.accept(Input::Started)?;
        self.save().await?;
        self.announce("start");
        failpoint("launch.after");
        if snapshot.spec.network == NetworkMode::Bridge {
            // Nobody waits for it.
            let shared = self.shared.clone();
            tokio::task::spawn_blocking(move || shared.network.look_at_firewall());
        }
        Ok(())
    }

    /// A step within a launch, whose only effects are those that the caller has at hand.
    fn accept(&mut self, input: Input) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        let (next, _) =
            decide(&snapshot.phase, input, false).map_err(|refusal| self.explain(Failed::Refused(refusal)))?;
        self.publish(next);
        Ok(())
    }

    /// Waits in a task of its own for the monitor's last word, and tells the owner.
    fn watch(&self, mut link: MonitorLink, started: Timestamp) {
        let (mailbox, shared, id) = (self.own_mailbox.clone(), self.shared.clone(), self.snapshot().id.clone());
        tokio::spawn(async move {
            let status = loop {
                match link.next().await {
                    Ok(Some(Reply::Exited(record))) => break exit_status(record, started),
                    Ok(Some(reply)) => shared.execs.heard(&reply),
                    // The connection can break, or the engine want for descriptors, while the container is well.
                    Ok(None) | Err(_) => match shared.watch_monitor(&id).await {
                        Some((again, _)) => link = again,
                        None => break shared.last_word(&id, started).await,
                    },
                }
            };
            if let Some(mailbox) = mailbox.upgrade() {
                // The mailbox is closed only when the container is gone, and then nobody needs to know.
                drop(mailbox.send(Command::Ended(status)).await);
            }
        });
    }

    async fn release(&self, run: Run) -> Result<(), EngineError> {
        let (shared, id) = (self.shared.clone(), self.snapshot().id.clone());
        self.shared.execs.forget(&id);
        self.shared.blocking(move || launch::release(&shared, &id, &run)).await
    }

    /// The row, with those of its own volumes, and then the files: a crash in between leaves garbage, which the next
    /// start collects, and never a container without its files.
    async fn erase(&mut self, volumes: bool) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        let shared = self.shared.clone();
        self.shared.blocking(move || erase(&shared, &snapshot, volumes)).await?;
        failpoint("erase.after");
        self.announce("destroy");
        Ok(())
    }

    /// After the engine was away: what was running is looked for, what was interrupted is finished or undone.
    async fn take_up(&mut self, phase: Phase) {
        match phase {
            Phase::Created { .. } | Phase::Exited(_) => {}
            Phase::Removing => drop(self.remove(self.snapshot().spec.auto_remove).await),
            Phase::Starting { run: None } => self.give_up_start().await,
            Phase::Starting { run: Some(run) } | Phase::Running(run) => {
                let id = self.snapshot().id.clone();
                let watched = self.shared.watch_monitor(&id).await;
                let starting = matches!(self.snapshot().phase, Phase::Starting { .. });
                match watched {
                    Some((link, Reply::State { started: true, .. })) => {
                        if starting {
                            drop(self.apply(Input::Started).await);
                        }
                        self.watch(link, run.started);
                    }
                    // It never ran: its monitor, without a go-ahead, is undoing it or has done so.
                    _ if starting && !self.has_exit_record().await => self.give_up_start().await,
                    _ => {
                        let status = self.shared.last_word(&id, run.started).await;
                        drop(self.apply(Input::Ended(status)).await);
                    }
                }
            }
        }
    }

    /// The engine died before the process could run: nothing of the start is to be left.
    async fn give_up_start(&mut self) {
        let message = "the engine ended while it was starting".to_owned();
        let id = self.snapshot().id.clone();
        self.shared.sweep(&id).await;
        drop(self.apply(Input::StartFailed(StartFailure { exit_code: 128, message })).await);
    }

    /// The process ran, and ended while no engine was there.
    async fn has_exit_record(&self) -> bool {
        tokio::fs::try_exists(self.snapshot().directory.join("exit.json")).await.unwrap_or(false)
    }

    fn publish(&self, phase: Phase) {
        self.update(|snapshot| {
            if let Phase::Exited(status) = &phase {
                snapshot.last_exit = Some(status.clone());
                snapshot.exits += 1;
            }
            snapshot.phase = phase;
        });
    }

    fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshots.send_modify(|snapshot| change(Arc::make_mut(snapshot)));
    }

    async fn save(&self) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        let shared = self.shared.clone();
        let (before, after) = save_failpoints(&snapshot.phase);
        failpoint(before);
        self.shared
            .blocking(move || Ok(rows::save_phase(&shared.ledger, snapshot.id.clone(), &snapshot.phase)?))
            .await?;
        failpoint(after);
        Ok(())
    }

    fn announce(&self, action: &'static str) {
        let (before, after) = match action {
            "start" => ("announce.start.before", "announce.start.after"),
            "die" => ("announce.die.before", "announce.die.after"),
            _ => ("announce.destroy.before", "announce.destroy.after"),
        };
        failpoint(before);
        let snapshot = self.snapshot();
        let exit_code = snapshot.last_exit.as_ref().map(|exit| ("exitCode".to_owned(), exit.exit_code.to_string()));
        self.shared.announce(&snapshot, action, exit_code.filter(|_| action == "die"));
        failpoint(after);
    }

    fn explain(&self, failed: Failed) -> EngineError {
        let name = self.snapshot().name.clone();
        match failed {
            Failed::Error(error) => error,
            Failed::Refused(Refusal::Running) => EngineError::Conflict {
                message: format!(
                    "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
                ),
                hint: Some(format!("dozen rm -f {name}")),
            },
            Failed::Refused(Refusal::Removing) => EngineError::Conflict {
                message: format!("removal of container {name} is already in progress"),
                hint: None,
            },
            Failed::Refused(Refusal::AlreadyRunning | Refusal::Stale) => {
                EngineError::Conflict { message: format!("container {name} is running already"), hint: None }
            }
        }
    }
}

/// Around the write of each phase.
fn save_failpoints(phase: &Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Created { .. } => ("save.failed.before", "save.failed.after"),
        Phase::Starting { run: None } => ("save.starting.before", "save.starting.after"),
        Phase::Starting { run: Some(_) } => ("save.prepared.before", "save.prepared.after"),
        Phase::Running(_) => ("save.running.before", "save.running.after"),
        Phase::Exited(_) => ("save.exited.before", "save.exited.after"),
        Phase::Removing => ("save.removing.before", "save.removing.after"),
    }
}

/// Blocks.
fn erase(shared: &Shared, snapshot: &Snapshot, volumes: bool) -> Result<(), EngineError> {
    failpoint("erase.before");
    let exclusive = shared.volume_lock();
    let only_its_own = |name: &VolumeName| shared.volume_users(name).iter().all(|user| *user == snapshot.id);
    let anonymous = snapshot.spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { name, anonymous: true, .. } if volumes && only_its_own(name) => Some(name.clone()),
        _ => None,
    });
    let orphans: Vec<VolumeName> = anonymous.collect();
    let delete = || rows::delete_container(&shared.ledger, snapshot.id.clone(), orphans.clone());
    if let Err(error) = delete() {
        // A full disk has no room for the deletion of a row: what is to go anyway makes some.
        if error.kind() != ErrorKind::Exhausted {
            return Err(error.into());
        }
        remove_tree(&snapshot.directory)?;
        delete()?;
    }
    failpoint("erase.row");
    shared.registry.remove(&snapshot.id);
    shared.volumes.forget(&orphans);
    for name in &orphans {
        shared.emit(EventKind::Volume, "destroy", name.to_string(), [("driver".into(), "local".into())].into());
    }
    drop(exclusive);
    for directory in [&snapshot.directory, &shared.run_directory(&snapshot.id)] {
        if let Err(error) = remove_tree(directory) {
            tracing::error!(
                container = snapshot.id.short(),
                error = error_chain(&error),
                "cannot delete a container's files"
            );
        }
        failpoint("erase.files");
    }
    // An image that was removed by force while this container had it can go now.
    if let Err(error) = shared.images.collect(&|image| shared.image_user(image)) {
        tracing::error!(error = error_chain(&error), "cannot collect removed images");
    }
    Ok(())
}

enum Failed {
    Refused(Refusal),
    Error(EngineError),
}

/// What the monitor wrote, as the engine keeps it.
pub(crate) fn exit_status(record: ExitRecord, started: Timestamp) -> ExitStatus {
    ExitStatus {
        exit_code: record.exit_code,
        started,
        finished: record.finished_at.parse().unwrap_or_else(|_| Timestamp::now()),
        out_of_memory: record.out_of_memory,
        error: record.error,
    }
}
