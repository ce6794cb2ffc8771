//! What signals do to a keeper: nothing. Whoever stops the engine's process group does not stop it, only Shutdown does.

/// Lets no signal that is sent to groups end this process.
pub fn ignore() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: ignoring a signal installs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
