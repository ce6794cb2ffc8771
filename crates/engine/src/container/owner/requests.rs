//! What is asked of a container that changes no phase: another name, another spec, a client for its streams.

use dozen_model::{ContainerName, error_chain};
use dozen_monitor::protocol::{self, Request};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Failed, Owner};
use crate::EngineError;
use crate::container::attach::{AttachOptions, PendingAttach, StdioStream};
use crate::container::change::{self, Changed, SpecChange, Whose};
use crate::container::lifecycle::Refusal;
use crate::container::pause;
use crate::container::snapshot::Phase;
use crate::failpoint::failpoint;
use crate::monitor_link::MonitorLink;
use crate::rows;

impl Owner {
    pub(super) async fn rename(&mut self, name: ContainerName) -> Result<(), EngineError> {
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
        self.name_anew().await;
        self.shared.announce(&self.snapshot(), "rename", [("oldName".to_owned(), format!("/{old}"))]);
        Ok(())
    }

    /// Its neighbours find it by its new name.
    async fn name_anew(&self) {
        let (shared, snapshot) = (self.shared.clone(), self.snapshot());
        let Some(run) = self.life.phase.run().cloned() else { return };
        let named = self.shared.blocking(move || shared.network.names.refresh(&snapshot, &run)).await;
        if let Err(error) = named {
            let id = self.snapshot().id.clone();
            tracing::error!(container = id.short(), error = error_chain(&error), "its neighbours know its former name");
        }
    }

    pub(super) async fn change(&mut self, change: SpecChange) -> Result<Vec<String>, EngineError> {
        let snapshot = self.snapshot();
        if matches!(self.life.phase, Phase::Removing { .. }) {
            return Err(self.explain(Failed::Refused(Refusal::Removing)));
        }
        let after = change.applied_to(&snapshot.spec)?;
        let (shared, runs) = (self.shared.clone(), matches!(self.life.phase, Phase::Running(_)));
        let Changed { spec, later } = {
            let snapshot = snapshot.clone();
            let work = move || {
                let whose = Whose { id: &snapshot.id, name: &snapshot.name, created: snapshot.created, runs };
                change::change(&shared, whose, &snapshot.spec, after)
            };
            self.shared.blocking(work).await?
        };
        self.update(|snapshot| {
            snapshot.spec = spec;
            self.shared.announce(snapshot, change.event(), None);
        });
        Ok(later)
    }

    /// A running container's client is connected at once, an earlier one when it starts.
    pub(super) async fn attach(&mut self, options: AttachOptions) -> Result<PendingAttach, EngineError> {
        let snapshot = self.snapshot();
        let terminal = snapshot.spec.process.terminal;
        let (sender, stream) = oneshot::channel();
        let not_running = match &self.life.phase {
            Phase::Running(_) => {
                pause::check_moves(&snapshot, "attach")?;
                drop(sender.send(self.connect(options).await));
                None
            }
            Phase::Removing { .. } => return Err(self.explain(Failed::Refused(Refusal::Removing))),
            Phase::Waiting(_) => return Err(pause::is_restarting(&snapshot)),
            _ => {
                self.waiting_clients.add(AttachOptions { log: false, ..options }, sender);
                Some(Timestamp::now())
            }
        };
        self.shared.announce(&snapshot, "attach", None);
        Ok(PendingAttach { terminal, not_running, stream })
    }

    pub(super) async fn connect(&self, options: AttachOptions) -> Result<StdioStream, EngineError> {
        let snapshot = self.snapshot();
        let AttachOptions { stdin, stdout, stderr, log } = options;
        let request = Request::Attach { stdin, stdout, stderr, log };
        let (link, reply) = MonitorLink::request(&self.shared.run_directory(&snapshot.id), &request).await?;
        let log_end = if let protocol::Reply::Attached(end) = reply { Some(end) } else { None };
        Ok(StdioStream { socket: link.into_stream(), terminal: snapshot.spec.process.terminal, log_end })
    }
}
