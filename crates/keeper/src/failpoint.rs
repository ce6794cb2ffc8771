//! Places where the crash suite kills the keeper: before and after every effect.

/// All of them, in the order of a keeper's life: `dozen daemon --failpoints` prints the list to the crash suite.
pub const FAILPOINTS: [&str; 34] = [
    // Up to the word that it is ready.
    "begin",
    "begin.detached",
    "begin.settled",
    "begin.locked",
    "begin.listening",
    "begin.loaded",
    "begin.ready",
    // The API's socket.
    "listener.before",
    "listener.after",
    "adopt.before",
    "adopt.after",
    // Ports.
    "reload.before",
    "reload.closed",
    "reload.opened",
    "reload.answered",
    // A connection to [::1].
    "forward.accepted",
    "forward.begun",
    // A datagram to it.
    "datagram.begun",
    // It becomes another program.
    "upgrade.before",
    "upgrade.handed",
    "upgrade.taken",
    "upgrade.answered",
    // Its end.
    "shutdown.before",
    "shutdown.listeners",
    "shutdown.ports",
    "shutdown.answered",
    // Names.
    "names.before",
    "names.closed",
    "names.listening",
    "names.translated",
    "names.opened",
    "names.answered",
    "names.forwarding",
    "names.ended",
];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is missing from the list");
    dozen_failpoint::reached("keeper", name);
}
