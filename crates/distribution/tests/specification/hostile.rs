//! Those who mean ill, those who stall, and rules of the house.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use dozen_distribution::{Access, AllowedHosts, Passwords, StoreOptions};

use crate::client::{Choices, Registry, read_reply, sha256};

fn uploads(registry: &Registry) -> usize {
    std::fs::read_dir(crate::uploads(registry.root.path())).unwrap().count()
}

#[test]
fn a_wrong_digest_ends_the_upload_and_leaves_nothing() {
    let registry = Registry::start();
    for digest in [sha256(b"other"), "sha256:1".to_owned(), "md5:0".to_owned(), String::new()] {
        let location = registry.begin("a");
        registry.ask("PUT", &format!("{location}?digest={digest}"), &[], b"hello").refused(400, "DIGEST_INVALID");
        registry.ask("DELETE", &location, &[], b"");
    }
    registry.ask("PUT", &registry.begin("b"), &[], b"hello").refused(400, "DIGEST_INVALID");
    assert_eq!(uploads(&registry), 1);
    registry.get(&format!("/v2/a/blobs/{}", sha256(b"hello"))).refused(404, "BLOB_UNKNOWN");
}

#[test]
fn an_upload_is_its_repositorys_alone() {
    let registry = Registry::start();
    let location = registry.begin("mine").replace("/mine/", "/theirs/");
    let put = format!("{location}?digest={}", sha256(b"x"));
    registry.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.ask("PATCH", &location, &[], b"x").refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.ask("PUT", &put, &[], b"x").refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.ask("DELETE", &location, &[], b"").refused(404, "BLOB_UPLOAD_UNKNOWN");
    let stranger = format!("/v2/mine/blobs/uploads/{}", "0".repeat(32));
    registry.ask("PATCH", &stranger, &[], b"x").refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn names_are_no_paths() {
    let registry = Registry::start();
    for name in ["..", "../../etc", "a/../../b", "%2e%2e/%2e%2e", "a%2f..%2f..", "A", "a//b", "a%00b", "."] {
        registry.ask("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").refused(400, "NAME_INVALID");
    }
    let digest = "sha256:..%2f..%2f..%2fetc%2fpasswd";
    assert!(matches!(registry.get(&format!("/v2/a/blobs/{digest}")).status, 400 | 404));
    registry.get("/v2/a/blobs/uploads/..%2f..%2findex.db").is(404);
    assert_eq!(uploads(&registry), 0);
}

#[test]
fn a_manifest_of_any_size_takes_no_memory() {
    let registry = Registry::start();
    let long = [("Content-Length", "109951162777600")];
    registry.ask("PUT", "/v2/a/manifests/x", &long, b"{").refused(413, "MANIFEST_INVALID");
    let body = vec![b' '; (4 << 20) + 1];
    registry.ask("PUT", "/v2/a/manifests/x", &[], &body).refused(413, "MANIFEST_INVALID");
    registry.ask("PUT", "/v2/a/manifests/x", &[], &body[..4 << 20]).refused(400, "MANIFEST_INVALID");
}

/// A client that thinks the connection good would send its next request to nobody.
#[test]
fn who_is_refused_before_all_is_read_is_told_that_the_connection_ends() {
    let store = StoreOptions { quota_bytes: Some(100), ..StoreOptions::default() };
    let registry = Registry::with(Choices { store, stall: Duration::from_secs(1), ..Choices::default() });
    let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(b""));
    for (length, expected) in [(200, None), (8 << 20, Some("close"))] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", registry.address);
        let answer = read_reply(registry.send(&head, &vec![0; length])).refused(403, "DENIED");
        assert_eq!(answer.field("connection"), expected, "{length}");
    }
    // One that has asked first sends nothing.
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 200\r\nExpect: 100-continue\r\n\r\n",
        registry.address
    );
    let answer = read_reply(registry.send(&head, b"")).refused(403, "DENIED");
    assert_eq!(answer.field("connection"), Some("close"));
}

#[test]
fn a_chunk_that_contradicts_itself_is_refused() {
    let registry = Registry::start();
    let location = registry.begin("a");
    for (range, code) in [("4-0", "BLOB_UPLOAD_INVALID"), ("x", "BLOB_UPLOAD_INVALID"), ("0-9", "SIZE_INVALID")] {
        registry.ask("PATCH", &location, &[("Content-Range", range)], b"hello").refused(400, code);
    }
    let chunked = [("Content-Range", "0-3"), ("Transfer-Encoding", "chunked")];
    registry.ask("PATCH", &location, &chunked, b"5\r\nhello\r\n0\r\n\r\n").refused(400, "SIZE_INVALID");
    assert_eq!(registry.get(&location).is(204).field("range"), Some("0-0"));
}

#[test]
fn what_came_of_a_broken_chunk_is_kept() {
    let registry = Registry::start();
    let location = registry.begin("a");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\n", registry.address);
    let stream = registry.send(&head, b"hello");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = (&stream).read_to_end(&mut rest);
    assert_eq!(registry.get(&location).is(204).field("range"), Some("0-4"));
    registry.ask("PUT", &format!("{location}?digest={}", sha256(b"hello!")), &[("Content-Range", "5-5")], b"!").is(201);
}

#[test]
fn a_client_that_comes_back_takes_its_upload_over() {
    let registry = Registry::start();
    let location = registry.begin("a");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\n", registry.address);
    // It neither ends nor goes on.
    let silent = registry.send(&head, b"");
    // It is there once it is refused for another's sake; until then it may be the later one of the two.
    let digest = sha256(b"hello");
    registry.ask("PATCH", &location, &[], b"hello");
    registry.ask("PUT", &format!("{location}?digest={digest}"), &[], b"");
    let answer = read_reply(silent);
    assert!(matches!(answer.status, 404 | 409), "{answer:?}");
}

#[test]
fn who_stalls_is_let_go() {
    let registry = Registry::with(Choices { stall: Duration::from_millis(300), ..Choices::default() });
    let digest = registry.push_blob("a", &vec![7; 64 << 20]);
    // A head that does not end.
    let mut stream = registry.send("GET /v2/ HTTP/1.1\r\nHost: a", b"");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    // A body that does not come.
    let location = registry.begin("a");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\n", registry.address);
    read_reply(registry.send(&head, b"hello")).refused(408, "BLOB_UPLOAD_INVALID");
    // An answer that is not taken: what comes in the end is not all of it.
    let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: {}\r\n\r\n", registry.address);
    let mut stream = registry.send(&head, b"");
    let mut first = [0; 1024];
    stream.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20, "all of it came");
}

#[test]
fn open_uploads_are_bounded() {
    let store = StoreOptions { most_uploads: 3, ..StoreOptions::default() };
    let registry = Registry::with(Choices { store, ..Choices::default() });
    let first = registry.begin("a");
    registry.begin("a");
    registry.begin("b");
    let refused = registry.ask("POST", "/v2/c/blobs/uploads/", &[], b"").refused(429, "TOOMANYREQUESTS");
    assert!(refused.field("retry-after").is_some());
    registry.ask("DELETE", &first, &[], b"").is(204);
    registry.begin("c");
    assert_eq!(uploads(&registry), 3);
}

#[test]
fn a_repository_has_no_more_than_its_quota() {
    let store = StoreOptions { quota_bytes: Some(1000), ..StoreOptions::default() };
    let registry = Registry::with(Choices { store, ..Choices::default() });
    registry.push_blob("a", &[1; 600]);
    // By what it says, before it comes.
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[("Content-Length", "1099511627776")], b"x").refused(403, "DENIED");
    // It is over: what had come of it, and is of no use, does not count.
    registry.ask("GET", &location, &[], b"").refused(404, "BLOB_UPLOAD_UNKNOWN");
    // By what comes.
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[], &[2; 300]).is(202);
    let chunked = [("Transfer-Encoding", "chunked")];
    let body = [b"1f4\r\n".as_slice(), &[2; 500], b"\r\n0\r\n\r\n"].concat();
    registry.ask("PATCH", &location, &chunked, &body).refused(403, "DENIED");
    registry.ask("GET", &location, &[], b"").refused(404, "BLOB_UPLOAD_UNKNOWN");
    // What others upload at the same time counts.
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[], &[2; 300]).is(202);
    let other = registry.begin("a");
    registry.ask("PATCH", &other, &[], &[3; 200]).refused(403, "DENIED");
    registry.ask("DELETE", &location, &[], b"").is(204);
    // By a mount.
    let large = registry.push_blob("b", &[4; 500]);
    registry.ask("POST", &format!("/v2/a/blobs/uploads/?mount={large}&from=b"), &[], b"").refused(403, "DENIED");
    // What it has already costs nothing.
    let has = sha256(&[1; 600]);
    registry.ask("POST", &format!("/v2/a/blobs/uploads/?mount={has}&from=a"), &[], b"").is(201);
    let path = format!("/v2/a/blobs/{has}");
    registry.ask("DELETE", &path, &[], b"").is(202);
    registry.push_blob("a", &[5; 1000]);
}

#[test]
fn nothing_is_changed_where_all_is_read_only() {
    let registry = Registry::start();
    let digest = registry.push_image("a", "latest");
    let registry = Registry::in_directory(registry.stop(), Choices { read_only: true, ..Choices::default() });
    registry.get("/v2/a/manifests/latest").is(200);
    registry.ask("HEAD", &format!("/v2/a/blobs/{}", sha256(b"layer latest")), &[], b"").is(200);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PUT", "/v2/a/manifests/new".to_owned()),
        ("DELETE", format!("/v2/a/manifests/{digest}")),
        ("DELETE", format!("/v2/a/blobs/{}", sha256(b"layer latest"))),
    ] {
        registry.ask(method, &path, &[], b"").refused(405, "UNSUPPORTED");
    }
}

fn with_password() -> Registry {
    let file = tempfile::NamedTempFile::new().unwrap();
    // htpasswd -nbB -C 4 ann secret
    let hash = bcrypt::hash_with_salt("secret", 4, *b"sixteen bytes of").unwrap();
    std::fs::write(file.path(), format!("ann:{}\n", hash.format_for_version(bcrypt::Version::TwoY))).unwrap();
    let access = Access::Passwords(Arc::new(Passwords::read(file.path()).unwrap()));
    Registry::with(Choices { access, hosts: AllowedHosts::Any, ..Choices::default() })
}

#[test]
fn without_a_password_nobody_is_let_in() {
    let registry = with_password();
    for (method, path) in [("GET", "/v2/"), ("GET", "/v2/_catalog"), ("POST", "/v2/a/blobs/uploads/")] {
        let refused = registry.ask(method, path, &[], b"").is(401);
        assert!(refused.field("www-authenticate").unwrap().starts_with("Basic realm="));
        assert_eq!(refused.json()["errors"][0]["code"], "UNAUTHORIZED");
    }
    // ann:wrong, bob:secret, ann:secret
    for wrong in ["Basic YW5uOndyb25n", "Basic Ym9iOnNlY3JldA=="] {
        registry.ask("GET", "/v2/", &[("Authorization", wrong)], b"").is(401);
    }
    let right = [("Authorization", "Basic YW5uOnNlY3JldA==")];
    registry.ask("GET", "/v2/", &right, b"").is(200);
    registry.ask("POST", "/v2/a/blobs/uploads/", &right, b"").is(202);
}

#[test]
fn a_page_in_a_browser_changes_nothing_and_reads_nothing_by_another_name() {
    let registry = Registry::start();
    let page = [("Origin", "https://evil.example")];
    let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(b"x"));
    registry.ask("POST", &path, &page, b"x").refused(403, "DENIED");
    let rebound = [("Host", "evil.example:5000")];
    registry.ask("GET", "/v2/_catalog", &rebound, b"").refused(403, "DENIED");
    registry.ask("GET", "/v2/_catalog", &[("Host", "localhost:5000")], b"").is(200);
    let named = AllowedHosts::Named(vec!["registry.example".to_owned()]);
    let registry = Registry::with(Choices { hosts: named, ..Choices::default() });
    registry.ask("GET", "/v2/_catalog", &[("Host", "registry.example")], b"").is(200);
}

#[test]
fn what_is_no_http_is_answered_or_dropped_and_others_go_on() {
    let registry = Registry::start();
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET /v2/ HTTP/9.9\r\n\r\n", &[b'a'; 200_000]] {
        let mut stream = TcpStream::connect(registry.address).unwrap();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.windows(6).any(|six| six == b"200 OK"));
    }
    registry.get("/v2/").is(200);
}
