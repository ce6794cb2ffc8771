//! Leaving whoever started us: for processes of ours that outlive the engine.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::{Cgroup, sys};

/// What the list of processes calls them: executed from a descriptor, they would be called by its number.
pub const NAME: &str = "dozen";

/// Which process this is after [`detach`].
pub enum Side {
    /// The one that was spawned: ends at once, so that its parent can wait for it.
    Spawned,
    /// The one that lives on.
    Detached {
        /// It was born in the cgroup that was asked for, as far as that is of version 2.
        born_in_cgroup: bool,
    },
}

/// Gives this process its [`NAME`] in the list of processes (PR_SET_NAME of prctl(2)).
pub fn name() {
    // Without it all is well but for those who look.
    let _ = CString::new(NAME).map(|name| rustix::thread::set_name(&name));
}

/// Forks twice with setsid(2) in between (daemon(7)): the grandchild is in a session of its own, not its leader, and
/// nobody's child. Its directory is `/`, and it has no descriptor but the three standard ones.
///
/// The grandchild is born in version 2's half of the cgroup, if one is named and it can be: moving there later would
/// wait for a grace period of RCU, which is milliseconds (see `Cgroup::enter`).
///
/// Must be called while the process has one thread and owns no other descriptor.
///
/// # Errors
/// The system has no more processes.
pub fn detach(cgroup: Option<&str>) -> io::Result<Side> {
    if !fork()? {
        return Ok(Side::Spawned);
    }
    rustix::process::setsid()?;
    let birthplace = cgroup.and_then(|name| Cgroup::create_unified(name).ok()?.unified_directory().ok()?);
    let (in_child, born_in_cgroup) = match birthplace.map(fork_into) {
        Some(Ok(in_child)) => (in_child, true),
        // A kernel that cannot (5.6 and older), or a cgroup that will not have it: it moves later, or stays.
        _ => (fork()?, false),
    };
    if !in_child {
        // The middle process runs nothing that belongs to the others.
        // SAFETY: _exit(2) takes any number and does not return.
        unsafe { libc::_exit(0) };
    }
    name();
    rustix::process::chdir("/")?;
    // SAFETY: close_range(2) closes descriptors that nothing in this process owns: it has just begun.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    Ok(Side::Detached { born_in_cgroup })
}

/// [`fork`] into a cgroup of version 2.
fn fork_into(birthplace: OwnedFd) -> io::Result<bool> {
    // SAFETY: `detach` asks its callers for a process with one thread.
    let cloned = unsafe { sys::clone_process(0, Some(birthplace.as_fd())) }?;
    Ok(matches!(cloned, sys::Cloned::Child))
}

/// True in the child.
fn fork() -> io::Result<bool> {
    // SAFETY: the process has one thread, so the child may go on with everything that the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid == 0),
    }
}
