//! The loop: one thread, one epoll, and what happens on each event.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dozen_model::ErrorKind;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions};
use rustix::time::Timespec;

use crate::connection::{Attachment, Connection, LONGEST_REQUEST_BYTES, Role};
use crate::failpoint::failpoint;
use crate::isolate::Isolate;
use crate::log::file::LogFile;
use crate::log::lines::LineEncoder;
use crate::log::{Stream, timestamp};
use crate::protocol::{ExecRequest, ExitRecord, Failure, Go, Reply, Request, StartReply, WindowSize};
use crate::session::{self, Session, Wanted};
use crate::start::{complain, internal};
use crate::watched::{Token, Watched};
use crate::{detach, exit, packet};

/// Read at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// How many chunks before others have their turn.
const CHUNKS_A_TURN: usize = 8;
/// Who ended may have left its streams to someone else; they are waited for so long (as Docker does).
const STREAMS_GRACE: Duration = Duration::from_secs(2);
/// After the end, a client that takes nothing for so long is left.
const LINGER: Duration = Duration::from_secs(10);
/// After so long without an event, memory goes back.
const REST: Duration = Duration::from_secs(1);
/// After an accept for which no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client that does not read while the container ends may leave so much waiting.
const MOST_WAITING_BYTES: usize = 4 * 1024 * 1024;
/// A watcher is an engine; one that has left so much unread hangs.
const MOST_EVENTS_BYTES: usize = 1024 * 1024;
/// Exit codes of execs that are remembered.
const ENDED_EXECS: usize = 256;
/// The container's first process.
const INIT: u32 = 0;

/// What a monitor has on disk.
pub struct Files {
    /// Log, exit record.
    pub data_directory: PathBuf,
    /// Socket, lock.
    pub run_directory: PathBuf,
    /// The container's log.
    pub log: LogFile,
    /// Held for life.
    pub lock: Option<File>,
    /// monitor.sock.
    pub listener: Option<OwnedFd>,
}

impl Files {
    /// Takes monitor.sock away.
    pub fn remove_socket(&self) {
        // If it stays, the next monitor removes it.
        let _ = std::fs::remove_file(self.run_directory.join("monitor.sock"));
    }
}

/// How far the container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It stands; the engine's go-ahead is awaited.
    Created,
    /// Its program runs.
    Running,
    /// The record is written; what clients have not read yet is sent.
    Ended,
}

/// A monitor's whole state.
pub struct Monitor<'a> {
    isolate: &'a mut dyn Isolate,
    files: Files,
    encoders: [LineEncoder; 2],
    epoll: OwnedFd,
    pair: Option<Watched>,
    listener: Option<Watched>,
    sessions: BTreeMap<u32, Session>,
    connections: BTreeMap<u32, Connection>,
    ended_execs: VecDeque<(String, i32, i32)>,
    next_id: u32,
    stage: Stage,
    stdin_once: bool,
    /// Read into; `None` while nothing happens.
    scratch: Vec<u8>,
    rested: bool,
    linger_until: Option<Instant>,
    /// No descriptor was free for a client: none is accepted until then.
    accept_after: Option<Instant>,
}

impl<'a> Monitor<'a> {
    /// Takes over a container that stands.
    pub fn new(
        isolate: &'a mut dyn Isolate,
        mut files: Files,
        init: Session,
        stdin_once: bool,
    ) -> Result<Self, Failure> {
        let prepare = |files: &mut Files| -> rustix::io::Result<_> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let listener = files.listener.take().map(|listener| Watched::new(listener, Token::Listener)).transpose()?;
            Ok((epoll, listener))
        };
        let (epoll, listener) = match prepare(&mut files) {
            Ok(prepared) => prepared,
            Err(error) => {
                files.remove_socket();
                isolate.undo();
                return Err(internal("watch descriptors", &error.into()));
            }
        };
        Ok(Self {
            isolate,
            files,
            encoders: [LineEncoder::new(Stream::Stdout), LineEncoder::new(Stream::Stderr)],
            epoll,
            pair: None,
            listener,
            sessions: BTreeMap::from([(INIT, init)]),
            connections: BTreeMap::new(),
            ended_execs: VecDeque::new(),
            next_id: INIT,
            stage: Stage::Created,
            stdin_once,
            scratch: Vec::new(),
            rested: false,
            linger_until: None,
            accept_after: None,
        })
    }

    /// Says that the container stands, and goes on until it has ended and everyone knows.
    pub fn run(mut self, pair: OwnedFd) -> rustix::io::Result<()> {
        let pid = self.sessions.get(&INIT).map_or(0, |init| init.pid);
        failpoint("created.before");
        if packet::send(pair.as_fd(), &StartReply::Created { pid }, None).is_err() {
            self.undo();
            return Ok(());
        }
        failpoint("created.after");
        // Blocking: what comes on it is one small message, or its end.
        self.pair = Some(Watched::as_is(pair, Token::Pair));
        while !self.is_over() {
            self.watch()?;
            for token in self.wait()? {
                self.handle(token);
            }
            self.follow_ends();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        match self.stage {
            Stage::Created | Stage::Running => self.sessions.is_empty(),
            Stage::Ended => {
                self.connections.is_empty() || self.linger_until.is_some_and(|until| Instant::now() >= until)
            }
        }
    }

    // ---- waiting ----

    /// Has the kernel watch exactly what could be acted on now.
    fn watch(&mut self) -> rustix::io::Result<()> {
        if let Some(pair) = &mut self.pair {
            pair.watch(&self.epoll, Some(EventFlags::IN))?;
        }
        if self.accept_after.is_some_and(|after| Instant::now() >= after) {
            self.accept_after = None;
        }
        if let Some(listener) = &mut self.listener {
            listener.watch(&self.epoll, self.accept_after.is_none().then_some(EventFlags::IN))?;
        }
        for (id, session) in &mut self.sessions {
            let ended = session.exit_code.is_some();
            session.end.watch(&self.epoll, (!ended).then_some(EventFlags::IN))?;
            for (index, output) in session.outputs.iter_mut().enumerate() {
                if let Some(output) = output {
                    let stream = Session::stream(index);
                    let wanted = has_room(&self.connections, *id, stream) || (ended && *id == INIT);
                    output.watch(&self.epoll, wanted.then_some(EventFlags::IN))?;
                }
            }
            let waiting = !session.input_waiting.is_empty();
            if let Some(input) = &mut session.input {
                input.watch(&self.epoll, waiting.then_some(EventFlags::OUT))?;
            }
        }
        for connection in self.connections.values_mut() {
            let room = connection
                .attachment()
                .is_none_or(|attachment| self.sessions.get(&attachment.session).is_none_or(Session::input_has_room));
            let interest = connection.interest(room);
            connection.stream.watch(&self.epoll, interest)?;
        }
        Ok(())
    }

    fn wait(&mut self) -> rustix::io::Result<Vec<Token>> {
        let deadline = self
            .sessions
            .values()
            .filter_map(|session| session.streams_until)
            .chain(self.linger_until)
            .chain(self.accept_after)
            .chain((!self.rested).then(|| Instant::now() + REST))
            .min();
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut space = [MaybeUninit::uninit(); 16];
        let tokens: Vec<Token> = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((events, _)) => events.iter().filter_map(|event| Token::decode(event.data)).collect(),
            Err(Errno::INTR) => Vec::new(),
            Err(error) => return Err(error),
        };
        if tokens.is_empty() && !self.rested {
            self.scratch = Vec::new();
            detach::trim_memory();
            self.rested = true;
        } else if !tokens.is_empty() {
            self.rested = false;
        }
        self.reap_orphans();
        Ok(tokens)
    }

    /// Waits for children that are none of ours: orphans that came to us as the subreaper.
    fn reap_orphans(&mut self) {
        while let Some(pid) = ended_child() {
            if self.sessions.values().any(|session| session.pid == pid && session.exit_code.is_none()) {
                // It has its own event; what waits behind it is seen next time.
                return;
            }
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
            if rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).is_err() {
                return;
            }
        }
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Pair => self.on_pair(),
            Token::Listener => self.on_listener(),
            Token::End(id) => self.on_end(id),
            Token::Output(id, stream) => self.on_output(id, usize::from(stream)),
            Token::Input(id) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.feed_waiting();
                }
                self.read_departed();
            }
            Token::Connection(id) => self.on_connection(id),
        }
    }

    // ---- the start pair ----

    fn on_pair(&mut self) {
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

    fn undo_after(&mut self, mut failure: Failure) -> Failure {
        for left in self.undo() {
            failure.message.push_str("; then, ");
            failure.message.push_str(&left);
        }
        failure
    }

    /// Nothing is to be left: of the container, the socket, the lock.
    fn undo(&mut self) -> Vec<String> {
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

    // ---- processes ----

    /// A process has ended.
    fn on_end(&mut self, id: u32) {
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

    /// A session has output. It goes to the log first.
    fn on_output(&mut self, id: u32, index: usize) {
        for _ in 0..CHUNKS_A_TURN {
            if !self.read_output(id, index) {
                return;
            }
        }
    }

    /// Reads one chunk. False if there is nothing to read, or nobody to take it.
    fn read_output(&mut self, id: u32, index: usize) -> bool {
        let stream = Session::stream(index);
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let ending = session.exit_code.is_some() && id == INIT;
        if !ending && !has_room(&self.connections, id, stream) {
            return false;
        }
        let Some(output) = &session.outputs[index] else { return false };
        self.scratch.resize(CHUNK_BYTES, 0);
        let count = match rustix::io::read(output, self.scratch.as_mut_slice()) {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => return true,
            // A terminal whose other side is closed answers EIO.
            Err(_) => None,
        };
        let Some(count) = count else {
            session.outputs[index] = None;
            return false;
        };
        let chunk = &self.scratch[..count];
        if id == INIT {
            let mut entries = Vec::new();
            self.encoders[index].push(chunk, &timestamp::now(), &mut entries);
            self.files.log.append(&entries);
        }
        for connection in self.connections.values_mut() {
            let Some(attachment) = connection.attachment().copied() else { continue };
            if attachment.session == id && attachment.follows(stream) {
                connection.output(stream, attachment.raw, chunk);
                connection.flush();
                if connection.outbox.length() > MOST_WAITING_BYTES {
                    connection.leave();
                }
            }
        }
        true
    }

    /// Reads what is left of a session's output and lets go of it: the grace is over.
    fn cut_output(&mut self, id: u32) {
        for index in 0..2 {
            // At most what a pipe can hold (pipe(7), F_SETPIPE_SZ up to 1 MiB): someone may write for ever.
            for _ in 0..(1024 * 1024 / CHUNK_BYTES + 1) {
                if !self.read_output(id, index) {
                    break;
                }
            }
            if let Some(session) = self.sessions.get_mut(&id) {
                session.outputs[index] = None;
            }
        }
    }

    /// What follows from ends: of processes, of output, of clients.
    fn follow_ends(&mut self) {
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

    fn followers_have_room(&self, id: u32) -> bool {
        has_room(&self.connections, id, Stream::Stdout) && has_room(&self.connections, id, Stream::Stderr)
    }

    /// An exec's process and output have ended: everyone is told, and its client's connection ends.
    fn end_exec(&mut self, id: u32) {
        let Some(session) = self.sessions.remove(&id) else { return };
        let (Some(exec_id), Some(exit_code)) = (session.exec_id, session.exit_code) else { return };
        if self.ended_execs.len() == ENDED_EXECS {
            self.ended_execs.pop_front();
        }
        self.ended_execs.push_back((exec_id.clone(), session.pid, exit_code));
        self.announce(&Reply::ExecExited { exec_id, exit_code });
        self.close_followers(id);
    }

    fn close_followers(&mut self, id: u32) {
        for connection in self.connections.values_mut() {
            if connection.attachment().is_some_and(|attachment| attachment.session == id) {
                connection.flush();
                connection.closing = true;
            }
        }
    }

    fn announce(&mut self, event: &Reply) {
        for connection in self.connections.values_mut().filter(|connection| connection.role == Role::Watching) {
            connection.reply(event);
            connection.flush();
            if connection.outbox.length() > MOST_EVENTS_BYTES {
                connection.leave();
            }
        }
    }

    /// The container has ended and its output is complete: the record, then the news.
    fn finish(&mut self) {
        let Some(init) = self.sessions.remove(&INIT) else { return };
        self.isolate.kill_rest();
        let mut entries = Vec::new();
        for encoder in &mut self.encoders {
            encoder.finish(&timestamp::now(), &mut entries);
        }
        self.files.log.append(&entries);
        failpoint("log.complete");
        // Execs have ended with it, or were killed just now.
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.wait_killed(id);
            self.cut_output(id);
            self.end_exec(id);
        }
        failpoint("finish.before");
        let out_of_memory = self.isolate.finish();
        failpoint("finish.after");
        let finished_at = String::from_utf8_lossy(&timestamp::now()).into_owned();
        let record = ExitRecord { exit_code: init.exit_code.unwrap_or(255), finished_at, out_of_memory, error: None };
        if let Some((entries, why)) = self.files.log.lost() {
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

    /// Waits for an exec's process, which was killed with its container.
    fn wait_killed(&mut self, id: u32) {
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

    /// Drops the connections that are done.
    fn sweep(&mut self) {
        let finished: Vec<u32> =
            self.connections.iter().filter(|(_, connection)| connection.is_finished()).map(|(id, _)| *id).collect();
        for id in finished {
            if let Some(connection) = self.connections.remove(&id) {
                connection.close();
            }
        }
    }

    // ---- clients ----

    fn on_listener(&mut self) {
        let Some(listener) = &self.listener else { return };
        let socket = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                // The client keeps waiting; asking again at once would only burn the processor.
                self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                return;
            }
            Err(_) => return,
        };
        self.next_id += 1;
        if let Ok(stream) = Watched::new(socket, Token::Connection(self.next_id)) {
            self.connections.insert(self.next_id, Connection::new(stream));
        }
    }

    fn on_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.flush() && self.stage == Stage::Ended {
            self.linger_until = Some(Instant::now() + LINGER);
        }
        self.read_connection(id);
    }

    /// Reads from a client what can be used now.
    fn read_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.read_ended || connection.closing {
            // Only a hang-up can have woken us.
            if !connection.gone && hung_up(connection.stream.as_fd()) {
                connection.leave();
            }
            return;
        }
        let feeds = connection.attachment().filter(|attachment| attachment.stdin).map(|attachment| attachment.session);
        let room = feeds.is_none_or(|session| self.sessions.get(&session).is_none_or(Session::input_has_room));
        if !room {
            if !connection.gone && hung_up(connection.stream.as_fd()) {
                connection.leave();
            }
            return;
        }
        self.scratch.resize(CHUNK_BYTES, 0);
        match rustix::io::read(&connection.stream, self.scratch.as_mut_slice()) {
            Ok(0) => self.on_end_of_client(id),
            Ok(count) => match feeds {
                Some(session) => {
                    if let Some(session) = self.sessions.get_mut(&session) {
                        session.feed(&self.scratch[..count]);
                    }
                }
                None if connection.role == Role::Asking => {
                    connection.inbox.extend_from_slice(&self.scratch[..count]);
                    self.read_request(id);
                }
                // Bytes that nobody asked for.
                None => {}
            },
            Err(Errno::AGAIN | Errno::INTR) => {
                if connection.gone {
                    self.on_end_of_client(id);
                }
            }
            Err(_) => {
                connection.leave();
                self.on_end_of_client(id);
            }
        }
    }

    /// Clients that are gone are not watched; they are read on when their process takes input again.
    fn read_departed(&mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            while self.connections.get(&id).is_some_and(|connection| connection.gone && !connection.read_ended) {
                let feeds = self.connections.get(&id).and_then(|connection| connection.attachment()).copied();
                let room = feeds
                    .and_then(|attachment| self.sessions.get(&attachment.session))
                    .is_none_or(Session::input_has_room);
                if !room {
                    break;
                }
                self.read_connection(id);
            }
        }
    }

    /// A client has sent all that it will.
    fn on_end_of_client(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.read_ended = true;
        match connection.attachment().copied() {
            None => connection.leave(),
            Some(attachment) => {
                // Half-closed, or closed? The socket knows.
                if hung_up(connection.stream.as_fd()) {
                    connection.leave();
                }
                let ends_input = attachment.stdin && (attachment.session != INIT || self.stdin_once);
                if ends_input && let Some(session) = self.sessions.get_mut(&attachment.session) {
                    session.end_input();
                }
            }
        }
    }

    /// Acts on a request once its line is whole.
    fn read_request(&mut self, id: u32) {
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
        connection.flush();
        let rest = &inbox[newline + 1..];
        if let Some(attachment) = connection.attachment().filter(|attachment| attachment.stdin && !rest.is_empty())
            && let Some(session) = self.sessions.get_mut(&attachment.session)
        {
            session.feed(rest);
        }
    }

    fn answer(&mut self, id: u32, request: Request) -> Result<Reply, Failure> {
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
            Request::Attach { stdin, stdout, stderr } => {
                let init = self.sessions.get(&INIT).ok_or_else(not_running)?;
                let raw = init.terminal.is_some();
                self.set_role(id, Role::Attached(Attachment { session: INIT, stdin, stdout, stderr, raw }));
                Ok(Reply::Done)
            }
            Request::Exec(request) => self.exec(id, &request),
            Request::ResizeExec { exec_id, size } => {
                let session = self.session_of(&exec_id).ok_or_else(|| no_exec(&exec_id))?;
                self.resize(session, size)
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

    fn exec(&mut self, id: u32, request: &ExecRequest) -> Result<Reply, Failure> {
        let running =
            self.stage == Stage::Running && self.sessions.get(&INIT).is_some_and(|init| init.exit_code.is_none());
        if !running {
            return Err(not_running());
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

    fn session_of(&self, exec_id: &str) -> Option<u32> {
        self.sessions.iter().find(|(_, session)| session.exec_id.as_deref() == Some(exec_id)).map(|(id, _)| *id)
    }

    fn resize(&mut self, id: u32, size: WindowSize) -> Result<Reply, Failure> {
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

    fn set_role(&mut self, id: u32, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = role;
        }
    }
}

/// True unless a client that follows the stream has as much waiting as it may.
fn has_room(connections: &BTreeMap<u32, Connection>, session: u32, stream: Stream) -> bool {
    connections.values().all(|connection| {
        connection.gone
            || connection.outbox.has_room()
            || connection
                .attachment()
                .is_none_or(|attachment| attachment.session != session || !attachment.follows(stream))
    })
}

/// True if the other side has closed both halves.
fn hung_up(socket: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut asked = [rustix::event::PollFd::from_borrowed_fd(socket, rustix::event::PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let hang_up = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
    rustix::event::poll(&mut asked, Some(&now)).is_ok_and(|_| asked[0].revents().intersects(hang_up))
}

fn send_signal(pidfd: std::os::fd::BorrowedFd<'_>, signal: i32) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    // rustix refuses the real-time signals, so the call is made by hand.
    // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null_mut::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

/// A child that has ended and was not waited for yet.
fn ended_child() -> Option<i32> {
    // SAFETY: an all-zero siginfo is valid, waitid(2) fills it in, and si_pid may be read after it has: 0 if no child
    // has ended.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let result = libc::waitid(libc::P_ALL, 0, &mut info, flags);
        (result == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}

fn not_running() -> Failure {
    Failure { kind: ErrorKind::Conflict, message: "the container is not running".to_owned(), hint: None }
}

fn invalid(message: String) -> Failure {
    Failure { kind: ErrorKind::Invalid, message, hint: None }
}

fn no_exec(exec_id: &str) -> Failure {
    Failure { kind: ErrorKind::NotFound, message: format!("No such exec instance: {exec_id}"), hint: None }
}
