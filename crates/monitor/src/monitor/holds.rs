//! Holds: for a client's sake the container's processes may stand still, and whatever becomes of the client, they run on.
//!
//! The client stops them itself, since that may take a while; what is kept here is the promise that it does not last.

use super::{INIT, Monitor, Stage};
use crate::connection::Role;
use crate::failpoint::failpoint;

impl Monitor<'_> {
    /// Process 1 runs the wanted program.
    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Running && self.sessions.get(&INIT).is_some_and(|init| init.exit_code.is_none())
    }

    pub(super) fn is_held(&self) -> bool {
        self.connections.values().any(|connection| connection.role == Role::Holding)
    }

    /// Every holder is told, by the end of its connection, once the processes run ([`Monitor::sweep`]).
    pub(super) fn end_holds(&mut self) {
        for connection in self.connections.values_mut().filter(|connection| connection.role == Role::Holding) {
            connection.closing = true;
        }
    }

    /// The last holder has gone. One that is gone is told after this.
    pub(super) fn resume(&mut self) {
        if self.is_running() {
            failpoint("resume.before");
            self.isolate.resume();
            failpoint("resume.after");
        }
    }
}
