//! The OCI distribution-spec 1.1, rule by rule, over a socket. Each test is named after what it shows.

#![allow(clippy::unwrap_used, missing_docs)]

mod browse;
mod client;
mod delete;
mod discover;
mod hostile;
mod pull;
mod push;
mod rights;
mod scrub;
mod upstream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_distribution::{Store, StoreOptions};

/// All of it lies in the directory.
pub async fn open(root: &Path, options: StoreOptions) -> Arc<Store> {
    Store::open(root, options).await.unwrap()
}

/// Where open uploads are.
pub fn uploads(root: &Path) -> PathBuf {
    root.join("uploads")
}

/// Where the files of this blob are.
fn files(root: &Path, digest: &str) -> Vec<PathBuf> {
    let (algorithm, digits) = digest.split_once(':').unwrap();
    let shelf = std::fs::read_dir(root.join("blobs").join(algorithm).join(&digits[..2])).unwrap();
    let all = shelf.map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(digits)).collect()
}

/// Has the disk give something else for this blob.
pub fn put_content(root: &Path, digest: &str, content: &[u8]) {
    files(root, digest).iter().for_each(|path| std::fs::write(path, content).unwrap());
}

/// How often it lies there.
pub fn count_files(root: &Path, digest: &str) -> usize {
    files(root, digest).len()
}

/// The file is away, or there again.
pub fn hide(root: &Path, digest: &str, is_hidden: bool) {
    let hidden = root.join("hidden");
    if is_hidden {
        let path = files(root, digest).pop().unwrap();
        std::fs::create_dir(&hidden).unwrap();
        std::fs::rename(&path, hidden.join(path.file_name().unwrap())).unwrap();
    } else {
        let path = std::fs::read_dir(&hidden).unwrap().next().unwrap().unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        std::fs::rename(&path, root.join("blobs/sha256").join(&name[..2]).join(name)).unwrap();
        std::fs::remove_dir(&hidden).unwrap();
    }
}

/// What is damaged, while nobody serves it.
pub fn problems(root: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(dozen_distribution::check(root)).unwrap().problems
}
