//! Names: in the network namespace of every container that may ask, a socket for datagrams and one for streams on a free
//! port of 127.0.0.11, to which port 53 is translated there. What is answered is decided by `dozen-names`.
//!
//! An open socket keeps a namespace alive, so all of a container's are closed when its process 1 ends, which a pidfd
//! tells. The rest follows from `<run_root>/names.json`, which the engine writes by rename.

mod host;
mod lookup;
mod place;
mod snapshot;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dozen_names::{
    Answer, Asker, Cache, Decision, Index, LONGEST_MESSAGE_BYTES, MOST_SERVERS, Query, Unanswerable, Upstreams,
};
use dozen_network::name_translation::NAME_SERVER;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::Timespec;

use self::host::HostServers;
use self::lookup::Lookups;
use self::place::Place;
pub use self::snapshot::{NameFailure, Names as NamesSnapshot};
use self::streams::Stream;
use crate::failpoint::failpoint;
use crate::handover::{Descriptors, HandedNames, HandedQuestion};

/// Datagrams of one container that are answered before others have their turn.
const TURN: usize = 32;
/// Longer than any query is.
const LONGEST_QUERY_BYTES: usize = 4_096;

/// All that has to do with names.
pub struct Names {
    epoll: OwnedFd,
    place: Place,
    index: Index,
    served: BTreeMap<Rc<str>, Served>,
    roles: HashMap<u64, Role>,
    streams: HashMap<u64, Stream>,
    lookups: Lookups,
    cache: Cache,
    host: HostServers,
    /// When to look at a lookup or at a stream, by its token.
    deadlines: BTreeSet<(Instant, u64)>,
    next_token: u64,
    turn: usize,
}

/// A container that may ask.
struct Served {
    pid: i32,
    /// A pidfd, readable when process 1 has ended.
    process: OwnedFd,
    datagrams: OwnedFd,
    listener: OwnedFd,
    tokens: [u64; 3],
    /// Whom it asks instead of the host's servers; of none, it asks the host's.
    servers: Upstreams<IpAddr>,
    asks_own_servers: bool,
    /// Questions that wait for an answer.
    waiting: usize,
    streams: usize,
}

/// What a descriptor is for.
#[derive(Clone)]
enum Role {
    Process(Rc<str>),
    Datagrams(Rc<str>),
    Listener(Rc<str>),
    /// The stream of that token.
    Stream,
    /// A socket to a name server, of this lookup.
    Upstream {
        lookup: u64,
    },
}

/// Who gets the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Client {
    Datagram { container: Rc<str>, address: SocketAddrV4 },
    Stream { container: Rc<str>, token: u64 },
}

impl Client {
    fn container(&self) -> &Rc<str> {
        match self {
            Self::Datagram { container, .. } | Self::Stream { container, .. } => container,
        }
    }

    fn most_bytes(&self, query: &Query) -> usize {
        match self {
            Self::Datagram { .. } => query.datagram_bytes(),
            Self::Stream { .. } => LONGEST_MESSAGE_BYTES,
        }
    }
}

impl Names {
    /// Nobody's.
    pub fn empty() -> std::io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            place: Place::here()?,
            index: Index::default(),
            served: BTreeMap::new(),
            roles: HashMap::new(),
            streams: HashMap::new(),
            lookups: Lookups::default(),
            cache: Cache::default(),
            host: HostServers::default(),
            deadlines: BTreeSet::new(),
            next_token: 0,
            turn: 0,
        })
    }

    /// Readable when there is something to do ([`Self::take_turn`]).
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// In how long there is something to do even if nothing is readable.
    pub fn next_deadline(&self, now: Instant) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| at.saturating_duration_since(now))
    }

    /// Makes `<run_root>/names.json` true. Answers the containers that cannot ask; those that have ended are none.
    pub fn reload(&mut self, run_root: &Path) -> std::io::Result<Vec<NameFailure>> {
        failpoint("names.before");
        let zones = NamesSnapshot::read(run_root)?.zones;
        let gone: Vec<Rc<str>> = self
            .served
            .iter()
            .filter(|(id, served)| {
                // The same number may be the next run's.
                let asker = zones.askers.get(id.as_ref()).filter(|asker| asker.pid == served.pid);
                asker.is_none() || !place::lives(&served.process)
            })
            .map(|(id, _)| id.clone())
            .collect();
        gone.iter().for_each(|id| self.close(id));
        failpoint("names.closed");
        self.index = zones.into();
        let mut failures = Vec::new();
        let askers: Vec<(String, Asker)> =
            self.index.askers().iter().map(|(id, asker)| (id.clone(), asker.clone())).collect();
        for (id, asker) in askers {
            if let Some(served) = self.served.get_mut(id.as_str()) {
                if served.ask(&asker) {
                    self.cache.forget_servers(&id);
                }
            } else if let Err(error) = self.open(&id, &asker) {
                failures.push(NameFailure { container_id: id, message: error.to_string() });
            }
        }
        failpoint("names.opened");
        Ok(failures)
    }

    fn open(&mut self, id: &str, asker: &Asker) -> std::io::Result<()> {
        // One that has ended asks nothing any more.
        let Some(process) = self.place.process_of(asker.pid, id)? else { return Ok(()) };
        let (datagrams, listener) = match self.place.listen(&process) {
            Err(_) if !place::lives(&process) => return Ok(()),
            listening => listening?,
        };
        self.serve(id, asker, process, datagrams, listener)
    }

    fn serve(
        &mut self,
        id: &str,
        asker: &Asker,
        process: OwnedFd,
        datagrams: OwnedFd,
        listener: OwnedFd,
    ) -> std::io::Result<()> {
        let id: Rc<str> = Rc::from(id);
        let roles = [Role::Process(id.clone()), Role::Datagrams(id.clone()), Role::Listener(id.clone())];
        let mut tokens = [0; 3];
        for ((token, descriptor), role) in tokens.iter_mut().zip([&process, &datagrams, &listener]).zip(roles) {
            *token = self.watch(descriptor, role, EventFlags::IN)?;
        }
        let mut served = Served {
            pid: asker.pid,
            process,
            datagrams,
            listener,
            tokens,
            servers: Upstreams::default(),
            asks_own_servers: false,
            waiting: 0,
            streams: 0,
        };
        served.ask(asker);
        self.served.insert(id, served);
        Ok(())
    }

    /// Closes all that keeps a container's namespace alive, and forgets what it has asked.
    fn close(&mut self, id: &Rc<str>) {
        let Some(served) = self.served.remove(id) else { return };
        served.tokens.iter().for_each(|token| drop(self.roles.remove(token)));
        let streams: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stream.container == *id).map(|(token, _)| *token).collect();
        streams.into_iter().for_each(|token| self.close_stream(token));
        self.forget_questions(|client| client.container() == id);
        self.cache.forget_servers(id);
        failpoint("names.ended");
    }

    /// Closes everything.
    pub fn close_all(&mut self) {
        let all: Vec<Rc<str>> = self.served.keys().cloned().collect();
        all.iter().for_each(|id| self.close(id));
    }

    /// Does what there is to do, and does not wait.
    pub fn take_turn(&mut self) {
        let mut space = [MaybeUninit::uninit(); 64];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let tokens: Vec<u64> = match epoll::wait(&self.epoll, &mut space, Some(&at_once)) {
            Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
            Err(_) => Vec::new(),
        };
        for token in tokens {
            // One before it may have closed it.
            match self.roles.get(&token).cloned() {
                Some(Role::Process(id)) => self.close(&id),
                Some(Role::Datagrams(id)) => self.answer_datagrams(&id),
                Some(Role::Listener(id)) => self.accept(&id),
                Some(Role::Stream) => self.pump_stream(token),
                Some(Role::Upstream { lookup }) => self.hear(lookup, token),
                None => {}
            }
        }
        let now = Instant::now();
        while let Some(&(at, token)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.remove(&(at, token));
            if self.lookups.is_one(token) {
                self.advance(token, now);
            } else {
                self.end_silent_stream(token, now);
            }
        }
    }

    fn answer_datagrams(&mut self, id: &Rc<str>) {
        let mut buffer = [0; LONGEST_QUERY_BYTES];
        for _ in 0..TURN {
            let Some(served) = self.served.get(id) else { return };
            match rustix::net::recvfrom(&served.datagrams, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((count, _, Some(address))) => {
                    let Ok(address) = SocketAddrV4::try_from(address) else { continue };
                    let client = Client::Datagram { container: id.clone(), address };
                    self.answer(client, &buffer[..count]);
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// One question: it is answered, or waits for name servers.
    fn answer(&mut self, client: Client, message: &[u8]) {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unanswerable::Silent) => return,
            Err(Unanswerable::Refused(answer)) => return self.send(&client, &answer),
        };
        self.turn = self.turn.wrapping_add(1);
        match self.index.decide(client.container(), &query, self.turn) {
            Decision::Answer(answer) => self.say(&client, &query, &answer),
            Decision::Forward => self.look_up(client, query, message),
        }
    }

    fn say(&mut self, client: &Client, query: &Query, answer: &Answer) {
        let message = answer.encode(query, client.most_bytes(query));
        self.send(client, &message);
    }

    /// Lost if there is no room: a datagram may be, and a stream that does not read is closed.
    fn send(&mut self, client: &Client, message: &[u8]) {
        match client {
            Client::Datagram { container, address } => {
                if let Some(served) = self.served.get(container) {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    let _ = rustix::net::sendto(&served.datagrams, message, flags, address);
                }
            }
            Client::Stream { token, .. } => self.send_stream(*token, message),
        }
    }

    fn watch(&mut self, descriptor: &OwnedFd, role: Role, flags: EventFlags) -> std::io::Result<u64> {
        self.next_token += 1;
        epoll::add(&self.epoll, descriptor, EventData::new_u64(self.next_token), flags)?;
        self.roles.insert(self.next_token, role);
        Ok(self.next_token)
    }

    /// As the next program takes them over. Streams are not: who asks by one asks again.
    pub fn hand_over(&self) -> (Vec<HandedNames>, Vec<HandedQuestion>) {
        let names = self.served.iter().map(|(id, served)| HandedNames {
            container_id: id.to_string(),
            pid: served.pid,
            process: served.process.as_raw_fd(),
            datagrams: served.datagrams.as_raw_fd(),
            listener: served.listener.as_raw_fd(),
        });
        (names.collect(), self.lookups.hand_over())
    }

    /// As the program before has left it: the same sockets, and the questions that waited are asked again.
    pub fn take_over(
        &mut self,
        run_root: &Path,
        names: Vec<HandedNames>,
        questions: Vec<HandedQuestion>,
        descriptors: &mut Descriptors,
    ) -> std::io::Result<()> {
        for handed in names {
            let process = descriptors.take(handed.process)?;
            let [datagrams, listener] = [descriptors.take(handed.datagrams)?, descriptors.take(handed.listener)?];
            let asker = Asker { pid: handed.pid, ..Asker::default() };
            self.serve(&handed.container_id, &asker, process, datagrams, listener)?;
        }
        // Without it everybody is refused until the engine says who is who.
        let _ = self.reload(run_root);
        for question in questions {
            if let Some((id, _)) = self.served.get_key_value(question.container_id.as_str()) {
                let client = Client::Datagram { container: id.clone(), address: question.client };
                self.answer(client, &question.message);
            }
        }
        Ok(())
    }
}

impl Served {
    /// Whom it asks, as the engine says now; true if they are others than before.
    fn ask(&mut self, asker: &Asker) -> bool {
        // To ask ourselves would never end.
        let servers = asker.servers.iter().filter(|server| **server != IpAddr::V4(NAME_SERVER));
        self.asks_own_servers = !asker.servers.is_empty();
        self.servers.change(servers.copied().take(MOST_SERVERS))
    }
}
