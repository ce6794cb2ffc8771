//! Questions that name servers are asked. Those who ask the same wait for the same answer; each server is asked from a
//! socket of its own, whose port is random as the id is (RFC 5452).

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use dozen_names::{Answer, HEAD_START, Key, LONGEST_MESSAGE_BYTES, Query, Race, Reply, Step, for_client, forwarded};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use rustix::rand::GetRandomFlags;

use super::{Client, Names, Role};
use crate::failpoint::failpoint;
use crate::handover::HandedQuestion;

/// Questions on their way, of all containers.
const MOST_LOOKUPS: usize = 1_024;
/// Who waits for the same answer.
const MOST_TOGETHER: usize = 128;
/// Questions of one container that wait.
const MOST_OF_A_CONTAINER: usize = 256;
/// Datagrams that are no answer, before others have their turn.
const TURN: usize = 16;

/// All that are on their way.
#[derive(Default)]
pub struct Lookups {
    all: HashMap<u64, Lookup>,
    /// By question, and whether it is asked by stream.
    by_question: HashMap<(Key, bool), u64>,
}

struct Lookup {
    key: Key,
    by_stream: bool,
    query: Query,
    /// Whose servers are asked, if they are not the host's.
    servers_of: Option<Rc<str>>,
    order: Vec<IpAddr>,
    race: Race,
    attempts: Vec<Attempt>,
    waiting: Vec<Waiting>,
    wakes: Instant,
}

struct Waiting {
    client: Client,
    query: Query,
    message: Vec<u8>,
}

/// A server that was asked.
struct Attempt {
    server: IpAddr,
    since: Instant,
    id: u16,
    /// `None` once it has failed.
    socket: Option<(OwnedFd, u64)>,
    /// What is still to be sent, and what has come, by stream.
    out: Vec<u8>,
    input: Vec<u8>,
}

/// What has come of reading from a server's socket.
enum Heard {
    Nothing,
    Failure,
    Answer(Vec<u8>, u32),
}

impl Lookups {
    /// Whether this token is a lookup's.
    pub fn is_one(&self, token: u64) -> bool {
        self.all.contains_key(&token)
    }

    /// The questions that wait, for the next program to ask.
    pub fn hand_over(&self) -> Vec<HandedQuestion> {
        let waiting = self.all.values().flat_map(|lookup| &lookup.waiting);
        let hand = |waiting: &Waiting| match &waiting.client {
            Client::Datagram { container, address } => Some(HandedQuestion {
                container_id: container.to_string(),
                client: *address,
                message: waiting.message.clone(),
            }),
            Client::Stream { .. } => None,
        };
        waiting.filter_map(hand).collect()
    }
}

impl Names {
    /// Answers from what is known, or asks.
    pub(super) fn look_up(&mut self, client: Client, query: Query, message: &[u8]) {
        failpoint("names.forwarding");
        let now = Instant::now();
        let Some(served) = self.served.get_mut(client.container()) else { return };
        let servers_of = served.asks_own_servers.then(|| client.container().clone());
        if servers_of.is_none() && self.host.look() {
            self.cache.forget_servers("");
        }
        let key = Key::new(servers_of.as_deref().unwrap_or(""), &query);
        if let Some(answer) = self.cache.find(&key, &query, client.most_bytes(&query), now) {
            return self.send(&client, &answer);
        }
        let by_stream = matches!(client, Client::Stream { .. });
        let known = self.lookups.by_question.get(&(key.clone(), by_stream)).copied();
        let waiting = known.and_then(|token| self.lookups.all.get(&token)).map(|lookup| &lookup.waiting);
        let is_same = |other: &Waiting| other.client == client && other.query.id == query.id;
        if !by_stream && waiting.is_some_and(|waiting| waiting.iter().any(is_same)) {
            // Asked once more because no answer has come yet.
            return;
        }
        let too_many = served.waiting >= MOST_OF_A_CONTAINER
            || waiting.map_or(self.lookups.all.len() >= MOST_LOOKUPS, |waiting| waiting.len() >= MOST_TOGETHER);
        let order = if servers_of.is_some() { served.servers.order(now) } else { self.host.order(now) };
        if too_many || order.is_empty() {
            return self.say(&client, &query, &Answer::failure());
        }
        served.waiting += 1;
        if let Client::Stream { token, .. } = &client
            && let Some(stream) = self.streams.get_mut(token)
        {
            stream.waiting += 1;
        }
        let waiting = Waiting { client, query: query.clone(), message: message.to_vec() };
        if let Some(lookup) = known.and_then(|token| self.lookups.all.get_mut(&token)) {
            lookup.waiting.push(waiting);
            return;
        }
        self.next_token += 1;
        let token = self.next_token;
        let race = Race::begin(order.len(), now);
        self.lookups.by_question.insert((key.clone(), by_stream), token);
        let (attempts, waiting) = (Vec::new(), vec![waiting]);
        let lookup = Lookup { key, by_stream, query, servers_of, order, race, attempts, waiting, wakes: now };
        self.lookups.all.insert(token, lookup);
        self.advance(token, now);
    }

    /// The next steps of a lookup, until it has to wait.
    pub(super) fn advance(&mut self, token: u64, now: Instant) {
        loop {
            let Some(lookup) = self.lookups.all.get_mut(&token) else { return };
            self.deadlines.remove(&(lookup.wakes, token));
            match lookup.race.step(now) {
                Step::Ask(place) => self.ask(token, place, now),
                Step::Wait(until) => {
                    lookup.wakes = until;
                    self.deadlines.insert((until, token));
                    return;
                }
                Step::GiveUp => return self.finish(token, None, now),
            }
        }
    }

    fn ask(&mut self, token: u64, place: usize, now: Instant) {
        let Some(lookup) = self.lookups.all.get_mut(&token) else { return };
        let Some(server) = lookup.order.get(place).copied() else { return };
        if let Some(attempt) = lookup.attempts.iter().find(|attempt| attempt.server == server) {
            // A datagram may have been lost. A stream loses nothing; and who cannot answer is not asked again.
            if let Some((socket, _)) = attempt.socket.as_ref().filter(|_| !lookup.by_stream) {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let _ = rustix::net::send(socket, &forwarded(&lookup.query, attempt.id), flags);
            }
            return;
        }
        match self.connect(token, server) {
            Ok((socket, id, out)) => {
                let attempt = Attempt { server, since: now, id, socket: Some(socket), out, input: Vec::new() };
                if let Some(lookup) = self.lookups.all.get_mut(&token) {
                    lookup.attempts.push(attempt);
                }
            }
            Err(_) => {
                if let Some(lookup) = self.lookups.all.get_mut(&token) {
                    let attempt =
                        Attempt { server, since: now, id: 0, socket: None, out: Vec::new(), input: Vec::new() };
                    lookup.attempts.push(attempt);
                    lookup.race.failed(now);
                }
            }
        }
    }

    /// A socket and its token, the question's id there, and what is still to be sent.
    fn connect(&mut self, token: u64, server: IpAddr) -> std::io::Result<((OwnedFd, u64), u16, Vec<u8>)> {
        let lookup = self.lookups.all.get(&token).ok_or(ErrorKind::NotFound)?;
        let process = match &lookup.servers_of {
            Some(id) => Some(&self.served.get(id).ok_or(ErrorKind::NotFound)?.process),
            None => None,
        };
        let mut id = [0; 2];
        rustix::rand::getrandom(&mut id, GetRandomFlags::empty())?;
        let id = u16::from_ne_bytes(id);
        let question = forwarded(&lookup.query, id);
        let role = Role::Upstream { lookup: token };
        if lookup.by_stream {
            let socket = self.place.connect(process, server, SocketType::STREAM)?;
            let length = u16::try_from(question.len()).unwrap_or(0).to_be_bytes();
            let socket_token = self.watch(&socket, role, EventFlags::IN | EventFlags::OUT)?;
            return Ok(((socket, socket_token), id, [&length[..], &question].concat()));
        }
        let socket = self.place.connect(process, server, SocketType::DGRAM)?;
        rustix::net::send(&socket, &question, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        let socket_token = self.watch(&socket, role, EventFlags::IN)?;
        Ok(((socket, socket_token), id, Vec::new()))
    }

    /// A server's socket has something to say.
    pub(super) fn hear(&mut self, token: u64, socket_token: u64) {
        let now = Instant::now();
        let Some(lookup) = self.lookups.all.get_mut(&token) else { return };
        let is_it = |attempt: &&mut Attempt| attempt.socket.as_ref().is_some_and(|(_, it)| *it == socket_token);
        let Some(attempt) = lookup.attempts.iter_mut().find(is_it) else { return };
        let heard = match lookup.by_stream {
            false => hear_datagrams(attempt, &lookup.query),
            true => hear_stream(attempt, &lookup.query, &self.epoll),
        };
        match heard {
            Heard::Nothing => {}
            Heard::Answer(message, seconds) => {
                let server = attempt.server;
                self.finish(token, Some((server, &message, seconds)), now);
            }
            Heard::Failure => {
                attempt.socket = None;
                lookup.race.failed(now);
                self.roles.remove(&socket_token);
                self.advance(token, now);
            }
        }
    }

    /// Everybody who waits gets this answer of this server's, or hears that there is none.
    fn finish(&mut self, token: u64, answer: Option<(IpAddr, &[u8], u32)>, now: Instant) {
        let Some(lookup) = self.remove(token) else { return };
        let servers = match &lookup.servers_of {
            Some(id) => self.served.get_mut(id).map(|served| &mut served.servers),
            None => Some(self.host.servers()),
        };
        if let Some(servers) = servers {
            let late = lookup.attempts.iter().filter(|attempt| {
                attempt.socket.is_some() && now.saturating_duration_since(attempt.since) >= HEAD_START
            });
            late.for_each(|attempt| servers.was_slow(&attempt.server, now));
            if let Some((server, ..)) = answer {
                servers.was_good(&server);
            }
        }
        if let Some((_, message, seconds)) = answer {
            self.cache.keep(lookup.key.clone(), message, seconds, now);
        }
        for Waiting { client, query, .. } in lookup.waiting {
            self.no_longer_waits(&client);
            match answer {
                Some((_, message, _)) => {
                    let message = for_client(message, &query, 0, client.most_bytes(&query));
                    self.send(&client, &message);
                }
                None => self.say(&client, &query, &Answer::failure()),
            }
        }
    }

    fn remove(&mut self, token: u64) -> Option<Lookup> {
        let lookup = self.lookups.all.remove(&token)?;
        self.lookups.by_question.remove(&(lookup.key.clone(), lookup.by_stream));
        self.deadlines.remove(&(lookup.wakes, token));
        for (_, socket_token) in lookup.attempts.iter().filter_map(|attempt| attempt.socket.as_ref()) {
            self.roles.remove(socket_token);
        }
        Some(lookup)
    }

    fn no_longer_waits(&mut self, client: &Client) {
        if let Some(served) = self.served.get_mut(client.container()) {
            served.waiting -= 1;
        }
        if let Client::Stream { token, .. } = client
            && let Some(stream) = self.streams.get_mut(token)
        {
            stream.waiting -= 1;
        }
    }

    /// Nobody waits any more for what these have asked.
    pub(super) fn forget_questions(&mut self, of: impl Fn(&Client) -> bool) {
        let mut gone = Vec::new();
        for lookup in self.lookups.all.values_mut() {
            let (forgotten, kept) = std::mem::take(&mut lookup.waiting).into_iter().partition(|it| of(&it.client));
            lookup.waiting = kept;
            gone.extend(forgotten.into_iter().map(|waiting: Waiting| waiting.client));
        }
        gone.iter().for_each(|client| self.no_longer_waits(client));
        let nobodys = self.lookups.all.iter().filter(|(_, lookup)| lookup.waiting.is_empty());
        let nobodys: Vec<u64> = nobodys.map(|(token, _)| *token).collect();
        nobodys.into_iter().for_each(|token| drop(self.remove(token)));
    }
}

fn hear_datagrams(attempt: &Attempt, query: &Query) -> Heard {
    let Some((socket, _)) = &attempt.socket else { return Heard::Nothing };
    let mut buffer = vec![0; LONGEST_MESSAGE_BYTES];
    for _ in 0..TURN {
        match rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((count, _)) => match Reply::read(&buffer[..count], query, attempt.id) {
                // Somebody guesses: who is right will still come.
                None => {}
                Some(Reply::Failed) => return Heard::Failure,
                Some(Reply::Good { seconds, .. }) => {
                    buffer.truncate(count);
                    return Heard::Answer(buffer, seconds);
                }
            },
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Heard::Nothing,
            // Nobody listens there, or there is no way.
            Err(_) => return Heard::Failure,
        }
    }
    Heard::Nothing
}

fn hear_stream(attempt: &mut Attempt, query: &Query, epoll: &OwnedFd) -> Heard {
    let Some((socket, token)) = attempt.socket.take() else { return Heard::Nothing };
    let mut stream = TcpStream::from(socket);
    let mut exchange = || -> std::io::Result<Option<Heard>> {
        while !attempt.out.is_empty() {
            let count = stream.write(&attempt.out)?;
            attempt.out.drain(..count);
            if attempt.out.is_empty() {
                epoll::modify(epoll, &stream, EventData::new_u64(token), EventFlags::IN)?;
            }
        }
        let mut part = [0; 4_096];
        loop {
            if let Some((length, rest)) = attempt.input.split_first_chunk::<2>()
                && let Some(message) = rest.get(..usize::from(u16::from_be_bytes(*length)))
            {
                return Ok(Some(match Reply::read(message, query, attempt.id) {
                    Some(Reply::Good { seconds, .. }) => Heard::Answer(message.to_vec(), seconds),
                    _ => Heard::Failure,
                }));
            }
            match stream.read(&mut part)? {
                0 => return Ok(Some(Heard::Failure)),
                count => attempt.input.extend_from_slice(&part[..count]),
            }
        }
    };
    let heard = match exchange() {
        Ok(heard) => heard.unwrap_or(Heard::Nothing),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Heard::Nothing,
        Err(_) => Heard::Failure,
    };
    attempt.socket = Some((stream.into(), token));
    heard
}
