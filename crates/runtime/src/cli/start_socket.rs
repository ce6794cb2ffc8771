//! The socket by which a created container waits for the word to start.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::state::Directory;
use crate::error::{Context, RuntimeError};

/// For the container's first process.
pub(super) fn listen(directory: &Directory) -> Result<OwnedFd, RuntimeError> {
    let (_held, name) = short_name(directory)?;
    let socket = packet_socket()?;
    SocketAddrUnix::new(&name)
        .and_then(|address| rustix::net::bind(&socket, &address))
        .and_then(|()| rustix::net::listen(&socket, 1))
        .context(|| format!("listen on {}", directory.socket().display()))?;
    Ok(socket)
}

/// For who starts it; `None` if nobody waits any more.
pub(super) fn connect(directory: &Directory) -> Result<Option<OwnedFd>, RuntimeError> {
    let (_held, name) = short_name(directory)?;
    let socket = packet_socket()?;
    match SocketAddrUnix::new(&name).and_then(|address| rustix::net::connect(&socket, &address)) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        connected => {
            connected.context(|| format!("connect to {}", directory.socket().display())).map(|()| Some(socket))
        }
    }
}

/// The name is reached through a descriptor of its directory: an address has room for 107 bytes.
fn short_name(directory: &Directory) -> Result<(File, PathBuf), RuntimeError> {
    let held = File::open(&directory.path).context(|| format!("open {}", directory.path.display()))?;
    let name = directory.socket().file_name().map(PathBuf::from).unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())).join(name);
    Ok((held, short))
}

fn packet_socket() -> Result<OwnedFd, RuntimeError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .and_then(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 3));
    socket.context(|| "make a socket".to_owned())
}
