//! Sockets that a service manager has opened for us: sd_listen_fds(3).

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// The first of them, by the protocol.
const FIRST: RawFd = 3;
/// More than any unit has; what a mistaken environment says is no number of descriptors.
const MOST: RawFd = 1024;

/// Takes them, once, and the variables that tell of them out of the environment.
///
/// Must be called while the process has one thread, and before it opens anything.
pub(crate) fn take() -> Vec<OwnedFd> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
    let is_ours = number("LISTEN_PID") == Some(std::process::id().cast_signed());
    let count = number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0).clamp(0, MOST);
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        // SAFETY: the environment belongs to the only thread, as callers assure.
        unsafe { std::env::remove_var(name) };
    }
    let mut taken = Vec::new();
    for descriptor in FIRST..FIRST + count {
        // SAFETY: the service manager has opened it for this very process (LISTEN_PID) and nobody else here knows of
        // it: this runs before anything is opened. That it is open is asked first.
        if unsafe { libc_is_open(descriptor) } {
            // SAFETY: as above; it is open, and nobody else's.
            taken.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    for descriptor in &taken {
        // What is started is not to have it.
        let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
    }
    taken
}

/// # Safety
/// The number is borrowed for this call only, so that nobody else may close it meanwhile.
unsafe fn libc_is_open(descriptor: RawFd) -> bool {
    // SAFETY: the caller's word.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    rustix::io::fcntl_getfd(borrowed).is_ok()
}

/// As listeners of the API; none at all, or one of another kind, is an error.
pub(crate) fn listeners(sockets: &[OwnedFd]) -> Result<Vec<UnixListener>, String> {
    if sockets.is_empty() {
        return Err("fd:// is given, and no socket was handed over (LISTEN_FDS): \
                    start the engine by its socket unit, or listen on unix:///path"
            .to_owned());
    }
    sockets.iter().map(listener).collect()
}

fn listener(socket: &OwnedFd) -> Result<UnixListener, String> {
    let is_fit = sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(socket) == Ok(true);
    if !is_fit {
        return Err("a socket that was handed over (LISTEN_FDS) does not listen on a path: \
                    the socket unit has ListenStream=/path"
            .to_owned());
    }
    let copy = socket.as_fd().try_clone_to_owned().map_err(|error| format!("cannot copy a descriptor: {error}"))?;
    Ok(UnixListener::from(copy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_listens_on_a_path_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("socket")).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(listeners(&[OwnedFd::from(unix)]).unwrap().len(), 1);
        for (socket, words) in
            [(OwnedFd::from(tcp), "does not listen on a path"), (OwnedFd::from(pair), "does not listen on a path")]
        {
            assert!(listeners(&[socket]).unwrap_err().contains(words));
        }
        assert!(listeners(&[]).unwrap_err().contains("LISTEN_FDS"));
    }
}
