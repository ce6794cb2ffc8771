//! A registry moves from a directory to a bucket and back, also if it is cut on the way.

use std::sync::Arc;

use dozen_distribution::{
    Checked, Migrated, OpenError, Store, StoreOptions, check, check_bucket, migrate_to_bucket, migrate_to_directory,
};

use crate::client::{Choices, Registry, sha256};
use crate::memory::{Failure, Memory};
use crate::{BUCKETS, bucket_of};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A registry in a bucket, and what was pushed there.
fn pushed() -> (Arc<Memory>, Vec<String>) {
    let registry = Registry::start();
    let bucket = bucket_of(registry.root.path());
    let manifests = (0..12).map(|round| registry.push_image("team/web", &format!("t{round}"))).collect();
    registry.push_blob("team/web", &vec![9; 3 << 20]);
    registry.runtime.block_on(registry.store.close()).unwrap();
    (bucket, manifests)
}

const BLOBS: usize = 25;

#[test]
fn it_moves_to_a_directory_and_back() {
    let (bucket, manifests) = pushed();
    let (directory, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let mut last = None;
    let moved = migrate_to_directory(bucket.clone(), directory.path(), false, |progress| last = Some(progress));
    let moved = runtime.block_on(moved).unwrap();
    let last = last.unwrap();
    assert_eq!((moved.blobs, moved.known), (BLOBS, 0));
    assert_eq!((last.bytes, last.blobs), (last.total_bytes, last.total_blobs));
    let checked = runtime.block_on(check(directory.path())).unwrap();
    assert_eq!(checked, Checked { blobs: BLOBS, bytes: moved.bytes, ..Checked::default() });
    // A second time is once too often.
    let again = migrate_to_directory(bucket.clone(), directory.path(), false, |_| ());
    assert!(matches!(runtime.block_on(again), Err(OpenError::Taken(_))));
    // It is a directory's registry like any other.
    let store = runtime.block_on(Store::open(directory.path(), StoreOptions::default())).unwrap();
    drop(store);
    let back = Arc::new(Memory::default());
    let returned = migrate_to_bucket(directory.path(), back.clone(), |_| ());
    assert_eq!(runtime.block_on(returned).unwrap(), Migrated { blobs: BLOBS, bytes: moved.bytes, known: 0 });
    assert_eq!(bucket.names("blobs/"), back.names("blobs/"));
    assert_eq!(back.names("").len(), BLOBS + 1, "and one snapshot");
    let scratch = tempfile::tempdir().unwrap();
    let checked = runtime.block_on(check_bucket(back.clone(), scratch.path())).unwrap();
    assert_eq!(checked, Checked { blobs: BLOBS, bytes: moved.bytes, ..Checked::default() });
    let root = tempfile::tempdir().unwrap();
    BUCKETS.lock().unwrap().insert(root.path().to_owned(), back);
    let registry = Registry::in_directory(root, Choices::default());
    for (round, manifest) in manifests.iter().enumerate() {
        let found = registry.get(&format!("/v2/team/web/manifests/t{round}")).is(200);
        assert_eq!(sha256(&found.body), *manifest);
        let layer = format!("layer t{round}");
        assert_eq!(
            registry.get(&format!("/v2/team/web/blobs/{}", sha256(layer.as_bytes()))).is(200).body,
            layer.as_bytes()
        );
    }
    registry.push_image("team/web", "more");
}

#[test]
fn what_was_cut_goes_on() {
    let (bucket, _) = pushed();
    let (directory, runtime) = (tempfile::tempdir().unwrap(), runtime());
    // One of them does not come.
    bucket.fail(Some(|verb, name| {
        let fails = verb == "read" && name.contains(&sha256(b"layer t5")["sha256:".len()..]);
        if fails { Failure::Before } else { Failure::None }
    }));
    let cut = migrate_to_directory(bucket.clone(), directory.path(), false, |_| ());
    runtime.block_on(cut).unwrap_err();
    assert!(runtime.block_on(check(directory.path())).is_err(), "there is no registry yet");
    bucket.fail(None);
    let moved = runtime.block_on(migrate_to_directory(bucket, directory.path(), false, |_| ())).unwrap();
    assert!(moved.blobs == BLOBS && moved.known > 0, "{moved:?}");
    assert_eq!(runtime.block_on(check(directory.path())).unwrap().problems, [""; 0]);
    let back = Arc::new(Memory::default());
    back.fail(Some(|verb, name| {
        let fails = verb == "put" && name.contains(&sha256(b"layer t5")["sha256:".len()..]);
        if fails { Failure::After } else { Failure::None }
    }));
    runtime.block_on(migrate_to_bucket(directory.path(), back.clone(), |_| ())).unwrap_err();
    // Nobody begins with half of it, and no other directory goes on with it.
    back.fail(None);
    let root = tempfile::tempdir().unwrap();
    let opened = Store::open_bucket(root.path(), back.clone(), true, StoreOptions::default());
    assert!(matches!(runtime.block_on(opened), Err(OpenError::Foreign(_))));
    let other = tempfile::tempdir().unwrap();
    drop(runtime.block_on(Store::open(other.path(), StoreOptions::default())).unwrap());
    let mixed = runtime.block_on(migrate_to_bucket(other.path(), back.clone(), |_| ()));
    assert!(matches!(mixed, Err(OpenError::Foreign(_))), "{mixed:?}");
    let moved = runtime.block_on(migrate_to_bucket(directory.path(), back, |_| ())).unwrap();
    assert!(moved.blobs == BLOBS && moved.known > 0, "{moved:?}");
}

#[test]
fn a_blob_that_is_damaged_is_found_on_the_way() {
    let (bucket, _) = pushed();
    let (directory, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let digits = sha256(b"layer t5")["sha256:".len()..].to_owned();
    let name = bucket.names("blobs/").into_iter().find(|name| name.contains(&digits)).unwrap();
    let whole = bucket.objects.lock().unwrap().insert(name.clone(), b"layer t6".as_slice().into()).unwrap();
    let refused = runtime.block_on(migrate_to_directory(bucket.clone(), directory.path(), false, |_| ()));
    assert!(refused.unwrap_err().to_string().contains("is damaged"));
    let scratch = tempfile::tempdir().unwrap();
    let checked = runtime.block_on(check_bucket(bucket.clone(), scratch.path())).unwrap();
    assert!(checked.problems.len() == 1 && checked.problems[0].contains("is damaged"), "{checked:?}");
    bucket.objects.lock().unwrap().insert(name, whole);
    runtime.block_on(migrate_to_directory(bucket.clone(), directory.path(), false, |_| ())).unwrap();
    let blob = std::fs::read_dir(directory.path().join("blobs/sha256").join(&digits[..2])).unwrap();
    let blob = blob.map(|entry| entry.unwrap().path()).find(|path| path.to_str().unwrap().contains(&digits)).unwrap();
    std::fs::write(blob, b"layer t6").unwrap();
    let back = Arc::new(Memory::default());
    let refused = runtime.block_on(migrate_to_bucket(directory.path(), back, |_| ()));
    assert!(refused.unwrap_err().to_string().contains("is damaged"));
}
