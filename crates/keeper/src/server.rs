//! What the keeper's process does: one thread, one epoll.

mod requests;

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dozen_model::Protocol;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{Resource, Rlimit};
use rustix::time::Timespec;

use crate::client;
use crate::datagram::Datagrams;
use crate::failpoint::failpoint;
use crate::forward::{Forward, Pumped};
use crate::handover::{Descriptors, Handover};
use crate::listener::{Listener, listen_after_predecessor};
use crate::names::Names;
use crate::protocol::{self, Reply};
use crate::snapshot::{PortKey, PortReservation};

/// After an accept for which no descriptor was free.
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Token of keeper.sock.
const CONTROL: u64 = 0;
/// Token of all that has to do with names, which has an epoll of its own.
const NAMES: u64 = 1;
/// Descriptors of one forward: two sockets, two pipes.
const DESCRIPTORS_PER_FORWARD: u64 = 6;

struct Held {
    port: PortReservation,
    socket: OwnedFd,
    /// For UDP on all addresses: the socket on `[::1]`.
    loopback: Option<OwnedFd>,
    /// For a forward: its token.
    token: Option<u64>,
}

impl Held {
    /// The socket that is served, if it is a forward.
    fn served(&self) -> BorrowedFd<'_> {
        self.loopback.as_ref().unwrap_or(&self.socket).as_fd()
    }
}

pub(crate) struct Server {
    run_root: PathBuf,
    lock: std::fs::File,
    epoll: OwnedFd,
    control: UnixListener,
    listeners: BTreeMap<PathBuf, Listener>,
    ports: BTreeMap<PortKey, Held>,
    /// Sockets of forwards: those that listen, and those of UDP.
    accepting: BTreeMap<u64, PortKey>,
    forwards: BTreeMap<u64, (PortKey, Forward)>,
    datagrams: Datagrams,
    names: Names,
    hungry: Vec<u64>,
    /// Listeners that are not watched for a moment.
    resting: Vec<u64>,
    most_forwards: usize,
    next_token: u64,
    ended: bool,
}

impl Server {
    pub(crate) fn begin(run_root: &Path) -> Result<Self, String> {
        let lock = client::lock(run_root)
            .map_err(|error| format!("cannot lock {}: {error}", run_root.join("keeper.lock").display()))?;
        failpoint("begin.locked");
        let path = run_root.join("keeper.sock");
        let control =
            listen_after_predecessor(&path).map_err(|error| format!("cannot listen at {}: {error}", path.display()))?;
        failpoint("begin.listening");
        let mut server = Self::empty(run_root, lock, control)
            .map_err(|error| format!("cannot watch {}: {error}", path.display()))?;
        // A keeper that replaces a dead one takes the ports back before anyone asks. What fails now fails again, with
        // an answer, when the engine applies its snapshot.
        let _ = server.reload();
        let _ = server.names.reload(&server.run_root);
        failpoint("begin.loaded");
        Ok(server)
    }

    fn empty(run_root: &Path, lock: std::fs::File, control: UnixListener) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &control, EventData::new_u64(CONTROL), EventFlags::IN)?;
        let names = Names::empty()?;
        epoll::add(&epoll, names.descriptor(), EventData::new_u64(NAMES), EventFlags::IN)?;
        Ok(Self {
            run_root: run_root.to_owned(),
            lock,
            epoll,
            control,
            listeners: BTreeMap::new(),
            ports: BTreeMap::new(),
            accepting: BTreeMap::new(),
            forwards: BTreeMap::new(),
            datagrams: Datagrams::new(most_forwards() * 2),
            names,
            hungry: Vec::new(),
            resting: Vec::new(),
            most_forwards: most_forwards(),
            next_token: NAMES + 1,
            ended: false,
        })
    }

    /// Holds what the program before this one held, and answers the engine that asked for the change.
    pub(crate) fn take_over(run_root: &Path, handover: Handover, mut descriptors: Descriptors) -> io::Result<Self> {
        // From now on the lock ends with this value, as if this process had made it.
        let lock = descriptors.take(handover.lock)?.into();
        let control = descriptors.take(handover.control)?.into();
        let mut server = Self::empty(run_root, lock, control)?;
        for listener in handover.listeners {
            let socket = descriptors.take(listener.socket)?;
            server.listeners.insert(listener.path, Listener { socket, file: listener.file });
        }
        for handed in handover.ports {
            let socket = descriptors.take(handed.socket)?;
            let loopback = handed.loopback.map(|number| descriptors.take(number)).transpose()?;
            server.hold(Held { port: handed.port, socket, loopback, token: None })?;
        }
        for handed in &handover.forwards {
            let token = server.watch(Forward::take_over(handed, &mut descriptors)?, handed.key)?;
            server.hungry.push(token);
        }
        for handed in &handover.flows {
            let token = server.token();
            server.datagrams.take_over(&server.epoll, handed, &mut descriptors, token)?;
        }
        server.names.take_over(run_root, handover.names, handover.questions, &mut descriptors)?;
        failpoint("upgrade.taken");
        // An engine that is gone asks again when it is back.
        let _ = protocol::send(&UnixStream::from(descriptors.take(handover.reply_to)?), &Reply::Done, None);
        failpoint("upgrade.answered");
        Ok(server)
    }

    pub(crate) fn serve(&mut self) -> rustix::io::Result<()> {
        while !self.ended {
            let mut space = [MaybeUninit::uninit(); 64];
            let now = Instant::now();
            // One second later is early enough, and then there are several to end at once.
            let silence = self.datagrams.end_silent(now).map(|left| left + Duration::from_secs(1));
            let silence = silence.into_iter().chain(self.names.next_deadline(now)).min();
            let timeout = match (self.hungry.is_empty(), self.resting.is_empty()) {
                (false, _) => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                (true, false) => Some(ACCEPT_PAUSE),
                (true, true) => silence.and_then(|left| Timespec::try_from(left).ok()),
            };
            let events = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let mut tokens: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
            self.watch_again()?;
            self.names.take_turn();
            // The two sockets of a forward share a token.
            tokens.append(&mut self.hungry);
            tokens.sort_unstable();
            tokens.dedup();
            for token in tokens {
                if token == CONTROL {
                    self.answer();
                } else if token == NAMES {
                    // They have had their turn.
                } else if let Some(key) = self.accepting.get(&token) {
                    match key.0 {
                        Protocol::Tcp => self.accept(*key),
                        Protocol::Udp => self.carry_in(*key),
                    }
                } else if let Some(key) = self.datagrams.port_of(token) {
                    if let Some(held) = self.ports.get(&key) {
                        self.datagrams.carry_out(token, held.served());
                    }
                } else {
                    self.pump(token);
                }
            }
        }
        Ok(())
    }

    /// Takes one connection to a forwarded port, if there are not too many.
    fn accept(&mut self, key: PortKey) {
        let Some(held) = self.ports.get(&key) else { return };
        let Some(to) = held.port.forward_to else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = match rustix::net::accept_with(&held.socket, flags) {
            Ok(client) => client,
            Err(error) => return self.rest_after(error, held.token),
        };
        failpoint("forward.accepted");
        if self.forwards.len() >= self.most_forwards {
            // Closed at once, which the client sees, rather than left waiting in the queue.
            return;
        }
        if let Ok(token) = self.forward(client, to, key) {
            self.pump(token);
        }
    }

    fn carry_in(&mut self, key: PortKey) {
        let Some(held) = self.ports.get(&key) else { return };
        let Some(to) = held.port.forward_to else { return };
        let next = &mut self.next_token;
        self.datagrams.carry_in(&self.epoll, key, held.served(), to, || {
            *next += 1;
            *next
        });
    }

    /// Without a free descriptor the client keeps waiting; asking again at once would only burn the processor.
    fn rest_after(&mut self, error: Errno, token: Option<u64>) {
        if matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
            && let Some(token) = token
            && let Some(listener) = self.listener_of(token)
            && epoll::modify(&self.epoll, listener, EventData::new_u64(token), EventFlags::empty()).is_ok()
        {
            self.resting.push(token);
        }
    }

    fn watch_again(&mut self) -> rustix::io::Result<()> {
        for token in std::mem::take(&mut self.resting) {
            // One that was closed meanwhile has left the set by itself.
            if let Some(listener) = self.listener_of(token) {
                epoll::modify(&self.epoll, listener, EventData::new_u64(token), EventFlags::IN)?;
            }
        }
        Ok(())
    }

    fn listener_of(&self, token: u64) -> Option<BorrowedFd<'_>> {
        match self.accepting.get(&token) {
            _ if token == CONTROL => Some(self.control.as_fd()),
            Some(key) => self.ports.get(key).map(|held| held.socket.as_fd()),
            None => None,
        }
    }

    fn forward(&mut self, client: OwnedFd, to: SocketAddr, key: PortKey) -> rustix::io::Result<u64> {
        let token = self.watch(Forward::begin(client, to)?, key)?;
        failpoint("forward.begun");
        Ok(token)
    }

    fn watch(&mut self, forward: Forward, key: PortKey) -> rustix::io::Result<u64> {
        let token = self.token();
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for socket in forward.sockets() {
            epoll::add(&self.epoll, socket, EventData::new_u64(token), flags)?;
        }
        self.forwards.insert(token, (key, forward));
        Ok(token)
    }

    fn pump(&mut self, token: u64) {
        let Some((_, forward)) = self.forwards.get_mut(&token) else { return };
        match forward.pump() {
            Pumped::Waiting => {}
            Pumped::Hungry => self.hungry.push(token),
            Pumped::Finished => {
                self.forwards.remove(&token);
            }
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn hold(&mut self, mut held: Held) -> rustix::io::Result<()> {
        let key = held.port.key();
        if held.port.forward_to.is_some() {
            let token = self.token();
            epoll::add(&self.epoll, held.served(), EventData::new_u64(token), EventFlags::IN)?;
            self.accepting.insert(token, key);
            held.token = Some(token);
        }
        self.ports.insert(key, held);
        Ok(())
    }
}

/// Raises the soft limit of descriptors to the hard one, and leaves a part of it for everything else.
fn most_forwards() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u16::MAX));
    usize::try_from(limit / 2 / DESCRIPTORS_PER_FORWARD).unwrap_or(usize::MAX)
}
