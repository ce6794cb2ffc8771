//! Whether a store is what its index says: every blob is read and hashed, every manifest looked through.

use std::path::Path;

use std::sync::Arc;

use super::bucket::Bucket;
use super::claim::{Found, restore};
use super::directory::Directory;
use super::index::Index;
use super::shelves::{Shelves, object_name};
use super::{OpenError, lock};

/// What a check has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs that were read.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Damaged files that were set aside, a sentence each.
    pub aside: Vec<String>,
}

/// Looks through the store in this directory, which no registry may serve meanwhile, and changes nothing in it.
///
/// # Errors
/// There is no store, it is in use, or it cannot be read.
pub async fn check(root: &Path) -> Result<Checked, OpenError> {
    let path = root.join("index.db");
    if let Err(source) = std::fs::metadata(&path) {
        return Err(OpenError::Directory { path, source });
    }
    let _lock = lock(root)?;
    let index = Index::open(&path)?;
    let failed = |source| OpenError::Directory { path: root.to_owned(), source };
    let directory = Directory::open(root).map_err(failed)?;
    look_through(&index, &Shelves::Directory(directory)).await
}

/// Looks through what lies in a bucket, and changes nothing there; the directory is for an index that is made for this. A
/// registry that serves it meanwhile is told of among the problems.
///
/// # Errors
/// There is no registry in it, or it cannot be read.
pub async fn check_bucket(bucket: Arc<dyn Bucket>, scratch: &Path) -> Result<Checked, OpenError> {
    let address = bucket.address();
    let failed = |source| OpenError::Bucket { address: address.clone(), source };
    let found = Found::look(&*bucket).await.map_err(failed)?;
    if found.last_header(&*bucket).await?.is_none() {
        let path = scratch.to_owned();
        return Err(OpenError::Directory { path, source: std::io::Error::other(format!("no registry in {address}")) });
    }
    let path = scratch.join("index.db");
    restore(&bucket, &found, &path).await?;
    let mut checked = look_through(&Index::open(&path)?, &Shelves::Bucket(bucket.clone())).await?;
    if Found::look(&*bucket).await.map_err(failed)? != found {
        let words = format!("a registry serves {address} meanwhile: what is not there may have been collected");
        checked.problems.push(words);
    }
    Ok(checked)
}

async fn look_through(index: &Index, shelves: &Shelves) -> Result<Checked, OpenError> {
    let mut checked = Checked { problems: index.contradictions().await?, ..Checked::default() };
    for (file, size_bytes) in index.blob_files().await? {
        checked.blobs += 1;
        match shelves.verify(&file, size_bytes, None).await?.problem(&file.digest) {
            None => checked.bytes += size_bytes,
            Some(problem) => checked.problems.push(problem),
        }
    }
    for aside in index.aside().await?.iter().filter(|aside| aside.is_damaged) {
        checked.aside.push(format!("{} was found damaged: it is nobody's, and stays", object_name(&aside.file)));
    }
    Ok(checked)
}
