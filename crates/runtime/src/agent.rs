//! Whoever answers for system calls that a filter hands to it (SCMP_ACT_NOTIFY): the runtime gives it the filter's
//! descriptor (runtime-spec, config-linux.md, "Seccomp", "The Container Process State"; seccomp_unotify(2)).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::about::About;
use crate::error::{Context, RuntimeError};
use crate::seccomp::Listener;

/// A connection to who answers. It is made before the process may go on: without one it is not started.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: OwnedFd,
    told: Vec<u8>,
}

impl Agent {
    /// Connects. `status` is the container's (`creating` until its program runs, as other runtimes tell it), `pid` the
    /// process's on the host.
    pub(crate) fn connect(listener: &Listener, about: &About, status: &str, pid: i32) -> Result<Self, RuntimeError> {
        // runc's words.
        let context = || format!("failed to connect with seccomp agent at {}", listener.path.display());
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .and_then(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 3))
            .context(context)?;
        SocketAddrUnix::new(&listener.path)
            .and_then(|address| rustix::net::connect(&socket, &address))
            .context(context)?;
        Ok(Self { socket, told: about.process_state(status, pid, listener.metadata.as_deref()).to_string().into() })
    }

    /// Gives it the descriptor.
    pub(crate) fn hand_over(self, notifications: OwnedFd) -> Result<(), RuntimeError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let descriptors = [notifications.as_fd()];
        let mut rest = self.told.as_slice();
        let mut is_first = true;
        while !rest.is_empty() {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if is_first {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            match rustix::net::sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => (rest, is_first) = (&rest[sent..], false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(RuntimeError::system("hand the filter to the seccomp agent", errno)),
            }
        }
        Ok(())
    }
}
