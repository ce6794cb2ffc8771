//! What signals do to a monitor: nothing.

/// With a handler rather than SIG_IGN, which the container's processes would inherit (signal(7): exec resets handled
/// signals, and keeps ignored ones). Only the container's end ends the monitor.
const DEFIED: [libc::c_int; 9] = [
    // Interrupts epoll_wait(2), so that orphans are reaped.
    libc::SIGCHLD,
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
];

/// Lets no signal end this process, and has the container's orphans become its children.
pub fn prepare() {
    for signal in DEFIED {
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
}

extern "C" fn do_nothing(_: libc::c_int) {}
