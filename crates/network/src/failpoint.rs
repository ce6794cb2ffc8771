//! Places where the crash suite kills the engine inside the network's own work: between any two steps that the kernel
//! keeps.

/// All of them, in the order of a network's life: `dozen daemon --failpoints` prints the list to the crash suite. They
/// are the engine's, in whose process they stand.
pub const FAILPOINTS: [&str; 29] = [
    // The bridge is made or adopted.
    "network.open.bridge",
    "network.open.addresses",
    "network.open.table",
    "network.open.forwarding",
    "network.open.settings",
    // What an earlier engine left goes.
    "network.retain.ports",
    "network.retain.links",
    // A container gets its link and its ports.
    "network.attach.link",
    "network.attach.addresses",
    "network.publish.elements",
    "network.publish.flows",
    "network.unpublish.elements",
    "network.unpublish.flows",
    // Somebody has deleted the table.
    "network.mend.before",
    "network.mend.table",
    // All of it goes.
    "network.teardown.forwarding",
    "network.teardown.table",
    "network.teardown.links",
    // A network more is opened beside others, and removed.
    "network.more.elements",
    "network.remove.elements",
    "network.remove.bridge",
    "network.retain.bridges",
    "network.retain.elements",
    // A running container comes to one more network.
    "network.plug.link",
    "network.plug.routes",
    // Somebody has other people's chains opened for it, or closed again.
    "network.others.rules",
    // A network lies on an interface of the host's, or on one that is made for it.
    "network.parent.ready",
    "network.attach.child",
    "network.parent.removed",
];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is missing from the list");
    dozen_failpoint::reached("engine", name);
}
