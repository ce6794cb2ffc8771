//! "Pull": blobs and manifests are given as they came.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::{OCI_MANIFEST, Registry, sha256};

#[test]
fn the_base_says_that_this_is_a_registry() {
    let registry = Registry::start();
    for path in ["/v2/", "/v2"] {
        assert_eq!(registry.get(path).is(200).body, b"{}");
    }
    assert_eq!(registry.ask("HEAD", "/v2/", &[], b"").is(200).body, b"");
}

#[test]
fn a_manifest_is_given_by_tag_and_by_digest_with_its_type() {
    let registry = Registry::start();
    let manifest = registry.image("a/b", "one");
    registry.put_manifest("a/b", "latest", &manifest).is(201);
    let text = manifest.to_string().into_bytes();
    for reference in ["latest".to_owned(), sha256(&text)] {
        let path = format!("/v2/a/b/manifests/{reference}");
        for (method, body) in [("GET", &text[..]), ("HEAD", b"")] {
            let reply = registry.ask(method, &path, &[("Accept", OCI_MANIFEST)], b"").is(200);
            assert_eq!(reply.field("content-type"), Some(OCI_MANIFEST));
            assert_eq!(reply.field("docker-content-digest"), Some(&*sha256(&text)));
            assert_eq!(reply.field("content-length"), Some(&*text.len().to_string()));
            assert_eq!(reply.body, body);
        }
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let registry = Registry::start();
    registry.push_image("a", "latest");
    let nowhere = sha256(b"nowhere");
    registry.get("/v2/nothing/manifests/latest").refused(404, "NAME_UNKNOWN");
    registry.get("/v2/a/manifests/none").refused(404, "MANIFEST_UNKNOWN");
    registry.get("/v2/a/manifests/.INVALID_MANIFEST_NAME").refused(404, "MANIFEST_UNKNOWN");
    registry.get(&format!("/v2/a/manifests/{nowhere}")).refused(404, "MANIFEST_UNKNOWN");
    registry.get(&format!("/v2/a/blobs/{nowhere}")).refused(404, "BLOB_UNKNOWN");
    registry.ask("HEAD", &format!("/v2/a/blobs/{nowhere}"), &[], b"").is(404);
    registry.ask("HEAD", "/v2/a/manifests/none", &[], b"").is(404);
    registry.get("/v2/a/nothing").refused(404, "UNSUPPORTED");
    registry.ask("POST", "/v2/a/manifests/latest", &[], b"").refused(405, "UNSUPPORTED");
}

#[test]
fn a_blob_is_had_only_by_repositories_that_have_it() {
    let registry = Registry::start();
    let digest = registry.push_blob("mine", b"secret");
    registry.push_blob("theirs", b"other");
    registry.get(&format!("/v2/theirs/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    let reply = registry.ask("HEAD", &format!("/v2/mine/blobs/{digest}"), &[], b"").is(200);
    assert_eq!((reply.field("content-length"), reply.body.len()), (Some("6"), 0));
}

/// Of lengths around every limit that the server has: what is sent at once, and a piece of a file.
#[test]
fn a_blob_of_any_length_is_given_whole_and_in_part() {
    let registry = Registry::start();
    for length in [0, 1, 16 << 10, (16 << 10) + 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 12345] {
        let content: Vec<u8> = (0..length).map(|at: usize| (at * 31 % 251) as u8).collect();
        let path = format!("/v2/a/blobs/{}", registry.push_blob("a", &content));
        let reply = registry.get(&path).is(200);
        assert_eq!(reply.field("content-length"), Some(&*length.to_string()));
        assert_eq!(reply.field("accept-ranges"), Some("bytes"));
        assert_eq!(reply.field("docker-content-digest"), Some(&*sha256(&content)));
        assert!(reply.body == content, "{length} bytes are not what was pushed");
        let last = length.saturating_sub(1);
        for (range, first, end) in [
            ("bytes=0-9".to_owned(), 0, length.min(10)),
            (format!("bytes={}-", length / 2), length / 2, length),
            ("bytes=-100".to_owned(), length.saturating_sub(100), length),
            (format!("bytes=0-{last}"), 0, length),
        ] {
            let reply = registry.ask("GET", &path, &[("Range", &range)], b"");
            if length == 0 {
                assert_eq!(reply.is(416).field("content-range"), Some("bytes */0"));
                continue;
            }
            let reply = reply.is(206);
            let shown = format!("bytes {first}-{}/{length}", end - 1);
            assert_eq!(reply.field("content-range"), Some(&*shown));
            assert!(reply.body == content[first..end], "{range} of {length} bytes is another part");
        }
        let beyond = registry.ask("GET", &path, &[("Range", &format!("bytes={length}-"))], b"");
        assert_eq!(beyond.is(416).field("content-range"), Some(&*format!("bytes */{length}")));
        let other = [("Range", "bytes=0-0"), ("If-Range", "\"another\"")];
        assert_eq!(registry.ask("GET", &path, &other, b"").is(200).body.len(), length);
    }
}

/// Several answers by one connection, asked for at once: each file is sent in its turn, between the heads.
#[test]
fn files_and_documents_follow_each_other_by_one_connection() {
    let registry = Registry::start();
    let contents: Vec<Vec<u8>> = (1..4_u8).map(|word| vec![word; 2_500_000 + usize::from(word)]).collect();
    let digests: Vec<String> = contents.iter().map(|content| registry.push_blob("a", content)).collect();
    let mut asked = String::new();
    for digest in &digests {
        asked += &format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        asked += "GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    }
    let mut stream = TcpStream::connect(registry.address).unwrap();
    stream.write_all(asked.as_bytes()).unwrap();
    for content in &contents {
        assert!(next(&mut stream) == *content);
        assert_eq!(next(&mut stream), b"{}");
    }
}

/// The body of the next answer.
fn next(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    body
}
