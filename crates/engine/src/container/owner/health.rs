//! The owner's part of health: what a check has said becomes what is seen, and what is done about it.

use std::sync::Arc;

use dozen_model::error_chain;
use jiff::Timestamp;

use super::Owner;
use crate::container::Container;
use crate::container::health::{Health, HealthResult, HealthStatus, probe};
use crate::container::lifecycle::Input;
use crate::failpoint::failpoint;
use crate::rows;

impl Owner {
    /// Has the present run checked, unless it is already.
    pub(super) fn begin_checks(&mut self) {
        let snapshot = self.snapshot();
        let Some(started) = snapshot.phase.run().map(|run| run.started) else { return };
        let Some((check, command)) = snapshot.spec.health.as_ref().and_then(|check| Some((check, check.command()?)))
        else {
            return;
        };
        if self.checked_run == Some(started) {
            return;
        }
        self.checked_run = Some(started);
        let Some(entry) = self.shared.registry.get(&snapshot.id) else { return };
        let container = Container::new(entry, self.shared.clone());
        tokio::spawn(probe::watch(container, check.clone(), command, started));
    }

    /// A check of the run that has started then.
    pub(super) async fn note_check(&mut self, started: Timestamp, result: HealthResult) {
        let snapshot = self.snapshot();
        let is_present = snapshot.phase.run().is_some_and(|run| run.started == started && !run.is_paused);
        let (Some(check), true) = (&snapshot.spec.health, is_present) else { return };
        let before = snapshot.health.clone().unwrap_or_else(|| Arc::new(Health::begun(0)));
        let after = Arc::new(before.with(check, started, result));
        let (status, streak) = (after.status, after.failing_streak);
        if streak != before.failing_streak {
            let saved = rows::save_failing_streak(&self.shared.ledger, snapshot.id.clone(), streak).await;
            if let Err(error) = saved {
                let id = snapshot.id.short();
                tracing::warn!(
                    container = id,
                    error = error_chain(&error),
                    "an engine's end would lose a failed check"
                );
            }
            failpoint("health.saved");
        }
        let is_news = status != before.status;
        self.update(|snapshot| {
            snapshot.health = Some(after);
            if is_news {
                self.shared.announce(snapshot, &format!("health_status: {}", status.as_str()), None);
            }
        });
        if is_news && status == HealthStatus::Unhealthy {
            let plan = Container::plan_of(&snapshot);
            let input = Input::Unhealthy { action: check.on_unhealthy, streak, plan };
            // Refused, if someone wants it to end anyway.
            drop(self.apply(input).await);
        }
    }
}
