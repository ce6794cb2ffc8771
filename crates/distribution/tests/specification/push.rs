//! "Push": blobs at once, in a stream, in chunks, by mounts; manifests after what they name.

use serde_json::json;

use crate::client::{OCI_INDEX, Registry, descriptor, sha256, sha512};

#[track_caller]
fn check_blob(registry: &Registry, name: &str, digest: &str, content: &[u8]) {
    assert_eq!(registry.get(&format!("/v2/{name}/blobs/{digest}")).is(200).body, content);
}

#[test]
fn a_blob_comes_by_post_and_put() {
    let registry = Registry::start();
    let location = registry.begin("a");
    let digest = sha256(b"hello");
    let octets = [("Content-Type", "application/octet-stream")];
    let reply = registry.ask("PUT", &format!("{location}?digest={digest}"), &octets, b"hello").is(201);
    assert_eq!(reply.field("location"), Some(&*format!("/v2/a/blobs/{digest}")));
    assert_eq!(reply.field("docker-content-digest"), Some(&*digest));
    check_blob(&registry, "a", &digest, b"hello");
    // It is over.
    registry.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn a_blob_comes_by_one_post() {
    let registry = Registry::start();
    for (content, digest) in [(&b"hello"[..], sha256(b"hello")), (b"", sha256(b"")), (b"hello", sha512(b"hello"))] {
        let path = format!("/v2/a/blobs/uploads/?digest={}", digest.replace(':', "%3A"));
        let reply = registry.ask("POST", &path, &[], content).is(201);
        assert_eq!(reply.field("location"), Some(&*format!("/v2/a/blobs/{digest}")));
        check_blob(&registry, "a", &digest, content);
    }
    let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(b"other"));
    registry.ask("POST", &path, &[], b"hello").refused(400, "DIGEST_INVALID");
}

#[test]
fn a_blob_comes_in_chunks_and_the_registry_says_how_far_it_is() {
    let registry = Registry::start();
    let location = registry.begin("a");
    let status = registry.get(&location).is(204);
    assert_eq!((status.field("range"), status.field("location")), (Some("0-0"), Some(&*location)));
    let (first, second) = (vec![b'x'; 600_000], vec![b'y'; 400_000]);
    let reply = registry.ask("PATCH", &location, &[("Content-Range", "0-599999")], &first).is(202);
    assert_eq!((reply.field("range"), reply.field("location")), (Some("0-599999"), Some(&*location)));
    assert_eq!(registry.get(&location).is(204).field("range"), Some("0-599999"));
    registry.ask("PATCH", &location, &[("Content-Range", "600000-999999")], &second).is(202);
    let content = [first, second, b"end".to_vec()].concat();
    let digest = sha256(&content);
    let last = [("Content-Range", "1000000-1000002")];
    registry.ask("PUT", &format!("{location}?digest={digest}"), &last, b"end").is(201);
    check_blob(&registry, "a", &digest, &content);
}

#[test]
fn a_chunk_out_of_order_is_refused_and_the_upload_goes_on() {
    let registry = Registry::start();
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[("Content-Range", "5-9")], b"world").refused(416, "BLOB_UPLOAD_INVALID");
    registry.ask("PATCH", &location, &[("Content-Range", "0-4")], b"hello").is(202);
    for again in ["0-4", "4-8", "6-10"] {
        let reply = registry.ask("PATCH", &location, &[("Content-Range", again)], b"world");
        let reply = reply.refused(416, "BLOB_UPLOAD_INVALID");
        assert_eq!((reply.field("range"), reply.field("location")), (Some("0-4"), Some(&*location)));
    }
    let digest = sha256(b"helloworld");
    let put = format!("{location}?digest={digest}");
    registry.ask("PUT", &put, &[("Content-Range", "0-4")], b"world").refused(416, "BLOB_UPLOAD_INVALID");
    registry.ask("PUT", &put, &[("Content-Range", "5-9")], b"world").is(201);
    check_blob(&registry, "a", &digest, b"helloworld");
}

#[test]
fn a_stream_of_unknown_length_is_taken() {
    let registry = Registry::start();
    let location = registry.begin("a");
    let body = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let reply = registry.ask("PATCH", &location, &[("Transfer-Encoding", "chunked")], body).is(202);
    assert_eq!(reply.field("range"), Some("0-10"));
    let digest = sha256(b"hello world");
    registry.ask("PUT", &format!("{location}?digest={digest}"), &[], b"").is(201);
    check_blob(&registry, "a", &digest, b"hello world");
}

#[test]
fn an_upload_is_cancelled() {
    let registry = Registry::start();
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[], b"hello").is(202);
    registry.ask("DELETE", &location, &[], b"").is(204);
    registry.ask("DELETE", &location, &[], b"").refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.ask("PATCH", &location, &[], b"more").refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(std::fs::read_dir(crate::uploads(registry.root.path())).unwrap().count(), 0);
}

#[test]
fn a_blob_is_mounted_from_a_repository_and_from_any() {
    let registry = Registry::start();
    let digest = registry.push_blob("from", b"shared");
    for (to, query) in [("to", format!("mount={digest}&from=from")), ("other", format!("mount={digest}"))] {
        let reply = registry.ask("POST", &format!("/v2/{to}/blobs/uploads/?{query}"), &[], b"").is(201);
        assert_eq!(reply.field("location"), Some(&*format!("/v2/{to}/blobs/{digest}")));
        check_blob(&registry, to, &digest, b"shared");
    }
    // What cannot be mounted is uploaded.
    for query in [format!("mount={digest}&from=nowhere"), format!("mount={}", sha256(b"nothing"))] {
        let reply = registry.ask("POST", &format!("/v2/new/blobs/uploads/?{query}"), &[], b"").is(202);
        let location = reply.field("location").unwrap().to_owned();
        registry.ask("PUT", &format!("{location}?digest={}", sha256(b"x")), &[], b"x").is(201);
    }
    let path = format!("/v2/to/blobs/uploads/?mount={digest}&from=../x");
    registry.ask("POST", &path, &[], b"").refused(400, "NAME_INVALID");
}

#[test]
fn digests_may_be_sha512() {
    let registry = Registry::start();
    let (content, location) = (b"content", registry.begin("a"));
    let digest = sha512(content);
    registry.ask("PATCH", &location, &[], content).is(202);
    registry.ask("PUT", &format!("{location}?digest={digest}"), &[], b"").is(201);
    check_blob(&registry, "a", &digest, content);
    let begun = registry.ask("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", &[], b"").is(202);
    let location = begun.field("location").unwrap();
    registry.ask("PUT", &format!("{location}?digest={}", sha512(b"x")), &[], b"x").is(201);
    let path = "/v2/a/blobs/uploads/?digest-algorithm=md5";
    registry.ask("POST", path, &[], b"").refused(400, "DIGEST_INVALID");
    let manifest = json!({
        "schemaVersion": 2, "layers": [],
        "config": { "mediaType": "c", "digest": digest, "size": content.len() },
    });
    let by_digest = sha512(manifest.to_string().as_bytes());
    let reply = registry.put_manifest("a", &by_digest, &manifest).is(201);
    assert_eq!(reply.field("docker-content-digest"), Some(&*by_digest));
    assert_eq!(registry.get(&format!("/v2/a/manifests/{by_digest}")).is(200).body, manifest.to_string().as_bytes());
}

#[test]
fn a_manifest_is_taken_by_tag_and_by_digest_and_a_tag_moves() {
    let registry = Registry::start();
    let (one, two) = (registry.image("a", "one"), registry.image("a", "two"));
    let digest = sha256(one.to_string().as_bytes());
    let reply = registry.put_manifest("a", "latest", &one).is(201);
    assert_eq!(reply.field("location"), Some(&*format!("/v2/a/manifests/{digest}")));
    assert_eq!(reply.field("docker-content-digest"), Some(&*digest));
    assert_eq!(reply.field("oci-subject"), None);
    registry.put_manifest("a", &sha256(two.to_string().as_bytes()), &two).is(201);
    registry.put_manifest("a", "latest", &two).is(201);
    assert_eq!(registry.get("/v2/a/manifests/latest").is(200).body, two.to_string().as_bytes());
    registry.get(&format!("/v2/a/manifests/{digest}")).is(200);
    registry.put_manifest("a", &sha256(b"another"), &one).refused(400, "DIGEST_INVALID");
}

#[test]
fn a_manifest_waits_for_what_it_names() {
    let registry = Registry::start();
    let config = b"{}";
    let manifest =
        json!({ "schemaVersion": 2, "config": descriptor("c", config), "layers": [descriptor("l", b"layer")] });
    registry.push_blob("a", config);
    registry.push_blob("other", b"layer");
    let refused = registry.put_manifest("a", "latest", &manifest).refused(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(refused.json()["errors"][0]["detail"]["digest"], sha256(b"layer"));
    // Nothing of it was stored.
    registry.get("/v2/a/manifests/latest").is(404);
    registry.push_blob("a", b"layer");
    registry.put_manifest("a", "latest", &manifest).is(201);
    let mut lying = manifest.clone();
    lying["layers"][0]["size"] = json!(4);
    registry.put_manifest("a", "lying", &lying).refused(400, "MANIFEST_INVALID");
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor("m", b"nothing")] });
    registry.put_manifest("a", "index", &index).refused(400, "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn what_may_not_be_given_away_need_not_be_there() {
    let registry = Registry::start();
    registry.push_blob("a", b"{}");
    let mut foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"windows");
    foreign["urls"] = json!(["https://download.example/layer"]);
    let manifest = json!({ "schemaVersion": 2, "config": descriptor("c", b"{}"), "layers": [foreign] });
    registry.put_manifest("a", "latest", &manifest).is(201);
}

#[test]
fn an_index_is_taken_after_its_manifests() {
    let registry = Registry::start();
    let manifest = registry.image("a", "one");
    let text = manifest.to_string();
    registry.put_manifest("a", &sha256(text.as_bytes()), &manifest).is(201);
    for media_type in [OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"] {
        let entry = descriptor(crate::client::OCI_MANIFEST, text.as_bytes());
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [entry] });
        registry.put_manifest("a", "all", &index).is(201);
        assert_eq!(registry.get("/v2/a/manifests/all").is(200).field("content-type"), Some(media_type));
    }
}

#[test]
fn schema_one_is_refused_by_name() {
    let registry = Registry::start();
    let signed = [("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")];
    let reply = registry.ask("PUT", "/v2/a/manifests/v1", &signed, b"{\"schemaVersion\":1}");
    let reply = reply.refused(400, "MANIFEST_INVALID");
    assert!(reply.json()["errors"][0]["message"].as_str().unwrap().contains("schema 1"));
}

#[test]
fn an_upload_goes_on_with_the_next_server() {
    let registry = Registry::start();
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[], b"hello ").is(202);
    let registry = Registry::in_directory(registry.stop(), crate::client::Choices::default());
    assert_eq!(registry.get(&location).is(204).field("range"), Some("0-5"));
    let digest = sha256(b"hello world");
    registry.ask("PUT", &format!("{location}?digest={digest}"), &[("Content-Range", "6-10")], b"world").is(201);
    check_blob(&registry, "a", &digest, b"hello world");
}
