//! The same rules of the specification where all that is kept lies in a bucket (one in memory); and what is asked of a store
//! of objects alone: nothing that was answered is lost with this machine's disk, two servers do not spoil each other's work,
//! and all of it moves to a directory and back.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../specification/browse.rs"]
mod browse;
#[path = "../specification/client.rs"]
mod client;
#[path = "../specification/delete.rs"]
mod delete;
#[path = "../specification/discover.rs"]
mod discover;
#[path = "../specification/hostile.rs"]
mod hostile;
mod lasting;
#[path = "../specification/memory.rs"]
mod memory;
mod moving;
#[path = "../specification/pull.rs"]
mod pull;
#[path = "../specification/push.rs"]
mod push;
#[path = "../specification/scrub.rs"]
mod scrub;
#[path = "../specification/upstream.rs"]
mod upstream;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use dozen_distribution::{Store, StoreOptions};
use memory::Memory;

/// Whose data lies where: a registry that is opened again finds its own.
static BUCKETS: LazyLock<Mutex<HashMap<PathBuf, Arc<Memory>>>> = LazyLock::new(Mutex::default);

pub async fn open(root: &Path, options: StoreOptions) -> Arc<Store> {
    let bucket = bucket_of(root);
    Store::open_bucket(root, bucket, false, options).await.unwrap()
}

pub fn bucket_of(root: &Path) -> Arc<Memory> {
    BUCKETS.lock().unwrap().entry(root.to_owned()).or_default().clone()
}

pub fn uploads(root: &Path) -> PathBuf {
    root.join("bucket/uploads")
}

pub fn problems(root: &Path) -> Vec<String> {
    let (runtime, scratch) = (tokio::runtime::Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    runtime.block_on(dozen_distribution::check_bucket(bucket_of(root), scratch.path())).unwrap().problems
}

fn objects(root: &Path, digest: &str) -> Vec<String> {
    let digits = digest.strip_prefix("sha256:").unwrap();
    bucket_of(root).names("blobs/").into_iter().filter(|name| name.contains(digits)).collect()
}

pub fn put_content(root: &Path, digest: &str, content: &[u8]) {
    for name in objects(root, digest) {
        bucket_of(root).objects.lock().unwrap().insert(name, bytes::Bytes::copy_from_slice(content));
    }
}

pub fn count_files(root: &Path, digest: &str) -> usize {
    objects(root, digest).len()
}

pub fn hide(root: &Path, digest: &str, is_hidden: bool) {
    let bucket = bucket_of(root);
    let (from, to) = if is_hidden { ("blobs/", "hidden/") } else { ("hidden/", "blobs/") };
    let digits = digest.strip_prefix("sha256:").unwrap();
    let name = bucket.names(from).into_iter().find(|name| name.contains(digits)).unwrap();
    let mut objects = bucket.objects.lock().unwrap();
    let content = objects.remove(&name).unwrap();
    objects.insert(name.replacen(from, to, 1), content);
}
