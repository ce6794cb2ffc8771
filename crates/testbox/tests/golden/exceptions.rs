//! What is meant to be different, and why. Each row has to be needed: one that no answer needs any more fails the test.

use std::collections::BTreeSet;

/// A difference that is meant.
struct Exception {
    /// The version of the API; empty for every one.
    version: &'static str,
    /// How the step begins.
    step: &'static str,
    /// How the difference begins: a path, or `status`, `type`, `message`.
    line: &'static str,
    reason: &'static str,
}

const fn always(step: &'static str, line: &'static str, reason: &'static str) -> Exception {
    Exception { version: "", step, line, reason }
}

const fn before_1_42(step: &'static str, line: &'static str, reason: &'static str) -> Exception {
    Exception { version: "1.41", step, line, reason }
}

const fn in_1_45(step: &'static str, line: &'static str, reason: &'static str) -> Exception {
    Exception { version: "1.45", step, line, reason }
}

const AS_SENT: &str = "Docker repeats null or empty as the client has sent it; dozen keeps what was asked for, not how";
const MORE: &str = "dozen says more";
const NEWER: &str = "as the newest docker has it";
const STRICTER: &str = "what cannot be is refused at once";

const EXCEPTIONS: &[Exception] = &[
    // Inspected containers.
    always(
        "GET /containers/",
        "GraphDriver.Data",
        "a container's root is mounted nowhere on the host: there are no paths to show",
    ),
    always("GET /containers/", "HostConfig.Blkio", AS_SENT),
    always("GET /containers/", "HostConfig.Devices", AS_SENT),
    always("GET /containers/", "HostConfig.Dns", AS_SENT),
    always("GET /containers/", "HostConfig.PortBindings", AS_SENT),
    always("GET /containers/", "HostConfig.Ulimits", AS_SENT),
    always("GET /containers/", "HostConfig.MaskedPaths", "shown where they are not the usual ones"),
    always("GET /containers/", "HostConfig.ReadonlyPaths", "shown where they are not the usual ones"),
    before_1_42("GET /containers/plain/json (of one that was created)", "HostConfig.Runtime", MORE),
    in_1_45(
        "GET /containers/renamed/json",
        "NetworkSettings.Networks.bridge.DNSNames",
        "names mean nothing on the default network",
    ),
    always("GET /images/", "GraphDriver.Data", "an image is mounted nowhere on the host: there are no paths to show"),
    // Listed ones.
    always("GET /containers/json?all=1&size=1", "[].NetworkSettings.Networks.back.", MORE),
    always("GET /containers/json?all=1&size=1", "[].SizeRw", "0 is shown too"),
    always("GET /system/df", "Containers[].NetworkSettings.Networks.back.", MORE),
    always("GET /system/df", "Containers[].SizeRw", "0 is shown too"),
    always("GET /system/df", "Engine", MORE),
    // Figures.
    always(
        "GET /containers/plain/stats",
        "memory_stats.stats.",
        "what the host's kernel has: the recording's had another name for some",
    ),
    in_1_45("GET /containers/plain/stats?stream=0&one-shot=1", "id", MORE),
    in_1_45("GET /containers/plain/stats?stream=0&one-shot=1", "name", MORE),
    always("GET /containers/plain/changes", ": Docker's is null", "a list without changes is an empty one"),
    before_1_42("GET /containers/ends/logs", "type", "the type is always said"),
    before_1_42("GET /containers/renamed/logs", "type", "the type is always said"),
    // Images.
    before_1_42(
        "GET /images/made/json",
        "ContainerConfig.",
        "no image keeps the configuration of what it was made from",
    ),
    // The host.
    always("GET /info", "Runtimes.", "of other names"),
    always("GET /info", "RegistryConfig.IndexConfigs", "no registry is asked yet"),
    always("GET /info", "RegistryConfig.InsecureRegistryCIDRs", "no registry is asked yet"),
    in_1_45("GET /info", "RegistryConfig.Mirrors", "no registry is asked yet"),
    in_1_45("GET /info", "KernelMemoryTCP", "refused, as everywhere since version 2 of cgroups"),
    in_1_45("GET /info", "CDISpecDirs[]", "devices by name are built in"),
    always("GET /info", "OwnRegistry", MORE),
    always("GET /version", "Components[].Details.", "docker names the parts that it is made of; dozen is one"),
    // Networks and volumes.
    always("GET /networks", "[].Options.com.docker.network.", "the default bridge is made with the first container"),
    always(
        "GET /networks/bridge",
        "Options.com.docker.network.",
        "the default bridge is made with the first container",
    ),
    always("GET /networks/bridge", "IPAM.Config[]: ", "the default bridge is made with the first container"),
    before_1_42("GET /networks/bridge'", "IPAM.Config[].Gateway", MORE),
    before_1_42("GET /networks", "[].IPAM.Config[].Gateway", MORE),
    always("GET /networks", "[].IPAM.Options", AS_SENT),
    always("GET /networks/ba", "IPAM.Options", AS_SENT),
    always("GET /volumes", "Volumes[].Labels", AS_SENT),
    always("GET /volumes/bare", "Labels", AS_SENT),
    always("POST /volumes/create'", "Labels", AS_SENT),
    always("GET /system/df", "Volumes[].Labels", AS_SENT),
    in_1_45("GET /system/df", "Images[].RepoDigests", "a list without digests is an empty one"),
    before_1_42("GET /system/df", "BuildCache", "a list without caches is an empty one"),
    // What happened.
    before_1_42("GET /events (container die)", "[].Actor.Attributes.execDuration", MORE),
    // Errors: the words of 20.10 are those of no later version.
    before_1_42("", "message", NEWER),
    always("GET /containers/json?limit=x", "status", "the request is wrong, not the engine"),
    in_1_45("GET /containers/json?limit=x", "message", "the request is wrong, not the engine"),
    before_1_42("GET /containers/json?filters=nonsense", "status", "the request is wrong, not the engine"),
    before_1_42("POST /containers/create (no JSON)", "status", "the request is wrong, not the engine"),
    before_1_42("POST /networks/create (overlay)", "status", NEWER),
    before_1_42("POST /networks/create (no name)", "status", "the request is wrong, not the engine"),
    before_1_42("POST /images/busybox/tag?repo=X", "status", "the request is wrong, not the engine"),
    always(
        "POST /containers/create?name=refused (a relative target)",
        "status",
        "the request is wrong, not the engine",
    ),
    in_1_45("GET /containers/json?filters=nonsense", "message", MORE),
    in_1_45("POST /containers/create (no JSON)", "message", MORE),
    in_1_45(
        "POST /containers/missing/start",
        "message",
        "no other program stands between the engine and the container",
    ),
    in_1_45("POST /images/busybox/tag?repo=X", "message", NEWER),
    in_1_45("POST /networks/create (a subnet that overlaps)", "message", NEWER),
    in_1_45("POST /networks/create (no name)", "message", NEWER),
    in_1_45("POST /networks/nobody/connect", "message", "of two that are not there, the network is named"),
    in_1_45("DELETE /networks/back (while it is used)", "message", NEWER),
    in_1_45("POST /containers/create?name=%2Fa%2Fb (a bad name)", "message", "the name without its slash"),
    in_1_45("POST /volumes/create''", "message", "the rule that it breaks as well"),
    always("POST /containers/create?name=refused (a port that is none)", "", STRICTER),
];

/// The number of the exception that a difference is.
pub fn reason(version: &str, step: &str, line: &str) -> Option<usize> {
    EXCEPTIONS.iter().position(|exception| {
        applies(exception, version) && step.starts_with(exception.step) && line.starts_with(exception.line)
    })
}

/// Those of a version that were not needed.
pub fn unused<'a>(version: &'a str, used: &'a BTreeSet<usize>) -> impl Iterator<Item = String> + 'a {
    let is_unused =
        move |(number, exception): &(usize, &Exception)| applies(exception, version) && !used.contains(number);
    let show = |exception: &Exception| format!("{} {} ({})", exception.step, exception.line, exception.reason);
    EXCEPTIONS.iter().enumerate().filter(is_unused).map(move |(_, exception)| show(exception))
}

fn applies(exception: &Exception, version: &str) -> bool {
    exception.version.is_empty() || exception.version == version
}
