//! What older API versions expect otherwise. Inside, only the newest version is spoken.

use serde_json::Value;

use crate::edge::ApiVersion;

const V1_42: ApiVersion = ApiVersion { minor: 42 };
const V1_44: ApiVersion = ApiVersion { minor: 44 };

/// Attach and logs without a terminal name their multiplexed format since 1.42.
pub(crate) fn stream_content_type(version: ApiVersion, terminal: bool) -> &'static str {
    if !terminal && version >= V1_42 {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}

/// Images had a VirtualSize, equal to Size, before 1.44.
pub(crate) fn image(version: ApiVersion, image: &mut Value) {
    if version < V1_44 {
        image["VirtualSize"] = image["Size"].clone();
    }
}

/// `volume prune` took named volumes too before 1.42.
pub(crate) fn prune_takes_named_volumes(version: ApiVersion) -> bool {
    version < V1_42
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn old_clients_get_what_they_know() {
        let old = ApiVersion { minor: 41 };
        assert_eq!(stream_content_type(old, false), "application/vnd.docker.raw-stream");
        assert_eq!(stream_content_type(V1_42, false), "application/vnd.docker.multiplexed-stream");
        assert_eq!(stream_content_type(V1_42, true), "application/vnd.docker.raw-stream");
        let mut value = json!({ "Size": 5 });
        image(old, &mut value);
        assert_eq!(value["VirtualSize"], 5);
        let mut value = json!({ "Size": 5 });
        image(V1_44, &mut value);
        assert!(value.get("VirtualSize").is_none());
    }
}
