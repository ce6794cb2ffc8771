//! Questions by stream: each with its length before it, answered in whatever order (RFC 7766).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::{Client, LONGEST_QUERY_BYTES, Names, Role, TURN};

/// Streams of one container, and of all.
const MOST_OF_A_CONTAINER: usize = 32;
const MOST: usize = 1_024;
/// One that has been silent for so long is closed.
const SILENCE: Duration = Duration::from_secs(10);
/// One that has so much to read is asked nothing more.
const FULL_BYTES: usize = 64 * 1_024;
/// And one that has so much is closed: an answer more than that is at most on its way.
const OVERFULL_BYTES: usize = 1_024 * 1_024;
/// After an accept for which no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client's stream.
pub struct Stream {
    pub container: Rc<str>,
    socket: OwnedFd,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Questions that wait for an answer.
    pub waiting: usize,
    /// It asks nothing more.
    ended: bool,
    last: Instant,
    interest: EventFlags,
}

impl Names {
    pub(super) fn accept(&mut self, id: &Rc<str>) {
        for _ in 0..TURN {
            let Some(served) = self.served.get(id) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(&served.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.rest(id),
                Err(_) => return,
            };
            if served.streams >= MOST_OF_A_CONTAINER || self.streams.len() >= MOST {
                continue;
            }
            let Ok(token) = self.watch(&socket, Role::Stream, EventFlags::IN) else { continue };
            let now = Instant::now();
            let stream = Stream {
                container: id.clone(),
                socket,
                input: Vec::new(),
                output: VecDeque::new(),
                waiting: 0,
                ended: false,
                last: now,
                interest: EventFlags::IN,
            };
            self.streams.insert(token, stream);
            self.deadlines.insert((now + SILENCE, token));
            if let Some(served) = self.served.get_mut(id) {
                served.streams += 1;
            }
        }
    }

    /// Without a free descriptor the client keeps waiting; asking again at once would only burn the processor.
    fn rest(&mut self, id: &Rc<str>) {
        let Some(served) = self.served.get(id) else { return };
        let token = served.tokens[2];
        if epoll::modify(&self.epoll, &served.listener, EventData::new_u64(token), EventFlags::empty()).is_ok() {
            self.deadlines.insert((Instant::now() + ACCEPT_PAUSE, token));
        }
    }

    /// It may have something to ask, or room for answers.
    pub(super) fn pump_stream(&mut self, token: u64) {
        let Some(stream) = self.streams.get_mut(&token) else { return };
        // There is nothing else to be told about: it is gone altogether.
        if stream.ended && stream.output.is_empty() {
            return self.close_stream(token);
        }
        let mut part = [0; LONGEST_QUERY_BYTES];
        if !stream.ended && stream.output.len() < FULL_BYTES {
            match rustix::net::recv(&stream.socket, &mut part, RecvFlags::DONTWAIT) {
                Ok((0, _)) => stream.ended = true,
                Ok((count, _)) => stream.input.extend_from_slice(&part[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return self.close_stream(token),
            }
        }
        stream.last = Instant::now();
        let client = Client::Stream { container: stream.container.clone(), token };
        loop {
            let Some(stream) = self.streams.get_mut(&token) else { return };
            let Some(length) = stream.input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)))
            else {
                break;
            };
            if length > LONGEST_QUERY_BYTES {
                return self.close_stream(token);
            }
            if stream.input.len() < 2 + length {
                break;
            }
            let message: Vec<u8> = stream.input.drain(..2 + length).skip(2).collect();
            self.answer(client.clone(), &message);
        }
        self.flush_stream(token);
    }

    pub(super) fn send_stream(&mut self, token: u64, message: &[u8]) {
        let Some(stream) = self.streams.get_mut(&token) else { return };
        let Ok(length) = u16::try_from(message.len()) else { return };
        stream.output.extend(length.to_be_bytes());
        stream.output.extend(message);
        stream.last = Instant::now();
        self.flush_stream(token);
    }

    fn flush_stream(&mut self, token: u64) {
        let Some(stream) = self.streams.get_mut(&token) else { return };
        while !stream.output.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&stream.socket, stream.output.as_slices().0, flags) {
                Ok(count) => drop(stream.output.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return self.close_stream(token),
            }
        }
        let is_over = stream.ended && stream.waiting == 0 && stream.output.is_empty();
        if is_over || stream.output.len() > OVERFULL_BYTES {
            return self.close_stream(token);
        }
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !stream.ended && stream.output.len() < FULL_BYTES);
        interest.set(EventFlags::OUT, !stream.output.is_empty());
        if interest != stream.interest {
            stream.interest = interest;
            let _ = epoll::modify(&self.epoll, &stream.socket, EventData::new_u64(token), interest);
        }
    }

    /// A deadline that is no lookup's: a stream's, or that of a listener that rests.
    pub(super) fn end_silent_stream(&mut self, token: u64, now: Instant) {
        if let Some(Role::Listener(id)) = self.roles.get(&token) {
            if let Some(served) = self.served.get(id) {
                let _ = epoll::modify(&self.epoll, &served.listener, EventData::new_u64(token), EventFlags::IN);
            }
            return;
        }
        let Some(stream) = self.streams.get(&token) else { return };
        let ends = stream.last + SILENCE;
        if ends > now {
            self.deadlines.insert((ends, token));
        } else {
            self.close_stream(token);
        }
    }

    pub(super) fn close_stream(&mut self, token: u64) {
        let Some(stream) = self.streams.remove(&token) else { return };
        self.roles.remove(&token);
        if let Some(served) = self.served.get_mut(&stream.container) {
            served.streams -= 1;
        }
        if stream.waiting > 0 {
            self.forget_questions(|client| matches!(client, Client::Stream { token: of, .. } if *of == token));
        }
    }
}
