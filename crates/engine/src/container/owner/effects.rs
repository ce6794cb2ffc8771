//! What `lifecycle` decides is carried out: written, published, announced, released, ended, started again, removed.

use std::sync::Arc;

use dozen_ledger::Durability;
use dozen_model::error_chain;

use super::askers::{Asked, failure};
use super::{Command, Owner, erase};
use crate::EngineError;
use crate::container::health::{Health, HealthStatus};
use crate::container::launch;
use crate::container::lifecycle::{Input, Life, StopPlan, Wish};
use crate::container::snapshot::{Phase, Run, Snapshot, Waiting};
use crate::container::{Container, WaitCondition};
use crate::failpoint::failpoint;
use crate::rows;

impl Owner {
    pub(super) async fn write(&mut self, essential: bool) -> Result<(), EngineError> {
        let (before, after) = write_failpoints(&self.life);
        failpoint(before);
        let snapshot = self.snapshot();
        let runs_after_boot = self.life.runs_after_boot(snapshot.spec.restart).unwrap_or(self.runs_after_boot);
        let durability = if runs_after_boot == self.runs_after_boot { Durability::Kill } else { Durability::Power };
        rows::save_life(&self.shared.ledger, snapshot.id.clone(), &self.life, durability, essential).await?;
        self.runs_after_boot = runs_after_boot;
        failpoint(after);
        self.unfinished = None;
        Ok(())
    }

    pub(super) async fn record(&mut self) {
        if let Err(error) = self.write(true).await {
            self.postpone(&error, "the ledger does not know yet what became of a container");
        }
    }

    pub(super) async fn release(&self, run: Run) -> Result<(), EngineError> {
        let (shared, id) = (self.shared.clone(), self.snapshot().id.clone());
        self.shared.execs.run_ended(&id);
        self.shared.blocking(move || launch::release(&shared, &id, &run)).await
    }

    /// In one step for those who look and those who listen: who hears of it sees it, and who sees it comes after it.
    pub(super) fn publish(&mut self, action: Option<&'static str>) {
        let (phase, restarts) = (self.life.phase.clone(), self.life.restarts.clone());
        let is_restarting = matches!(self.life.wish, Wish::Restart(_));
        self.update(|snapshot| {
            if let Phase::Exited(exit) | Phase::Waiting(Waiting { exit, .. }) = &phase {
                snapshot.last_exit = Some(exit.clone());
            }
            if matches!(phase, Phase::Exited(_)) || action == Some("die") {
                snapshot.exits += 1;
            }
            snapshot.health = match (&phase, action) {
                // A new run has a new health.
                (Phase::Running(_), Some("start")) if is_checked(snapshot) => Some(Arc::new(Health::begun(0))),
                (Phase::Running(_), _) => snapshot.health.take(),
                // As Docker says of one that nobody checks any more.
                _ => snapshot
                    .health
                    .take()
                    .map(|health| Arc::new(Health { status: HealthStatus::Unhealthy, ..Health::clone(&health) })),
            };
            (snapshot.phase, snapshot.restarts, snapshot.is_restarting) = (phase, restarts, is_restarting);
            if let Some(action) = action {
                self.announce(snapshot, action);
            }
        });
    }

    pub(super) fn announce(&self, snapshot: &Snapshot, action: &'static str) {
        let (before, after) = match action {
            "start" => ("announce.start.before", "announce.start.after"),
            "die" => ("announce.die.before", "announce.die.after"),
            "stop" => ("announce.stop.before", "announce.stop.after"),
            "restart" => ("announce.restart.before", "announce.restart.after"),
            "pause" => ("announce.pause.before", "announce.pause.after"),
            "unpause" => ("announce.unpause.before", "announce.unpause.after"),
            "oom" => ("announce.oom.before", "announce.oom.after"),
            _ => ("announce.destroy.before", "announce.destroy.after"),
        };
        failpoint(before);
        let exit = snapshot.last_exit.as_ref().filter(|_| action == "die");
        let attributes = exit.map(|exit| {
            let duration_s = exit.finished.duration_since(exit.started).as_secs().max(0);
            [("exitCode".to_owned(), exit.exit_code.to_string()), ("execDuration".to_owned(), duration_s.to_string())]
        });
        self.shared.announce(snapshot, action, attributes.into_iter().flatten());
        failpoint(after);
    }

    /// In a task of its own: it may take as long as its grace, and others ask in the meantime.
    pub(super) fn bring_to_end(&self, plan: StopPlan) {
        let Some(entry) = self.shared.registry.get(&self.snapshot().id) else { return };
        let mailbox = entry.mailbox.clone();
        let container = Container::new(entry, self.shared.clone());
        // Of this run, even if the task gets its turn only after it.
        let ended = container.wait(WaitCondition::NextExit);
        failpoint("end.before");
        tokio::spawn(async move {
            if let Err(error) = container.bring_to_end(plan, ended).await {
                tracing::error!(
                    container = container.id.short(),
                    error = error_chain(&error),
                    "cannot end a container"
                );
                drop(mailbox.send(Command::CannotEnd(failure(&error))).await);
            }
        });
    }

    pub(super) async fn start_again(&mut self) -> Result<(), EngineError> {
        self.askers.answer(Asked::Stop, &Ok(()));
        failpoint("start_again.before");
        let started = self.apply(Input::Start).await.map_err(|failed| self.explain(failed));
        self.askers.answer(Asked::Restart, &started.as_ref().map(drop).map_err(failure));
        if started.is_err() {
            // Unless the start has gone so far that it was undone, and the wish with it.
            drop(self.apply(Input::GivenUp).await);
        }
        started
    }

    pub(super) async fn remove_itself(&mut self, volumes: bool) -> Result<(), EngineError> {
        self.askers.answer(Asked::Stop, &Ok(()));
        failpoint("remove_itself.before");
        let removed = self.apply(Input::RemoveItself { volumes }).await.map_err(|failed| self.explain(failed));
        if let Err(error) = &removed {
            self.askers.answer(Asked::Removal, &Err(failure(error)));
        }
        removed
    }

    pub(super) async fn erase(&mut self, volumes: bool) -> Result<(), EngineError> {
        let (shared, snapshot) = (self.shared.clone(), self.snapshot());
        let own = if volumes { erase::anonymous_volumes(&snapshot) } else { Vec::new() };
        let claim = self.shared.volumes.claim(own.iter().cloned()).await;
        match self.shared.blocking(move || erase::erase(&shared, &snapshot, own, claim)).await {
            Ok(()) => {
                failpoint("erase.after");
                (self.erased, self.unfinished) = (true, None);
                self.announce(&self.snapshot(), "destroy");
                Ok(())
            }
            Err(error) => {
                self.postpone(&error, "a container could not be removed yet");
                drop(self.apply(Input::RemovalFailed(error_chain(&error))).await);
                Err(error)
            }
        }
    }
}

fn is_checked(snapshot: &Snapshot) -> bool {
    snapshot.spec.health.as_ref().is_some_and(|check| check.command().is_some())
}

/// Around the write of each phase, or of a wish.
fn write_failpoints(life: &Life) -> (&'static str, &'static str) {
    match &life.phase {
        Phase::Created { .. } => ("save.failed.before", "save.failed.after"),
        Phase::Starting { run: None } => ("save.starting.before", "save.starting.after"),
        Phase::Starting { run: Some(_) } => ("save.prepared.before", "save.prepared.after"),
        Phase::Running(_) if life.wish != Wish::None => ("save.wish.before", "save.wish.after"),
        Phase::Running(run) if run.is_paused => ("save.paused.before", "save.paused.after"),
        Phase::Running(_) => ("save.running.before", "save.running.after"),
        Phase::Waiting(_) => ("save.waiting.before", "save.waiting.after"),
        Phase::Exited(_) => ("save.exited.before", "save.exited.after"),
        Phase::Removing { .. } => ("save.removing.before", "save.removing.after"),
    }
}
