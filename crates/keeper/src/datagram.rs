//! Datagrams to `[::1]`, carried to containers and back. A datagram has no connection, so each client (an address and
//! port) has a flow: a socket of its own to the container, by which answers find the way back. A flow ends when it has
//! been silent for a while, or when there are too many and it has been silent the longest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::failpoint::failpoint;
use crate::handover::{Descriptors, HandedFlow};
use crate::snapshot::PortKey;

/// A flow without a datagram in either direction for so long ends, as Docker's proxy has it.
pub const SILENCE: Duration = Duration::from_secs(90);
/// The longest that UDP has (RFC 768).
const LONGEST_BYTES: usize = 65_535;
/// Carried before others have their turn.
const TURN: usize = 64;

/// All flows of all ports.
pub struct Datagrams {
    most: usize,
    flows: HashMap<u64, Flow>,
    by_client: BTreeMap<(PortKey, SocketAddrV6), u64>,
    /// The one that has been silent the longest comes first.
    by_silence: BTreeSet<(Instant, u64)>,
    buffer: Box<[MaybeUninit<u8>]>,
}

struct Flow {
    key: PortKey,
    client: SocketAddrV6,
    /// Connected to the container.
    socket: OwnedFd,
    last: Instant,
}

impl Datagrams {
    /// With room for this many flows.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            flows: HashMap::new(),
            by_client: BTreeMap::new(),
            by_silence: BTreeSet::new(),
            buffer: Box::new_uninit_slice(LONGEST_BYTES),
        }
    }

    /// Carries what clients have sent to `socket`, the port's on `[::1]`, to the container. `token` numbers new flows.
    pub fn carry_in(
        &mut self,
        epoll: &OwnedFd,
        key: PortKey,
        socket: BorrowedFd<'_>,
        to: SocketAddr,
        mut token: impl FnMut() -> u64,
    ) {
        // Beside the flows, which change while it is in use.
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..TURN {
            let (datagram, client) = match rustix::net::recvfrom(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok(((datagram, _), _, client)) => (datagram, client),
                // What was said of an earlier datagram (ICMP), or a signal.
                Err(Errno::INTR | Errno::CONNREFUSED) => continue,
                Err(_) => break,
            };
            let Some(Ok(client)) = client.map(SocketAddrV6::try_from) else { continue };
            let now = Instant::now();
            let flow = match self.by_client.get(&(key, client)) {
                Some(flow) => *flow,
                // Without a descriptor for it the datagram is lost, as datagrams may be.
                None => match self.begin(epoll, key, client, to, token(), now) {
                    Ok(flow) => flow,
                    Err(_) => continue,
                },
            };
            if let Some(flow) = self.flows.get(&flow) {
                let send = || rustix::net::send(&flow.socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                // A refusal is the answer to an earlier datagram, and comes in place of sending this one (udp(7)).
                // Anything else, as a datagram that is too long for IPv4, is lost.
                if send() == Err(Errno::CONNREFUSED) {
                    let _ = send();
                }
            }
            self.heard(flow, now);
        }
        self.buffer = buffer;
    }

    /// The port and the client of a flow; `None` if the token is of none.
    pub fn port_of(&self, token: u64) -> Option<PortKey> {
        self.flows.get(&token).map(|flow| flow.key)
    }

    /// Carries what the container has answered to the client, from the port's socket on `[::1]`.
    pub fn carry_out(&mut self, token: u64, from: BorrowedFd<'_>) {
        let Some(flow) = self.flows.get(&token) else { return };
        let mut heard = false;
        for _ in 0..TURN {
            match rustix::net::recv(&flow.socket, &mut *self.buffer, RecvFlags::DONTWAIT) {
                Ok(((datagram, _), _)) => {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    let _ = rustix::net::sendto(from, datagram, flags, &flow.client);
                    heard = true;
                }
                Err(Errno::INTR | Errno::CONNREFUSED) => {}
                Err(_) => break,
            }
        }
        if heard {
            self.heard(token, Instant::now());
        }
    }

    /// Ends the flows of a port.
    pub fn close(&mut self, key: PortKey) {
        let of_port: Vec<u64> =
            self.flows.iter().filter(|(_, flow)| flow.key == key).map(|(token, _)| *token).collect();
        of_port.into_iter().for_each(|token| self.end(token));
    }

    /// Ends those that have been silent for too long; when to ask again, if any are left.
    pub fn end_silent(&mut self, now: Instant) -> Option<Duration> {
        while let Some((last, token)) = self.by_silence.first().copied() {
            let left = SILENCE.saturating_sub(now.saturating_duration_since(last));
            if !left.is_zero() {
                return Some(left);
            }
            self.end(token);
        }
        None
    }

    /// As the next program takes them over.
    pub fn hand_over(&self) -> Vec<HandedFlow> {
        let hand = |flow: &Flow| HandedFlow { key: flow.key, client: flow.client, socket: flow.socket.as_raw_fd() };
        self.flows.values().map(hand).collect()
    }

    /// As the program before has left it.
    pub fn take_over(
        &mut self,
        epoll: &OwnedFd,
        handed: &HandedFlow,
        descriptors: &mut Descriptors,
        token: u64,
    ) -> std::io::Result<()> {
        let socket = descriptors.take(handed.socket)?;
        Ok(self.watch(epoll, handed.key, handed.client, socket, token, Instant::now())?)
    }

    fn begin(
        &mut self,
        epoll: &OwnedFd,
        key: PortKey,
        client: SocketAddrV6,
        to: SocketAddr,
        token: u64,
        now: Instant,
    ) -> Result<u64> {
        while self.flows.len() >= self.most
            && let Some((_, oldest)) = self.by_silence.first().copied()
        {
            self.end(oldest);
        }
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        rustix::net::connect(&socket, &to)?;
        self.watch(epoll, key, client, socket, token, now)?;
        failpoint("datagram.begun");
        Ok(token)
    }

    fn watch(
        &mut self,
        epoll: &OwnedFd,
        key: PortKey,
        client: SocketAddrV6,
        socket: OwnedFd,
        token: u64,
        now: Instant,
    ) -> Result<()> {
        epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN)?;
        self.flows.insert(token, Flow { key, client, socket, last: now });
        self.by_client.insert((key, client), token);
        self.by_silence.insert((now, token));
        Ok(())
    }

    fn heard(&mut self, token: u64, now: Instant) {
        if let Some(flow) = self.flows.get_mut(&token) {
            self.by_silence.remove(&(flow.last, token));
            flow.last = now;
            self.by_silence.insert((now, token));
        }
    }

    /// Closing its socket takes it out of the epoll.
    fn end(&mut self, token: u64) {
        if let Some(flow) = self.flows.remove(&token) {
            self.by_client.remove(&(flow.key, flow.client));
            self.by_silence.remove(&(flow.last, token));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, UdpSocket};
    use std::os::fd::AsFd;

    use dozen_model::Protocol;

    use super::*;

    const KEY: PortKey = PortKey(Protocol::Udp, 53, std::net::IpAddr::V6(Ipv6Addr::LOCALHOST));

    /// The port, the container behind it, and clients.
    struct Bench {
        epoll: OwnedFd,
        port: UdpSocket,
        container: UdpSocket,
        datagrams: Datagrams,
        tokens: u64,
    }

    impl Bench {
        fn new(most: usize) -> Self {
            let port = UdpSocket::bind("[::1]:0").unwrap();
            port.set_nonblocking(true).unwrap();
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            let container = UdpSocket::bind("127.0.0.1:0").unwrap();
            Self { epoll, port, container, datagrams: Datagrams::new(most), tokens: 0 }
        }

        /// Sends and carries it in; who asks, as the container sees it.
        fn ask(&mut self, client: &UdpSocket) -> SocketAddr {
            client.send_to(b"?", self.port.local_addr().unwrap()).unwrap();
            let to = self.container.local_addr().unwrap();
            let tokens = &mut self.tokens;
            self.datagrams.carry_in(&self.epoll, KEY, self.port.as_fd(), to, || {
                *tokens += 1;
                *tokens
            });
            self.container.recv_from(&mut [0]).unwrap().1
        }
    }

    fn client() -> UdpSocket {
        UdpSocket::bind("[::1]:0").unwrap()
    }

    #[test]
    fn a_client_has_one_flow_and_the_oldest_makes_room() {
        let mut bench = Bench::new(2);
        let clients = [client(), client(), client()];
        let first = bench.ask(&clients[0]);
        let second = bench.ask(&clients[1]);
        assert_ne!(first, second);
        assert_eq!(bench.ask(&clients[0]), first);
        // The second has been silent the longest by now.
        bench.ask(&clients[2]);
        assert_eq!(bench.datagrams.flows.len(), 2);
        assert_eq!(bench.ask(&clients[0]), first);
        assert!(
            !bench
                .datagrams
                .by_client
                .keys()
                .any(|(_, address)| address.port() == clients[1].local_addr().unwrap().port())
        );
        bench.datagrams.close(KEY);
        let Datagrams { flows, by_client, by_silence, .. } = &bench.datagrams;
        assert_eq!((flows.len(), by_client.len(), by_silence.len()), (0, 0, 0));
    }

    #[test]
    fn a_silent_flow_ends_in_time() {
        let mut bench = Bench::new(8);
        assert_eq!(bench.datagrams.end_silent(Instant::now()), None);
        bench.ask(&client());
        let begun = Instant::now();
        let left = bench.datagrams.end_silent(begun).unwrap();
        assert!(left <= SILENCE && left > SILENCE / 2, "{left:?}");
        assert_eq!(bench.datagrams.end_silent(begun + SILENCE), None);
        assert!(bench.datagrams.flows.is_empty());
    }
}
