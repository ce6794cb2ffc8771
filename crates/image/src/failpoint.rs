//! Places where the crash suite kills the engine while it works on images: before and after every effect.

/// All of them, in the order of an image's life: `dozen daemon --failpoints` prints the list to the crash suite.
pub const FAILPOINTS: [&str; 36] = [
    "image.packed",
    "image.spooled",
    "image.unpacked",
    "image.layer_placed",
    "image.recipe_placed",
    "image.blob_placed",
    "image.configuration_placed",
    "image.carried_placed",
    "image.mended",
    "image.synced",
    "image.rows",
    "image.take.before",
    "image.take.after",
    "image.take.settled",
    "image.step.before",
    "image.step.rows",
    "image.steps.before",
    "image.steps.rows",
    "image.tag.before",
    "image.tag.after",
    "image.remove.before",
    "image.remove.rows",
    "image.remove.configurations",
    "image.targets.rows",
    "image.targets.files",
    "image.artifact.staged",
    "image.artifact.placed",
    "image.artifact.synced",
    "image.artifact.rows",
    "image.artifact.linked",
    "image.artifact.remove.before",
    "image.artifact.remove.rows",
    "image.collect.rows",
    "image.collect.files",
    "image.copied",
    "image.poured",
];

/// Of images on their way from and to registries: a test of their own kills an engine there.
pub const TRANSFER_FAILPOINTS: [&str; 3] = ["image.arrived", "image.packing.begun", "image.packing.ended"];

/// Dies here if this failpoint is armed.
pub(crate) fn failpoint(name: &str) {
    let is_known = FAILPOINTS.contains(&name) || TRANSFER_FAILPOINTS.contains(&name);
    debug_assert!(is_known, "{name} is missing from the list");
    dozen_failpoint::reached("engine", name);
}
