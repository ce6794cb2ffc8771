//! The loop: one thread, one epoll, and whom each event goes to.
//!
//! What happens then is in the modules below: `go_ahead` (the engine lets the process run, or goes away), `output`
//! (read, logged, passed on), `clients` and `requests` (who asks, and for what), `execs`, `holds` (nobody moves, for a
//! client's sake), `ending` (of processes and of the container), `children` (system calls about them).

mod children;
mod clients;
mod ending;
mod execs;
mod go_ahead;
mod holds;
mod output;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::connection::Connection;
use crate::failpoint::failpoint;
use crate::failure::internal;
use crate::isolate::Isolate;
use crate::log::ContainerLog;
use crate::packet;
use crate::protocol::{Failure, StartReply};
use crate::session::Session;
use crate::watched::{Token, Watched};

/// Read at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// After so long without an event, memory goes back: soon after the start, which needs most of it, and not in every
/// pause of a container that speaks now and then.
const FIRST_REST: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_secs(1);
/// The container's first process.
const INIT: u32 = 0;

pub struct Files {
    /// Log, exit record.
    pub data_directory: PathBuf,
    /// Socket, lock.
    pub run_directory: PathBuf,
    /// The container's log.
    pub log: ContainerLog,
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
    rest_after: Duration,
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
            rest_after: FIRST_REST,
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
            self.files.log.tick();
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
        self.files.log.watch(&self.epoll)?;
        let log_has_room = self.files.log.has_room();
        for (id, session) in &mut self.sessions {
            let ended = session.exit_code.is_some();
            session.end.watch(&self.epoll, (!ended).then_some(EventFlags::IN))?;
            for (index, output) in session.outputs.iter_mut().enumerate() {
                if let Some(output) = output {
                    let stream = Session::stream(index);
                    let room = output::has_room(&self.connections, *id, stream) && (log_has_room || *id != INIT);
                    let wanted = room || (ended && *id == INIT);
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

    /// Waits for events. After a while without any, memory goes back, right before the next wait.
    fn wait(&mut self) -> rustix::io::Result<Vec<Token>> {
        let mut space = [MaybeUninit::uninit(); 16];
        let timeout = timeout_until(self.deadline());
        let mut woken = epoll::wait(&self.epoll, &mut space, timeout.as_ref());
        if !self.rested && matches!(&woken, Ok((events, _)) if events.is_empty()) {
            self.scratch = Vec::new();
            self.isolate.rest();
            self.rested = true;
            if self.stage != Stage::Created {
                self.rest_after = REST;
            }
            let timeout = timeout_until(self.deadline());
            dozen_runtime::rest::give_back_memory();
            woken = epoll::wait(&self.epoll, &mut space, timeout.as_ref());
        }
        let tokens: Vec<Token> = match woken {
            Ok((events, _)) => events.iter().filter_map(|event| Token::decode(event.data)).collect(),
            Err(Errno::INTR) => Vec::new(),
            Err(error) => return Err(error),
        };
        self.rested &= tokens.is_empty();
        self.reap_orphans();
        Ok(tokens)
    }

    /// When something has to be done even if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        self.sessions
            .values()
            .filter_map(|session| session.streams_until)
            .chain(self.linger_until)
            .chain(self.accept_after)
            .chain(self.files.log.deadline())
            .chain((!self.rested).then(|| Instant::now() + self.rest_after))
            .min()
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
            Token::Log => self.files.log.on_event(),
        }
    }
}

fn timeout_until(deadline: Option<Instant>) -> Option<Timespec> {
    deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) }
    })
}
