//! The client against servers on loopback that answer as they are told: honest ones, and such as mean ill.

#![allow(clippy::unwrap_used, missing_docs)]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dozen_model::{Classified, Digest, ErrorKind};
use dozen_registry::{
    Access, Authorities, Client, Credentials, Patience, Proxies, RegistryError, Repository, Secret, Terms, Which,
};
use dozen_settings::{Mirror, RegistrySettings};
use server::{Server, digest, json, not_found, reply};

fn terms(credentials: Option<Credentials>) -> Terms {
    let settings = RegistrySettings { attempts: 3.try_into().unwrap(), ..RegistrySettings::default() };
    Terms {
        settings,
        credentials,
        own: None,
        authorities: Authorities::of_host(None).unwrap(),
        proxies: Proxies::default(),
        patience: Patience { head: Duration::from_secs(5), silence: Duration::from_millis(300) },
    }
}

fn password() -> Option<Credentials> {
    Some(Credentials::Password { user: "me".into(), password: Secret::new("hunter2") })
}

fn repository(server: &Server, credentials: Option<Credentials>) -> Repository {
    let name = format!("{}/a/b", server.host()).parse().unwrap();
    Client::default().repository(&name, Access::Pull, terms(credentials))
}

fn tag() -> Which {
    Which::Tag("1".into())
}

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with one manifest, which answers who has the right field.
fn guarded(authorization: &'static str, challenge: String) -> impl Fn(&server::Asked) -> Vec<u8> {
    move |asked| match asked.field("authorization") {
        Some(sent) if sent == authorization => json(MANIFEST_TYPE, MANIFEST),
        Some(sent) => {
            // It says what it was told: that is not to be seen anywhere.
            let bare = sent.split(' ').next_back().unwrap();
            let body = format!(r#"{{"errors":[{{"code":"UNAUTHORIZED","message":"not {bare} or hunter2"}}]}}"#);
            reply("401 Unauthorized", &[("WWW-Authenticate", &challenge)], &body)
        }
        None => reply("401 Unauthorized", &[("WWW-Authenticate", &challenge)], ""),
    }
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(found: Result<T, RegistryError>, kind: ErrorKind, words: &str) {
    let error = found.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(error.to_string().contains(words) && error.kind() == kind, "{} {error}", error.kind() as u8);
    for secret in ["hunter2", "good.token", "bWU6aHVudGVyMg"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn a_manifest_is_verified() {
    let server = Server::new(|asked| match asked.path.as_str() {
        "/v2/a/b/manifests/1" => reply(
            "200 OK",
            &[("Content-Type", MANIFEST_TYPE), ("Docker-Content-Digest", digest(MANIFEST.as_bytes()).as_str())],
            if asked.method == "HEAD" { "" } else { MANIFEST },
        ),
        path if path == format!("/v2/a/b/manifests/{}", digest(MANIFEST.as_bytes())) => json(MANIFEST_TYPE, MANIFEST),
        _ => not_found(),
    });
    let repository = repository(&server, None);
    let resolved = repository.resolve("1").await.unwrap().unwrap();
    assert_eq!(resolved.digest, digest(MANIFEST.as_bytes()));
    let found = repository.manifest(&Which::Digest(resolved.digest.clone())).await.unwrap();
    assert_eq!((&found.digest, found.bytes.as_slice()), (&resolved.digest, MANIFEST.as_bytes()));
    assert_eq!(repository.manifest(&tag()).await.unwrap().digest, found.digest);
    assert_eq!(repository.resolve("2").await.unwrap(), None);
    let missing = repository.manifest(&Which::Tag("2".into())).await;
    check_refused(missing, ErrorKind::NotFound, "manifest unknown: manifest unknown");
}

#[tokio::test]
async fn what_is_no_manifest_is_named() {
    let wrong = digest(b"something else");
    let server = Server::new(move |asked| {
        let tag = asked.path.rsplit('/').next().unwrap();
        match tag {
            "html" => json("text/html; charset=utf-8", "<html>Log in to the network"),
            "old" => json("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}"),
            "both" => json(MANIFEST_TYPE, r#"{"manifests":[],"layers":[]}"#),
            "lies" => json("application/vnd.oci.image.index.v1+json", MANIFEST),
            "large" => reply("200 OK", &[("Content-Length", "104857600")], ""),
            "endless" => {
                let piece = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", piece.repeat(6)).into_bytes()
            }
            "wrong" => {
                reply("200 OK", &[("Content-Type", MANIFEST_TYPE), ("Docker-Content-Digest", wrong.as_str())], MANIFEST)
            }
            "noise" => b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(),
            "circle" => reply("307 Temporary Redirect", &[("Location", &asked.path)], ""),
            "nowhere" => reply("307 Temporary Redirect", &[("Location", "ftp://a/")], ""),
            _ => json(MANIFEST_TYPE, MANIFEST),
        }
    });
    let repository = repository(&server, None);
    for (tag, kind, words) in [
        ("html", ErrorKind::Invalid, "what answers is a web page, no registry"),
        ("old", ErrorKind::NotBuilt, "it is of schema 1"),
        ("both", ErrorKind::Invalid, "it has both manifests and layers"),
        ("lies", ErrorKind::Invalid, "and is a manifest"),
        ("large", ErrorKind::Invalid, "is larger than 4194304 bytes"),
        ("endless", ErrorKind::Invalid, "is larger than 4194304 bytes"),
        ("wrong", ErrorKind::Invalid, "is damaged: it has the digest"),
        ("circle", ErrorKind::Invalid, "that is a circle"),
        ("nowhere", ErrorKind::Invalid, "redirects us to no address: it is neither http nor https"),
        ("noise", ErrorKind::Unavailable, "the manifest noise from"),
    ] {
        check_refused(repository.manifest(&Which::Tag(tag.into())).await, kind, words);
    }
    let other = repository.manifest(&Which::Digest(digest(b"asked for"))).await;
    check_refused(other, ErrorKind::Invalid, "is damaged: it has the digest");
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all() {
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = asked_for.clone();
    let service = Server::new(move |asked| {
        count.fetch_add(1, Ordering::Relaxed);
        assert_eq!(asked.field("authorization"), Some("Basic bWU6aHVudGVyMg=="));
        let query = "/token?x=1&service=r.example&scope=repository%3Aa%2Fb%3Apull&account=me";
        assert_eq!(asked.path, query);
        std::thread::sleep(Duration::from_millis(50));
        json("application/json", r#"{"token":"good.token","expires_in":300}"#)
    });
    let realm = format!(
        "Bearer realm=\"http://{}/token?x=1\",service=\"r.example\",scope=\"repository:a/b:pull\"",
        service.host()
    );
    let server = Server::new(guarded("Bearer good.token", realm));
    let repository = Arc::new(repository(&server, password()));
    let many = (0..8).map(|_| {
        let repository = repository.clone();
        tokio::spawn(async move { repository.manifest(&tag()).await.map(drop) })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    assert_eq!(asked_for.load(Ordering::Relaxed), 1);
    let before = server.count();
    repository.manifest(&tag()).await.unwrap();
    assert_eq!((server.count(), asked_for.load(Ordering::Relaxed)), (before + 1, 1), "one round trip");
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_fetched_anew() {
    let number = Arc::new(AtomicUsize::new(0));
    let (given, taken) = (number.clone(), number.clone());
    let service = Server::new(move |_| {
        let token = given.fetch_add(1, Ordering::Relaxed) + 1;
        json("application/json", &format!(r#"{{"access_token":"t{token}"}}"#))
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", service.host());
    let server = Server::new(move |asked| {
        let good = format!("Bearer t{}", taken.load(Ordering::Relaxed));
        let is_good = taken.load(Ordering::Relaxed) > 0 && asked.field("authorization") == Some(&good);
        if is_good {
            json(MANIFEST_TYPE, MANIFEST)
        } else {
            reply("401 Unauthorized", &[("WWW-Authenticate", &challenge)], "")
        }
    });
    let repository = repository(&server, None);
    repository.manifest(&tag()).await.unwrap();
    // Called back.
    number.fetch_add(1, Ordering::Relaxed);
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(number.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn who_may_not_is_told_so_and_nobody_sees_a_password() {
    let server = Server::new(guarded("Basic bWU6b3RoZXI=", "Basic realm=\"r\"".into()));
    check_refused(
        repository(&server, None).manifest(&tag()).await,
        ErrorKind::Unauthorized,
        "no basic auth credentials",
    );
    check_refused(
        repository(&server, password()).manifest(&tag()).await,
        ErrorKind::Unauthorized,
        "unauthorized: not ***** or *****",
    );
    let right = Some(Credentials::Password { user: "me".into(), password: Secret::new("other") });
    repository(&server, right).manifest(&tag()).await.unwrap();
    // A token service that refuses, and says why in too many words.
    let service = Server::new(|_| reply("401 Unauthorized", &[], r#"{"details":"hunter2 is not the password"}"#));
    let server = Server::new(guarded("", format!("Bearer realm=\"http://{}/\"", service.host())));
    check_refused(
        repository(&server, password()).manifest(&tag()).await,
        ErrorKind::Unauthorized,
        "***** is not the password",
    );
    for (challenge, words) in [
        ("Bearer realm=\"http://auth.invalid/token\"", "cannot resolve auth.invalid"),
        ("Bearer realm=\"/token\"", "sends us for a token to"),
        ("Negotiate", "in a way that is not built: negotiate"),
        ("=", "it answers 401 Unauthorized"),
    ] {
        let server = Server::new(guarded("", challenge.to_owned()));
        let error = repository(&server, password()).manifest(&tag()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{challenge}: {error}");
    }
    let service = Server::new(|_| json("application/json", "<html>"));
    let server = Server::new(guarded("", format!("Bearer realm=\"http://{}/\"", service.host())));
    check_refused(
        repository(&server, None).manifest(&tag()).await,
        ErrorKind::Invalid,
        "it is no JSON of a token service",
    );
}

#[tokio::test]
async fn an_identity_token_stands_in_the_body() {
    let service = Server::new(|asked| {
        assert_eq!(
            (asked.method.as_str(), asked.path.as_str(), asked.field("authorization")),
            ("POST", "/token", None)
        );
        assert_eq!(
            asked.body,
            "grant_type=refresh_token&service=s&client_id=dozen&scope=repository%3Aa%2Fb%3Apull&refresh_token=good.token"
        );
        json("application/json", r#"{"access_token":"new"}"#)
    });
    let server =
        Server::new(guarded("Bearer new", format!("Bearer realm=\"http://{}/token\",service=s", service.host())));
    let credentials = Some(Credentials::IdentityToken(Secret::new("good.token")));
    repository(&server, credentials).manifest(&tag()).await.unwrap();
}

const BLOB: &[u8] = b"0123456789";

async fn blob(repository: &Repository) -> Result<Vec<u8>, RegistryError> {
    repository.small_blob(&digest(BLOB), BLOB.len() as u64, 100).await
}

/// What stands in `Range`.
fn begin(asked: &server::Asked) -> Option<usize> {
    asked.field("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

#[tokio::test]
async fn a_blob_goes_on_where_it_stopped() {
    let half = |bytes: &[u8]| [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", bytes].concat();
    let part = |begin: usize| {
        let range = format!("bytes {begin}-9/10");
        reply("206 Partial Content", &[("Content-Range", &range)], std::str::from_utf8(&BLOB[begin..]).unwrap())
    };
    // In three pieces.
    let server = Server::new(move |asked| match begin(asked) {
        None => half(b"012"),
        Some(3) => {
            [b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-9/10\r\nContent-Length: 7\r\n\r\n", &b"34"[..]]
                .concat()
        }
        Some(at) => part(at),
    });
    assert_eq!(blob(&repository(&server, None)).await.unwrap(), BLOB);
    assert_eq!(server.count(), 3);
    // One that knows no ranges.
    let calls = AtomicUsize::new(0);
    let server = Server::new(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => half(b"0123"),
        _ => reply("200 OK", &[], "0123456789"),
    });
    assert_eq!(blob(&repository(&server, None)).await.unwrap(), BLOB);
    for (answer, words) in [
        (reply("206 Partial Content", &[("Content-Range", "bytes 0-9/10")], "0123456789"), "it sends another part"),
        (reply("206 Partial Content", &[("Content-Range", "bytes 4-20/21")], "45"), "has got another size meanwhile"),
        (reply("206 Partial Content", &[], "456789"), "does not say which"),
        (reply("404 Not Found", &[], ""), "it answers 404 Not Found"),
        (half(b""), "the blob"),
    ] {
        let server = Server::new(move |asked| if begin(asked).is_none() { half(b"0123") } else { answer.clone() });
        let error = blob(&repository(&server, None)).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn a_blob_that_is_another_is_refused() {
    for (answer, words) in [
        (reply("200 OK", &[], "01234567890"), "has 11 bytes, where 10 were promised"),
        (b"HTTP/1.0 200 OK\r\n\r\n01234567890".to_vec(), "has 11 bytes, where 10 were promised"),
        (reply("200 OK", &[], "9876543210"), "is damaged: it has the digest"),
        (reply("200 OK", &[("Content-Length", "99999999999")], ""), "has 99999999999 bytes, where 10 were promised"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012 stalls".to_vec(), "is damaged"),
    ] {
        let server = Server::new(move |_| answer.clone());
        let error = blob(&repository(&server, None)).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let server = Server::stalling(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123".to_vec());
    let error = blob(&repository(&server, None)).await.unwrap_err().to_string();
    assert!(error.contains("nothing more comes"), "{error}");
    let error = repository(&server, None).small_blob(&digest(BLOB), 101, 100).await.unwrap_err().to_string();
    assert!(error.contains("is larger than 100 bytes"), "{error}");
}

#[tokio::test]
async fn who_keeps_the_blobs_learns_no_password() {
    let elsewhere = Server::new(|asked| {
        assert_eq!(asked.field("authorization"), None);
        reply("200 OK", &[], "0123456789")
    });
    let location = format!("http://{}/signed?signature=hunter2", elsewhere.host());
    let server = Server::new(move |asked| match asked.field("authorization") {
        Some(_) => reply("307 Temporary Redirect", &[("Location", &location)], ""),
        None => reply("401 Unauthorized", &[("WWW-Authenticate", "Basic")], ""),
    });
    assert_eq!(blob(&repository(&server, password())).await.unwrap(), BLOB);
    assert_eq!(elsewhere.count(), 1);
    drop(elsewhere);
    let error = format!("{:?}", blob(&repository(&server, password())).await.unwrap_err());
    assert!(!error.contains("hunter2") && !error.contains("signature"), "{error}");
}

#[tokio::test]
async fn a_registry_that_has_enough_of_us_is_asked_later() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let server = Server::new(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => reply("429 Too Many Requests", &[("Retry-After", "0")], ""),
        1 => reply("503 Service Unavailable", &[], "busy"),
        _ => reply(
            "200 OK",
            &[
                ("Content-Type", MANIFEST_TYPE),
                ("RateLimit-Limit", "100;w=21600"),
                ("RateLimit-Remaining", "7;w=21600"),
            ],
            MANIFEST,
        ),
    });
    let asked = repository(&server, None);
    asked.manifest(&tag()).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(asked.rate_limit().unwrap().remaining, 7);
    let server = Server::new(|_| {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
        reply("429 Too Many Requests", &[("Retry-After", "3600")], body)
    });
    let error = repository(&server, None).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.hint().unwrap(), "try again in 3600 seconds");
    assert!(error.to_string().ends_with("toomanyrequests: You have reached your pull rate limit."), "{error}");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn mirrors_are_asked_first_and_get_no_password() {
    let dead = Server::new(|_| not_found());
    let gone = dead.host();
    drop(dead);
    let empty = Server::new(|_| not_found());
    let full = Server::new(|asked| {
        assert_eq!((asked.path.as_str(), asked.field("authorization")), ("/hub/v2/library/x/manifests/1", None));
        json(MANIFEST_TYPE, MANIFEST)
    });
    let mirror = |host: String, path: &str| Mirror { is_secure: false, host, path: path.into() };
    let mut terms = terms(password());
    terms.settings.mirrors = vec![mirror(gone, ""), mirror(empty.host(), ""), mirror(full.host(), "/hub")];
    let hub = Client::default().repository(&"x:1".parse().unwrap(), Access::Pull, terms);
    hub.manifest(&tag()).await.unwrap();
    hub.manifest(&tag()).await.unwrap();
    assert_eq!((empty.count(), full.count()), (2, 2));
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let server = Server::new(|asked| {
        let link =
            |query: &str| ("Link".to_owned(), format!("<http://far.invalid/v2/other/tags/list?{query}>; rel=\"next\""));
        let page = |tags: &str, link: Option<(String, String)>| {
            let fields: Vec<_> = link.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            reply("200 OK", &fields, &format!(r#"{{"name":"a/b","tags":{tags}}}"#))
        };
        match asked.path.as_str() {
            "/v2/a/b/tags/list" => page(r#"["b","a"]"#, Some(link("last=b"))),
            "/v2/a/b/tags/list?last=b" => page(r#"["c"]"#, Some(link("last=c"))),
            "/v2/a/b/tags/list?last=c" => page("null", None),
            _ => not_found(),
        }
    });
    let tags = repository(&server, None).tags().await.unwrap();
    assert_eq!(tags.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_list_of_tags_has_bounds() {
    let page = |last: &str, tag: &str, padding: usize| {
        let link = format!("</v2/a/b/tags/list?last={last}>; rel=\"next\"");
        let padding = "a".repeat(padding);
        reply("200 OK", &[("Link", link.as_str())], &format!(r#"{{"name":"{padding}","tags":["{tag}"]}}"#))
    };
    // Always another page.
    let server = Server::new(move |asked| page(&"a".repeat(asked.path.len()), "a", 3 << 20));
    let words = "there are more than 16777216 bytes of them";
    check_refused(repository(&server, None).tags().await, ErrorKind::Unavailable, words);
    let server = Server::new(move |_| page("a", "a", 0));
    check_refused(repository(&server, None).tags().await, ErrorKind::Unavailable, "its pages lead in a circle");
    let server = Server::new(move |_| page("a", "b/../c", 0));
    check_refused(repository(&server, None).tags().await, ErrorKind::Unavailable, "something that is no tag");
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let server = Server::new(|_| not_found());
    let asked = repository(&server, None);
    drop(server);
    check_refused(asked.manifest(&tag()).await, ErrorKind::Unavailable, "cannot reach the registry 127.0.0.1:");
    let name = "no-such-host.invalid/a:1".parse().unwrap();
    let asked = Client::default().repository(&name, Access::Pull, terms(None));
    check_refused(asked.manifest(&tag()).await, ErrorKind::Unavailable, "no such host");
    let wanted: Digest = digest(b"x");
    assert!(matches!(asked.blob(&wanted, 1).await, Err(RegistryError::Unreachable { .. })));
}
