//! The child of a clone, from its first instruction to execve(2). Whatever fails is told to the parent.
//!
//! `first`, with `threshold`, and `usher` are the two kinds of it; `prepare`, with `limits` and `program`, `sight` and
//! `finish` are steps that both take.

mod finish;
mod first;
mod limits;
mod prepare;
mod program;
mod sight;
mod threshold;
mod usher;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub(crate) use self::first::{FirstProcess, is_own_network};
pub(crate) use self::sight::Confinement;
pub(crate) use self::usher::Usher;
use crate::create::Stdio;
use crate::error::{Context, RuntimeError};
use crate::exec::not_running;
use crate::message::{self, Message};
use crate::mounts::is_procfs;
use crate::plan::ProcessPlan;
use crate::{sys, terminal};

/// What a new process is given to speak and to see with.
pub(crate) struct Surroundings {
    /// To the parent.
    pub(crate) socket: OwnedFd,
    /// Where Start comes from, if not from the parent: a listening socket.
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) stdio: Stdio,
    /// Our own binary, if it is to be process 1.
    pub(crate) init: Option<OwnedFd>,
    /// Descriptors 3 and up to hand on.
    pub(crate) preserve_descriptors: u32,
    /// The first of these are sockets for it to listen on: it is told that it is meant (sd_listen_fds(3), `$LISTEN_PID`).
    pub(crate) listens: bool,
    /// The starter's session keyring goes on to be the process's.
    pub(crate) keep_session_keyring: bool,
}

/// The usher clones its sibling, tells the parent of it, and is gone: only the sibling returns. `namespaces`: CLONE_NEW*
/// of those that begin with it.
fn bring_in(surroundings: &Surroundings, ready: Result<(), RuntimeError>, namespaces: u64) {
    let cloned = ready.and_then(|()| {
        // SAFETY: the usher was cloned from a process with one thread and has started none.
        unsafe { sys::clone_sibling(namespaces) }.map_err(|errno| match namespaces {
            0 => gone_or(errno, "clone a process into the container"),
            _ => RuntimeError::system("clone the container's first process", errno),
        })
    });
    let told = match cloned {
        Ok(sys::Cloned::Child) => return,
        Ok(sys::Cloned::Parent { pid, pidfd }) => (Message::Sibling { pid }, Some(pidfd)),
        Err(error) => (Message::failed(&error), None),
    };
    // If even this fails, the parent sees the end of the connection.
    let _ = message::send(surroundings.socket.as_fd(), &told.0, told.1.as_ref().map(AsFd::as_fd));
    exit()
}

/// What the kernel says of a pid namespace, or a process 1, that has ended; or else what failed.
fn gone_or(errno: Errno, action: &str) -> RuntimeError {
    match errno {
        Errno::SRCH | Errno::NOMEM | Errno::INVAL => not_running(),
        errno => RuntimeError::system(action, errno),
    }
}

/// The process that was brought in waits until its parent knows it.
fn await_introduction(surroundings: &Surroundings) -> Result<(), RuntimeError> {
    // A session of its own again, for its terminal: the usher's was left with the usher.
    rustix::process::setsid().context(|| "begin a session".to_owned())?;
    match message::receive(&surroundings.socket)? {
        Some((Message::Grouped, _)) => Ok(()),
        // The parent has gone, or wants us gone.
        _ => exit(),
    }
}

/// The very first: no descriptor, signal or session of the parent's is left.
fn begin(surroundings: &Surroundings, kept: &[RawFd]) -> Result<(), RuntimeError> {
    sys::reset_signals();
    rustix::process::setsid().context(|| "begin a session".to_owned())?;
    if let Stdio::Streams(streams) = &surroundings.stdio {
        for (wanted, stream) in (0..).zip(streams) {
            sys::duplicate_onto(stream.as_raw_fd(), wanted).context(|| "set up the standard streams".to_owned())?;
        }
    }
    surroundings.close_all_else(kept).context(|| "close inherited descriptors".to_owned())?;
    if surroundings.keep_session_keyring {
        return Ok(());
    }
    // Without this, kernel keys of whoever started us could be read (keyrings(7)). It has no name: whoever in another
    // container has made one of that name before would have it joined, and read what is kept in it.
    match sys::join_new_session_keyring() {
        Err(Errno::NOSYS) => Ok(()),
        result => result.context(|| "join a new session keyring".to_owned()),
    }
}

impl Surroundings {
    /// All that is not the program's is closed by its execve(2).
    fn mark_descriptors(&self) -> Result<(), RuntimeError> {
        sys::close_range(self.preserve_descriptors.saturating_add(3), u32::MAX, true)
            .context(|| "mark descriptors to be closed".to_owned())
    }

    /// Closes every descriptor but these and the standard streams.
    fn close_all_else(&self, kept: &[RawFd]) -> Result<(), Errno> {
        let mut kept: Vec<RawFd> = kept.to_vec();
        kept.push(self.socket.as_raw_fd());
        kept.extend(self.listener.iter().chain(&self.init).map(AsRawFd::as_raw_fd));
        kept.sort_unstable();
        let mut next = self.preserve_descriptors.saturating_add(3);
        for descriptor in kept.into_iter().map(|descriptor| descriptor as u32) {
            if next < descriptor {
                sys::close_range(next, descriptor - 1, false)?;
            }
            next = next.max(descriptor + 1);
        }
        sys::close_range(next, u32::MAX, false)
    }
}

/// Written through the host's procfs, before the container's is there.
fn adjust_oom_score(plan: &ProcessPlan) -> Result<(), RuntimeError> {
    let Some(wanted) = plan.oom_score_adjustment else { return Ok(()) };
    let context = || format!("set oom_score_adj to {wanted}");
    let file = rustix::fs::open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .context(context)?;
    if !is_procfs(&file) {
        return Err(RuntimeError::Invalid("/proc is not a procfs".to_owned()));
    }
    match rustix::io::write(&file, wanted.to_string().as_bytes()) {
        // Below what we have ourselves needs CAP_SYS_RESOURCE. Docker carries on in a user namespace, and so do we
        // wherever it is missing: the process is merely not better protected than its starter.
        Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        result => result.map(drop).context(context),
    }
}

/// The terminal becomes the standard streams.
fn take_terminal(terminal: &OwnedFd) -> Result<(), RuntimeError> {
    (0..3).try_for_each(|wanted| {
        sys::duplicate_onto(terminal.as_raw_fd(), wanted).context(|| "set up the terminal".to_owned())
    })
}

/// And the session's own, once that has begun.
fn control_terminal(stdio: &Stdio) -> Result<(), RuntimeError> {
    match stdio {
        Stdio::Terminal { .. } => terminal::control(rustix::stdio::stdin()),
        Stdio::Streams(_) => Ok(()),
    }
    .context(|| "take control of the terminal".to_owned())
}

pub(crate) fn exit() -> ! {
    // SAFETY: ends the process at once; what it holds is the kernel's to clean up.
    unsafe { libc::_exit(1) }
}
