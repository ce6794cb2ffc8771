//! Places where the crash suite kills the engine: before and after every effect.
//!
//! `DOZEN_FAILPOINT=name` kills the process with SIGKILL at that place. The variable is read once, so that a
//! failpoint that is not armed costs one comparison.

use std::sync::OnceLock;

/// All of them, in the order in which a container's life meets them: `dozen daemon --failpoints` prints the list to
/// the crash suite, so that none is forgotten.
pub const FAILPOINTS: [&str; 22] = [
    "create.begin",
    "create.directory",
    "create.row",
    "save.before",
    "save.after",
    "launch.before",
    "launch.network",
    "launch.files",
    "launch.spawned",
    "launch.created",
    "launch.prepared",
    "launch.go",
    "launch.after",
    "announce.before",
    "announce.after",
    "release.before",
    "release.after",
    "erase.before",
    "erase.files",
    "erase.row",
    "erase.after",
    "remove_itself.before",
];

static ARMED: OnceLock<Option<String>> = OnceLock::new();

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is missing from the list");
    let armed = ARMED.get_or_init(|| std::env::var("DOZEN_FAILPOINT").ok());
    if armed.as_deref() == Some(name) {
        // Nothing is flushed or dropped on the way: that is the point.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
