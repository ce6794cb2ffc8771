//! The last steps of every process: the word to start, seccomp, execve(2).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::prepare::{Prepared, needs_right_to_be_confined};
use super::{Surroundings, exit};
use crate::error::{Context, RuntimeError, words};
use crate::message::{self, Message};
use crate::plan::ProcessPlan;
use crate::{capability, init, sys};

/// Tells the parent, waits for the word, and executes. `before_execution` is done last, confined as the
/// program will be, and given its environment.
pub(super) fn finish(
    plan: &ProcessPlan,
    surroundings: &mut Surroundings,
    prepared: Result<(Prepared, Option<OwnedFd>), RuntimeError>,
    before_execution: impl FnOnce(&[CString]) -> Result<(), RuntimeError>,
) -> ! {
    let result = prepared.and_then(|(prepared, master)| {
        let told = message::send(surroundings.socket.as_fd(), &Message::Ready, master.as_ref().map(AsFd::as_fd));
        drop(master);
        told.context(|| "tell that the container is ready".to_owned())?;
        let listener = surroundings.listener.take();
        if let Some(listener) = &listener {
            let flags = rustix::net::SocketFlags::CLOEXEC;
            surroundings.socket =
                rustix::net::accept_with(listener, flags).context(|| "wait for the start".to_owned())?;
        }
        match message::receive(&surroundings.socket)? {
            Some((Message::Start, _)) => {
                // Who has said it may have been killed since, and meant it.
                let _ = listener.map_or(Ok(()), |_| message::send(surroundings.socket.as_fd(), &Message::Heard, None));
                execute(plan, surroundings, prepared, before_execution)
            }
            // The parent has gone, or wants us gone.
            _ => exit(),
        }
    });
    let Err(error) = result;
    // If even this fails, the parent sees the end of the connection.
    let _ = message::send(surroundings.socket.as_fd(), &Message::failed(&error), None);
    exit()
}

/// The point of no return.
fn execute(
    plan: &ProcessPlan,
    surroundings: &Surroundings,
    prepared: Prepared,
    before_execution: impl FnOnce(&[CString]) -> Result<(), RuntimeError>,
) -> Result<std::convert::Infallible, RuntimeError> {
    if !prepared.is_brought_in {
        surroundings.mark_descriptors()?;
    }
    if !prepared.confined {
        confine(plan, &prepared, Some(surroundings.socket.as_fd()))?;
    }
    let Prepared { program, mut environment, .. } = prepared;
    if surroundings.listens {
        // Only now it is known by which number the process sees itself.
        let pid = rustix::process::getpid().as_raw_pid();
        environment.extend(CString::new(format!("LISTEN_PID={pid}")).ok());
    }
    before_execution(&environment)?;
    let errno = match &surroundings.init {
        Some(binary) => sys::execute_descriptor(binary, &init::arguments(program, &plan.arguments), &environment),
        None => sys::execve(&program, &plan.arguments, &environment),
    };
    let text = plan.arguments[0].to_string_lossy();
    Err(RuntimeError::Invalid(format!("exec: {text:?}: {}", words(&errno.into()))))
}

/// seccomp, and the last capabilities where those were needed for it. By `socket` the parent gets the descriptor of a
/// filter that asks.
pub(super) fn confine(
    plan: &ProcessPlan,
    prepared: &Prepared,
    socket: Option<BorrowedFd<'_>>,
) -> Result<(), RuntimeError> {
    let capabilities = &prepared.capabilities;
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, which was kept for this and is given away right after.
    if needs_right_to_be_confined(plan) {
        let kept = prepared.kept_capabilities;
        sys::capset(kept, kept, capabilities.inheritable).context(|| "raise capabilities".to_owned())?;
        install(plan, socket)?;
        return capability::set(capabilities).context(|| "set capabilities".to_owned());
    }
    install(plan, socket)
}

fn install(plan: &ProcessPlan, socket: Option<BorrowedFd<'_>>) -> Result<(), RuntimeError> {
    let Some(filter) = &plan.filter else { return Ok(()) };
    let notifications =
        sys::install_filter(&filter.program, filter.flags).context(|| "install the seccomp filter".to_owned())?;
    match (notifications, socket) {
        // Whatever is asked after this waits for the answer.
        (Some(notifications), Some(socket)) => {
            message::send(socket, &Message::Notifications, Some(notifications.as_fd()))
                .context(|| "tell of the seccomp filter".to_owned())
        }
        _ => Ok(()),
    }
}
