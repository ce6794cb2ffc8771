//! Places where the crash suite kills the monitor: before and after every effect.

/// All of them, in the order of a monitor's life: `dozen daemon --failpoints` prints the list to the crash suite.
pub const FAILPOINTS: [&str; 35] = [
    // Up to the container that stands and waits.
    "begin",
    "detached",
    "asked",
    "locked",
    "settled",
    "log",
    "listening",
    "create.before",
    "create.after",
    "created.before",
    "created.after",
    // The go-ahead.
    "start.before",
    "start.after",
    "started.after",
    // What clients ask for.
    "exec.before",
    "exec.after",
    "signal.before",
    "signal.after",
    "resume.before",
    "resume.after",
    "log.change.before",
    "log.change.after",
    // The end.
    "ended",
    "rest_killed",
    "log.complete",
    "finish.before",
    "finish.after",
    "record.aside",
    "record.after",
    "socket.removed",
    "unlocked",
    "announced",
    // A start that failed.
    "undo.before",
    "undo.after",
    "undo.socket",
];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is missing from the list");
    dozen_failpoint::reached("monitor", name);
}
