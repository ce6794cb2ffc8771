//! What a registry keeps: files of blobs, and an index of what names them.
//!
//! Nothing is answered before it is durable: a blob's file is synced, placed, its directory synced, and then it has a row;
//! a manifest, what it names and its tag are one transaction. Whatever is killed in between leaves a file without a row,
//! which the next [`Store::open`] removes, or an open upload, with which it goes on. A machine that goes down takes open
//! uploads with it, since nothing of them is synced before their end.

mod check;
mod directory;
mod index;
mod numbers;
mod retention;
mod schema;
mod uploads;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dozen_ledger::{LedgerError, boot};
use dozen_model::Digest;

use crate::failpoint::failpoint;
use crate::name::{ManifestReference, RepositoryName, UploadId};
use crate::refusal::{Kind, Refusal};
use directory::{BlobFile, Directory};
use index::Index;

pub use check::{Checked, check};
pub use index::Released;
pub(crate) use index::{PutManifest, Referrer};
pub(crate) use uploads::{Upload, Writer};

/// What a store is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// What a repository may have, in all.
    pub quota_bytes: Option<u64>,
    /// Uploads that may be open at once.
    pub most_uploads: usize,
    /// An upload that nobody goes on with is given up.
    pub upload_patience: Duration,
    /// A blob that no manifest names stays so long after it was last uploaded, mounted or asked for.
    pub grace: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { quota_bytes: None, most_uploads: 1000, upload_patience: day, grace: day }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum OpenError {
    #[error("cannot use {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("another registry serves what is in {}", .0.display())]
    Busy(PathBuf),
    #[error(transparent)]
    Index(#[from] LedgerError),
    #[error("cannot read what is in it: {0}")]
    Recovery(#[from] Refusal),
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    pub(crate) index: Index,
    directory: Directory,
    uploads: Mutex<HashMap<UploadId, Arc<Upload>>>,
    options: StoreOptions,
    boot: Option<String>,
    /// Whoever has it is the only one who serves this directory.
    _lock: File,
}

/// What a collection has taken away.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// Blobs that nothing named.
    pub blobs: usize,
    /// Their sizes, in all.
    pub bytes: u64,
    /// Uploads that nobody went on with.
    pub uploads: usize,
}

impl Store {
    /// Opens or makes one, and undoes what an earlier server has left half done.
    ///
    /// # Errors
    /// The directory cannot be used, or another registry does.
    pub async fn open(root: &Path, options: StoreOptions) -> Result<Arc<Self>, OpenError> {
        let failed = |source| OpenError::Directory { path: root.to_owned(), source };
        let lock = lock(root)?;
        let index = Index::open(&root.join("index.db"))?;
        let place = root.to_owned();
        let directory = tokio::task::spawn_blocking(move || Directory::open(&place)).await;
        let directory = directory.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)?;
        let uploads = Mutex::new(HashMap::new());
        let store = Self { index, directory, uploads, options, boot: boot::id(), _lock: lock };
        store.recover_blobs().await?;
        store.recover_uploads().await?;
        Ok(Arc::new(store))
    }

    /// Files without rows go; blobs without files are lost, until somebody uploads them again.
    async fn recover_blobs(&self) -> Result<(), Refusal> {
        let mut known: HashSet<BlobFile> = self.index.blob_files().await?.into_iter().map(|(file, _)| file).collect();
        let directory = self.directory.clone();
        let lost = blocking(move || {
            let mut orphans = Vec::new();
            let looked = directory.for_each_blob(|file| {
                if !known.remove(&file) {
                    orphans.push(file);
                }
            });
            looked.map_err(|error| Refusal::of_disk("look through", Path::new("blobs"), &error))?;
            for file in &orphans {
                directory.remove_blob(file);
            }
            Ok(known)
        })
        .await?;
        for file in &lost {
            tracing::error!("the blob {} is lost: its file is not there; push it again", file.digest);
        }
        if lost.is_empty() { Ok(()) } else { self.index.lose(lost).await }
    }

    /// Uploads go on that have a row and a file, written since the machine has been up.
    async fn recover_uploads(&self) -> Result<(), Refusal> {
        let directory = self.directory.clone();
        let files = blocking(move || {
            let all = directory.uploads();
            all.map_err(|error| Refusal::of_disk("look through", Path::new("uploads"), &error))
        });
        let mut files: HashMap<UploadId, u64> = files.await?.into_iter().collect();
        for row in self.index.uploads().await? {
            match files.get(&row.id) {
                Some(length) if !boot::is_over(row.boot.as_ref(), self.boot.as_ref()) => {
                    let upload = Upload::found(row.id.clone(), row.repository, row.algorithm, *length);
                    files.remove(&row.id);
                    self.table().insert(row.id, Arc::new(upload));
                }
                _ => self.index.forget_upload(&row.id).await?,
            }
        }
        for id in files.into_keys() {
            self.directory.remove_upload(&id);
        }
        Ok(())
    }

    /// How long a blob is, if the repository has it. Who asks may be about to name it: it stays for the grace time.
    pub(crate) async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Refusal> {
        let grace_seconds = i64::try_from(self.options.grace.as_secs()).unwrap_or(i64::MAX);
        // Not each time: it is a write.
        let renew_before = index::now().saturating_sub(grace_seconds / 16);
        Ok(self.index.blob(repository, digest, Some(renew_before)).await?.size_bytes)
    }

    /// A blob's file, and how long it is.
    pub(crate) async fn open_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(File, u64), Refusal> {
        // It may be deleted and come again, as another file, between the two looks.
        let mut last = None;
        for _ in 0..3 {
            let blob = self.index.blob(repository, digest, None).await?;
            let (directory, file) = (self.directory.clone(), blob.file.clone());
            let opened = blocking(move || Ok(directory.open_blob(&file))).await?;
            match opened {
                Ok(file) => return Ok((file, blob.size_bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && last.as_ref() != Some(&blob.file) => {
                    last = Some(blob.file);
                }
                Err(error) => return Err(Refusal::of_disk("open", &self.directory.blob(&blob.file), &error)),
            }
        }
        Err(Refusal::new(Kind::BlobUnknown, "blob unknown to registry"))
    }

    /// Lets a repository have a blob of another's, or of anybody's. Whether there was one.
    pub(crate) async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool, Refusal> {
        let mounted = self.index.mount(repository, digest, from, self.options.quota_bytes).await?;
        failpoint("blob.recorded");
        Ok(mounted)
    }

    /// The repository has it no more; its file goes with a collection, if nobody else has it either.
    pub(crate) async fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), Refusal> {
        self.index.delete_blob(repository, digest).await?;
        failpoint("blob.deleted");
        Ok(())
    }

    /// Stores a manifest and its tag.
    pub(crate) async fn put_manifest(&self, mut put: PutManifest) -> Result<(), Refusal> {
        put.quota_bytes = self.options.quota_bytes;
        self.index.put_manifest(put).await?;
        failpoint("manifest.recorded");
        Ok(())
    }

    /// Deletes a tag, or a manifest with its tags.
    pub(crate) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<(), Refusal> {
        self.index.delete_manifest(repository, reference).await?;
        failpoint("manifest.deleted");
        Ok(())
    }

    /// Takes away what nothing names and nobody has asked for since the grace time began (the rule stands in
    /// `index/collect.rs`), and uploads that nobody goes on with. Everyone else goes on meanwhile.
    ///
    /// # Errors
    /// The index cannot be changed. What was taken away until then stays away.
    pub async fn collect(self: &Arc<Self>) -> Result<Freed, Refusal> {
        let mut freed = Freed { uploads: self.give_up_uploads().await?, ..Freed::default() };
        let grace_seconds = i64::try_from(self.options.grace.as_secs()).unwrap_or(i64::MAX);
        // Without a grace time what was seen in this very second goes, too.
        let unseen_since = index::now().saturating_add(1).saturating_sub(grace_seconds);
        let mut first = 0;
        loop {
            let collected = self.index.collect(first, unseen_since).await?;
            failpoint("collect.rows");
            freed.blobs += collected.files.len();
            freed.bytes += collected.bytes;
            let directory = self.directory.clone();
            blocking(move || {
                for file in &collected.files {
                    directory.remove_blob(file);
                    failpoint("collect.files");
                }
                Ok(())
            })
            .await?;
            match collected.next {
                Some(next) => first = next,
                None => return Ok(freed),
            }
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<UploadId, Arc<Upload>>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For ourselves alone (flock(2)): the kernel lets go of it when we end, however that is.
fn lock(root: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { path: root.to_owned(), source };
    std::fs::create_dir_all(root).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).open(root.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Busy(root.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Work that waits for a disk or takes a processor for long. It goes on to its end if nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a task of the registry failed");
        Err(Refusal::new(Kind::Internal, "the registry failed: its log says why"))
    })
}

#[cfg(test)]
mod tests;
