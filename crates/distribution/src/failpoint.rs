//! Places where a test kills the server: after every effect.

/// All of them, in the order of an upload's life: `dozen registry serve --failpoints` prints the list.
pub const FAILPOINTS: [&str; 17] = [
    "upload.made",
    "upload.recorded",
    "upload.appended",
    "blob.synced",
    "blob.placed",
    "blob.recorded",
    "manifest.recorded",
    "manifest.deleted",
    "blob.deleted",
    "collect.rows",
    "collect.files",
    "retention.applied",
    "scrub.set_aside",
    "scrub.noted",
    "journal.opened",
    "journal.put",
    "journal.snapshot",
];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is missing from the list");
    dozen_failpoint::reached("registry", name);
}
