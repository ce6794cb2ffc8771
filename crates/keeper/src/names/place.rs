//! Into a container's network namespace and back. The keeper has one thread: what it opens in there stays in there, and
//! nothing else of it is ever there.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use dozen_network::name_translation::{NAME_SERVER, translate};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use crate::failpoint::failpoint;

/// Streams that wait to be accepted.
const QUEUE: i32 = 64;

/// Where the keeper is.
pub struct Place {
    here: OwnedFd,
}

impl Place {
    /// The namespace of the calling thread.
    pub fn here() -> io::Result<Self> {
        Ok(Self { here: std::fs::File::open("/proc/thread-self/ns/net")?.into() })
    }

    /// A pidfd of a container's process 1; `None` if that has ended. The number may have gone to someone else: who is in
    /// the container's cgroup is believed.
    pub fn process_of(&self, pid: i32, container_id: &str) -> io::Result<Option<OwnedFd>> {
        let Some(number) = Pid::from_raw(pid) else { return Ok(None) };
        let process = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Ok(cgroups) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return Ok(None) };
        let is_in_it = !container_id.is_empty() && cgroups.lines().any(|line| line.contains(container_id));
        // If it still lives, the number was still its own when its cgroup was read.
        Ok((is_in_it && lives(&process)).then_some(process))
    }

    /// Sockets for datagrams and streams on 127.0.0.11 in that process's namespace, with port 53 translated to them.
    pub fn listen(&self, process: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
        self.inside(process, || {
            let address = SocketAddrV4::new(NAME_SERVER, 0);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let open = |kind| rustix::net::socket_with(AddressFamily::INET, kind, flags, None);
            let (datagrams, listener) = (open(SocketType::DGRAM)?, open(SocketType::STREAM)?);
            rustix::net::bind(&datagrams, &address)?;
            rustix::net::bind(&listener, &address)?;
            rustix::net::listen(&listener, QUEUE)?;
            failpoint("names.listening");
            let bound = |socket: &OwnedFd| -> io::Result<SocketAddr> {
                SocketAddr::try_from(rustix::net::getsockname(socket)?).map_err(|_| io::ErrorKind::InvalidData.into())
            };
            translate(bound(&datagrams)?, bound(&listener)?)
                .map_err(|error| io::Error::other(dozen_model::error_chain(&error)))?;
            failpoint("names.translated");
            Ok((datagrams, listener))
        })
    }

    /// A socket to ask this server by: from that process's namespace, or from the keeper's.
    pub fn connect(&self, process: Option<&OwnedFd>, server: IpAddr, kind: SocketType) -> io::Result<OwnedFd> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = || Ok(rustix::net::socket_with(family, kind, flags, None)?);
        let socket = match process {
            Some(process) => self.inside(process, open)?,
            None => open()?,
        };
        // A socket that is not bound gets a random port (ip(7)); only what comes from the server arrives at it.
        match rustix::net::connect(&socket, &SocketAddr::new(server, 53)) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    fn inside<T>(&self, process: &OwnedFd, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        // By pidfd since Linux 5.8 (setns(2)): its namespace, whoever has its number.
        rustix::thread::move_into_thread_name_spaces(std::os::fd::AsFd::as_fd(process), ThreadNameSpaceType::NETWORK)?;
        let done = work();
        let back = rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&self.here),
            Some(LinkNameSpaceType::Network),
        );
        if back.is_err() {
            // Never seen. What would be opened next would be the container's: the engine starts another keeper.
            std::process::abort();
        }
        done
    }
}

/// Whether the process of this pidfd has not ended.
pub fn lives(process: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    let looked = rustix::event::poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    looked.is_ok() && ended[0].revents().is_empty()
}
