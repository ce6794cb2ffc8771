//! SIGHUP: what files say is read again. What is wrong in one of them is told, and what was read before stays.

use std::path::PathBuf;

use dozen_distribution::{Retention, Upstreams};
use dozen_model::error_chain;
use dozen_tls::DoorKeeper;
use tokio::signal::unix::Signal;

use super::access::Guard;
use super::upstreams;

/// All that was read from files.
pub(super) struct Files {
    pub(super) guard: Guard,
    pub(super) rules: Option<Retention>,
    pub(super) tls: Option<DoorKeeper>,
    pub(super) upstreams: Option<(Upstreams, PathBuf)>,
}

impl Files {
    /// For ever.
    pub(super) async fn read_again_on(self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            match self.read_again().as_slice() {
                [] => tracing::info!("certificate, passwords, rights, rules and upstreams have been read again"),
                problems => tracing::error!("{}: that stays as it was", problems.join("; ")),
            }
        }
    }

    fn read_again(&self) -> Vec<String> {
        let mut problems = self.guard.reload();
        if let Some(Err(error)) = self.rules.as_ref().map(Retention::reload) {
            problems.push(error_chain(&error));
        }
        if let Some(Err(error)) = self.tls.as_ref().map(DoorKeeper::reload) {
            problems.push(error_chain(&error));
        }
        if let Some((upstreams, path)) = &self.upstreams {
            match upstreams::read(path) {
                Ok(sources) => upstreams.replace(sources),
                Err(error) => problems.push(error_chain(error.as_ref())),
            }
        }
        problems
    }
}
