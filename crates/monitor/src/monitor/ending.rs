//! Ends: of a process, of its output, and of the container with all that follows from it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use dozen_model::ErrorKind;
use rustix::process::{WaitId, WaitIdOptions};

use super::{INIT, Monitor, Stage};
use crate::failpoint::failpoint;
use crate::failure::complain;
use crate::log::timestamp;
use crate::protocol::{ExitRecord, Failure, Reply, StartReply};
use crate::{exit, packet};

/// Who ended may have left its streams to someone else; they are waited for so long (as Docker does).
pub(super) const STREAMS_GRACE: Duration = Duration::from_secs(2);
/// After the end, a client that takes nothing for so long is left.
pub(super) const LINGER: Duration = Duration::from_secs(10);

impl Monitor<'_> {
    /// A process has ended.
    pub(super) fn on_end(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.exit_code.is_some() {
            return;
        }
        match rustix::process::waitid(WaitId::PidFd(session.end.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        {
            Ok(Some(status)) => {
                session.exit_code = Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code & 0xff,
                    (None, Some(signal)) => 128 + signal,
                    (None, None) => 255,
                });
            }
            Ok(None) => return,
            // Somebody else waited for it; a process without a code is a failed one.
            Err(_) => session.exit_code = Some(255),
        }
        session.streams_until = Some(Instant::now() + STREAMS_GRACE);
        if id != INIT {
            return;
        }
        if self.stage == Stage::Created {
            // Killed before it ran anything.
            let failure = Failure {
                kind: ErrorKind::Conflict,
                message: "the container was killed before it started".to_owned(),
                hint: None,
            };
            let failure = self.undo_after(failure);
            if let Some(pair) = self.pair.take() {
                let _ = packet::send(pair.as_fd(), &StartReply::Failed(failure), None);
            }
            return;
        }
        // In a pid namespace of its own nothing is left by now; in the host's, much may be.
        failpoint("ended");
        self.isolate.kill_rest();
        failpoint("rest_killed");
    }

    /// What follows from ends: of processes, of output, of clients.
    pub(super) fn follow_ends(&mut self) {
        let now = Instant::now();
        let late: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.streams_until.is_some_and(|until| now >= until) && !session.output_ended())
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if id != INIT && !self.followers_have_room(id) {
                // Not the streams are late, but whoever reads them.
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.streams_until = Some(now + STREAMS_GRACE);
                }
                continue;
            }
            self.cut_output(id);
        }
        let execs: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(id, session)| **id != INIT && session.exit_code.is_some() && session.output_ended())
            .map(|(id, _)| *id)
            .collect();
        for id in execs {
            self.end_exec(id);
        }
        let init_ended = self.sessions.get(&INIT).is_some_and(|init| init.exit_code.is_some() && init.output_ended());
        if init_ended && self.stage == Stage::Running {
            self.finish();
        }
        self.sweep();
    }

    /// The container has ended and its output is complete: the record, then the news.
    pub(super) fn finish(&mut self) {
        let Some(init) = self.sessions.remove(&INIT) else { return };
        self.isolate.kill_rest();
        self.files.log.finish();
        failpoint("log.complete");
        // Execs have ended with it, or were killed just now.
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.wait_killed(id);
            self.cut_output(id);
            self.end_exec(id);
        }
        failpoint("finish.before");
        let oom_kills = self.isolate.finish();
        failpoint("finish.after");
        let finished_at = String::from_utf8_lossy(&timestamp::now()).into_owned();
        let record = ExitRecord {
            exit_code: init.exit_code.unwrap_or(255),
            finished_at,
            out_of_memory: oom_kills > 0,
            oom_kills,
            error: None,
        };
        if let Some((entries, why)) = self.files.log.missing() {
            complain(format_args!("{entries} entries of the log could not be written: {why}"));
        }
        if let Err(error) = exit::write(&self.files.data_directory, &record) {
            // The engine hears of it all the same, if there is one.
            complain(format_args!("cannot write the exit record: {error}"));
        }
        failpoint("record.after");
        // From here on a new monitor may take the directory.
        self.listener = None;
        self.files.remove_socket();
        failpoint("socket.removed");
        self.files.lock = None;
        failpoint("unlocked");
        self.stage = Stage::Ended;
        self.linger_until = Some(Instant::now() + LINGER);
        self.announce(&Reply::Exited(record));
        failpoint("announced");
        self.close_followers(INIT);
        for connection in self.connections.values_mut() {
            connection.closing = true;
        }
    }
}
