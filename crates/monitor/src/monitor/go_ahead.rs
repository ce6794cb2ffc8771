//! The engine's go-ahead, or its absence: then nothing is to be left.

use std::os::fd::AsFd;

use super::{Monitor, Stage};
use crate::failpoint::failpoint;
use crate::packet;
use crate::protocol::{Failure, Go, StartReply};

impl Monitor<'_> {
    pub(super) fn on_pair(&mut self) {
        let Some(pair) = self.pair.take() else { return };
        if self.stage != Stage::Created {
            return;
        }
        if packet::receive::<Go>(pair.as_fd()).is_err() {
            // The engine died, or thought better of it.
            self.undo();
            return;
        }
        failpoint("start.before");
        let reply = match self.isolate.start() {
            Ok(()) => {
                failpoint("start.after");
                self.stage = Stage::Running;
                StartReply::Started
            }
            Err(failure) => StartReply::Failed(self.undo_after(failure)),
        };
        // If the engine has died meanwhile, the next one finds the container running, or nothing.
        let _ = packet::send(pair.as_fd(), &reply, None);
        failpoint("started.after");
    }

    pub(super) fn undo_after(&mut self, mut failure: Failure) -> Failure {
        for left in self.undo() {
            failure.message.push_str("; then, ");
            failure.message.push_str(&left);
        }
        failure
    }

    /// Nothing is to be left: of the container, the socket, the lock.
    pub(super) fn undo(&mut self) -> Vec<String> {
        self.sessions.clear();
        self.connections.clear();
        failpoint("undo.before");
        let left = self.isolate.undo();
        failpoint("undo.after");
        self.listener = None;
        self.files.remove_socket();
        failpoint("undo.socket");
        self.files.lock = None;
        left
    }
}
