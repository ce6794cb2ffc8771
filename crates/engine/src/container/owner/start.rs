//! The owner's part of a start, and of taking up what an earlier engine has started.

use dozen_ledger::boot;
use dozen_model::{NetworkMode, error_chain};
use dozen_monitor::protocol::{Reply, Request};
use jiff::Timestamp;

use super::{Command, Failed, Owner};
use crate::EngineError;
use crate::container::launch;
use crate::container::lifecycle::Input;
use crate::container::pause;
use crate::container::restart::MACHINE_WENT_DOWN;
use crate::container::snapshot::{Phase, StartFailure};
use crate::failpoint::failpoint;
use crate::monitor_link::MonitorLink;
use crate::shared::{Last, MONITOR_DIED};

impl Owner {
    /// Network, monitor, process; on failure all of it is undone and the failure kept for inspect.
    pub(super) async fn launch(&mut self) -> Result<(), EngineError> {
        let result = self.try_launch().await;
        if let Err(error) = &result {
            let snapshot = self.snapshot();
            if matches!(error, EngineError::MonitorHangs { .. }) {
                // It would keep its lock from the next start.
                self.shared.kill_monitor(&snapshot.id).await;
            }
            // A monitor that fails undoes all; one that was killed does not.
            self.shared.sweep(&snapshot.id).await;
            for (_, client) in self.waiting_clients.take() {
                drop(client.send(Err(EngineError::NotRunning(snapshot.name.to_string()))));
            }
            let exit_code = launch::docker_exit_code(error);
            let failure = StartFailure { exit_code, message: error_chain(error) };
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
        let started = prepared.run.started;
        // Everyone who shall miss nothing is connected before the process may run.
        let run_directory = self.shared.run_directory(&snapshot.id);
        let written = Box::pin(self.apply(Input::Prepared(prepared.run.clone())));
        let (written, watched) = tokio::join!(written, MonitorLink::request(&run_directory, &Request::Watch));
        written.map_err(|failed| self.explain(failed))?;
        // What the ledger does not know of must not run: a crash would leave it without an owner.
        if let Some(unfinished) = &self.unfinished {
            return Err(unfinished.failure.clone().into());
        }
        let (link, _) = watched?;
        failpoint("launch.watched");
        for (options, client) in self.waiting_clients.take() {
            drop(client.send(self.connect(options).await));
        }
        self.shared.blocking(move || Ok(prepared.pending.go()?)).await?;
        failpoint("launch.go");
        self.watch(Some(link), started);
        match Box::pin(self.apply(Input::Started)).await {
            Ok(()) => {}
            Err(Failed::Error(error)) => return Err(error),
            Err(refused @ Failed::Refused(_)) => return Err(self.explain(refused)),
        }
        failpoint("launch.after");
        self.begin_checks();
        self.watch_memory();
        if matches!(snapshot.spec.network, NetworkMode::Bridge | NetworkMode::Network(_)) {
            // Nobody waits for it.
            let shared = self.shared.clone();
            tokio::task::spawn_blocking(move || shared.network.look_at_firewall());
        }
        Ok(())
    }

    /// Waits in a task of its own for the monitor's last word, and tells the owner. Without a link, the monitor hangs, and
    /// is asked again until it answers or dies.
    fn watch(&self, mut link: Option<MonitorLink>, started: Timestamp) {
        let (mailbox, shared, id) = (self.own_mailbox.clone(), self.shared.clone(), self.snapshot().id.clone());
        let news = self.news.clone();
        tokio::spawn(async move {
            let last = loop {
                let heard = match &mut link {
                    Some(link) => link.next().await,
                    None => Ok(None),
                };
                match heard {
                    Ok(Some(Reply::Exited(record))) => break Last::of(record, started),
                    Ok(Some(reply)) => {
                        shared.execs.heard(&reply);
                        if let Reply::ExecExited { exec_id, exit_code } = reply {
                            drop(news.write().await);
                            let Some(entry) = shared.registry.get(&id) else { continue };
                            let more = [("execID".to_owned(), exec_id), ("exitCode".to_owned(), exit_code.to_string())];
                            shared.announce(&entry.snapshot(), "exec_die", more);
                        }
                    }
                    // The connection can break, or the engine want for descriptors, while the container is well.
                    Ok(None) | Err(_) => match shared.watch_monitor(&id).await {
                        Ok(Some((again, _))) => link = Some(again),
                        Ok(None) => break shared.last_word(&id, started, MONITOR_DIED).await,
                        Err(error) => {
                            tracing::warn!(container = id.short(), error = error_chain(&error), "asked again")
                        }
                    },
                }
            };
            drop(news.write().await);
            if let Some(mailbox) = mailbox.upgrade() {
                // The mailbox is closed only when the container is gone, and then nobody needs to know.
                if last.oom_kills > 0 {
                    drop(mailbox.send(Command::OutOfMemory { started, kills: Some(last.oom_kills) }).await);
                }
                drop(mailbox.send(Command::Ended(last.status)).await);
            }
        });
    }

    /// After the engine was away: what was running is looked for, what was interrupted is finished or undone.
    pub(super) async fn take_up(&mut self) {
        let id = self.snapshot().id.clone();
        let found = match self.life.phase.clone() {
            Phase::Starting { run: None } => {
                self.shared.sweep(&id).await;
                Input::StartLost
            }
            Phase::Starting { run: Some(run) } | Phase::Running(run) => {
                let starting = matches!(self.life.phase, Phase::Starting { .. });
                let mut watched = self.shared.watch_monitor(&id).await;
                if let Err(error) = &watched {
                    tracing::warn!(container = id.short(), error = error_chain(error), "its monitor hangs");
                    if starting {
                        // What may never have run is not waited for.
                        self.shared.kill_monitor(&id).await;
                        watched = Ok(None);
                    }
                }
                match watched {
                    Ok(Some((link, Reply::State { started: true, .. }))) => {
                        if starting {
                            drop(self.apply(Input::Started).await);
                        }
                        self.watch(Some(link), run.started);
                        Input::TakenUp
                    }
                    // Whoever wants to end it must be heard.
                    Err(_) => {
                        self.watch(None, run.started);
                        Input::TakenUp
                    }
                    // It never ran: its monitor, without a go-ahead, is undoing it or has done so.
                    _ if starting && !self.has_exit_record().await => {
                        self.shared.sweep(&id).await;
                        Input::StartLost
                    }
                    _ => {
                        let went_down = boot::is_over(run.boot.as_ref(), self.shared.boot.as_ref());
                        let lost = if went_down { MACHINE_WENT_DOWN } else { MONITOR_DIED };
                        let last = self.shared.last_word(&id, run.started, lost).await;
                        if last.oom_kills > 0 {
                            self.note_out_of_memory(run.started, Some(last.oom_kills)).await;
                        }
                        if went_down { Input::WentDown(last.status) } else { Input::Ended(last.status) }
                    }
                }
            }
            Phase::Created { .. } | Phase::Exited(_) | Phase::Waiting(_) | Phase::Removing { .. } => Input::TakenUp,
        };
        if self.life.phase.is_paused()
            && let Input::TakenUp = found
            && let Ok(false) = pause::is_still(&self.shared, &self.snapshot()).await
        {
            drop(self.apply(Input::FoundMoving).await);
        }
        // What fails of it is logged, and stays to be done.
        drop(self.apply(found).await);
        self.begin_checks();
        self.watch_memory();
    }

    /// The process ran, and ended while no engine was there.
    async fn has_exit_record(&self) -> bool {
        tokio::fs::try_exists(self.snapshot().directory.join("exit.json")).await.unwrap_or(false)
    }
}
