//! The owner's part of running out of memory: it is told, once.

use jiff::Timestamp;

use super::Owner;
use crate::container::Container;
use crate::container::lifecycle::Input;
use crate::container::oom;
use crate::container::snapshot::{Phase, Run};

impl Owner {
    /// Has the memory of the present run watched, unless it is already.
    pub(super) fn watch_memory(&mut self) {
        let snapshot = self.snapshot();
        let Some(started) = snapshot.phase.run().map(|run| run.started) else { return };
        if self.memory_of_run.replace(started) == Some(started) {
            return;
        }
        let Some(entry) = self.shared.registry.get(&snapshot.id) else { return };
        tokio::spawn(oom::watch(Container::new(entry, self.shared.clone()), started));
    }

    /// Of the run that has started then; what is known already, and what is of another run, is passed over.
    pub(super) async fn note_out_of_memory(&mut self, started: Timestamp, kills: Option<u64>) {
        let (Phase::Running(Run { started: present, .. })
        | Phase::Starting { run: Some(Run { started: present, .. }) }) = &self.life.phase
        else {
            return;
        };
        if *present == started {
            drop(self.apply(Input::OutOfMemory(kills)).await);
        }
    }
}
