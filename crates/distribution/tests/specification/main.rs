//! The OCI distribution-spec 1.1, rule by rule, over a socket. Each test is named after what it shows.

#![allow(clippy::unwrap_used, missing_docs)]

mod client;
mod delete;
mod discover;
mod hostile;
mod pull;
mod push;
mod rights;
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

/// What is damaged, while nobody serves it.
pub fn problems(root: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(dozen_distribution::check(root)).unwrap().problems
}
