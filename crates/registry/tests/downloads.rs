//! Large blobs by several connections, and layers that are elsewhere.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, reason = "other tests have more use for it")]
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dozen_model::{Classified, ErrorKind};
use dozen_registry::{Access, Authorities, Client, Download, Patience, Proxies, RegistryError, Repository, Terms};
use dozen_settings::RegistrySettings;
use server::{Asked, Server, digest, not_found, reply};
use tokio::sync::Semaphore;

const MIB: usize = 1 << 20;

fn repository(server: &Server) -> Arc<Repository> {
    let terms = Terms {
        settings: RegistrySettings { attempts: 2.try_into().unwrap(), ..RegistrySettings::default() },
        credentials: None,
        own: None,
        authorities: Authorities::of_host(None).unwrap(),
        proxies: Proxies::default(),
        patience: Patience { head: Duration::from_secs(5), silence: Duration::from_secs(5) },
    };
    let name = format!("{}/a/b", server.host()).parse().unwrap();
    Arc::new(Client::default().repository(&name, Access::Pull, terms))
}

/// No two pieces of it are the same.
fn large() -> Arc<Vec<u8>> {
    Arc::new((0..41 * MIB as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect())
}

/// First and last byte that are asked for.
fn range(asked: &Asked, whole: usize) -> Option<(usize, usize)> {
    let (first, last) = asked.field("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().unwrap(), last.parse().unwrap_or(whole - 1)))
}

fn whole(bytes: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", bytes.len());
    [head.as_bytes(), bytes].concat()
}

/// Those bytes that are asked for.
fn part(asked: &Asked, bytes: &[u8]) -> Vec<u8> {
    let Some((first, last)) = range(asked, bytes.len()) else { return whole(bytes) };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
        last + 1 - first,
        bytes.len()
    );
    [head.as_bytes(), &bytes[first..=last]].concat()
}

/// All of a blob, with so many turns beside its own.
async fn download(server: &Server, bytes: &[u8], turns: usize) -> Result<Vec<u8>, RegistryError> {
    download_after(server, bytes, turns, async {}).await
}

/// The same; after its first piece the reader waits for something.
async fn download_after(
    server: &Server,
    bytes: &[u8],
    turns: usize,
    something: impl Future<Output = ()>,
) -> Result<Vec<u8>, RegistryError> {
    let repository = repository(server);
    let blob = repository.blob(&digest(bytes), bytes.len() as u64).await?;
    let turns = Arc::new(Semaphore::new(turns));
    let spare = turns.available_permits();
    let mut download = Download::new(&repository, blob, turns.clone());
    let mut all = Vec::new();
    let mut something = Some(something);
    while let Some(piece) = download.next_unverified().await? {
        all.extend_from_slice(&piece);
        if let Some(something) = something.take() {
            something.await;
        }
        // Whoever reads slowly sees the parts come.
        tokio::task::yield_now().await;
    }
    drop(download);
    assert_eq!(turns.available_permits(), spare, "each turn is given back");
    Ok(all)
}

#[tokio::test]
async fn a_large_blob_comes_by_several_connections() {
    let bytes = large();
    for turns in [0, 1, 3] {
        let (served, parts) = (bytes.clone(), Arc::new(Mutex::new(Vec::new())));
        let asked_for = parts.clone();
        let server = Server::new(move |asked| {
            asked_for.lock().unwrap().extend(range(asked, served.len()));
            part(asked, &served)
        });
        // The first connection could else bring all of it before anybody asks by another.
        let is_asked = async {
            while turns > 0 && parts.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(60), download_after(&server, &bytes, turns, is_asked));
        assert!(came.await.expect("parts are asked for").unwrap() == *bytes, "with {turns} turns");
        let parts = parts.lock().unwrap();
        assert_eq!(parts.is_empty(), turns == 0, "{parts:?}");
        // None is larger than what is held in memory, but for a rest, which is not held.
        let held = parts.iter().filter(|(_, last)| last + 1 < bytes.len());
        assert!(held.clone().all(|(first, last)| last + 1 - first <= 8 * MIB), "{parts:?}");
        assert!(turns == 0 || held.count() >= 1, "{parts:?}");
    }
}

#[tokio::test]
async fn a_server_without_parts_sends_it_as_it_can() {
    type Answer = fn(&Asked, &[u8], usize) -> Vec<u8>;
    // It knows of none, lies about them, or has enough of them after the first.
    let cases: [(&str, Answer); 5] = [
        ("all of it each time", |_, bytes, _| whole(bytes)),
        ("refuses", |asked, bytes, _| match range(asked, bytes.len()) {
            Some(_) => reply("416 Range Not Satisfiable", &[], ""),
            None => whole(bytes),
        }),
        ("another part", |asked, bytes, _| match range(asked, bytes.len()) {
            Some(_) => reply("206 Partial Content", &[("Content-Range", "bytes 0-1/2")], "ab"),
            None => whole(bytes),
        }),
        ("one part only", |asked, bytes, count| match count {
            2.. => whole(bytes),
            _ => part(asked, bytes),
        }),
        ("breaks off each part once", |asked, bytes, count| {
            let mut answer = part(asked, bytes);
            if count % 2 == 1 {
                answer.truncate(answer.len() / 2);
            }
            answer
        }),
    ];
    let bytes = large();
    for (what, answer) in cases {
        let (served, count) = (bytes.clone(), AtomicUsize::new(0));
        let server = Server::new(move |asked| answer(asked, &served, count.fetch_add(1, Ordering::SeqCst)));
        assert!(download(&server, &bytes, 2).await.unwrap() == *bytes, "{what}");
    }
}

#[tokio::test]
async fn a_foreign_layer_is_asked_for_where_it_is() {
    let layer = b"a layer that nobody passes on";
    let elsewhere = Server::new(move |asked| {
        assert_eq!(asked.field("authorization"), None);
        match asked.path.as_str() {
            "/layer" => part(asked, layer),
            "/moved" => reply("302 Found", &[("Location", "/layer")], ""),
            _ => not_found(),
        }
    });
    let registry = Server::new(|_| not_found());
    let repository = repository(&registry);
    let host = elsewhere.host();
    let urls = |urls: &[String]| urls.to_vec();
    let at = |path: &str| format!("http://{host}{path}");
    for urls in [
        urls(&[at("/layer")]),
        urls(&[at("/gone"), at("/moved")]),
        urls(&["ftp://far.example/".to_owned(), "nonsense".to_owned(), at("/layer")]),
    ] {
        let mut blob = repository.blob_or_elsewhere(&digest(layer), layer.len() as u64, &urls).await.unwrap();
        let mut all = Vec::new();
        while let Some(piece) = blob.next_unverified().await.unwrap() {
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, layer);
    }
    // The registry's own word, if there is nothing else.
    let missing = repository.blob_or_elsewhere(&digest(layer), layer.len() as u64, &[]).await.unwrap_err();
    assert_eq!((missing.kind(), missing.refusal().unwrap().status), (ErrorKind::NotFound, 404));
    let refused = repository.blob_or_elsewhere(&digest(layer), 3, &[at("/layer")]).await.unwrap_err();
    assert!(matches!(refused, RegistryError::Size { wanted: 3, .. }), "{refused}");
    let scheme = repository.blob_or_elsewhere(&digest(layer), 3, &["ftp://far.example/".to_owned()]).await;
    let scheme = scheme.unwrap_err();
    assert!(scheme.to_string().contains("to no address: it is neither http nor https"), "{scheme}");
}

#[tokio::test]
async fn nobody_is_sent_to_where_clouds_tell_secrets() {
    let layer = b"a layer";
    let metadata = "http://169.254.169.254/latest/meta-data/";
    let elsewhere = Server::new(move |_| reply("302 Found", &[("Location", metadata)], ""));
    let words = "169.254.169.254 is 169.254.169.254, which is where clouds tell a machine its secrets";
    // By a manifest, and by whom that names.
    let registry = Server::new(|_| not_found());
    let there = format!("http://{}/layer", elsewhere.host());
    for url in [metadata.to_owned(), "http://[fd00:ec2::254]/".to_owned(), there] {
        let refused = repository(&registry).blob_or_elsewhere(&digest(layer), 7, &[url]).await.unwrap_err().to_string();
        assert!(refused.contains("which is where clouds tell a machine its secrets"), "{refused}");
    }
    // By the registry: for a blob, and for a token.
    let refused = repository(&elsewhere).blob(&digest(layer), 7).await.unwrap_err().to_string();
    assert!(refused.contains(words), "{refused}");
    let challenge = format!("Bearer realm=\"{metadata}\",service=\"s\"");
    let wants = Server::new(move |_| reply("401 Unauthorized", &[("WWW-Authenticate", &challenge)], ""));
    let refused = repository(&wants).blob(&digest(layer), 7).await.unwrap_err().to_string();
    assert!(refused.contains(words), "{refused}");
}

#[tokio::test]
async fn what_the_registry_has_comes_from_there() {
    let layer = b"passed on all the same";
    let elsewhere = Server::new(|_| panic!("nobody is to ask"));
    let registry = Server::new(move |_| whole(layer));
    let repository = repository(&registry);
    let url = format!("http://{}/layer", elsewhere.host());
    assert!(repository.blob_or_elsewhere(&digest(layer), layer.len() as u64, &[url]).await.is_ok());
    assert_eq!(elsewhere.count(), 0);
}
