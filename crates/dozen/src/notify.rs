//! Tells the service manager that started the engine how far it is: sd_notify(3), `Type=notify` in systemd.service(5).
//!
//! The protocol is a datagram of `NAME=VALUE` lines to the socket that the environment names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The environment variable: a path, or `@` and the name of an abstract socket (unix(7)).
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Whoever wants to know, if anyone does.
pub(crate) struct Notify(Option<OsString>);

impl Notify {
    /// Takes the variable out of the environment: what this process starts speaks for itself, and not to our manager.
    ///
    /// Must be called while the process has one thread.
    pub(crate) fn take() -> Self {
        let socket = std::env::var_os(VARIABLE);
        if socket.is_some() {
            // SAFETY: the environment belongs to the only thread, as callers assure.
            unsafe { std::env::remove_var(VARIABLE) };
        }
        Self(socket)
    }

    /// The engine answers from now on.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// It goes down, as it was told to.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Nobody's failure but the manager's own, who kills an engine that it does not hear of.
    fn tell(&self, state: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = send(socket, state) {
            tracing::warn!(%error, "cannot tell {state} to {VARIABLE} {}", socket.display());
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address(socket)?).map(drop)
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name),
        [b'/', _, ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither an absolute path nor @ and a name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_a_path_or_an_abstract_name() {
        let shown = |socket: &str| match address(OsStr::new(socket)) {
            Ok(address) => match address.as_abstract_name() {
                Some(name) => format!("abstract {}", String::from_utf8_lossy(name)),
                None => format!("path {}", address.as_pathname().unwrap().display()),
            },
            Err(error) => format!("{:?}", error.kind()),
        };
        let long = format!("/{}", "x".repeat(108));
        for (socket, want) in [
            ("/run/systemd/notify", "path /run/systemd/notify"),
            ("@/org/freedesktop/notify", "abstract /org/freedesktop/notify"),
            ("@", "InvalidInput"),
            ("/", "InvalidInput"),
            ("", "InvalidInput"),
            ("run/notify", "InvalidInput"),
            ("vsock:2:1234", "InvalidInput"),
            (&long, "InvalidInput"),
        ] {
            assert_eq!(shown(socket), want, "{socket:?}");
        }
    }
}
