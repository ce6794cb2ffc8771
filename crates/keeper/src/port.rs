//! Taking a host port: a socket that is bound and does nothing else, or one that serves `[::1]`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dozen_model::Protocol;
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::snapshot::PortReservation;

/// Connections that may wait to be accepted on a forward.
const BACKLOG: i32 = 1024;

/// Binds, and listens if it is a forward. `siblings` are our own sockets of the same protocol and port on other
/// addresses: beside `[::]` there may be `[::1]`.
///
/// Reservations are made without SO_REUSEADDR: with it, a program that sets it as well (nearly every server) could
/// bind the port beside a socket that does not listen (socket(7)). Only two cases use it for the moment of binding:
/// among siblings, and if the port was refused, since then it may be that only connections in TIME_WAIT hold it.
///
/// # Errors
/// EADDRINUSE, EADDRNOTAVAIL, EACCES, as bind(2) says.
pub fn take(port: &PortReservation, siblings: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
    if !siblings.is_empty() {
        for sibling in siblings {
            sockopt::set_socket_reuseaddr(sibling, true)?;
        }
        let taken = bind(port, true);
        for sibling in siblings {
            sockopt::set_socket_reuseaddr(sibling, false)?;
        }
        return taken;
    }
    match bind(port, false) {
        // UDP has no TIME_WAIT; there, sharing an address would take another's datagrams.
        Err(Errno::ADDRINUSE) if port.protocol == Protocol::Tcp => bind(port, true),
        other => other,
    }
}

/// The socket by which datagrams to `[::1]` come and answers go, beside the reservation of all addresses: what that one
/// would answer might bear another address than was asked.
pub fn take_loopback(port: &PortReservation, reservation: BorrowedFd<'_>) -> Result<OwnedFd> {
    take(&PortReservation { host_address: Ipv6Addr::LOCALHOST.into(), ..port.clone() }, &[reservation])
}

fn bind(port: &PortReservation, reuse: bool) -> Result<OwnedFd> {
    let family = match port.host_address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if family == AddressFamily::INET6 {
        // IPv4 has reservations of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    let is_read = port.forward_to.is_some() && !port.host_address.is_unspecified();
    if port.protocol == Protocol::Udp && !is_read {
        // Never read: the kernel rounds this up to its minimum and drops the rest (socket(7), SO_RCVBUF).
        sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    }
    sockopt::set_socket_reuseaddr(&socket, reuse)?;
    rustix::net::bind(&socket, &SocketAddr::new(port.host_address, port.host_port))?;
    if port.forward_to.is_some() && port.protocol == Protocol::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    sockopt::set_socket_reuseaddr(socket.as_fd(), false)?;
    Ok(socket)
}
