//! "Content Discovery": tags, repositories, referrers.

use serde_json::{Value, json};

use crate::client::{OCI_INDEX, OCI_MANIFEST, Registry, descriptor, sha256};

#[test]
fn tags_are_listed_in_order_and_in_pages() {
    let registry = Registry::start();
    let manifest = registry.image("a/b", "x");
    for tag in ["c", "a", "B", "b10", "b9"] {
        registry.put_manifest("a/b", tag, &manifest).is(201);
    }
    let tags = |reply: crate::client::Reply| {
        let reply = reply.is(200);
        (reply.json()["tags"].clone(), reply.field("link").map(str::to_owned))
    };
    let all = registry.get("/v2/a/b/tags/list");
    assert_eq!(all.json()["name"], "a/b");
    assert_eq!(tags(all), (json!(["B", "a", "b10", "b9", "c"]), None));
    let next = "</v2/a/b/tags/list?last=a&n=2>; rel=\"next\"".to_owned();
    assert_eq!(tags(registry.get("/v2/a/b/tags/list?n=2")), (json!(["B", "a"]), Some(next)));
    assert_eq!(tags(registry.get("/v2/a/b/tags/list?last=a&n=3")), (json!(["b10", "b9", "c"]), None));
    assert_eq!(tags(registry.get("/v2/a/b/tags/list?last=b")), (json!(["b10", "b9", "c"]), None));
    assert_eq!(tags(registry.get("/v2/a/b/tags/list?n=0")), (json!([]), None));
    registry.get("/v2/a/b/tags/list?n=x").is(400);
    registry.get("/v2/nothing/tags/list").refused(404, "NAME_UNKNOWN");
}

#[test]
fn repositories_are_listed_in_pages() {
    let registry = Registry::start();
    for name in ["z", "a/b", "m"] {
        registry.push_image(name, "latest");
    }
    registry.push_blob("only-a-blob", b"x");
    let page = registry.get("/v2/_catalog?n=2").is(200);
    assert_eq!(page.json(), json!({ "repositories": ["a/b", "m"] }));
    assert_eq!(page.field("link"), Some("</v2/_catalog?last=m&n=2>; rel=\"next\""));
    assert_eq!(registry.get("/v2/_catalog?last=m&n=2").is(200).json(), json!({ "repositories": ["z"] }));
}

fn artifact(subject: &Value, artifact_type: Option<&str>, words: &str) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "subject": subject, "layers": [],
        "config": descriptor("application/vnd.config", b"{}"), "annotations": { "words": words },
    });
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = json!(artifact_type);
    }
    manifest
}

#[test]
fn whoever_is_about_a_manifest_is_listed_with_type_and_annotations() {
    let registry = Registry::start();
    registry.push_blob("a", b"{}");
    let subject_text = b"not pushed yet";
    let subject = descriptor(OCI_MANIFEST, subject_text);
    let digest = sha256(subject_text);
    let path = format!("/v2/a/referrers/{digest}");
    // Nobody is about it: an empty list, not an error.
    let none = registry.get(&path).is(200);
    assert_eq!(none.field("content-type"), Some(OCI_INDEX));
    assert_eq!(none.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
    let signature = artifact(&subject, Some("application/vnd.signature"), "one");
    let by_config = artifact(&subject, None, "two");
    for manifest in [&signature, &by_config] {
        let by_digest = sha256(manifest.to_string().as_bytes());
        let reply = registry.put_manifest("a", &by_digest, manifest).is(201);
        assert_eq!(reply.field("oci-subject"), Some(&*digest));
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject,
        "artifactType": "application/vnd.signature",
    });
    registry.put_manifest("a", "index", &index).is(201);
    let all = registry.get(&path).is(200);
    assert_eq!((all.json()["manifests"].as_array().unwrap().len(), all.field("oci-filters-applied")), (3, None));
    let filtered = registry.get(&format!("{path}?artifactType=application%2Fvnd.config")).is(200);
    assert_eq!(filtered.field("oci-filters-applied"), Some("artifactType"));
    let text = by_config.to_string();
    let expected = json!([{
        "mediaType": OCI_MANIFEST, "digest": sha256(text.as_bytes()), "size": text.len(),
        "artifactType": "application/vnd.config", "annotations": { "words": "two" },
    }]);
    assert_eq!(filtered.json()["manifests"], expected);
    let signatures = registry.get(&format!("{path}?artifactType=application/vnd.signature")).is(200);
    assert_eq!(signatures.json()["manifests"].as_array().unwrap().len(), 2);
    registry.get("/v2/a/referrers/nonsense").refused(400, "DIGEST_INVALID");
    // One that goes is not listed any more.
    registry.ask("DELETE", &format!("/v2/a/manifests/{}", sha256(text.as_bytes())), &[], b"").is(202);
    assert_eq!(registry.get(&path).is(200).json()["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn a_long_list_of_referrers_comes_in_pages_no_larger_than_a_manifest() {
    let registry = Registry::start();
    registry.push_blob("a", b"{}");
    let subject = descriptor(OCI_MANIFEST, b"subject");
    let long = "x".repeat(1_500_000);
    for at in 0..4 {
        let manifest = artifact(&subject, Some("a/b+c"), &format!("{at}{long}"));
        registry.put_manifest("a", &format!("t{at}"), &manifest).is(201);
    }
    let mut path = format!("/v2/a/referrers/{}?artifactType=a%2Fb%2Bc", sha256(b"subject"));
    let mut sizes = Vec::new();
    loop {
        let page = registry.get(&path).is(200);
        assert!(page.body.len() <= 4 << 20);
        sizes.push(page.json()["manifests"].as_array().unwrap().len());
        let Some(link) = page.field("link") else { break };
        path = link.trim_start_matches('<').split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(sizes, [2, 2]);
}
