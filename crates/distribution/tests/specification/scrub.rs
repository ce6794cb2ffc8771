//! Blobs that the disk or the store has damaged are found while the registry serves, given to nobody, and come again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dozen_distribution::{Metrics, Scrub};
use tokio::task::JoinHandle;

use crate::client::{Choices, Registry, sha256};

const ALWAYS: Scrub = Scrub { every: Duration::ZERO, bytes_per_second: u64::MAX };

fn scrub(registry: &Registry, scrub: Scrub) -> JoinHandle<()> {
    let scrubbing = dozen_distribution::scrub(registry.store.clone(), scrub, Arc::new(Metrics::default()));
    registry.runtime.spawn(scrubbing)
}

/// Waits until asking for a blob is answered so.
#[track_caller]
fn until_blob_is(registry: &Registry, name: &str, digest: &str, status: u16) {
    let begun = Instant::now();
    while registry.get(&format!("/v2/{name}/blobs/{digest}")).status != status {
        assert!(begun.elapsed() < Duration::from_secs(60), "{digest} is not answered with {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_damaged_is_given_to_nobody_and_stays_until_it_comes_again() {
    let registry = Registry::start();
    let root = registry.root.path().to_owned();
    registry.push_image("team/web", "1");
    let (layer, config) = (sha256(b"layer 1"), sha256(b"{\"config\":\"1\"}"));
    registry.ask("POST", &format!("/v2/other/blobs/uploads/?mount={layer}&from=team/web"), &[], b"").is(201);
    crate::put_content(&root, &layer, b"lager 1");
    let scrubbing = scrub(&registry, ALWAYS);
    until_blob_is(&registry, "team/web", &layer, 404);
    registry.ask("HEAD", &format!("/v2/other/blobs/{layer}"), &[], b"").is(404);
    registry.get(&format!("/v2/team/web/blobs/{config}")).is(200);
    registry.get("/v2/team/web/manifests/1").is(200);
    let mount = format!("/v2/third/blobs/uploads/?mount={layer}&from=other");
    registry.ask("POST", &mount, &[], b"").is(202);
    // Also of the next server, and after a collection.
    registry.runtime.block_on(registry.store.collect()).unwrap();
    scrubbing.abort();
    let registry = Registry::in_directory(registry.stop(), Choices::default());
    registry.get(&format!("/v2/team/web/blobs/{layer}")).is(404);
    assert_eq!(crate::count_files(&root, &layer), 1, "the file stays");
    // One push, and all who had it have it again.
    registry.push_blob("third", b"layer 1");
    assert_eq!(registry.get(&format!("/v2/team/web/blobs/{layer}")).is(200).body, b"layer 1");
    registry.get(&format!("/v2/other/blobs/{layer}")).is(200);
    assert_eq!(crate::count_files(&root, &layer), 2);
    let root_directory = registry.stop();
    assert_eq!(crate::problems(root_directory.path()), Vec::<String>::new());
}

#[test]
fn what_was_damaged_and_is_mended_is_given_again() {
    let registry = Registry::start();
    let root = registry.root.path().to_owned();
    registry.push_image("a", "1");
    let layer = sha256(b"layer 1");
    crate::put_content(&root, &layer, b"layer");
    let _scrubbing = scrub(&registry, ALWAYS);
    until_blob_is(&registry, "a", &layer, 404);
    crate::put_content(&root, &layer, b"layer 1");
    until_blob_is(&registry, "a", &layer, 200);
}

/// A disk that was not there and is there again has lost nothing.
#[test]
fn what_was_away_and_is_there_again_is_given_again() {
    let registry = Registry::start();
    let root = registry.root.path().to_owned();
    registry.push_image("a", "1");
    let layer = sha256(b"layer 1");
    crate::hide(&root, &layer, true);
    let scrubbing = scrub(&registry, ALWAYS);
    until_blob_is(&registry, "a", &layer, 404);
    scrubbing.abort();
    // As one that begins while it is away.
    let registry = Registry::in_directory(registry.stop(), Choices::default());
    registry.get(&format!("/v2/a/blobs/{layer}")).is(404);
    let stopped = registry.stop();
    crate::hide(&root, &layer, false);
    let registry = Registry::in_directory(stopped, Choices::default());
    assert_eq!(registry.get(&format!("/v2/a/blobs/{layer}")).is(200).body, b"layer 1");
}

/// What it had read before is not read again: it is told by what it does not find.
#[test]
fn the_next_server_goes_on_where_the_one_before_was() {
    let registry = Registry::start();
    let root = registry.root.path().to_owned();
    let [first, second] = [b"first".to_vec(), vec![7; 5000]].map(|content| registry.push_blob("a", &content));
    // The second one takes long.
    let slow = Scrub { every: Duration::from_secs(1000), bytes_per_second: 50 };
    let metrics = Arc::new(Metrics::default());
    let reading = dozen_distribution::scrub(registry.store.clone(), slow, metrics.clone());
    let reading = registry.runtime.spawn(reading);
    let begun = Instant::now();
    while metrics.scrubbed_blobs() < 1 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    reading.abort();
    let registry = Registry::in_directory(registry.stop(), Choices::default());
    crate::put_content(&root, &first, b"worse");
    crate::put_content(&root, &second, b"worse.");
    let _scrubbing = scrub(&registry, Scrub { bytes_per_second: u64::MAX, ..slow });
    until_blob_is(&registry, "a", &second, 404);
    // The first one was right when it was read: the next round finds it.
    registry.get(&format!("/v2/a/blobs/{first}")).is(200);
}
