//! What has been answered is in the bucket, whatever becomes of this machine and of the store in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dozen_distribution::{OpenError, Store, StoreOptions};

use crate::client::{Choices, Registry, sha256};
use crate::memory::{Failure, Memory};
use crate::{BUCKETS, bucket_of};

/// A directory on another machine, with the same bucket.
fn elsewhere(bucket: &Arc<Memory>) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    BUCKETS.lock().unwrap().insert(root.path().to_owned(), bucket.clone());
    root
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_disk_that_is_lost_takes_nothing_along() {
    let registry = Registry::start();
    let bucket = bucket_of(registry.root.path());
    let manifest = registry.push_image("team/web", "1");
    registry.push_image("team/web", "gone");
    registry.ask("DELETE", "/v2/team/web/manifests/gone", &[], b"").is(202);
    let layer = sha256(b"layer 1");
    registry.ask("POST", &format!("/v2/other/blobs/uploads/?mount={layer}&from=team/web"), &[], b"").is(201);
    let large = vec![7; 300 << 10];
    let large_digest = registry.push_blob("team/web", &large);
    drop(registry.stop());
    // Nobody has said that the one before is over.
    let root = elsewhere(&bucket);
    let runtime = runtime();
    let refused = runtime.block_on(Store::open_bucket(root.path(), bucket.clone(), false, StoreOptions::default()));
    assert!(matches!(refused, Err(OpenError::Claimed { .. })), "{refused:?}");
    let store =
        runtime.block_on(Store::open_bucket(root.path(), bucket.clone(), true, StoreOptions::default())).unwrap();
    runtime.block_on(store.close()).unwrap();
    drop((store, runtime));
    let root = elsewhere(&bucket);
    let registry = Registry::in_directory(root, Choices::default());
    assert_eq!(registry.get("/v2/team/web/tags/list").is(200).json()["tags"], serde_json::json!(["1"]));
    let found = registry.get("/v2/team/web/manifests/1").is(200);
    assert_eq!(sha256(&found.body), manifest);
    assert_eq!(registry.get(&format!("/v2/other/blobs/{layer}")).is(200).body, b"layer 1");
    assert_eq!(registry.get(&format!("/v2/team/web/blobs/{large_digest}")).is(200).body, large);
    let part = [("Range", "bytes=100-70000")];
    let part = registry.ask("GET", &format!("/v2/team/web/blobs/{large_digest}"), &part, b"").is(206);
    assert_eq!(part.body, large[100..=70_000]);
    // The manifest without its tag is one all the same.
    registry.get(&format!("/v2/team/web/blobs/{}", sha256(b"layer gone"))).is(200);
}

#[test]
fn who_has_been_overtaken_changes_nothing_more() {
    let first = Registry::start();
    let bucket = bucket_of(first.root.path());
    first.push_image("a", "kept");
    let loose = first.push_blob("a", b"loose");
    let root = elsewhere(&bucket);
    let runtime = runtime();
    let second = Store::open_bucket(root.path(), bucket.clone(), true, StoreOptions::default());
    let second = runtime.block_on(second).unwrap();
    let before = bucket.names("");
    first.ask("DELETE", "/v2/a/manifests/kept", &[], b"").refused(503, "UNAVAILABLE");
    first.ask("DELETE", &format!("/v2/a/blobs/{loose}"), &[], b"").refused(503, "UNAVAILABLE");
    first.runtime.block_on(first.store.collect()).unwrap_err();
    first.runtime.block_on(first.store.overtaken());
    assert_eq!(bucket.names(""), before, "nothing came and nothing went");
    runtime.block_on(second.close()).unwrap();
    drop(second);
    let registry = Registry::in_directory(root, Choices::default());
    registry.get("/v2/a/manifests/kept").is(200);
}

#[test]
fn one_that_writes_nothing_hears_of_it_when_it_looks_around() {
    let first = Registry::start();
    let bucket = bucket_of(first.root.path());
    let root = elsewhere(&bucket);
    let runtime = runtime();
    let second = Store::open_bucket(root.path(), bucket, true, StoreOptions::default());
    let _second = runtime.block_on(second).unwrap();
    first.runtime.block_on(first.store.collect()).unwrap_err();
    first.runtime.block_on(first.store.overtaken());
}

#[test]
fn a_store_that_is_down_is_said_and_goes_on() {
    let registry = Registry::start();
    let bucket = bucket_of(registry.root.path());
    let digest = registry.push_image("a", "before");
    bucket.fail(Some(|_, _| Failure::Before));
    let refused = registry.ask("PUT", &format!("{}?digest={}", registry.begin("a"), sha256(b"x")), &[], b"x");
    let refused = refused.refused(503, "UNAVAILABLE");
    assert_eq!(refused.field("retry-after"), Some("5"));
    assert!(!refused.json().to_string().contains("down"), "the client is not told what the store says");
    registry.get(&format!("/v2/a/blobs/{}", sha256(b"layer before"))).refused(503, "UNAVAILABLE");
    // What is in the index is still given.
    registry.get("/v2/a/manifests/before").is(200);
    registry.ask("DELETE", "/v2/a/manifests/before", &[], b"").refused(503, "UNAVAILABLE");
    // From the first change that could not be told on, nothing more is changed here either.
    registry.ask("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").refused(503, "UNAVAILABLE");
    registry.get(&format!("/v2/a/manifests/{digest}")).is(200);
    bucket.fail(None);
    registry.push_image("a", "after");
    registry.get(&format!("/v2/a/blobs/{}", sha256(b"layer after"))).is(200);
    registry.get("/v2/a/manifests/before").is(404);
}

/// An upload outlasts a store that is down: it is in a file here until the bucket has it.
#[test]
fn an_upload_is_tried_again_once_the_store_is_up() {
    let registry = Registry::start();
    let bucket = bucket_of(registry.root.path());
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[], b"hello").is(202);
    bucket.fail(Some(|_, _| Failure::Before));
    let put = format!("{location}?digest={}", sha256(b"hello"));
    registry.ask("PUT", &put, &[], b"").refused(503, "UNAVAILABLE");
    bucket.fail(None);
    registry.ask("PUT", &put, &[], b"").is(201);
    assert_eq!(std::fs::read_dir(crate::uploads(registry.root.path())).unwrap().count(), 0);
}

/// As a kill leaves it that comes between an entry in the bucket and the word of it here.
#[test]
fn an_upload_goes_on_where_the_index_here_is_not_the_last() {
    let registry = Registry::start();
    let location = registry.begin("a");
    registry.ask("PATCH", &location, &[], b"hello ").is(202);
    let (root, copy) = (registry.stop(), tempfile::tempdir().unwrap());
    let names = ["index.db", "index.db-wal"];
    let copy_all = |from: &std::path::Path, to: &std::path::Path| {
        for name in names {
            let _ = std::fs::remove_file(to.join(name));
            if from.join(name).exists() {
                std::fs::copy(from.join(name), to.join(name)).unwrap();
            }
        }
    };
    copy_all(&root.path().join("bucket"), copy.path());
    let registry = Registry::in_directory(root, Choices::default());
    // More than are read at once.
    (0..20).for_each(|number| drop(registry.push_blob("a", format!("later {number}").as_bytes())));
    let root = registry.stop();
    copy_all(copy.path(), &root.path().join("bucket"));
    let registry = Registry::in_directory(root, Choices::default());
    (0..20).for_each(|number| {
        let content = format!("later {number}");
        registry.get(&format!("/v2/a/blobs/{}", sha256(content.as_bytes()))).is(200);
    });
    assert_eq!(registry.get(&location).is(204).field("range"), Some("0-5"));
    let put = format!("{location}?digest={}", sha256(b"hello world"));
    registry.ask("PUT", &put, &[("Content-Range", "6-10")], b"world").is(201);
}

/// The store has done it, and its answer was lost: the entry is found there, and is no other server's.
#[test]
fn an_answer_that_was_lost_is_no_other_server() {
    static LOST: AtomicUsize = AtomicUsize::new(0);
    let registry = Registry::start();
    let bucket = bucket_of(registry.root.path());
    registry.push_image("a", "1");
    let manifest = registry.image("a", "1");
    bucket.fail(Some(|verb, _| {
        let is_lost = verb == "put_new" && LOST.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        if is_lost { Failure::After } else { Failure::None }
    }));
    for round in 0..4 {
        let tag = format!("t{round}");
        // The same bytes, so that only the tag is new.
        registry.put_manifest("a", &tag, &manifest).refused(503, "UNAVAILABLE");
    }
    bucket.fail(None);
    registry.push_image("a", "last");
    drop(registry.stop());
    let registry = Registry::in_directory(taken_over(&bucket), Choices::default());
    let tags = registry.get("/v2/a/tags/list").is(200).json();
    assert_eq!(tags["tags"], serde_json::json!(["1", "last", "t0", "t1", "t2", "t3"]));
}

fn taken_over(bucket: &Arc<Memory>) -> tempfile::TempDir {
    let (root, runtime) = (elsewhere(bucket), runtime());
    let store = runtime.block_on(Store::open_bucket(root.path(), bucket.clone(), true, StoreOptions::default()));
    drop(store.unwrap());
    root
}

/// Hundreds of changes, several snapshots, one after the other opened anew: the rows are the same.
#[test]
fn many_entries_become_a_snapshot() {
    let registry = Registry::start();
    let bucket = bucket_of(registry.root.path());
    let digest = registry.push_blob("a", b"one");
    for _ in 0..600 {
        registry.ask("DELETE", &format!("/v2/a/blobs/{digest}"), &[], b"").is(202);
        registry.ask("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], b"one").is(201);
    }
    registry.push_image("a", "1");
    assert!(bucket.names("journal/").len() > 1000);
    registry.runtime.block_on(registry.store.collect()).unwrap();
    assert_eq!(bucket.names("snapshot/").len(), 1);
    // The one in which it began, and the last.
    assert_eq!(bucket.names("journal/").len(), 2, "{:?}", bucket.names("journal/"));
    registry.push_image("a", "2");
    drop(registry.stop());
    let registry = Registry::in_directory(taken_over(&bucket), Choices::default());
    assert_eq!(registry.get("/v2/a/tags/list").is(200).json()["tags"], serde_json::json!(["1", "2"]));
    registry.get(&format!("/v2/a/blobs/{digest}")).is(200);
}

#[test]
fn an_object_that_is_lost_waits_for_another_push_and_one_of_nobody_goes() {
    let registry = Registry::start();
    let bucket = bucket_of(registry.root.path());
    registry.push_image("a", "1");
    let (layer, orphan) = (sha256(b"layer 1"), format!("blobs/sha256/00/{}.{}", "0".repeat(64), "0".repeat(32)));
    let name = bucket.names("blobs/").into_iter().find(|name| name.contains(&layer["sha256:".len()..])).unwrap();
    let root = registry.stop();
    bucket.objects.lock().unwrap().remove(&name);
    bucket.objects.lock().unwrap().insert(orphan.clone(), b"x".as_slice().into());
    let registry = Registry::in_directory(root, Choices::default());
    assert!(!bucket.names("blobs/").contains(&orphan));
    registry.ask("HEAD", &format!("/v2/a/blobs/{layer}"), &[], b"").is(404);
    registry.push_blob("a", b"layer 1");
    assert_eq!(registry.get(&format!("/v2/a/blobs/{layer}")).is(200).body, b"layer 1");
}

#[test]
fn what_is_in_a_bucket_and_no_registry_stays() {
    let bucket = Arc::new(Memory::default());
    bucket.objects.lock().unwrap().insert("photos/cat".to_owned(), b"cat".as_slice().into());
    let (root, runtime) = (elsewhere(&bucket), runtime());
    let opened = Store::open_bucket(root.path(), bucket.clone(), true, StoreOptions::default());
    assert!(matches!(runtime.block_on(opened), Err(OpenError::Foreign(_))));
    assert_eq!(bucket.names(""), ["photos/cat"]);
}

#[test]
fn who_pulls_a_large_blob_is_sent_to_the_store_for_it() {
    let registry = Registry::with(Choices { redirects: true, ..Choices::default() });
    let large = vec![7; 100 << 10];
    let (digest, small) = (registry.push_blob("a", &large), registry.push_blob("a", b"small"));
    let bucket = bucket_of(registry.root.path());
    let name = bucket.names("blobs/").into_iter().find(|name| name.contains(&digest["sha256:".len()..])).unwrap();
    for fields in [&[][..], &[("Range", "bytes=5-")]] {
        let reply = registry.ask("GET", &format!("/v2/a/blobs/{digest}"), fields, b"").is(307);
        let address = format!("https://store.example/{name}?seconds=1200&sign=secret");
        assert_eq!(reply.field("location"), Some(address.as_str()));
        assert_eq!((reply.field("cache-control"), reply.field("etag"), reply.body.len()), (Some("no-store"), None, 0));
    }
    assert_eq!(registry.get(&format!("/v2/a/blobs/{small}")).is(200).body, b"small");
    let head = registry.ask("HEAD", &format!("/v2/a/blobs/{digest}"), &[], b"").is(200);
    assert_eq!(head.field("content-length"), Some("102400"));
    registry.get(&format!("/v2/other/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    bucket.fail(Some(|verb, _| if verb == "lend" { Failure::Before } else { Failure::None }));
    registry.get(&format!("/v2/a/blobs/{digest}")).refused(503, "UNAVAILABLE");
}
