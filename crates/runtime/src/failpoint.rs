//! Places where tests kill who makes a container: before and after every effect.

/// Those that a monitor comes to, in the order of a container's life: `dozen daemon --failpoints` prints the list to
/// the crash suite. At those of `child` and `usher` it is the new process that dies, and only as long as it still
/// sees the host's files.
pub const FAILPOINTS: [&str; 19] = [
    "create.cgroup",
    "create.cloned",
    "create.version_1",
    "create.grouped",
    "create.limited",
    "create.ready",
    "child.begun",
    "child.rooted",
    "child.grouped",
    "child.furnished",
    // It cannot be created after all.
    "failed.before",
    "failed.killed",
    "failed.deleted",
    // Nobody wants it started.
    "undo.killed",
    "undo.deleted",
    // A further process.
    "usher.begun",
    "usher.grouped",
    "exec.cloned",
    "exec.brought_in",
];

/// Those of containers with a user namespace, and with network devices of the host's.
pub const THRESHOLD_FAILPOINTS: [&str; 2] = ["create.mapped", "create.devices_moved"];

/// Those of containers that join a mount namespace.
pub const JOIN_FAILPOINTS: [&str; 1] = ["child.joined"];

/// Those of `dozen runtime create`, `start` and `delete`, beside the ones that creating a container has anyway.
pub const COMMAND_FAILPOINTS: [&str; 13] = [
    "command.create.directory",
    "command.create.record",
    "command.create.cgroup",
    "command.create.created",
    "command.create.process",
    "command.create.pid_file",
    "command.start.record",
    "command.start.said",
    "command.start.told",
    "command.start.served",
    "command.delete.killed",
    "command.delete.cgroup",
    "command.delete.directory",
];

/// Those of containers with hooks.
pub const HOOK_FAILPOINTS: [&str; 5] =
    ["hooks.furnished", "hooks.hooked", "hooks.started", "hooks.poststarted", "hooks.poststop"];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    let lists = [&FAILPOINTS[..], &COMMAND_FAILPOINTS, &HOOK_FAILPOINTS, &THRESHOLD_FAILPOINTS];
    debug_assert!(lists.iter().any(|list| list.contains(&name)), "{name} is missing from the list");
    dozen_failpoint::reached("runtime", name);
}

/// The same for a cloned process: it may be process 1 of a pid namespace, which no signal of its own kills.
pub(crate) fn failpoint_of_child(name: &str) {
    debug_assert!(FAILPOINTS.contains(&name) || JOIN_FAILPOINTS.contains(&name), "{name} is missing from the list");
    if dozen_failpoint::disarmed("runtime", name) {
        // SAFETY: ends the process at once, without a word, as a kill would.
        unsafe { libc::_exit(libc::SIGKILL + 128) }
    }
}
