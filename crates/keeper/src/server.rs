//! The keeper's process: one thread, one epoll.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dozen_model::Protocol;
use dozen_runtime::Cgroup;
use dozen_runtime::detach::{Side, detach};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit};
use rustix::time::Timespec;

use crate::datagram::Datagrams;
use crate::failpoint::failpoint;
use crate::forward::{Forward, Pumped};
use crate::handover::{Descriptors, HandedListener, HandedPort, Handover};
use crate::port;
use crate::protocol::{self, Envelope, Reply, Request};
use crate::snapshot::{self, PortFailure, PortKey, PortReservation, Snapshot, VERSION};
use crate::{client, signals};

/// An engine that connects and then says nothing is not waited for: the forwards have to go on.
const PATIENCE: Duration = Duration::from_secs(2);
/// After an accept for which no descriptor was free.
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long the socket of a keeper that is dead may outlive its lock.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(2);
/// Token of keeper.sock.
const CONTROL: u64 = 0;
/// Descriptors of one forward: two sockets, two pipes.
const DESCRIPTORS_PER_FORWARD: u64 = 6;

/// `dozen keeper RUN_ROOT [CGROUP]`, with standard input a stream to whoever started it: it reads `ready`, or why not.
///
/// Detaches itself: the process that was spawned ends at once. It lives in that cgroup from then on, if it can: what a
/// service's own cgroup has in it is killed when the service is stopped (systemd.kill(5)). Must be called while the
/// process has one thread.
pub fn main(run_root: &Path, cgroup: Option<&str>) -> ExitCode {
    match Handover::found() {
        Ok(None) => {}
        // Its starter is the program before it, which has detached; what cannot be taken over is given up, and the
        // engine starts a new keeper from the snapshot.
        Ok(Some((handover, descriptors))) => {
            return match Server::take_over(run_root, handover, descriptors).map(|mut server| server.serve()) {
                Ok(Ok(())) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
        Err(_) => return ExitCode::FAILURE,
    }
    failpoint("begin");
    let born_in_cgroup = match detach(cgroup) {
        Ok(Side::Spawned) => return ExitCode::SUCCESS,
        Ok(Side::Detached { born_in_cgroup }) => born_in_cgroup,
        Err(error) => return fail(&format!("cannot detach: {error}")),
    };
    signals::ignore();
    failpoint("begin.detached");
    if let Some(cgroup) = cgroup {
        let join = if born_in_cgroup { Cgroup::join_version_1 } else { Cgroup::join };
        // One that cannot serves all the same, where it is; the next engine tries again and says why.
        let _ = join(cgroup);
    }
    failpoint("begin.settled");
    let mut server = match Server::begin(run_root) {
        Ok(server) => server,
        Err(message) => return fail(&message),
    };
    tell("ready\n");
    failpoint("begin.ready");
    match server.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str) -> ExitCode {
    tell(message);
    ExitCode::FAILURE
}

/// Says it on standard input's socket, and hangs up.
fn tell(words: &str) {
    let Ok(stream) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return };
    // Whoever started us may be gone; that changes nothing.
    let _ = UnixStream::from(stream).write_all(words.as_bytes());
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
}

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

struct Listener {
    socket: OwnedFd,
    /// Device and inode of its file.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// True while the path leads to it; someone may have removed or replaced the file.
    fn is_at(&self, path: &Path) -> bool {
        self.file.is_some() && identity(path) == self.file
    }
}

struct Server {
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
    hungry: Vec<u64>,
    /// Listeners that are not watched for a moment.
    resting: Vec<u64>,
    most_forwards: usize,
    next_token: u64,
    ended: bool,
}

impl Server {
    fn begin(run_root: &Path) -> Result<Self, String> {
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
        failpoint("begin.loaded");
        Ok(server)
    }

    fn empty(run_root: &Path, lock: std::fs::File, control: UnixListener) -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &control, EventData::new_u64(CONTROL), EventFlags::IN)?;
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
            hungry: Vec::new(),
            resting: Vec::new(),
            most_forwards: most_forwards(),
            next_token: CONTROL + 1,
            ended: false,
        })
    }

    /// Becomes another program, and returns only if that fails.
    fn upgrade(&self, stream: &UnixStream, program: Option<OwnedFd>) -> io::Error {
        let Some(program) = program else { return io::Error::other("no program came along") };
        failpoint("upgrade.before");
        let listeners = self.listeners.iter().map(|(path, listener)| HandedListener {
            path: path.clone(),
            socket: listener.socket.as_raw_fd(),
            file: listener.file,
        });
        let ports = self.ports.values().map(|held| HandedPort {
            port: held.port.clone(),
            socket: held.socket.as_raw_fd(),
            loopback: held.loopback.as_ref().map(AsRawFd::as_raw_fd),
        });
        let handover = Handover {
            lock: self.lock.as_raw_fd(),
            control: self.control.as_raw_fd(),
            reply_to: stream.as_raw_fd(),
            listeners: listeners.collect(),
            ports: ports.collect(),
            forwards: self.forwards.values().map(|(key, forward)| forward.hand_over(*key)).collect(),
            flows: self.datagrams.hand_over(),
        };
        handover.carry_out(&program, &self.run_root)
    }

    /// Holds what the program before this one held, and answers the engine that asked for the change.
    fn take_over(run_root: &Path, handover: Handover, mut descriptors: Descriptors) -> io::Result<Self> {
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
        failpoint("upgrade.taken");
        // An engine that is gone asks again when it is back.
        let _ = protocol::send(&UnixStream::from(descriptors.take(handover.reply_to)?), &Reply::Done, None);
        failpoint("upgrade.answered");
        Ok(server)
    }

    fn serve(&mut self) -> rustix::io::Result<()> {
        while !self.ended {
            let mut space = [MaybeUninit::uninit(); 64];
            let silence = self.datagrams.end_silent(Instant::now());
            let timeout = match (self.hungry.is_empty(), self.resting.is_empty()) {
                (false, _) => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                (true, false) => Some(ACCEPT_PAUSE),
                // One second later is early enough, and then there are several to end at once.
                (true, true) => silence.and_then(|left| Timespec::try_from(left + Duration::from_secs(1)).ok()),
            };
            let events = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let mut tokens: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
            self.watch_again()?;
            // The two sockets of a forward share a token.
            tokens.append(&mut self.hungry);
            tokens.sort_unstable();
            tokens.dedup();
            for token in tokens {
                if token == CONTROL {
                    self.answer();
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

    /// Answers one request of an engine.
    fn answer(&mut self) {
        let stream = match rustix::net::accept_with(&self.control, SocketFlags::CLOEXEC) {
            Ok(stream) => UnixStream::from(stream),
            Err(error) => return self.rest_after(error, Some(CONTROL)),
        };
        let prepared = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        let Ok((envelope, descriptor)) = prepared.and_then(|()| protocol::receive::<Envelope>(&stream)) else { return };
        let reply = match envelope.request {
            Request::Upgrade => Err(self.upgrade(&stream, descriptor)),
            _ => self.handle(envelope, descriptor),
        };
        let copy = match &reply {
            Ok((_, path)) => {
                path.as_ref().and_then(|path| self.listeners.get(path)).map(|listener| listener.socket.as_fd())
            }
            Err(_) => None,
        };
        let reply = match reply {
            Ok((reply, _)) => reply,
            Err(error) => Reply::Failed { errno: error.raw_os_error().unwrap_or(0), message: error.to_string() },
        };
        // An engine that is gone asks again when it is back.
        let _ = protocol::send(&stream, &reply, copy);
        match reply {
            Reply::Applied(_) => failpoint("reload.answered"),
            _ if self.ended => failpoint("shutdown.answered"),
            _ => {}
        }
    }

    /// The reply, and the path of the listener whose descriptor goes with it.
    fn handle(&mut self, envelope: Envelope, descriptor: Option<OwnedFd>) -> io::Result<(Reply, Option<PathBuf>)> {
        if envelope.version > VERSION {
            return Err(io::Error::other(format!(
                "it speaks version {VERSION} of the protocol, the engine version {}",
                envelope.version
            )));
        }
        match envelope.request {
            Request::Listener { path, mode, group } => {
                let usable = self.listeners.get(&path).is_some_and(|listener| listener.is_at(&path));
                if !usable {
                    failpoint("listener.before");
                    let socket = listen(&path, mode, group)?.into();
                    let file = identity(&path);
                    self.listeners.insert(path.clone(), Listener { socket, file });
                    failpoint("listener.after");
                }
                Ok((Reply::Done, Some(path)))
            }
            Request::Adopt { path } => {
                let descriptor = descriptor.ok_or_else(|| io::Error::other("no descriptor came along"))?;
                failpoint("adopt.before");
                let file = identity(&path);
                self.listeners.insert(path, Listener { socket: descriptor, file });
                failpoint("adopt.after");
                Ok((Reply::Done, None))
            }
            Request::Upgrade => unreachable!("answered before, whatever the version"),
            Request::Reload => Ok((Reply::Applied(self.reload()?), None)),
            Request::Shutdown => {
                self.shutdown();
                Ok((Reply::Done, None))
            }
        }
    }

    fn reload(&mut self) -> io::Result<Vec<PortFailure>> {
        failpoint("reload.before");
        let path = self.run_root.join("keeper.json");
        let snapshot: Snapshot = serde_json::from_slice(&std::fs::read(path)?)?;
        if snapshot.version > VERSION {
            return Err(io::Error::other(format!(
                "keeper.json has version {}, this keeper knows {VERSION}",
                snapshot.version
            )));
        }
        let held = self.ports.iter().map(|(key, held)| (*key, held.port.clone())).collect();
        let plan = snapshot::plan(&held, &snapshot.ports);
        for key in plan.close {
            self.close(key);
        }
        failpoint("reload.closed");
        let mut failures = plan.refused;
        for port in plan.open {
            if let Err(error) = self.open(&port) {
                failures.push(port.failure(error.raw_os_error()));
            }
        }
        failpoint("reload.opened");
        Ok(failures)
    }

    fn open(&mut self, port: &PortReservation) -> rustix::io::Result<()> {
        let key = port.key();
        let same_port = |other: &&PortKey| other.0 == key.0 && other.1 == key.1 && other.2.is_ipv4() == key.2.is_ipv4();
        let siblings: Vec<BorrowedFd<'_>> =
            self.ports.iter().filter(|(other, _)| same_port(other)).map(|(_, held)| held.socket.as_fd()).collect();
        let socket = port::take(port, &siblings)?;
        let datagrams_too = port.forward_to.is_some() && port.protocol == Protocol::Udp;
        let loopback = (datagrams_too && port.host_address.is_unspecified())
            .then(|| port::take_loopback(port, socket.as_fd()))
            .transpose()?;
        self.hold(Held { port: port.clone(), socket, loopback, token: None })
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

    /// Lets a port go, and what still went through it: its container has ended.
    fn close(&mut self, key: PortKey) {
        if let Some(held) = self.ports.remove(&key)
            && let Some(token) = held.token
        {
            self.accepting.remove(&token);
            self.forwards.retain(|_, (of, _)| *of != key);
            self.datagrams.close(key);
        }
    }

    fn shutdown(&mut self) {
        failpoint("shutdown.before");
        for (path, listener) in std::mem::take(&mut self.listeners) {
            if listener.is_at(&path) {
                let _ = std::fs::remove_file(path);
            }
        }
        failpoint("shutdown.listeners");
        self.forwards.clear();
        self.accepting.clear();
        for key in std::mem::take(&mut self.ports).into_keys() {
            self.datagrams.close(key);
        }
        failpoint("shutdown.ports");
        for name in ["keeper.sock", "keeper.json"] {
            let _ = std::fs::remove_file(self.run_root.join(name));
        }
        self.ended = true;
    }
}

/// Listens as the one who has the lock. The kernel closes a dying keeper's descriptors one by one: its lock can be had
/// a moment before its socket is gone.
fn listen_after_predecessor(path: &Path) -> io::Result<UnixListener> {
    let begun = Instant::now();
    loop {
        match listen(path, 0o600, None) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PREDECESSOR_PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

/// Listens at a path. A socket that nobody listens on any more is replaced, a living one is not.
fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    if is_served(path)? {
        return Err(Errno::ADDRINUSE.into());
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path)?,
        // A file of another kind is not ours to remove.
        Ok(_) => return Err(Errno::EXIST.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Nobody else's from the first moment on.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    let prepare = || -> io::Result<()> {
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777))?;
        // std listens with a queue of 128 (or -1 in newer versions); a second listen(2) only changes its length.
        rustix::net::listen(&listener, 4096)?;
        listener.set_nonblocking(true)
    };
    if let Err(error) = prepare() {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(listener)
}

/// The file that a listener is bound to; `None` if there is none.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// True if a living server listens at the path.
fn is_served(path: &Path) -> io::Result<bool> {
    // Without blocking: the queue of a dead engine's listener may be full.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Raises the soft limit of descriptors to the hard one, and leaves a part of it for everything else.
fn most_forwards() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u16::MAX));
    usize::try_from(limit / 2 / DESCRIPTORS_PER_FORWARD).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dying_keepers_socket_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keeper.sock");
        let dying = UnixListener::bind(&path).unwrap();
        let _listener = std::thread::scope(|scope| {
            // It is gone once somebody has seen it.
            scope.spawn(move || dying.accept().map(drop));
            listen_after_predecessor(&path).unwrap()
        });
        assert!(is_served(&path).unwrap());
    }
}
