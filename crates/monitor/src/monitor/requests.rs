//! Requests: one line of JSON each, and what is answered.

use std::os::fd::AsFd;

use dozen_model::ErrorKind;
use rustix::io::Errno;

use super::children::send_signal;
use super::clients::hung_up;
use super::{Files, INIT, Monitor, Stage};
use crate::connection::{Attachment, LONGEST_REQUEST_BYTES, Role};
use crate::failpoint::failpoint;
use crate::failure::{internal, invalid, no_exec, not_running};
use crate::log::Stream;
use crate::protocol::{Failure, Reply, Request, WindowSize};

impl Monitor<'_> {
    /// Acts on a request once its line is whole.
    pub(super) fn read_request(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(newline) = connection.inbox.iter().position(|byte| *byte == b'\n') else {
            if connection.inbox.len() > LONGEST_REQUEST_BYTES {
                connection.leave();
                connection.read_ended = true;
            }
            return;
        };
        let inbox = std::mem::take(&mut connection.inbox);
        connection.role = Role::Answered;
        if hung_up(connection.stream.as_fd()) {
            // Whoever asked has given up on us, and told its user so.
            connection.leave();
            connection.read_ended = true;
            return;
        }
        let reply = match serde_json::from_slice::<Request>(&inbox[..newline]) {
            Ok(request) => self.answer(id, request).unwrap_or_else(Reply::Failed),
            Err(error) => Reply::Failed(Failure {
                kind: ErrorKind::Invalid,
                message: format!("the monitor does not understand the request: {error}"),
                hint: None,
            }),
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.reply(&reply);
        connection.closing = connection.role == Role::Answered;
        if let (Reply::Attached(_), Some(attachment)) = (&reply, connection.attachment().copied()) {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let held = self.files.log.held(stream);
                if attachment.follows(stream) && !held.is_empty() {
                    connection.output(stream, attachment.raw, held);
                }
            }
        }
        connection.flush();
        let rest = &inbox[newline + 1..];
        if let Some(attachment) = connection.attachment().filter(|attachment| attachment.stdin && !rest.is_empty())
            && let Some(session) = self.sessions.get_mut(&attachment.session)
        {
            session.feed(rest);
        }
    }

    pub(super) fn answer(&mut self, id: u32, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Watch => {
                self.set_role(id, Role::Watching);
                let pid = self.sessions.get(&INIT).map_or(0, |init| init.pid);
                let execs = self.sessions.values().filter_map(|session| session.exec_id.clone()).collect();
                Ok(Reply::State { pid, started: self.stage != Stage::Created, execs })
            }
            Request::Signal { signal, all } => {
                if !(1..=64).contains(&signal) {
                    return Err(invalid(format!("{signal} is not a signal")));
                }
                self.end_holds();
                if all {
                    return self.isolate.signal_all(signal).map(|()| Reply::Done);
                }
                let init = self.sessions.get(&INIT).filter(|init| init.exit_code.is_none()).ok_or_else(not_running)?;
                failpoint("signal.before");
                let sent = send_signal(init.end.as_fd(), signal);
                failpoint("signal.after");
                match sent {
                    Ok(()) => Ok(Reply::Done),
                    Err(Errno::SRCH) => Err(not_running()),
                    Err(error) => Err(internal(&format!("send signal {signal}"), &error.into())),
                }
            }
            Request::Resize(size) => self.resize(INIT, size),
            Request::Attach { stdin, stdout, stderr, log } => {
                let init = self.sessions.get(&INIT).ok_or_else(not_running)?;
                let raw = init.terminal.is_some();
                let end = log.then(|| self.files.log.end()).transpose();
                let end = end.map_err(|error| internal("look at the log", &error))?;
                self.set_role(id, Role::Attached(Attachment { session: INIT, stdin, stdout, stderr, raw }));
                Ok(end.flatten().map_or(Reply::Done, Reply::Attached))
            }
            Request::Hold => {
                if !self.is_running() {
                    return Err(not_running());
                }
                self.set_role(id, Role::Holding);
                Ok(Reply::Done)
            }
            Request::Exec(request) => self.exec(id, &request),
            Request::ResizeExec { exec_id, size } => {
                let session = self.session_of(&exec_id).ok_or_else(|| no_exec(&exec_id))?;
                self.resize(session, size)
            }
            Request::ChangeLog(settings) => {
                let Files { log, data_directory, .. } = &mut self.files;
                failpoint("log.change.before");
                log.change(data_directory, &settings).map_err(|error| internal("change the log", &error))?;
                failpoint("log.change.after");
                Ok(Reply::Done)
            }
            Request::InspectExec { exec_id } => {
                if let Some(session) = self.session_of(&exec_id).and_then(|id| self.sessions.get(&id)) {
                    return Ok(Reply::ExecStarted { exec_id, pid: session.pid });
                }
                let ended = self.ended_execs.iter().find(|(ended, _, _)| *ended == exec_id);
                let (_, _, exit_code) = ended.ok_or_else(|| no_exec(&exec_id))?;
                Ok(Reply::ExecExited { exit_code: *exit_code, exec_id })
            }
        }
    }

    pub(super) fn resize(&mut self, id: u32, size: WindowSize) -> Result<Reply, Failure> {
        let session = self.sessions.get(&id).ok_or_else(not_running)?;
        let terminal = session.terminal.as_ref().ok_or_else(|| Failure {
            kind: ErrorKind::Conflict,
            message: "it has no terminal".to_owned(),
            hint: None,
        })?;
        let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size)
            .map_err(|error| internal("resize the terminal", &error.into()))?;
        Ok(Reply::Done)
    }

    pub(super) fn set_role(&mut self, id: u32, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = role;
        }
    }
}
