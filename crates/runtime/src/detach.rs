//! Leaving whoever started us: for processes of ours that outlive the engine.

use std::io;

/// Which process this is after [`detach`].
pub enum Side {
    /// The one that was spawned: ends at once, so that its parent can wait for it.
    Spawned,
    /// The one that lives on.
    Detached,
}

/// Forks twice with setsid(2) in between (daemon(7)): the grandchild is in a session of its own, not its leader, and
/// nobody's child. Its directory is `/`, and it has no descriptor but the three standard ones.
///
/// Must be called while the process has one thread and owns no other descriptor.
///
/// # Errors
/// The system has no more processes.
pub fn detach() -> io::Result<Side> {
    if !fork()? {
        return Ok(Side::Spawned);
    }
    rustix::process::setsid()?;
    if !fork()? {
        // The middle process runs nothing that belongs to the others.
        // SAFETY: _exit(2) takes any number and does not return.
        unsafe { libc::_exit(0) };
    }
    rustix::process::chdir("/")?;
    // SAFETY: close_range(2) closes descriptors that nothing in this process owns: it has just begun.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    Ok(Side::Detached)
}

/// True in the child.
fn fork() -> io::Result<bool> {
    // SAFETY: the process has one thread, so the child may go on with everything that the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid == 0),
    }
}
