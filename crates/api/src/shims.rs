//! What older API versions expect otherwise. Inside, only the newest version is spoken.

use serde_json::{Value, json};

use crate::edge::ApiVersion;

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

/// In a listing, an image without any name had a placeholder for one before 1.43.
pub(crate) fn image_row(version: ApiVersion, row: &mut Value) {
    let is_empty = |names: &Value| names.as_array().is_none_or(Vec::is_empty);
    if version < V1_43 && is_empty(&row["RepoTags"]) && is_empty(&row["RepoDigests"]) {
        row["RepoTags"] = json!(["<none>:<none>"]);
        row["RepoDigests"] = json!(["<none>@<none>"]);
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
            (old, &["a:1"], &[], row(&["a:1"], &[])),
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
}
