//! The page for browsers, and what it shows.

use serde_json::{Value, json};

use crate::client::{Choices, OCI_INDEX, OCI_MANIFEST, Registry, descriptor, sha256};

#[test]
fn browsers_get_a_page_that_may_do_nothing_but_its_own_work() {
    let registry = Registry::start();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/ui/", "text/html; charset=utf-8"),
        ("/ui/page.js", "text/javascript; charset=utf-8"),
        ("/ui/page.css", "text/css; charset=utf-8"),
        ("/ui/mark.svg", "image/svg+xml"),
    ] {
        let reply = registry.get(path).is(200);
        assert_eq!(reply.field("content-type"), Some(kind), "{path}");
        let policy = reply.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
        let known = [("If-None-Match", reply.field("etag").unwrap())];
        registry.ask("GET", path, &known, b"").is(304);
    }
    registry.ask("POST", "/", &[], b"").refused(405, "UNSUPPORTED");
    registry.ask("GET", "/", &[("Host", "evil.example")], b"").refused(403, "DENIED");
    let without = Registry::with(Choices { has_page: false, ..Choices::default() });
    for path in ["/", "/ui/page.js", "/ui/repositories"] {
        without.get(path).is(404);
    }
}

/// To a browser that is led to what somebody has pushed.
#[test]
fn what_somebody_pushed_is_no_page() {
    let registry = Registry::start();
    registry.push_image("a", "1");
    let config = sha256(b"{\"config\":\"1\"}");
    for (path, kind) in [
        ("/v2/a/manifests/1".to_owned(), OCI_MANIFEST),
        (format!("/v2/a/blobs/{config}"), "application/octet-stream"),
        (format!("/ui/repositories/a/documents/{config}"), "application/json"),
    ] {
        let reply = registry.get(&path).is(200);
        assert_eq!(reply.field("content-type"), Some(kind), "{path}");
        assert_eq!(reply.field("content-security-policy"), Some("default-src 'none'; sandbox"), "{path}");
        assert_eq!(reply.field("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "text/html", "layers": [],
        "config": descriptor("text/html", b"{\"config\":\"1\"}"),
    });
    registry.put_manifest("a", "page", &manifest).refused(400, "MANIFEST_INVALID");
}

#[test]
fn repositories_and_tags_come_in_pages_with_what_is_in_them() {
    let registry = Registry::start();
    for name in ["a", "b/c", "d"] {
        registry.push_image(name, "1");
    }
    let first = registry.get("/ui/repositories?n=2").is(200).json();
    let names = |page: &Value| -> Vec<String> {
        page["repositories"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&first), &first["next"]), (vec!["a".to_owned(), "b/c".to_owned()], &json!("b/c")));
    let second = registry.get("/ui/repositories?n=2&last=b%2Fc").is(200).json();
    assert_eq!((names(&second), &second["next"]), (vec!["d".to_owned()], &Value::Null));
    let one = &first["repositories"][0];
    let image_bytes = "{\"config\":\"1\"}".len() + "layer 1".len();
    assert_eq!(one["tags"], 1);
    assert!(one["bytes"].as_u64().unwrap() > image_bytes as u64 && one["pushed_at"].as_i64().unwrap() > 1_700_000_000);
    let tags = registry.get("/ui/repositories/a/tags?n=0").is(200).json();
    assert_eq!((&tags["tags"][0]["name"], &tags["tags"][0]["bytes"]), (&json!("1"), &json!(image_bytes)));
    registry.get("/ui/repositories/nowhere/tags").refused(404, "NAME_UNKNOWN");
    registry.get("/ui/repositories?n=x").is(400);
}

#[test]
fn a_manifest_is_shown_with_what_is_about_it_and_that_is_no_pull() {
    let registry = Registry::start();
    let child = registry.push_image("a", "amd64");
    let content = registry.get("/v2/a/manifests/amd64").is(200).body;
    let platform = json!({ "os": "linux", "architecture": "amd64" });
    let gone = json!({ "mediaType": OCI_MANIFEST, "digest": child, "size": content.len(), "platform": platform });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [gone] });
    registry.put_manifest("a", "1", &index).is(201);
    let digest = sha256(index.to_string().as_bytes());
    let config = b"{}";
    registry.push_blob("a", config);
    let note = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x.note", "layers": [],
        "config": descriptor("application/vnd.oci.empty.v1+json", config),
        "subject": { "mediaType": OCI_INDEX, "digest": digest, "size": index.to_string().len() },
    });
    registry.put_manifest("a", "note", &note).is(201);
    let told = registry.get("/ui/repositories/a/manifests/1").is(200).json();
    assert_eq!((&told["digest"], &told["tags"], &told["missing"]), (&json!(digest), &json!(["1"]), &json!([])));
    assert_eq!(told["content"].as_str().unwrap(), index.to_string());
    let bytes = "{\"config\":\"amd64\"}".len() + "layer amd64".len();
    assert_eq!(told["children"][&child], json!({ "is_here": true, "bytes": bytes }));
    assert_eq!(told["bytes"], json!(bytes));
    assert_eq!(told["referrers"][0]["artifactType"], "application/x.note");
    let tags = registry.get("/ui/repositories/a/tags").is(200).json();
    assert_eq!((&tags["tags"][0]["name"], &tags["tags"][0]["platforms"]), (&json!("1"), &json!(["linux/amd64"])));
    assert_eq!(tags["tags"][0]["pulled_at"], 0, "to look at it is no pull");
    let document = registry.get(&format!("/ui/repositories/a/documents/{}", sha256(b"{\"config\":\"amd64\"}")));
    assert_eq!(document.is(200).json()["content"], "{\"config\":\"amd64\"}");
    registry.get(&format!("/ui/repositories/b/documents/{}", sha256(config))).refused(404, "BLOB_UNKNOWN");
    registry.get("/ui/repositories/a/manifests/2").refused(404, "MANIFEST_UNKNOWN");
}
