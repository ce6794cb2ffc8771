//! Leaving the engine: the process that was spawned ends at once, its grandchild is the monitor.

use std::io;

/// Which process this is after [`detach`].
pub enum Side {
    /// The one that was spawned: ends at once, so that the engine can wait for it.
    Spawned,
    /// The one that lives on.
    Detached,
}

/// Forks twice with setsid(2) in between (daemon(7)): the monitor is in a session of its own, not its leader, and
/// nobody's child. Orphans of the container's become its children.
///
/// Must be called while the process has one thread.
pub fn detach() -> io::Result<Side> {
    if !fork()? {
        return Ok(Side::Spawned);
    }
    rustix::process::setsid()?;
    if !fork()? {
        // SAFETY: _exit(2) takes any number, runs nothing and does not return.
        unsafe { libc::_exit(0) };
    }
    rustix::process::chdir("/")?;
    // SAFETY: close_range(2) closes descriptors that nothing in this process owns: it has just begun.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    // With a handler rather than SIG_IGN, which the container's processes would inherit (signal(7): exec resets
    // handled signals, and keeps ignored ones). Only the container's end ends the monitor. SIGCHLD interrupts
    // epoll_wait(2), so that orphans are reaped.
    for signal in [
        libc::SIGCHLD,
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGPIPE,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
    ] {
        // SAFETY: an all-zero sigaction is valid, and the handler does nothing at all, which is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = do_nothing as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    // SAFETY: prctl(2) with this option takes a number.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1_usize, 0_usize, 0_usize, 0_usize) };
    Ok(Side::Detached)
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// True in the child.
fn fork() -> io::Result<bool> {
    // SAFETY: the process has one thread, so the child may go on with everything that the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid == 0),
    }
}

/// Gives memory that was needed for a while back to the kernel.
pub fn trim_memory() {
    // SAFETY: malloc_trim(3) touches only free memory.
    unsafe { libc::malloc_trim(0) };
}
