//! Places where the crash suite kills the engine: one before and one after every effect.
//!
//! `DOZEN_FAILPOINT=name` kills the process with SIGKILL at that place. The variable is read once.

use std::sync::OnceLock;

static ARMED: OnceLock<Option<String>> = OnceLock::new();

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    let armed = ARMED.get_or_init(|| std::env::var("DOZEN_FAILPOINT").ok());
    if armed.as_deref() == Some(name) {
        tracing::warn!(name, "failpoint reached");
        // Nothing is flushed or dropped on the way: that is the point.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
