//! What an engine asks of the keeper.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use dozen_model::Protocol;
use rustix::net::SocketFlags;

use super::{CONTROL, Held, Server};
use crate::failpoint::failpoint;
use crate::handover::{HandedListener, HandedPort, Handover};
use crate::listener::{Listener, identity, listen};
use crate::names::NamesSnapshot;
use crate::port;
use crate::protocol::{self, Envelope, Reply, Request};
use crate::snapshot::{self, PortFailure, PortKey, PortReservation, Snapshot, VERSION};

/// An engine that connects and then says nothing is not waited for: the forwards have to go on.
const PATIENCE: Duration = Duration::from_secs(2);

impl Server {
    /// Answers one request of an engine.
    pub(super) fn answer(&mut self) {
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
            Reply::Named(_) => failpoint("names.answered"),
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
            Request::Names => Ok((Reply::Named(self.names.reload(&self.run_root)?), None)),
            Request::Shutdown => {
                self.shutdown();
                Ok((Reply::Done, None))
            }
        }
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
        let (names, questions) = self.names.hand_over();
        let handover = Handover {
            lock: self.lock.as_raw_fd(),
            control: self.control.as_raw_fd(),
            reply_to: stream.as_raw_fd(),
            listeners: listeners.collect(),
            ports: ports.collect(),
            forwards: self.forwards.values().map(|(key, forward)| forward.hand_over(*key)).collect(),
            flows: self.datagrams.hand_over(),
            names,
            questions,
        };
        handover.carry_out(&program, &self.run_root)
    }

    pub(super) fn reload(&mut self) -> io::Result<Vec<PortFailure>> {
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
        self.names.close_all();
        failpoint("shutdown.ports");
        NamesSnapshot::remove(&self.run_root);
        for name in ["keeper.sock", "keeper.json"] {
            let _ = std::fs::remove_file(self.run_root.join(name));
        }
        self.ended = true;
    }
}
