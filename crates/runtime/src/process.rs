//! A child of ours, from the outside: what it says over the connection to it, and its end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use dozen_model::ErrorKind;
use rustix::io::Errno;
use rustix::process::{Signal, WaitIdOptions};

use crate::agent::Agent;
use crate::error::{Context, RuntimeError};
use crate::message::{self, Message};

/// A child of ours, by number and by descriptor.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Process {
    /// Waits for Ready; after a failure the process is reaped.
    pub(crate) fn wait_until_ready(&self, socket: &OwnedFd) -> Result<Option<OwnedFd>, RuntimeError> {
        let error = match message::receive(socket) {
            Ok(Some((Message::Ready, terminal))) => return Ok(terminal),
            Ok(answer) => Self::failure(answer.map(|(message, _)| message)),
            Err(error) => error,
        };
        self.kill();
        Err(error)
    }

    /// For an usher: the process that it brings in. The usher itself is reaped, whatever it says.
    pub(crate) fn sibling(&self, socket: &OwnedFd) -> Result<Process, RuntimeError> {
        let answer = message::receive(socket);
        self.kill();
        match answer? {
            Some((Message::Sibling { pid }, Some(pidfd))) => Ok(Process { pid, pidfd }),
            answer => Err(Self::failure(answer.map(|(message, _)| message))),
        }
    }

    /// For an usher that is not wanted any more: it goes, and so does whom it has brought in.
    pub(crate) fn kill_usher(&self, socket: &OwnedFd) {
        self.kill();
        // Who waits for a word of ours sees the end of the connection, and ends it too.
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
        if let Ok(Some((Message::Sibling { pid }, Some(pidfd)))) = message::receive(socket) {
            Process { pid, pidfd }.kill();
        }
    }

    /// Says Start and waits for execve(2), which closes the connection.
    pub(crate) fn execute(&self, socket: &OwnedFd, agent: Option<Agent>) -> Result<(), RuntimeError> {
        start_over(socket, agent).inspect_err(|_| self.kill())
    }

    pub(crate) fn failure(answer: Option<Message>) -> RuntimeError {
        match answer {
            Some(Message::Failed { kind, message }) => RuntimeError::Inside { kind, message },
            _ => RuntimeError::Inside {
                kind: ErrorKind::Internal,
                message: "the container's first process died while it was set up".to_owned(),
            },
        }
    }

    /// Kills and reaps it.
    pub(crate) fn kill(&self) {
        // One that has ended already, or was reaped by the caller, is what is wanted.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// A process that is stopped from inside never answers: it must not stop us.
pub(crate) fn set_patience(socket: &OwnedFd) -> Result<(), RuntimeError> {
    /// How long a process may take between two words while it comes into the container.
    const PATIENCE: Duration = Duration::from_secs(10);
    rustix::net::sockopt::set_socket_timeout(socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))
        .context(|| "set a timeout".to_owned())
}

/// Start, and what comes of it.
pub(crate) fn start_over(socket: impl AsFd, agent: Option<Agent>) -> Result<(), RuntimeError> {
    say_start(&socket)?;
    hear_out(socket, agent)
}

/// What comes of a Start that was said to a listening socket: only one who was heard has started it.
pub(crate) fn hear_out_heard(socket: impl AsFd, agent: Option<Agent>) -> Result<(), RuntimeError> {
    match message::receive(&socket)? {
        Some((Message::Heard, _)) => hear_out(socket, agent),
        Some((Message::Failed { kind, message }, _)) => Err(RuntimeError::Inside { kind, message }),
        Some(_) => Err(out_of_turn()),
        None => Err(RuntimeError::Conflict(
            "the container's first process has died, or another was first to start it".to_owned(),
        )),
    }
}

pub(crate) fn say_start(socket: impl AsFd) -> Result<(), RuntimeError> {
    message::send(socket.as_fd(), &Message::Start, None).map_err(|errno| match errno {
        Errno::PIPE | Errno::CONNRESET => RuntimeError::Conflict("the container's first process has died".to_owned()),
        errno => RuntimeError::system("tell the container to start", errno),
    })
}

/// Until execve(2) or a failure. With an agent the process's filter asks, and that is what the agent gets.
fn hear_out(socket: impl AsFd, mut agent: Option<Agent>) -> Result<(), RuntimeError> {
    loop {
        match (message::receive(&socket)?, agent.take()) {
            (None, _) => return Ok(()),
            (Some((Message::Failed { kind, message }, _)), _) => return Err(RuntimeError::Inside { kind, message }),
            (Some((Message::Notifications, Some(notifications))), Some(agent)) => agent.hand_over(notifications)?,
            _ => return Err(out_of_turn()),
        }
    }
}

fn out_of_turn() -> RuntimeError {
    RuntimeError::Invalid("the container's first process spoke out of turn".to_owned())
}

/// The connection between parent and child. Both ends above the standard streams' numbers.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd), RuntimeError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let context = || "make a pair of sockets".to_owned();
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(context)?;
    let raise = |socket: OwnedFd| rustix::io::fcntl_dupfd_cloexec(socket, 3).context(context);
    Ok((raise(ours)?, raise(theirs)?))
}
