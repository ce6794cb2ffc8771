//! "Content Management": tags, manifests and blobs go.

use crate::client::{Registry, sha256};

#[test]
fn a_tag_goes_and_its_manifest_stays() {
    let registry = Registry::start();
    let digest = registry.push_image("a", "latest");
    registry.ask("DELETE", "/v2/a/manifests/latest", &[], b"").is(202);
    registry.get("/v2/a/manifests/latest").refused(404, "MANIFEST_UNKNOWN");
    registry.get(&format!("/v2/a/manifests/{digest}")).is(200);
    registry.ask("DELETE", "/v2/a/manifests/latest", &[], b"").refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.get("/v2/a/tags/list").is(200).json()["tags"], serde_json::json!([]));
}

#[test]
fn a_manifest_goes_with_all_its_tags() {
    let registry = Registry::start();
    let manifest = registry.image("a", "one");
    for tag in ["x", "y"] {
        registry.put_manifest("a", tag, &manifest).is(201);
    }
    let path = format!("/v2/a/manifests/{}", sha256(manifest.to_string().as_bytes()));
    registry.ask("DELETE", &path, &[], b"").is(202);
    registry.ask("DELETE", &path, &[], b"").refused(404, "MANIFEST_UNKNOWN");
    registry.get("/v2/a/manifests/x").refused(404, "MANIFEST_UNKNOWN");
    registry.ask("DELETE", "/v2/nothing/manifests/x", &[], b"").refused(404, "NAME_UNKNOWN");
}

#[test]
fn a_blob_goes_unless_a_manifest_names_it() {
    let registry = Registry::start();
    let free = format!("/v2/a/blobs/{}", registry.push_blob("a", b"free"));
    registry.push_blob("b", b"free");
    registry.ask("DELETE", &free, &[], b"").is(202);
    registry.ask("DELETE", &free, &[], b"").refused(404, "BLOB_UNKNOWN");
    registry.get(&free).refused(404, "BLOB_UNKNOWN");
    // Another repository's is another matter.
    assert_eq!(registry.get(&free.replace("/a/", "/b/")).is(200).body, b"free");
    let digest = registry.push_image("a", "latest");
    let layer = format!("/v2/a/blobs/{}", sha256(b"layer latest"));
    let refused = registry.ask("DELETE", &layer, &[], b"").refused(405, "UNSUPPORTED");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("delete them first"));
    registry.ask("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").is(202);
    registry.ask("DELETE", &layer, &[], b"").is(202);
}
