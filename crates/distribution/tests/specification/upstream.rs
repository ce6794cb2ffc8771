//! Repositories of an upstream, which is one in memory: what it has comes as it is asked for, stays when it is down, and is
//! believed in nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dozen_distribution::{
    Asked, FetchedManifest, FetchedReferrer, Retention, Source, StoreOptions, Upstream, UpstreamError,
    UpstreamErrorKind, Upstreams, read_upstreams,
};
use dozen_model::Digest;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::client::{Choices, OCI_INDEX, OCI_MANIFEST, Registry, descriptor, sha256};

#[derive(Debug, Default)]
pub struct Elsewhere(Mutex<There>, Gate, Gate);

/// Blobs come as far as the first has permits, and questions of what a tag leads to as many as the second has.
#[derive(Debug)]
struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(Semaphore::MAX_PERMITS))
    }
}

#[derive(Debug, Default)]
struct There {
    tags: HashMap<String, String>,
    /// With their types.
    manifests: BTreeMap<String, (Vec<u8>, String)>,
    blobs: HashMap<String, Vec<u8>>,
    /// Of subjects.
    referrers: HashMap<String, Vec<FetchedReferrer>>,
    fails: Option<UpstreamErrorKind>,
    /// The same, of whole manifests alone.
    fails_whole: Option<UpstreamErrorKind>,
    /// It knows GET alone.
    says_no_digest: bool,
    asked: Vec<String>,
}

impl Elsewhere {
    fn change(&self, change: impl FnOnce(&mut There)) {
        change(&mut self.0.lock().unwrap());
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn put(&self, tag: &str, manifest: &Value) -> String {
        let content = manifest.to_string().into_bytes();
        let digest = sha256(&content);
        let media_type = manifest["mediaType"].as_str().unwrap().to_owned();
        self.change(|there| {
            there.manifests.insert(format!("team/web@{digest}"), (content, media_type));
            there.tags.insert(format!("team/web:{tag}"), digest.clone());
        });
        digest
    }

    /// An image of a configuration and a layer: its digest, and the layer's.
    pub fn put_image(&self, tag: &str, layer: &[u8]) -> (String, String) {
        let config = format!("{{\"config\":\"{tag}\"}}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        });
        self.change(|there| {
            there.blobs.insert(sha256(config.as_bytes()), config.clone().into_bytes());
            there.blobs.insert(sha256(layer), layer.to_vec());
        });
        (self.put(tag, &manifest), sha256(layer))
    }

    fn ask<T>(&self, what: String, find: impl FnOnce(&There) -> Option<T>) -> Result<T, UpstreamError> {
        let mut there = self.0.lock().unwrap();
        there.asked.push(what);
        let kind = there.fails.unwrap_or(UpstreamErrorKind::Missing);
        let found = if there.fails.is_some() { None } else { find(&there) };
        found.ok_or_else(|| UpstreamError { kind, words: "so it is".to_owned() })
    }
}

impl Upstream for Elsewhere {
    fn resolve<'a>(&'a self, repository: &'a str, tag: &'a str) -> Asked<'a, Option<Digest>> {
        Box::pin(async move {
            let name = format!("{repository}:{tag}");
            let told = self.ask(format!("HEAD {name}"), |there| {
                let found = there.tags.get(&name)?.parse().unwrap();
                Some(Some(found).filter(|_| !there.says_no_digest))
            });
            self.2.0.acquire().await.unwrap().forget();
            told
        })
    }

    fn manifest<'a>(&'a self, repository: &'a str, reference: &'a str) -> Asked<'a, FetchedManifest> {
        Box::pin(async move {
            let fails = self.0.lock().unwrap().fails_whole;
            if let Some(kind) = fails {
                return Err(UpstreamError { kind, words: "so it is".to_owned() });
            }
            self.ask(format!("GET {repository} {reference}"), |there| {
                let digest = there.tags.get(&format!("{repository}:{reference}")).map_or(reference, String::as_str);
                let (content, media_type) = there.manifests.get(&format!("{repository}@{digest}"))?.clone();
                Some(FetchedManifest { content, media_type })
            })
        })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a str,
        digest: &'a Digest,
        _size_bytes: u64,
        pieces: mpsc::Sender<Bytes>,
    ) -> Asked<'a, ()> {
        Box::pin(async move {
            let content =
                self.ask(format!("GET {repository} {digest}"), |there| there.blobs.get(digest.as_str()).cloned())?;
            for piece in content.chunks(1000) {
                self.1.0.acquire().await.unwrap().forget();
                if pieces.send(Bytes::copy_from_slice(piece)).await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn tags<'a>(&'a self, repository: &'a str) -> Asked<'a, Vec<String>> {
        Box::pin(async move {
            self.ask(format!("GET {repository} tags"), |there| {
                let tags = there.tags.keys().filter_map(|name| name.strip_prefix(&format!("{repository}:")));
                let tags: Vec<_> = tags.map(str::to_owned).collect();
                Some(tags).filter(|tags| !tags.is_empty())
            })
        })
    }

    fn referrers<'a>(&'a self, repository: &'a str, subject: &'a Digest) -> Asked<'a, Vec<FetchedReferrer>> {
        Box::pin(async move {
            let what = format!("GET {repository} referrers");
            self.ask(what, |there| there.referrers.get(subject.as_str()).cloned())
        })
    }
}

/// `hub/**` is its, and a tag is fresh for so long.
fn registry_of(elsewhere: &Arc<Elsewhere>, fresh: &str, store: StoreOptions) -> Registry {
    let upstreams = Upstreams::new(vec![source_of(elsewhere, fresh)]);
    Registry::with(Choices { store, upstreams: Some(upstreams), ..Choices::default() })
}

fn source_of(elsewhere: &Arc<Elsewhere>, fresh: &str) -> Source {
    source_at(elsewhere, "hub/**", fresh)
}

pub fn source_at(elsewhere: &Arc<Elsewhere>, repositories: &str, fresh: &str) -> Source {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("repositories = \"{repositories}\"\nurl = \"https://r.example\"\nfresh = \"{fresh}\"\n");
    std::fs::write(file.path(), format!("[[upstream]]\n{text}")).unwrap();
    Source::new(read_upstreams(file.path()).unwrap().remove(0), elsewhere.clone())
}

fn manifest(reference: &str) -> String {
    format!("/v2/hub/team/web/manifests/{reference}")
}

fn blob(digest: &str) -> String {
    format!("/v2/hub/team/web/blobs/{digest}")
}

#[test]
fn what_was_pulled_once_is_pulled_again_while_the_upstream_is_down() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (digest, layer) = elsewhere.put_image("latest", &[7; 10_000]);
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    let pull = |stale: bool| {
        let reply = registry.get(&manifest("latest")).is(200);
        assert_eq!((sha256(&reply.body), reply.field("content-type")), (digest.clone(), Some(OCI_MANIFEST)));
        assert_eq!(reply.field("warning").is_some_and(|words| words.starts_with("299 - ")), stale);
        assert_eq!(registry.get(&manifest(&digest)).is(200).body, reply.body);
        assert_eq!(registry.get(&blob(&layer)).is(200).body, [7; 10_000]);
    };
    pull(false);
    let layer_asked = format!("GET team/web {layer}");
    assert_eq!(elsewhere.asked(), ["HEAD team/web:latest", &format!("GET team/web {digest}"), &layer_asked]);
    // What has not changed is not brought again.
    pull(false);
    assert_eq!(elsewhere.asked(), ["HEAD team/web:latest"]);
    elsewhere.change(|there| there.fails = Some(UpstreamErrorKind::Unavailable));
    pull(true);
    // It is left alone for a while.
    pull(true);
    assert_eq!(elsewhere.asked(), ["HEAD team/web:latest"]);
    registry.get(&manifest("other")).refused(502, "UNAVAILABLE");
    // The layer is here, the configuration nobody has asked for.
    let config = sha256(b"{\"config\":\"latest\"}");
    registry.get(&blob(&config)).refused(502, "UNAVAILABLE");
    elsewhere.change(|there| there.fails = None);
    assert_eq!(registry.get(&blob(&config)).is(200).body, b"{\"config\":\"latest\"}");
}

#[test]
fn a_tag_is_asked_for_when_it_is_not_fresh_and_follows_the_upstream() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (one, _) = elsewhere.put_image("latest", b"one");
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    let pulled = |registry: &Registry| sha256(&registry.get(&manifest("latest")).is(200).body);
    assert_eq!(pulled(&registry), one);
    let (two, _) = elsewhere.put_image("latest", b"two");
    assert_eq!((pulled(&registry), elsewhere.asked().len()), (one.clone(), 2));
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    assert_eq!(pulled(&registry), two);
    elsewhere.change(|there| drop(there.tags.insert("team/web:latest".to_owned(), one.clone())));
    assert_eq!(pulled(&registry), one);
    elsewhere.change(|there| there.says_no_digest = true);
    elsewhere.asked();
    // It goes back to what is here: nothing but the question.
    assert_eq!(pulled(&registry), one);
    assert_eq!(elsewhere.asked(), ["HEAD team/web:latest", "GET team/web latest"]);
    // One that says nothing to HEAD and is out of order, as it is with a client's answer of 503.
    elsewhere.change(|there| there.fails_whole = Some(UpstreamErrorKind::Unavailable));
    let reply = registry.get(&manifest("latest")).is(200);
    assert!(sha256(&reply.body) == one && reply.field("warning").is_some());
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    registry.get(&manifest("latest")).refused(502, "UNAVAILABLE");
    elsewhere.change(|there| there.fails_whole = None);
    registry.get(&manifest("latest")).is(200);
    elsewhere.change(|there| there.tags.clear());
    registry.get(&manifest("latest")).refused(404, "MANIFEST_UNKNOWN");
    elsewhere.change(|there| there.fails = Some(UpstreamErrorKind::Denied));
    registry.get(&manifest("latest")).refused(403, "DENIED");
    // What is called by its digest is here.
    registry.get(&manifest(&one)).is(200);
}

#[test]
fn an_index_comes_without_what_nobody_asks_for() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (child, _) = elsewhere.put_image("child", b"child");
    let entry = |digest: &str| json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 9 });
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(&child), entry(&sha256(b"nowhere"))],
    });
    elsewhere.put("latest", &index);
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    assert_eq!(registry.get(&manifest("latest")).is(200).json(), index);
    assert_eq!(sha256(&registry.get(&manifest(&child)).is(200).body), child);
    registry.get(&manifest(&sha256(b"nowhere"))).refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn an_upstream_that_lies_is_not_believed() {
    let elsewhere = Arc::new(Elsewhere::default());
    let content = vec![1; 5000];
    let (digest, layer) = elsewhere.put_image("latest", &content);
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    // A manifest that nobody asked for.
    let other = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }).to_string().into_bytes();
    let key = format!("team/web@{digest}");
    let right = elsewhere.0.lock().unwrap().manifests.get(&key).cloned().unwrap();
    for wrong in [(other, OCI_INDEX), (right.0.clone(), OCI_INDEX), (b"<html>".to_vec(), "text/html")] {
        elsewhere.change(|there| drop(there.manifests.insert(key.clone(), (wrong.0, wrong.1.to_owned()))));
        registry.get(&manifest("latest")).refused(502, "UNAVAILABLE");
    }
    elsewhere.change(|there| drop(there.manifests.insert(key.clone(), right)));
    // Nothing of which no manifest tells.
    registry.get(&blob(&layer)).refused(404, "BLOB_UNKNOWN");
    registry.get(&manifest("latest")).is(200);
    // Too short, too long, and another one: the client never gets the last byte of what is not right.
    for wrong in [vec![1; 4000], vec![1; 500_000], [vec![2], vec![1; 4999]].concat()] {
        elsewhere.change(|there| drop(there.blobs.insert(layer.clone(), wrong)));
        let reply = registry.get(&blob(&layer));
        assert!(reply.status == 502 || reply.body.len() < content.len(), "{} {}", reply.status, reply.body.len());
        registry.ask("HEAD", &blob(&layer), &[], b"").is(200);
        assert_eq!(std::fs::read_dir(crate::uploads(registry.root.path())).unwrap().count(), 0);
    }
    elsewhere.change(|there| drop(there.blobs.insert(layer.clone(), content.clone())));
    assert_eq!(registry.get(&blob(&layer)).is(200).body, content);
}

#[test]
fn two_who_want_one_blob_have_it_brought_once_and_see_it_come() {
    let elsewhere = Arc::new(Elsewhere::default());
    let content: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let (_, layer) = elsewhere.put_image("latest", &content);
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    registry.get(&manifest("latest")).is(200);
    elsewhere.asked();
    // It comes as far as that, and no further.
    let gate = &elsewhere.1.0;
    gate.forget_permits(usize::MAX);
    gate.add_permits(100);
    let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", blob(&layer), registry.address);
    let mut first = registry.send(&format!("{head}\r\n"), b"");
    let mut begun = [0; 12];
    std::io::Read::read_exact(&mut first, &mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    let part = registry.send(&format!("{head}Range: bytes=150000-150999\r\n\r\n"), b"");
    let second = registry.send(&format!("{head}\r\n"), b"");
    // The first one goes away; what it wanted comes all the same.
    drop(first);
    gate.add_permits(1000);
    assert_eq!(crate::client::read_reply(second).is(200).body, content);
    assert_eq!(crate::client::read_reply(part).is(206).body, content[150_000..151_000]);
    assert_eq!(elsewhere.asked(), [format!("GET team/web {layer}")]);
    assert_eq!(registry.get(&blob(&layer)).is(200).body, content);
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn a_manifest_comes_also_if_who_asked_for_it_has_gone() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (digest, _) = elsewhere.put_image("latest", b"layer");
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    let gate = &elsewhere.2.0;
    gate.forget_permits(usize::MAX);
    let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", manifest("latest"), registry.address);
    let impatient = registry.send(&head, b"");
    while elsewhere.0.lock().unwrap().asked.is_empty() {
        std::thread::yield_now();
    }
    drop(impatient);
    gate.add_permits(1);
    // Who comes later is not asked to begin anew: there is no second permit.
    assert_eq!(sha256(&registry.get(&manifest("latest")).is(200).body), digest);
    assert_eq!(elsewhere.asked(), ["HEAD team/web:latest", &format!("GET team/web {digest}")]);
}

/// As containerd, podman and our own engine ask a mirror.
#[test]
fn a_mirror_is_told_which_registry_is_meant() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (digest, layer) = elsewhere.put_image("1", &[7; 100]);
    elsewhere.put_image("2", &[7; 100]);
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    let at = |rest: &str, registry: &str| format!("/v2/team/web/{rest}?ns={registry}");
    let given = registry.get(&at("manifests/1", "r.example")).is(200);
    assert_eq!(sha256(&given.body), digest);
    assert_eq!(registry.get(&at(&format!("blobs/{layer}"), "r.example")).is(200).body, [7; 100]);
    registry.get(&at("manifests/2", "R.example")).is(200);
    // By its name here it is the same, with nothing asked for again.
    elsewhere.asked();
    assert_eq!(registry.get(&manifest("1")).is(200).body, given.body);
    assert_eq!(elsewhere.asked(), [""; 0]);
    // Lists go on under the name that they were asked for by.
    let page = registry.get("/v2/team/web/tags/list?n=1&ns=r.example").is(200);
    assert_eq!(page.json()["name"], "team/web");
    let link = page.field("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    assert!(link.starts_with("/v2/team/web/tags/list?") && link.contains("ns=r.example"), "{link}");
    assert_eq!(registry.get(&link).is(200).json()["tags"], json!(["2"]));
    // What another registry has under this name is not here, whatever else is called so.
    for other in ["docker.io", "r.example:5000", ""] {
        registry.get(&at("manifests/1", other)).refused(404, "NAME_UNKNOWN");
    }
    registry.get("/v2/team/web/manifests/1").refused(404, "NAME_UNKNOWN");
    registry.ask("POST", &at("blobs/uploads/", "r.example"), &[], b"").refused(405, "UNSUPPORTED");
}

#[test]
fn nobody_pushes_to_it_and_other_repositories_are_as_ever() {
    let elsewhere = Arc::new(Elsewhere::default());
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    let refused = registry.ask("POST", "/v2/hub/team/web/blobs/uploads/", &[], b"").refused(405, "UNSUPPORTED");
    let words = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(words.contains("what r.example has as team/web"), "{words}");
    registry.put_manifest("hub/team/web", "latest", &json!({})).refused(405, "UNSUPPORTED");
    registry.push_image("team/web", "latest");
    registry.get("/v2/team/web/manifests/latest").is(200);
    // By the name that the server itself is called by, it is what is here.
    registry.get(&format!("/v2/team/web/manifests/latest?ns={}", registry.address)).is(200);
    registry.get("/v2/team/web/manifests/latest?ns=other.example").refused(404, "NAME_UNKNOWN");
    registry.get("/v2/team/web/manifests/none").refused(404, "MANIFEST_UNKNOWN");
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn what_somebody_else_has_is_not_given_because_an_upstream_names_it() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (_, layer) = elsewhere.put_image("latest", b"layer of ann's");
    elsewhere.change(|there| drop(there.blobs.remove(&layer)));
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    registry.push_blob("ann/private", b"layer of ann's");
    registry.get(&manifest("latest")).is(200);
    registry.get(&blob(&layer)).refused(404, "BLOB_UNKNOWN");
}

#[test]
fn a_collection_takes_what_is_deleted_and_leaves_what_may_come() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (digest, layer) = elsewhere.put_image("latest", b"layer");
    let nothing = StoreOptions { grace: std::time::Duration::ZERO, ..StoreOptions::default() };
    let registry = registry_of(&elsewhere, "1h", nothing);
    registry.get(&manifest("latest")).is(200);
    registry.push_blob("local", b"layer");
    let collect = || registry.runtime.block_on(registry.store.collect()).unwrap().blobs;
    // The other repository's own goes, and the upstream's still comes.
    assert_eq!(collect(), 1);
    assert_eq!(registry.get(&blob(&layer)).is(200).body, b"layer");
    assert_eq!(collect(), 0);
    assert_eq!(registry.get(&blob(&layer)).is(200).body, b"layer");
    registry.ask("DELETE", &manifest(&digest), &[], b"").is(202);
    assert_eq!((collect(), collect()), (1, 0));
    assert_eq!(crate::problems(registry.stop().path()), Vec::<String>::new());
}

const TAGS: &str = "/v2/hub/team/web/tags/list";

#[test]
fn the_list_of_tags_is_the_upstreams_also_of_what_nobody_has_pulled() {
    let elsewhere = Arc::new(Elsewhere::default());
    for tag in ["b", "a", "c"] {
        elsewhere.put_image(tag, b"layer");
    }
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    let first = registry.get(&format!("{TAGS}?n=2")).is(200);
    assert_eq!(first.json(), json!({ "name": "hub/team/web", "tags": ["a", "b"] }));
    let link = first.field("link").unwrap().to_owned();
    assert_eq!(link, "</v2/hub/team/web/tags/list?last=b&n=2>; rel=\"next\"");
    // All of it was asked for once, and is fresh for as long as a tag.
    elsewhere.put_image("d", b"layer");
    let second = registry.get(link.split(['<', '>']).nth(1).unwrap()).is(200);
    assert_eq!((second.json()["tags"].clone(), second.field("link")), (json!(["c"]), None));
    assert_eq!(registry.get(&format!("{TAGS}?n=0")).is(200).json()["tags"], json!([]));
    registry.get(&format!("{TAGS}?n=x")).is(400);
    assert_eq!(elsewhere.asked(), ["GET team/web tags"]);
    // Pages go on with the list that the first was of, however long one is fresh.
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    assert_eq!(registry.get(&format!("{TAGS}?n=2")).is(200).json()["tags"], json!(["a", "b"]));
    elsewhere.put_image("e", b"layer");
    assert_eq!(registry.get(&format!("{TAGS}?n=9&last=b")).is(200).json()["tags"], json!(["c", "d"]));
    assert_eq!(registry.get(TAGS).is(200).json()["tags"], json!(["a", "b", "c", "d", "e"]));
    // Nothing has been brought for it.
    assert_eq!(elsewhere.asked(), ["GET team/web tags"; 2]);
    registry.get("/v2/hub/nothing/tags/list").refused(404, "NAME_UNKNOWN");
    elsewhere.change(|there| there.fails = Some(UpstreamErrorKind::Denied));
    registry.get(TAGS).refused(403, "DENIED");
}

#[test]
fn of_an_upstream_that_is_down_the_last_list_is_told_with_what_is_here() {
    let elsewhere = Arc::new(Elsewhere::default());
    elsewhere.put_image("a", b"layer");
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    let down = |kind| elsewhere.change(|there| there.fails = kind);
    let tags = |registry: &Registry, is_stale: bool| {
        let reply = registry.get(TAGS).is(200);
        assert_eq!(reply.field("warning").is_some_and(|words| words.starts_with("299 - ")), is_stale);
        reply.json()["tags"].clone()
    };
    assert_eq!(tags(&registry, false), json!(["a"]));
    elsewhere.put_image("b", b"layer");
    registry.get(&manifest("b")).is(200);
    for kind in [UpstreamErrorKind::Unavailable, UpstreamErrorKind::Wrong] {
        down(Some(kind));
        elsewhere.asked();
        let list = tags(&registry, true);
        assert_eq!(list, json!(["a", "b"]));
    }
    // It was left alone the second time.
    assert_eq!(elsewhere.asked(), [""; 0]);
    // One that begins knows what is here, and says of the rest that it cannot be had.
    let root = registry.stop();
    let upstreams = Upstreams::new(vec![source_of(&elsewhere, "1h")]);
    let choices = || Choices { upstreams: Some(upstreams.clone()), ..Choices::default() };
    let registry = Registry::in_directory(root, choices());
    assert_eq!(tags(&registry, true), json!(["b"]));
    registry.get("/v2/hub/team/other/tags/list").refused(502, "UNAVAILABLE");
    let referrers = format!("/v2/hub/team/web/referrers/{}", sha256(b"any"));
    registry.get(&referrers).refused(502, "UNAVAILABLE");
    // Whose list it is may change: nothing is remembered of the one before.
    down(None);
    upstreams.replace(vec![source_of(&elsewhere, "1h")]);
    assert_eq!(tags(&registry, false), json!(["a", "b"]));
}

#[test]
fn a_list_of_what_cannot_be_is_not_believed() {
    let elsewhere = Arc::new(Elsewhere::default());
    elsewhere.change(|there| drop(there.tags.insert("team/web:<script>".to_owned(), String::new())));
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    registry.get(TAGS).refused(502, "UNAVAILABLE");
}

impl Elsewhere {
    /// Something about a manifest, which the list of referrers names: its digest.
    fn put_referrer(&self, subject: &str, artifact_type: &str) -> String {
        let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2 });
        let about = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type, "config": config,
            "layers": [], "subject": about,
        });
        let content = manifest.to_string().into_bytes();
        let digest = sha256(&content);
        let told = FetchedReferrer {
            digest: digest.parse().unwrap(),
            media_type: OCI_MANIFEST.to_owned(),
            size_bytes: content.len() as u64,
            artifact_type: Some(artifact_type.to_owned()),
            annotations: BTreeMap::from([("by".to_owned(), "ann".to_owned())]),
        };
        self.change(|there| {
            there.manifests.insert(format!("team/web@{digest}"), (content, OCI_MANIFEST.to_owned()));
            there.referrers.entry(subject.to_owned()).or_default().push(told);
        });
        digest
    }
}

#[test]
fn what_is_about_an_image_is_found_and_comes_by_its_digest() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (image, _) = elsewhere.put_image("latest", b"layer");
    let signature = elsewhere.put_referrer(&image, "application/vnd.signature");
    let note = elsewhere.put_referrer(&image, "application/spdx+json");
    let registry = registry_of(&elsewhere, "1h", StoreOptions::default());
    let path = format!("/v2/hub/team/web/referrers/{image}");
    let named = |reply: &crate::client::Reply| {
        let manifests = reply.json()["manifests"].as_array().unwrap().clone();
        manifests.iter().map(|it| it["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = registry.get(&path).is(200);
    let mut both = [signature.clone(), note.clone()];
    both.sort();
    assert_eq!((named(&all), all.field("content-type")), (both.to_vec(), Some(OCI_INDEX)));
    let one = registry.get(&format!("{path}?artifactType=application%2Fspdx%2Bjson")).is(200);
    assert_eq!((named(&one), one.field("oci-filters-applied")), (vec![note.clone()], Some("artifactType")));
    let told = &one.json()["manifests"][0];
    assert_eq!((&told["artifactType"], &told["annotations"]["by"]), (&json!("application/spdx+json"), &json!("ann")));
    // One list has served both questions; of what nobody is about there is an empty one.
    assert_eq!(elsewhere.asked(), ["GET team/web referrers"]);
    let none = registry.get(&format!("/v2/hub/team/web/referrers/{}", sha256(b"nothing"))).is(200);
    assert!(named(&none).is_empty() && none.field("warning").is_none());
    assert_eq!(sha256(&registry.get(&manifest(&signature)).is(200).body), signature);
    // A list that lies names what is not had.
    let key = format!("team/web@{note}");
    elsewhere.change(|there| drop(there.manifests.insert(key, (b"{}".to_vec(), OCI_MANIFEST.to_owned()))));
    registry.get(&manifest(&note)).refused(502, "UNAVAILABLE");
    // Without the upstream a server that has just begun tells what has come through it.
    elsewhere.change(|there| there.fails = Some(UpstreamErrorKind::Unavailable));
    let root = registry.stop();
    let upstreams = Some(Upstreams::new(vec![source_of(&elsewhere, "1h")]));
    let registry = Registry::in_directory(root, Choices { upstreams, ..Choices::default() });
    let here = registry.get(&path).is(200);
    assert_eq!((named(&here), here.field("warning").is_some()), (vec![signature.clone()], true));
    assert_eq!(sha256(&registry.get(&manifest(&signature)).is(200).body), signature);
}

#[test]
fn what_is_about_an_image_stays_as_long_as_it_and_goes_with_it() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (image, _) = elsewhere.put_image("latest", b"layer");
    let signature = elsewhere.put_referrer(&image, "application/vnd.signature");
    elsewhere.change(|there| drop(there.blobs.insert(sha256(b"{}"), b"{}".to_vec())));
    let grace = std::time::Duration::ZERO;
    let registry = registry_of(&elsewhere, "0s", StoreOptions { grace, ..StoreOptions::default() });
    registry.get(&manifest("latest")).is(200);
    registry.get(&manifest(&signature)).is(200);
    registry.get(&blob(&sha256(b"{}"))).is(200);
    let file = tempfile::NamedTempFile::new().unwrap();
    let rule = "[[rule]]\nrepositories = [\"hub/**\"]\nkeep-tags = [\"latest\"]\nuntagged-after = \"0s\"\n";
    std::fs::write(file.path(), rule).unwrap();
    let rules = Retention::read(file.path()).unwrap();
    let went = || {
        let released = registry.runtime.block_on(registry.store.retain(&rules, false)).unwrap();
        let blobs = registry.runtime.block_on(registry.store.collect()).unwrap().blobs;
        (released.into_iter().map(|one| one.what).collect::<Vec<_>>(), blobs)
    };
    assert_eq!(went(), (vec![], 0));
    registry.ask("DELETE", &manifest("latest"), &[], b"").is(202);
    let (mut manifests, blobs) = went();
    manifests.sort();
    let mut both = vec![format!("@{image}"), format!("@{signature}")];
    both.sort();
    assert_eq!((manifests, blobs), (both, 1));
    assert_eq!(crate::problems(registry.stop().path()), Vec::<String>::new());
}

#[test]
fn one_that_cannot_be_reached_is_found_out_once() {
    let elsewhere = Arc::new(Elsewhere::default());
    let registry = registry_of(&elsewhere, "0s", StoreOptions::default());
    for tag in ["a", "b"] {
        elsewhere.put_image(tag, b"layer");
        registry.get(&manifest(tag)).is(200);
    }
    registry.get(TAGS).is(200);
    elsewhere.asked();
    elsewhere.change(|there| there.fails = Some(UpstreamErrorKind::Unreachable));
    for path in [&manifest("a"), &manifest("b"), TAGS] {
        assert!(registry.get(path).is(200).field("warning").is_some(), "{path}");
    }
    assert_eq!(elsewhere.asked(), ["HEAD team/web:a"]);
    // Where there is nothing to give it is tried, and may be there again.
    registry.get(&manifest("c")).refused(502, "UNAVAILABLE");
    elsewhere.change(|there| there.fails = None);
    elsewhere.put_image("c", b"layer");
    assert!(registry.get(&manifest("c")).is(200).field("warning").is_none());
}

#[test]
fn that_there_is_none_is_believed_for_a_moment() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (digest, layer) = elsewhere.put_image("latest", b"layer");
    elsewhere.change(|there| drop(there.blobs.remove(&layer)));
    let upstreams = Upstreams::new(vec![source_of(&elsewhere, "1h")]);
    let registry = Registry::with(Choices { upstreams: Some(upstreams.clone()), ..Choices::default() });
    registry.get(&manifest(&digest)).is(200);
    elsewhere.asked();
    for _ in 0..3 {
        registry.get(&manifest("none")).refused(404, "MANIFEST_UNKNOWN");
        registry.get(&blob(&layer)).refused(404, "BLOB_UNKNOWN");
        registry.ask("HEAD", &blob(&layer), &[], b"").is(404);
        registry.get("/v2/hub/none/tags/list").refused(404, "NAME_UNKNOWN");
    }
    let asked = elsewhere.asked();
    assert_eq!(asked, ["HEAD team/web:none", &format!("GET team/web {layer}"), "GET none tags"]);
    // Other files of the configuration, other answers.
    upstreams.replace(vec![source_of(&elsewhere, "0s")]);
    elsewhere.put_image("none", b"layer");
    registry.get(&manifest("none")).is(200);
    registry.get(&blob(&layer)).is(200);
    // Whose tags are not believed at all, nor is it that there is none.
    for _ in 0..2 {
        registry.get(&manifest("other")).refused(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(elsewhere.asked().into_iter().filter(|asked| asked == "HEAD team/web:other").count(), 2);
}
