//! What parent and child say to each other, over one SOCK_SEQPACKET pair.
//!
//! ```text
//! parent                                             child (the container's process 1)
//!   │ plan, version 2's cgroup directory                │
//!   ├─ clone3(NEWPID|NEWNS|…|INTO_CGROUP|PIDFD) ───────▶│ lets go of all that is the parent's, mounts
//!   │ the other cgroups' directories, rules of devices  │
//!   ├─ Grouped ────────────────────────────────────────▶│ joins them, mounts the rest, pivots, changes
//!   │ limits                                            │ user, looks the program up
//!   │◀────────── Ready (+ the terminal's master) ───────┤ or Failed, and it exits
//!   │      … as long as the caller wishes …             │
//!   ├─ Start ──────────────────────────────────────────▶│ seccomp, capabilities, execve
//!   │◀──────────── end of file: execve closed it ───────┤ or Failed, and it exits
//! ```
//!
//! With hooks before pivot_root(2) the child says Furnished before it pivots, the parent runs its own of them and answers
//! Hooked, and the child runs its own.
//!
//! Between Start and the end of file the child of a filter that asks others says Notifications.
//!
//! A further process ([`crate::exec`]) comes into the container in two steps:
//!
//! ```text
//! parent                      usher (in our pid namespace, seen by nobody inside)     child (inside)
//!   ├─ clone3 ───────────────────▶│ lets go of all that is the parent's, joins the      │
//!   │                             │ container's cgroups and namespaces, changes user,   │
//!   │                             │ looks the program up, terminal, seccomp,            │
//!   │◀── Notifications, or none ──┤ capabilities                                        │
//!   │                             ├─ clone(CLONE_PARENT) ──────────────────────────────▶│ waits
//!   │◀── Sibling (+ its pidfd) ───┤ exits
//!   ├─ Grouped ────────────────────────────────────────────────────────────────────────▶│ session, limits
//!   │◀─────────────────────────────────────────── Ready, and on as above ───────────────┤
//! ```
//!
//! So does the first process of a container that joins the pid namespace of another. Where a procfs can only show the
//! namespace of who mounts it (before Linux 6.17), the usher mounts all else and enters the root, and the rest is done
//! inside.
//!
//! And so does that of a container with a user or a time namespace, with one step more:
//!
//! ```text
//! parent                      usher                                                   child (process 1)
//!   ├─ clone3 ───────────────────▶│ lets go of all that is the parent's                 │
//!   ├─ Grouped ──────────────────▶│ joins cgroups and namespaces, unshares user, time   │
//!   │◀── Unshared ────────────────┤                                                     │
//!   │ id maps, offsets of clocks  │                                                     │
//!   ├─ Grouped (+ an overlay) ───▶│ becomes the namespace's root                        │
//!   │                             ├─ clone(CLONE_PARENT|NEWPID|NEWNS|…) ───────────────▶│ waits
//!   │◀── Sibling (+ its pidfd) ───┤ exits
//!   ├─ Grouped ────────────────────────────────────────────────────────────────────────▶│ mounts, and on as above
//! ```
//!
//! With the command line, `create` and `start` are two processes: the child then waits for Start on a
//! connection to a listening socket that it was given ([`crate::create`]), and answers Heard: the end of a connection that
//! nobody has heard, since another was first, is no start.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dozen_model::ErrorKind;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::error::{Context, RuntimeError};

/// One message, one packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Child: all is set up.
    Ready,
    /// Parent: all cgroups are there to be joined; who was brought in may go on.
    Grouped,
    /// Usher: its user and time namespaces are to be mapped and set.
    Unshared,
    /// Usher: the process that it has brought in, by number; its pidfd comes along.
    Sibling {
        /// In the parent's pid namespace.
        pid: i32,
    },
    /// Child: its mounts are done; hooks may look at them.
    Furnished,
    /// Parent: its hooks have been run.
    Hooked,
    /// Parent: execute.
    Start,
    /// Child: Start came from who has connected to its socket, and it is this one that was heard.
    Heard,
    /// Child: its filter is in force, and asks by the descriptor that comes along.
    Notifications,
    /// Child: this failed, and I am gone.
    Failed {
        /// What kind of failure.
        kind: ErrorKind,
        /// The whole story in one line.
        message: String,
    },
}

/// A longer message is cut: the other side's buffer.
const LIMIT: usize = 8192;

/// Sends one message, with a descriptor if there is one to send.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// What is told of a process that does not come on: who is inside may send it signals.
const SILENT: &str = "the process that enters the container has not answered for 10 s; \
                      something in the container may have stopped it";

/// Receives one message; `None` is the end.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<(Message, Option<OwnedFd>)>, RuntimeError> {
    let mut bytes = [0; LIMIT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            // The other side died with a message of ours unread, which is told once and before its last words.
            Err(Errno::INTR | Errno::CONNRESET) => continue,
            // The patience that `set_patience` gives it is at its end.
            Err(Errno::AGAIN) => return Err(RuntimeError::Conflict(SILENT.to_owned())),
            result => break result.context(|| "hear from the process that enters the container".to_owned())?.bytes,
        }
    };
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if length == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&bytes[..length])
        .map_err(|_| RuntimeError::Invalid("the container's first process sent what is no message".to_owned()))?;
    Ok(Some((message, descriptor)))
}

impl Message {
    /// A failure as a message, short enough for one packet.
    pub(crate) fn failed(error: &RuntimeError) -> Self {
        use dozen_model::Classified;
        // A character takes at most six bytes in JSON (`\u0001`), and what is around them far less than the rest.
        let message = error.to_string().chars().take((LIMIT - 200) / 6).collect();
        Self::Failed { kind: error.kind(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_fits_one_packet() {
        for character in ["a", "\u{1}", "\"", "\\", "\u{7f}", "\u{2028}", "\u{10ffff}"] {
            let (ours, theirs) = crate::process::socket_pair().unwrap();
            let message = Message::failed(&RuntimeError::Invalid(character.repeat(10_000)));
            send(ours.as_fd(), &message, None).unwrap();
            let Message::Failed { message: text, .. } = &message else { panic!("{message:?}") };
            assert!(text.chars().count() > 1300);
            assert_eq!(receive(&theirs).unwrap().unwrap().0, message, "{character:?}");
        }
    }
}
