//! Places where the crash suite kills the engine: before and after every effect.

/// All of them, in the order in which an engine's and a container's life meet them: `dozen daemon --failpoints` prints
/// the list to the crash suite, so that none is forgotten.
pub const FAILPOINTS: [&str; 42] = [
    // An engine begins.
    "recover.opened",
    "recover.collected",
    "recover.adopted",
    // A volume is made, then a container that has it.
    "volume.row",
    "volume.directory",
    "create.volumes",
    "create.begin",
    "create.directory",
    "create.row",
    // It starts. Every change of its phase is saved.
    "save.before",
    "save.after",
    "launch.before",
    "attach.before",
    "attach.after",
    "publish.before",
    "publish.held",
    "publish.after",
    "launch.network",
    "launch.files",
    "launch.spawned",
    "launch.created",
    "launch.prepared",
    "launch.watched",
    "launch.go",
    "launch.after",
    "announce.before",
    "announce.after",
    // It ends.
    "release.before",
    "unpublish.before",
    "unpublish.after",
    "unhold.after",
    "release.after",
    // It goes, and its volume after it.
    "erase.before",
    "erase.data",
    "erase.files",
    "erase.row",
    "erase.after",
    "remove_itself.before",
    "unvolume.before",
    "unvolume.row",
    "unvolume.after",
    // The keeper is replaced.
    "keeper.spawned",
];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is missing from the list");
    dozen_failpoint::reached("engine", name);
}
