//! Further processes: from the request to the code that is remembered.

use std::os::fd::AsFd;

use dozen_model::ErrorKind;
use rustix::time::Timespec;

use super::Monitor;
use super::children::send_signal;
use super::ending::STREAMS_GRACE;
use crate::connection::{Attachment, Role};
use crate::failpoint::failpoint;
use crate::failure::{internal, invalid, not_running};
use crate::protocol::{ExecRequest, Failure, Reply};
use crate::session::{self, Session, Wanted};

/// Exit codes of execs that are remembered.
const ENDED_EXECS: usize = 256;

impl Monitor<'_> {
    pub(super) fn exec(&mut self, id: u32, request: &ExecRequest) -> Result<Reply, Failure> {
        if !self.is_running() {
            return Err(not_running());
        }
        if self.is_held() {
            // It would stand still before it was there, and we with it.
            return Err(Failure {
                kind: ErrorKind::Conflict,
                message: "the container stands still while it is committed".to_owned(),
                hint: Some("try again when that is over, or commit with --pause=false".to_owned()),
            });
        }
        if self.session_of(&request.exec_id).is_some() {
            return Err(Failure {
                kind: ErrorKind::Conflict,
                message: format!("exec {} runs already", request.exec_id),
                hint: None,
            });
        }
        if request.arguments.is_empty() {
            return Err(invalid("an exec needs a command".to_owned()));
        }
        let wanted = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        let (streams, ends) = session::streams(wanted, request.terminal, request.size)
            .map_err(|error| internal("make pipes", &error.into()))?;
        failpoint("exec.before");
        let process = self.isolate.exec(request, streams)?;
        failpoint("exec.after");
        self.next_id += 1;
        let (session_id, pid) = (self.next_id, process.pid);
        let session = Session::new(session_id, Some(request.exec_id.clone()), process, ends).map_err(|error| {
            // Nobody would follow it; its end is reaped as an orphan's.
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            internal("take over the exec's streams", &error.into())
        })?;
        self.sessions.insert(session_id, session);
        let attached = request.stdin || request.stdout || request.stderr;
        if attached {
            self.set_role(
                id,
                Role::Attached(Attachment {
                    session: session_id,
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    raw: request.terminal,
                }),
            );
        }
        self.announce(&Reply::ExecStarted { exec_id: request.exec_id.clone(), pid });
        Ok(Reply::Done)
    }

    pub(super) fn session_of(&self, exec_id: &str) -> Option<u32> {
        self.sessions.iter().find(|(_, session)| session.exec_id.as_deref() == Some(exec_id)).map(|(id, _)| *id)
    }

    /// An exec's process and output have ended: everyone is told, and its client's connection ends.
    pub(super) fn end_exec(&mut self, id: u32) {
        let Some(session) = self.sessions.remove(&id) else { return };
        let (Some(exec_id), Some(exit_code)) = (session.exec_id, session.exit_code) else { return };
        if self.ended_execs.len() == ENDED_EXECS {
            self.ended_execs.pop_front();
        }
        self.ended_execs.push_back((exec_id.clone(), session.pid, exit_code));
        self.announce(&Reply::ExecExited { exec_id, exit_code });
        self.close_followers(id);
    }

    /// Waits for an exec's process, which was killed with its container.
    pub(super) fn wait_killed(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.exit_code.is_none() {
            let _ = send_signal(session.end.as_fd(), libc::SIGKILL);
            let mut ended = [rustix::event::PollFd::new(&session.end, rustix::event::PollFlags::IN)];
            let most = Timespec { tv_sec: STREAMS_GRACE.as_secs().cast_signed(), tv_nsec: 0 };
            let _ = rustix::event::poll(&mut ended, Some(&most));
            self.on_end(id);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.exit_code.get_or_insert(137);
        }
    }
}
