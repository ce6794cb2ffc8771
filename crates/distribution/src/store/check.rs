//! Whether a store is what its index says: every blob is read and hashed, every manifest looked through.

use std::path::Path;

use super::directory::{Directory, read_all};
use super::index::Index;
use super::{OpenError, blocking, lock};
use crate::hasher::{Algorithm, Hasher};
use crate::refusal::Refusal;

/// What a check has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs that were read.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
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
    let mut checked = Checked { problems: index.contradictions().await?, ..Checked::default() };
    let files = index.blob_files().await?;
    let failed = |source| OpenError::Directory { path: root.to_owned(), source };
    let directory = Directory::open(root).map_err(failed)?;
    for (file, size) in files {
        let directory = directory.clone();
        let found = blocking(move || {
            let mut hasher = Hasher::new(Algorithm::of(&file.digest));
            let read = directory.open_blob(&file).and_then(|blob| read_all(&blob, |bytes| hasher.update(bytes)));
            Ok::<_, Refusal>(match read {
                Err(error) => Err(format!("the blob {} cannot be read: {error}", file.digest)),
                Ok(length) if length != size => {
                    Err(format!("the blob {} has {length} bytes, the index says {size}", file.digest))
                }
                Ok(_) if hasher.digest() != file.digest => {
                    Err(format!("the blob {} is damaged: its content has {}", file.digest, hasher.digest()))
                }
                Ok(length) => Ok(length),
            })
        })
        .await?;
        checked.blobs += 1;
        match found {
            Ok(length) => checked.bytes += length,
            Err(problem) => checked.problems.push(problem),
        }
    }
    Ok(checked)
}
