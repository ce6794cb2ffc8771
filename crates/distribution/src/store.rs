//! What a registry keeps: files of blobs, and an index of what names them.
//!
//! Nothing is answered before it is durable: a blob's file is synced, placed, its directory synced, and then it has a row;
//! a manifest, what it names and its tag are one transaction. Whatever is killed in between leaves a file without a row,
//! which the next [`Store::open`] removes, or an open upload, with which it goes on. A machine that goes down takes open
//! uploads with it, since nothing of them is synced before their end.

mod bucket;
mod check;
mod claim;
mod directory;
mod index;
mod journal;
mod lazy;
mod migrate;
mod numbers;
mod reading;
mod retention;
mod schema;
mod scrub;
mod shelves;
mod uploads;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dozen_ledger::{LedgerError, boot};
use dozen_model::{Classified, Digest, ErrorKind};
use tokio::sync::Notify;

use crate::failpoint::failpoint;
use crate::name::{ManifestReference, RepositoryName, UploadId};
use crate::refusal::{Kind, Refusal};
use directory::{BlobFile, Directory};
use index::{Aside, Index};
use shelves::Shelves;

pub use bucket::{Bucket, BucketError, BucketErrorKind, Later, Object, Pieces};
pub use check::{Checked, check, check_bucket};
pub use index::Released;
pub(crate) use index::{DescribedManifest, PutManifest, Referrer, Round, StoredManifest, TagSummary, now};
pub use lazy::LazyStore;
pub use migrate::{Migrated, Progress, migrate_to_bucket, migrate_to_directory};
pub(crate) use shelves::{Content, lend, pieces_of};
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

/// Beside a directory that may have a registry of its own.
const LOCAL: &str = "bucket";

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
    #[error("cannot use {address}")]
    Bucket { address: String, source: BucketError },
    #[error(
        "another registry serves what is in {address}: one on {host}, which has not ended in order; if it is over, say \
         --take-over, and should it still be there it ends"
    )]
    Claimed { address: String, host: String },
    #[error("{0} has something else in it, or what a migration has left that was cut: give a prefix of its own")]
    Foreign(String),
    #[error("{0} has a registry in it already: a migration takes an empty place")]
    Taken(String),
}

impl OpenError {
    /// Whether it is room that is missing.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Directory { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Index(error) => error.kind() == ErrorKind::Exhausted,
            Self::Recovery(refusal) => refusal.kind == Kind::DiskFull,
            _ => false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    pub(crate) index: Index,
    /// Of uploads.
    directory: Directory,
    shelves: Shelves,
    uploads: Mutex<HashMap<UploadId, Arc<Upload>>>,
    options: StoreOptions,
    boot: Option<String>,
    /// Told after each request that may have left something to collect.
    stirred: Notify,
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
        let shelves = Shelves::Directory(directory.clone());
        Self::recovered(index, directory, shelves, options, lock).await
    }

    /// Opens or makes one whose data lies in a bucket. The directory has what is needed on the way: uploads that have not
    /// ended, and an index, which is made anew of the bucket where it is not there. `takes_over`: also if the server of
    /// another directory has not said that it is over.
    ///
    /// # Errors
    /// The directory or the bucket cannot be used, or another registry does.
    pub async fn open_bucket(
        root: &Path,
        bucket: Arc<dyn Bucket>,
        takes_over: bool,
        options: StoreOptions,
    ) -> Result<Arc<Self>, OpenError> {
        let lock = lock(root)?;
        let local = root.join(LOCAL);
        let made = Directory::open_spool(&local);
        let directory = made.map_err(|source| OpenError::Directory { path: local.clone(), source })?;
        let index = claim::begin(&bucket, &local, takes_over).await?;
        Self::recovered(index, directory, Shelves::Bucket(bucket), options, lock).await
    }

    async fn recovered(
        index: Index,
        directory: Directory,
        shelves: Shelves,
        options: StoreOptions,
        lock: File,
    ) -> Result<Arc<Self>, OpenError> {
        let uploads = Mutex::new(HashMap::new());
        let store =
            Self { index, directory, shelves, uploads, options, boot: boot::id(), stirred: Notify::new(), _lock: lock };
        store.recover_blobs().await?;
        store.recover_uploads().await?;
        Ok(Arc::new(store))
    }

    /// Files without rows go; blobs without files are lost, until somebody uploads them again, or the file is there again.
    async fn recover_blobs(&self) -> Result<(), Refusal> {
        let known = self.index.blob_files().await?;
        let mut known: HashMap<BlobFile, u64> = known.into_iter().collect();
        let aside = self.index.aside().await?;
        let mut aside: HashMap<BlobFile, Aside> = aside.into_iter().map(|one| (one.file.clone(), one)).collect();
        let mut returned = Vec::new();
        let mut orphans = self.shelves.all().await?;
        orphans.retain(|file| match aside.remove(file) {
            Some(one) => {
                returned.extend(Some(one).filter(|one| !one.is_damaged));
                false
            }
            None => known.remove(file).is_none(),
        });
        self.shelves.remove(orphans).await?;
        let mut needless = Vec::new();
        for one in returned {
            let file = one.file.clone();
            if self.index.take_back(one).await? {
                tracing::info!("the blob {} is not lost any more: its file is there again", file.digest);
            } else {
                needless.push(file);
            }
        }
        let forgotten: Vec<_> = self.shelves.missing(aside.into_keys().collect()).await?.into_iter().collect();
        if !forgotten.is_empty() {
            self.index.forget_aside(forgotten).await?;
        }
        self.shelves.remove(needless).await?;
        for file in self.shelves.missing(known.keys().cloned().collect()).await? {
            tracing::error!("the blob {} is lost: its file is not there; push it again", file.digest);
            let size_bytes = known.get(&file).copied().unwrap_or_default();
            self.index.set_aside(file, size_bytes, false).await?;
        }
        Ok(())
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

    /// What a blob is, and how long it is.
    pub(crate) async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(Content, u64), Refusal> {
        // It may be deleted and come again, as another file, between the two looks.
        let mut last = None;
        for _ in 0..3 {
            let blob = self.index.blob(repository, digest, None).await?;
            match self.shelves.open(&blob.file).await? {
                Ok(content) => return Ok((content, blob.size_bytes)),
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
            self.shelves.remove(collected.files).await?;
            match collected.next {
                Some(next) => first = next,
                None => break,
            }
        }
        if let Some((journal, ledger)) = self.index.journal() {
            // What was changed for a client that has gone may not be there yet.
            journal.ship(ledger).await?;
            journal.look_around().await?;
            journal.condense(ledger, &self.directory.scratch()).await?;
        }
        Ok(freed)
    }

    /// Something may have been left to collect.
    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Returns when a collection may have something to do: at once, if something waits for the end of its grace time, else
    /// when somebody has changed something. Who waits here costs nothing.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn until_stirred(&self) -> Result<(), Refusal> {
        if self.table().is_empty() && self.index.names_all().await? {
            self.stirred.notified().await;
        }
        Ok(())
    }

    /// Comes true when another server has taken over what this one serves.
    pub async fn overtaken(&self) {
        match self.index.journal() {
            Some((journal, _)) => journal.overtaken().await,
            None => std::future::pending().await,
        }
    }

    /// Says that this server is over, once it serves nobody any more: another machine's need not be told to take over.
    ///
    /// # Errors
    /// The store cannot be told.
    pub async fn close(&self) -> Result<(), Refusal> {
        match self.index.journal() {
            Some((journal, ledger)) => journal.close(ledger).await,
            None => Ok(()),
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
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Refusal::of_task(&error)))
}

#[cfg(test)]
mod tests;
