//! A log server: a connection that is made again when it is lost, and a bounded queue before it.
//!
//! The container waits while the queue is full, if it is to (`mode=blocking`): but for a server that takes nothing for ten
//! seconds it does not wait on, until that takes something again. Then, and always in `mode=non-blocking`, what the queue
//! has no room for is dropped, counted, and told to the server in its place. What is kept on disk has all of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use dozen_model::LogDelivery;
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::time::Timespec;

use super::lines::Piece;
use super::messages;
use super::settings::{RemoteAddress, RemoteSettings};
use super::{Now, Stream};
use crate::watched::{Token, Watched};

/// A connection that is not there after so long is not coming.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a container waits for a server that takes nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// A container that may wait does so with as much in the queue.
const BLOCKING_BYTES: usize = 256 * 1024;
/// And this is the most that a queue holds then.
const BLOCKING_LIMIT_BYTES: usize = 1024 * 1024;
/// The longest time between two attempts to connect.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// At the end, a server that takes nothing for so long is left.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// A log server, as one container sees it.
#[derive(Debug)]
pub struct Remote {
    settings: RemoteSettings,
    link: Link,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    /// So much of the first message has gone, over a stream.
    sent_of_first: usize,
    /// Nothing was taken since then, though there was something.
    stuck_since: Option<Instant>,
    /// It was waited for in vain.
    given_up: bool,
    dropped: u64,
    last_error: Option<io::Error>,
    retry: Duration,
    /// Which line comes, of each stream.
    lines: [u64; 2],
    /// Which message comes. It does not begin with nought: another run of the container may have spoken a moment ago.
    number: u32,
}

#[derive(Debug)]
enum Link {
    /// Nobody has asked for it again before then.
    Down(Instant),
    Connecting(Watched, Instant),
    Up(Watched),
}

impl Remote {
    /// Connects, unless it may be done later.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn open(settings: RemoteSettings) -> io::Result<Self> {
        let link = if settings.may_be_absent {
            Link::Down(Instant::now())
        } else {
            let (socket, connected) = connect(&settings.address)?;
            if !connected {
                wait_connected(&socket)?;
            }
            Link::Up(Watched::new(socket, Token::Log)?)
        };
        Ok(Self {
            retry: Duration::from_millis(settings.retry_wait_ms),
            settings,
            link,
            queue: VecDeque::new(),
            queued_bytes: 0,
            sent_of_first: 0,
            stuck_since: None,
            given_up: false,
            dropped: 0,
            last_error: None,
            lines: [0; 2],
            number: u32::try_from(super::timestamp::time_now().tv_nsec).unwrap_or(0),
        })
    }

    /// Other settings from the next message on. Another server gets what waits, and is connected to when there is something
    /// to say; a message of which a part has gone goes to it whole.
    pub fn change(&mut self, settings: RemoteSettings) {
        self.retry = Duration::from_millis(settings.retry_wait_ms);
        if settings.address != self.settings.address {
            self.link = Link::Down(Instant::now());
            (self.sent_of_first, self.stuck_since, self.given_up) = (0, None, false);
        }
        self.settings = settings;
    }

    /// True while the container need not wait.
    pub fn has_room(&self) -> bool {
        self.given_up || self.settings.delivery != LogDelivery::Blocking || self.queued_bytes < BLOCKING_BYTES
    }

    /// A message.
    pub fn push(&mut self, piece: Piece<'_>, stream: Stream, now: &Now) {
        let line = &mut self.lines[stream as usize];
        *line += u64::from(piece.part <= 1);
        let message = messages::encode(&self.settings, piece, stream, now.time, *line);
        // With half of the queue free: one gap, and not one after every message that happened to fit.
        if message.is_empty() {
            return;
        }
        let is_gap =
            self.dropped > 0 && (self.queued_bytes > self.limit_bytes() / 2 || !self.tell_of_dropped(now.time));
        if is_gap || !self.put(message) {
            self.dropped += 1;
        }
    }

    /// Sends what the server takes.
    pub fn flush(&mut self, now: Instant) {
        if let Link::Down(retry_at) = self.link
            && !self.queue.is_empty()
            && now >= retry_at
        {
            self.begin_connect(now);
        }
        let is_stream = self.is_stream();
        while let Link::Up(socket) = &self.link
            && let Some(message) = self.queue.front()
        {
            match rustix::net::send(socket, &message[self.sent_of_first..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => {
                    (self.stuck_since, self.given_up) = (None, false);
                    self.sent_of_first += count;
                    if !is_stream || self.sent_of_first >= message.len() {
                        self.pop();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                Err(Errno::MSGSIZE) => {
                    // No datagram is as long; the next one may go.
                    self.last_error = Some(Errno::MSGSIZE.into());
                    self.dropped += 1;
                    self.pop();
                }
                Err(error) => self.lose(error.into(), now),
            }
        }
        if self.queue.is_empty() {
            self.stuck_since = None;
        } else if *self.stuck_since.get_or_insert(now) + PATIENCE <= now {
            self.given_up = true;
        }
    }

    /// Something has happened on the connection.
    pub fn on_event(&mut self, now: Instant) {
        match &self.link {
            Link::Down(_) => {}
            Link::Connecting(socket, _) => match rustix::net::sockopt::socket_error(socket) {
                Ok(Ok(())) => self.is_connected(),
                Ok(Err(error)) | Err(error) => self.lose(error.into(), now),
            },
            Link::Up(socket) => {
                // Servers say nothing that is wanted; but a stream's end is heard of so.
                let mut unwanted = [0_u8; 512];
                match rustix::net::recv(socket, &mut unwanted, RecvFlags::DONTWAIT) {
                    Ok((_, 0)) if self.is_stream() => {
                        self.lose(io::Error::other("the log server has closed the connection"), now);
                    }
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => self.lose(error.into(), now),
                }
            }
        }
        self.flush(now);
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let retry = match &self.link {
            Link::Down(retry_at) if !self.queue.is_empty() => Some(*retry_at),
            Link::Connecting(_, since) => Some(*since + CONNECT_PATIENCE),
            _ => None,
        };
        let patience = self.stuck_since.filter(|_| !self.given_up && !self.has_room()).map(|since| since + PATIENCE);
        retry.into_iter().chain(patience).min()
    }

    /// Does what it is time for.
    pub fn tick(&mut self, now: Instant) {
        if let Link::Connecting(_, since) = &self.link
            && now >= *since + CONNECT_PATIENCE
        {
            self.lose(Errno::TIMEDOUT.into(), now);
        }
        self.flush(now);
    }

    /// Has the kernel watch what could be acted on.
    pub fn watch(&mut self, epoll: &OwnedFd) -> rustix::io::Result<()> {
        let waiting = !self.queue.is_empty();
        match &mut self.link {
            Link::Down(_) => Ok(()),
            Link::Connecting(socket, _) => socket.watch(epoll, Some(EventFlags::OUT)),
            Link::Up(socket) => {
                socket.watch(epoll, Some(if waiting { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }))
            }
        }
    }

    /// Nothing more comes: what waits is sent, as long as the server takes it.
    pub fn finish(&mut self) {
        self.flush(Instant::now());
        if self.dropped > 0 {
            self.tell_of_dropped(super::timestamp::time_now());
        }
        if let Link::Connecting(socket, _) = &self.link
            && wait_connected(socket).is_ok()
        {
            self.is_connected();
        }
        let mut until = Instant::now() + LAST_PATIENCE;
        while !self.queue.is_empty()
            && let Link::Up(socket) = &self.link
            && poll(socket, PollFlags::OUT, until.saturating_duration_since(Instant::now()))
        {
            let before = self.queued_bytes;
            self.flush(Instant::now());
            if self.queued_bytes < before {
                until = Instant::now() + LAST_PATIENCE;
            }
        }
        self.dropped += self.queue.len() as u64;
        self.queue.clear();
    }

    /// Messages that did not go, of which the server was not told, and why.
    pub fn missing(&self) -> Option<(u64, String)> {
        (self.dropped > 0).then(|| (self.dropped, self.why()))
    }

    fn why(&self) -> String {
        match &self.last_error {
            Some(error) => error.to_string(),
            None => "the log server did not take them in time".to_owned(),
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self.settings.address, RemoteAddress::Tcp(_) | RemoteAddress::Unix(_))
    }

    fn limit_bytes(&self) -> usize {
        match self.settings.delivery {
            LogDelivery::Blocking => BLOCKING_LIMIT_BYTES,
            LogDelivery::NonBlocking { buffer_bytes } => usize::try_from(buffer_bytes).unwrap_or(usize::MAX),
        }
    }

    /// False if there is no room for it. One that is alone always has some.
    fn put(&mut self, message: Vec<u8>) -> bool {
        self.number = self.number.wrapping_add(1);
        let Some(units) = messages::units(&self.settings, message, self.number) else {
            self.last_error = Some(Errno::MSGSIZE.into());
            return false;
        };
        let all = self.queued_bytes.saturating_add(units.iter().map(Vec::len).sum());
        if all > self.limit_bytes() && !self.queue.is_empty() {
            return false;
        }
        self.queued_bytes = all;
        self.queue.extend(units);
        true
    }

    fn pop(&mut self) {
        self.sent_of_first = 0;
        if let Some(message) = self.queue.pop_front() {
            self.queued_bytes -= message.len();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    fn tell_of_dropped(&mut self, time: Timespec) -> bool {
        let text = format!("dozen: {} messages are missing here: {}\n", self.dropped, self.why());
        let piece = Piece { text: text.as_bytes(), part: 0 };
        let told = self.put(messages::encode(&self.settings, piece, Stream::Stderr, time, 0));
        if told {
            (self.dropped, self.last_error) = (0, None);
        }
        told
    }

    fn begin_connect(&mut self, now: Instant) {
        let begun = connect(&self.settings.address)
            .and_then(|(socket, connected)| Ok((Watched::new(socket, Token::Log)?, connected)));
        match begun {
            Ok((socket, true)) => {
                self.link = Link::Up(socket);
                self.is_connected();
            }
            Ok((socket, false)) => self.link = Link::Connecting(socket, now),
            Err(error) => self.lose(error, now),
        }
    }

    fn is_connected(&mut self) {
        self.retry = Duration::from_millis(self.settings.retry_wait_ms);
        self.sent_of_first = 0;
        let link = std::mem::replace(&mut self.link, Link::Down(Instant::now()));
        self.link = match link {
            Link::Connecting(socket, _) => Link::Up(socket),
            other => other,
        };
    }

    fn lose(&mut self, error: io::Error, now: Instant) {
        self.last_error = Some(error);
        self.link = Link::Down(now + self.retry);
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
        // The message that was under way goes again, whole.
        self.sent_of_first = 0;
    }
}

/// A socket on its way to the server; `true` if it is there already.
fn connect(address: &RemoteAddress) -> io::Result<(OwnedFd, bool)> {
    let socket =
        |family, kind| rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
    let family = |address: &std::net::SocketAddr| {
        if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
    };
    let (socket, connected) = match address {
        RemoteAddress::Udp(address) => {
            let socket = socket(family(address), SocketType::DGRAM)?;
            let connected = rustix::net::connect(&socket, address);
            (socket, connected)
        }
        RemoteAddress::Tcp(address) => {
            let socket = socket(family(address), SocketType::STREAM)?;
            let connected = rustix::net::connect(&socket, address);
            (socket, connected)
        }
        RemoteAddress::Unix(path) => {
            let socket = socket(AddressFamily::UNIX, SocketType::STREAM)?;
            let connected = rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path())?);
            (socket, connected)
        }
        RemoteAddress::UnixDatagram(path) => {
            let socket = socket(AddressFamily::UNIX, SocketType::DGRAM)?;
            let connected = rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path())?);
            (socket, connected)
        }
    };
    match connected {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        Err(error) => Err(error.into()),
    }
}

fn wait_connected(socket: impl AsFd) -> io::Result<()> {
    if !poll(&socket, PollFlags::OUT, CONNECT_PATIENCE) {
        return Err(Errno::TIMEDOUT.into());
    }
    Ok(rustix::net::sockopt::socket_error(&socket)??)
}

/// False if nothing has happened in time.
fn poll(descriptor: impl AsFd, flags: PollFlags, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        match rustix::event::poll(&mut [PollFd::new(&descriptor, flags)], Some(&left)) {
            Ok(count) => return count > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests;
