//! Registries that refuse, lie, or lead in circles: a push fails with words, ends, and leaves nothing.

use std::sync::{Arc, Mutex};

use dozen_testbox::{Daemon, Machine};

use crate::between::{Asked, Between, reply};
use crate::luck::check_tmp_is_empty;
use crate::registry::Registry;

type Answer = fn(&Asked) -> Option<Vec<u8>>;

fn error(status: &str, code: &str, message: &str) -> Option<Vec<u8>> {
    reply(status, &[], format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#).as_bytes())
}

fn is(asked: &Asked, method: &str, part: &str) -> bool {
    asked.method == method && asked.path.contains(part)
}

#[test]
fn a_registry_that_means_ill_is_found_out_and_leaves_nothing() {
    let denied: Answer = |asked| match is(asked, "POST", "/uploads/") {
        true => error("403 Forbidden", "DENIED", "requested access to the resource is denied"),
        false => asked.forward(),
    };
    let denied_without_words: Answer = |asked| match is(asked, "POST", "/uploads/") {
        true => reply("403 Forbidden", &[], b""),
        false => asked.forward(),
    };
    let nowhere: Answer = |asked| match is(asked, "POST", "/uploads/") {
        true => reply("202 Accepted", &[], b""),
        false => asked.forward(),
    };
    let to_nobody: Answer = |asked| match is(asked, "POST", "/uploads/") {
        true => reply("202 Accepted", &[("Location", "gopher://127.0.0.1/x")], b""),
        false => asked.forward(),
    };
    let in_circles: Answer = |asked| match is(asked, "HEAD", "/blobs/") {
        true => reply("307 Temporary Redirect", &[("Location", &asked.path)], b""),
        false => asked.forward(),
    };
    let always_busy: Answer = |asked| match is(asked, "PUT", "/blobs/") {
        true => asked.body().ok().and_then(|_| reply("500 Internal Server Error", &[], b"")),
        false => asked.forward(),
    };
    let to_be_left_alone: Answer = |asked| match is(asked, "PUT", "/blobs/") {
        true => asked.body().ok().and_then(|_| reply("429 Too Many Requests", &[("Retry-After", "3600")], b"")),
        false => asked.forward(),
    };
    let forgets: Answer = |asked| match asked.path.contains("/uploads/") && asked.method != "POST" {
        true => asked.body().ok().and_then(|_| error("404 Not Found", "BLOB_UPLOAD_UNKNOWN", "upload unknown")),
        false => asked.forward(),
    };
    let has_more_than_there_is: Answer = |asked| match (asked.path.contains("/uploads/"), asked.method.as_str()) {
        (true, "PUT") => None,
        (true, "GET") => reply("204 No Content", &[("Range", "0-99999999999"), ("Location", &asked.path)], b""),
        _ => asked.forward(),
    };
    let never_gets_on: Answer = |asked| match (asked.path.contains("/uploads/"), asked.method.as_str()) {
        (true, "PUT" | "PATCH") => None,
        (true, "GET") => reply("204 No Content", &[("Range", "0-9"), ("Location", &asked.path)], b""),
        _ => asked.forward(),
    };
    let damages: Answer = |asked| match is(asked, "PUT", "/blobs/") {
        true => {
            asked.body().ok().and_then(|_| error("400 Bad Request", "DIGEST_INVALID", "provided digest did not match"))
        }
        false => asked.forward(),
    };
    let manifest_refused: Answer = |asked| match is(asked, "PUT", "/manifests/") {
        true => asked
            .body()
            .ok()
            .and_then(|_| error("400 Bad Request", "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")),
        false => asked.forward(),
    };
    let manifest_changed: Answer = |asked| match is(asked, "PUT", "/manifests/") {
        true => {
            let other = format!("sha256:{}", "0".repeat(64));
            asked.body().ok().and_then(|_| reply("201 Created", &[("Docker-Content-Digest", &other)], b""))
        }
        false => asked.forward(),
    };
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let lie: Arc<Mutex<Answer>> = Arc::new(Mutex::new(denied));
    let told = lie.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let lie = *told.lock().unwrap();
        lie(asked)
    });
    let daemon = Daemon::with_file(&machine, r#"{ "max-download-attempts": 2 }"#);
    daemon.load("busybox");
    for (number, (next, words)) in [
        (denied, "denied: requested access to the resource is denied"),
        (denied_without_words, "denied: requested access to the resource is denied"),
        (nowhere, "it says of no upload where it is"),
        (to_nobody, "redirects us to no address"),
        (in_circles, "that is a circle"),
        (always_busy, "it answers 500 Internal Server Error"),
        (to_be_left_alone, "try again in 3600 seconds"),
        (forgets, "blob upload unknown: upload unknown"),
        (has_more_than_there_is, "the answer to the blob sha256:"),
        (never_gets_on, "the answer to the blob sha256:"),
        (damages, "digest invalid: provided digest did not match"),
        (manifest_refused, "manifest blob unknown: blob unknown to registry"),
        (manifest_changed, "it has the digest \"sha256:0000"),
    ]
    .into_iter()
    .enumerate()
    {
        *lie.lock().unwrap() = next;
        // What one of them has taken the next has not.
        let name = format!("{}/web-{number}:1", between.host);
        daemon.dozen(&["tag", "busybox", &name]).expect(0);
        let refused = daemon.dozen(&["push", &name]).expect(1);
        assert!(refused.err.contains(words), "{number} {words}: {}", refused.err);
        let digests = daemon.dozen(&["image", "inspect", &name, "-f", "{{.RepoDigests}}"]).text();
        assert!(!digests.contains(&format!("web-{number}@")), "{digests}");
        check_tmp_is_empty(&machine);
    }
    *lie.lock().unwrap() = Asked::forward;
    daemon.dozen(&["push", &format!("{}/web-1:1", between.host)]).expect(0);
    between.stop(&machine);
}
