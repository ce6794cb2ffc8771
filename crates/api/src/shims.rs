//! What older API versions expect otherwise. Inside, only the newest version is spoken.

use serde_json::{Value, json};

use crate::convert::network_request::CreateNetwork;
use crate::edge::ApiVersion;

const V1_45: ApiVersion = ApiVersion { minor: 45 };
const V1_48: ApiVersion = ApiVersion { minor: 48 };
const V1_49: ApiVersion = ApiVersion { minor: 49 };
const V1_50: ApiVersion = ApiVersion { minor: 50 };
const V1_42: ApiVersion = ApiVersion { minor: 42 };
const V1_43: ApiVersion = ApiVersion { minor: 43 };
const V1_44: ApiVersion = ApiVersion { minor: 44 };

/// Attach and logs without a terminal name their multiplexed format since 1.42.
pub(crate) fn stream_content_type(version: ApiVersion, terminal: bool) -> &'static str {
    if !terminal && version >= V1_42 {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}

/// Who attaches by WebSocket had all streams before 1.42.
pub(crate) fn websocket_has_all_streams(version: ApiVersion) -> bool {
    version < V1_42
}

/// Nobody knew of a check's StartInterval before 1.44, in a configuration's `Healthcheck`.
pub(crate) fn healthcheck(version: ApiVersion, config: &mut Value) {
    if version < V1_44
        && let Some(check) = config.get_mut("Healthcheck").and_then(Value::as_object_mut)
    {
        check.remove("StartInterval");
    }
}

/// Images had a VirtualSize, equal to Size, before 1.44.
pub(crate) fn image(version: ApiVersion, image: &mut Value) {
    if version < V1_44 {
        image["VirtualSize"] = image["Size"].clone();
    }
}

/// What a container's configuration has and an image's has no use for, with its empty values.
const CONTAINERS_CONFIG: [(&str, Value); 8] = [
    ("Hostname", Value::String(String::new())),
    ("Domainname", Value::String(String::new())),
    ("Image", Value::String(String::new())),
    ("AttachStdin", Value::Bool(false)),
    ("AttachStdout", Value::Bool(false)),
    ("AttachStderr", Value::Bool(false)),
    ("Tty", Value::Bool(false)),
    ("OpenStdin", Value::Bool(false)),
];

/// An inspected image had a whole container's configuration before 1.50, and that of the container it was made from
/// before 1.45.
pub(crate) fn inspected_image(version: ApiVersion, image: &mut Value) {
    let fill = |config: &mut Value| {
        for (name, empty) in CONTAINERS_CONFIG.into_iter().chain([("StdinOnce", Value::Bool(false))]) {
            if config.get(name).is_none() {
                config[name] = empty;
            }
        }
    };
    if version < V1_50 {
        fill(&mut image["Config"]);
    }
    if version < V1_45 {
        let mut config = crate::convert::image::config(&Value::Null);
        fill(&mut config);
        image["Container"] = json!("");
        image["ContainerConfig"] = config;
    }
}

/// Inspected or listed: places on networks got names in 1.44 and priorities in 1.48; kernel memory went in 1.42.
pub(crate) fn container(version: ApiVersion, shown: &mut Value) {
    if let Some(networks) = shown["NetworkSettings"]["Networks"].as_object_mut() {
        for place in networks.values_mut().filter_map(Value::as_object_mut) {
            if version < V1_44 {
                place.remove("DNSNames");
            }
            if version < V1_48 {
                place.remove("GwPriority");
            }
        }
    }
    // A listed one shows nothing of its limits.
    if version < V1_42 && shown["HostConfig"].get("Memory").is_some() {
        shown["HostConfig"]["KernelMemory"] = json!(0);
        shown["HostConfig"]["KernelMemoryTCP"] = json!(0);
    }
}

/// All networks had IPv4 before 1.48, whatever a request says.
pub(crate) fn network_request(version: ApiVersion, request: &mut CreateNetwork) {
    if version < V1_48 {
        request.enable_ipv4 = None;
    }
}

/// Networks say since 1.48 whether they have IPv4. Those without addresses had an empty list of them before 1.44.
pub(crate) fn network(version: ApiVersion, network: &mut Value) {
    if version < V1_48
        && let Some(network) = network.as_object_mut()
    {
        network.remove("EnableIPv4");
    }
    if version < V1_44 && network["IPAM"]["Config"].is_null() {
        network["IPAM"]["Config"] = json!([]);
    }
}

/// What `info` said of the engine's parts and of registries went in 1.49; of devices it speaks since 1.44, of the firewall
/// since 1.49, and lists devices since 1.50, if there are any.
pub(crate) fn info(version: ApiVersion, info: &mut Value) {
    if version < V1_49 {
        for part in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            info[part]["Expected"] = json!("");
        }
        let empty = if version < V1_44 { json!([]) } else { Value::Null };
        info["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"] = empty.clone();
        info["RegistryConfig"]["AllowNondistributableArtifactsHostnames"] = empty;
    }
    if let Some(info) = info.as_object_mut() {
        let has_devices = info.get("DiscoveredDevices").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        for (name, since) in [("CDISpecDirs", V1_44), ("FirewallBackend", V1_49), ("DiscoveredDevices", V1_50)] {
            if version < since || (name == "DiscoveredDevices" && !has_devices) {
                info.remove(name);
            }
        }
    }
    if version < V1_42 {
        info["KernelMemory"] = json!(false);
        info["KernelMemoryTCP"] = json!(false);
    }
}

/// A wait that went well says so in so many words before 1.42.
pub(crate) fn waited(version: ApiVersion, answer: &mut Value) {
    if version < V1_42 && answer.get("Error").is_none() {
        answer["Error"] = Value::Null;
    }
}

/// In a listing, an image without any name had a placeholder for one before 1.43.
pub(crate) fn image_row(version: ApiVersion, row: &mut Value) {
    let is_empty = |names: &Value| names.as_array().is_none_or(Vec::is_empty);
    if version < V1_43 && is_empty(&row["RepoTags"]) && is_empty(&row["RepoDigests"]) {
        row["RepoTags"] = json!(["<none>:<none>"]);
        row["RepoDigests"] = json!(["<none>@<none>"]);
    } else if version < V1_43 && is_empty(&row["RepoDigests"]) {
        row["RepoDigests"] = Value::Null;
    }
}

/// `volume prune` took named volumes too before 1.42.
pub(crate) fn prune_takes_named_volumes(version: ApiVersion) -> bool {
    version < V1_42
}

/// A read-only bind made nothing below it read-only before 1.44.
pub(crate) fn read_only_binds_are_shallow(version: ApiVersion) -> bool {
    version < V1_44
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameless_images_have_a_placeholder_in_old_listings() {
        let old = ApiVersion { minor: 42 };
        let row = |tags: &[&str], digests: &[&str]| json!({ "RepoTags": tags, "RepoDigests": digests });
        for (version, tags, digests, want) in [
            (old, &[][..], &[][..], row(&["<none>:<none>"], &["<none>@<none>"])),
            (old, &["a:1"], &[], json!({ "RepoTags": ["a:1"], "RepoDigests": null })),
            (old, &[], &["a@sha256:0"], row(&[], &["a@sha256:0"])),
            (V1_43, &[], &[], row(&[], &[])),
        ] {
            let mut shown = row(tags, digests);
            image_row(version, &mut shown);
            assert_eq!(shown, want, "{version}");
        }
    }

    #[test]
    fn old_clients_get_what_they_know() {
        let old = ApiVersion { minor: 41 };
        assert_eq!(stream_content_type(old, false), "application/vnd.docker.raw-stream");
        assert_eq!(stream_content_type(V1_42, false), "application/vnd.docker.multiplexed-stream");
        assert_eq!(stream_content_type(V1_42, true), "application/vnd.docker.raw-stream");
        let check = || json!({ "Healthcheck": { "Test": ["NONE"], "StartInterval": 7 } });
        for (version, kept) in [(V1_43, false), (V1_44, true)] {
            let mut config = check();
            healthcheck(version, &mut config);
            assert_eq!(config["Healthcheck"].get("StartInterval").is_some(), kept);
            assert_eq!(config["Healthcheck"]["Test"][0], "NONE");
        }
        let mut value = json!({ "Size": 5 });
        image(old, &mut value);
        assert_eq!(value["VirtualSize"], 5);
        let mut value = json!({ "Size": 5 });
        image(V1_44, &mut value);
        assert!(value.get("VirtualSize").is_none());
    }

    #[test]
    fn info_tells_what_its_version_knows() {
        for (minor, devices, names) in [
            (41, json!([7]), &[][..]),
            (45, json!([7]), &["CDISpecDirs"]),
            (49, json!([7]), &["CDISpecDirs", "FirewallBackend"]),
            (50, json!([7]), &["CDISpecDirs", "DiscoveredDevices", "FirewallBackend"]),
            (51, json!([]), &["CDISpecDirs", "FirewallBackend"]),
        ] {
            let mut shown = json!({ "CDISpecDirs": [], "FirewallBackend": {}, "DiscoveredDevices": devices });
            info(ApiVersion { minor }, &mut shown);
            let told = ["CDISpecDirs", "DiscoveredDevices", "FirewallBackend"];
            let told: Vec<&str> = told.into_iter().filter(|name| shown.get(name).is_some()).collect();
            assert_eq!(told, names, "1.{minor}");
        }
    }

    #[test]
    fn what_is_newer_than_a_client_is_not_shown_to_it() {
        let place = json!({ "NetworkID": "x", "DNSNames": [], "GwPriority": 0 });
        let whole = json!({ "HostConfig": { "Memory": 0 }, "NetworkSettings": { "Networks": { "n": place } } });
        for (minor, names) in
            [(41, &["NetworkID"][..]), (44, &["NetworkID", "DNSNames"]), (48, &["NetworkID", "DNSNames", "GwPriority"])]
        {
            let mut shown = whole.clone();
            container(ApiVersion { minor }, &mut shown);
            let place = shown["NetworkSettings"]["Networks"]["n"].as_object().unwrap();
            assert!(place.len() == names.len() && names.iter().all(|name| place.contains_key(*name)), "{place:?}");
            assert_eq!(shown["HostConfig"].get("KernelMemory").is_some(), minor < 42);
        }
        let mut shown = json!({ "EnableIPv4": true, "IPAM": { "Config": null } });
        network(ApiVersion { minor: 48 }, &mut shown);
        assert_eq!(shown, json!({ "EnableIPv4": true, "IPAM": { "Config": null } }));
        network(ApiVersion { minor: 41 }, &mut shown);
        assert_eq!(shown, json!({ "IPAM": { "Config": [] } }));
        for (minor, fields) in [(41, 9 + 8 + 2), (45, 9 + 8), (50, 8)] {
            let mut shown = json!({ "Config": crate::convert::image::config(&Value::Null) });
            inspected_image(ApiVersion { minor }, &mut shown);
            let more = shown.as_object().unwrap().len() - 1;
            assert_eq!(shown["Config"].as_object().unwrap().len() + more, fields, "{shown}");
        }
    }
}
