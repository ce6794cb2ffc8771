//! Places where the crash suite kills the engine: before and after every effect.

/// All of them, in the order in which an engine's and a container's life meet them: `dozen daemon --failpoints` prints
/// the list to the crash suite, so that none is forgotten.
pub const FAILPOINTS: &[&str] = &[
    // An engine begins.
    "recover.opened",
    "recover.collected",
    "recover.adopted",
    // A volume is made, then a container that has it.
    "volume.directory",
    "volume.row",
    "volume.prepared",
    "volume.filling",
    "volume.copied",
    "volume.filled",
    "volume.poured",
    "create.volumes",
    "create.begin",
    "create.directory",
    "create.artifact",
    "create.row",
    // It starts.
    "save.starting.before",
    "save.starting.after",
    "launch.before",
    "launch.spawned",
    "volume_mount.before",
    "volume_mount.after",
    "launch.volumes",
    "attach.before",
    "attach.after",
    "publish.before",
    "publish.held",
    "publish.after",
    "launch.network",
    "launch.files",
    "launch.asked",
    "launch.created",
    "save.prepared.before",
    "save.prepared.after",
    "launch.watched",
    "launch.go",
    "save.running.before",
    "save.running.after",
    "announce.start.before",
    "announce.start.after",
    "launch.after",
    // Or it fails to.
    "save.failed.before",
    "save.failed.after",
    // It is committed while it runs.
    "hold.granted",
    "hold.still",
    "hold.over",
    // It is given other limits while it runs.
    "change.before",
    "change.row",
    "change.carried",
    "change.after",
    // It is told to end.
    "save.wish.before",
    "save.wish.after",
    "end.before",
    "end.signalled",
    "end.grace_over",
    // It ends.
    "save.exited.before",
    "save.exited.after",
    "release.before",
    "unpublish.before",
    "unpublish.after",
    "unhold.after",
    "volume_unmount.before",
    "volume_unmount.after",
    "release.after",
    "announce.die.before",
    "announce.die.after",
    "announce.stop.before",
    "announce.stop.after",
    "start_again.before",
    "announce.restart.before",
    "announce.restart.after",
    "remove_itself.before",
    "rename.before",
    "rename.row",
    // It goes, and its volume after it.
    "save.removing.before",
    "save.removing.after",
    "erase.before",
    "erase.row",
    "erase.files",
    "erase.after",
    "announce.destroy.before",
    "announce.destroy.after",
    "unvolume.before",
    "unvolume.row",
    "unvolume.after",
    // It is killed, and its monitor does not answer.
    "rescue.before",
    "rescue.killed",
    "rescue.recorded",
    "rescue.after",
    // The keeper is replaced.
    "keeper.spawned",
    "keeper.upgraded",
    "keeper.settled",
    "keeper.hangs",
    "keeper.killed",
    // Nothing runs, and the engine is told to end.
    "retire.before",
    "retire.torn_down",
    "retire.after",
    // It starts again by itself.
    "save.waiting.before",
    "save.waiting.after",
    "restart.due",
    // It is paused, and goes on.
    "save.paused.before",
    "save.paused.after",
    "freeze.before",
    "freeze.after",
    "announce.pause.before",
    "announce.pause.after",
    "thaw.before",
    "thaw.after",
    "announce.unpause.before",
    "announce.unpause.after",
    // Its memory runs out.
    "announce.oom.before",
    "announce.oom.after",
    // Something is copied out of it or into it.
    "view.mounted",
    "archive.extracted",
    // A network is made, and removed.
    "network_create.before",
    "network_create.row",
    "network_remove.before",
    "network_remove.row",
    "network_remove.after",
    // A running container is connected to one, and disconnected.
    "connect.before",
    "connect.linked",
    "connect.row",
    "connect.published",
    "disconnect.before",
    "disconnect.row",
    "disconnect.unlinked",
    "disconnect.after",
    // Its neighbours find it by name, and no longer.
    "name.before",
    "name.after",
    "forget_name.after",
    // Its health is checked.
    "health.checked",
    "health.saved",
    // Other people's firewalls are opened for containers.
    "open_firewall.fact",
    "open_firewall.after",
    // A build: a step runs, its layer and a cache mount are made, and the image in the end.
    "build.site.made",
    "build.context",
    "build.site.directory",
    "build.site.secret",
    "build.run.before",
    "build.run.created",
    "build.run.packed",
    "build.step.done",
    "build.cache.before",
    "build.cache.row",
    "build.cache.filled",
    "build.cache.made",
    "build.image.before",
    "build.image.after",
    "build.site.clear",
    "build.site.cleared",
    // What goes when the disk fills up, one after the other.
    "collection.planned",
    "collection.removed",
];

/// Of snapshots of volumes, which need a file system that shares blocks: a test of their own is killed there.
pub const SNAPSHOT_FAILPOINTS: &[&str] = &[
    "snapshot.begun",
    "snapshot.copied",
    "snapshot.placed",
    "snapshot.row",
    "unsnapshot.row",
    "unsnapshot.after",
    "restore.copied",
    "restore.exchanged",
    "restore.after",
];

/// Of removing from the build cache and filling it: a test of its own kills an engine there.
pub const CACHE_FAILPOINTS: &[&str] = &[
    "cache_remove.before",
    "cache_remove.row",
    "cache_remove.after",
    "cache_import.filled",
    "cache_import.row",
    "cache_import.after",
];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    let is_known = [FAILPOINTS, SNAPSHOT_FAILPOINTS, CACHE_FAILPOINTS].iter().any(|list| list.contains(&name));
    debug_assert!(is_known, "{name} is missing from the list");
    dozen_failpoint::reached("engine", name);
}
