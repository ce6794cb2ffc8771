//! Open uploads: a file that grows, and the hash of what is in it, which is taken while it grows.
//!
//! One request at a time writes to an upload. A second one is taken for its client come back after a connection that
//! broke, of which the server may hear much later: it takes over, and the first one fails.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use dozen_model::Digest;
use tokio::sync::{OwnedMutexGuard, watch};

use super::directory::{BlobFile, Directory, read_all};
use super::index::{Recorded, StoredBlob, UploadRow, quota_exceeded};
use super::shelves::Shelves;
use super::{Store, blocking};
use crate::failpoint::failpoint;
use crate::hasher::{Algorithm, Hasher};
use crate::name::{RepositoryName, UploadId};
use crate::refusal::{Kind, Refusal};

/// See the module.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: UploadId,
    pub(crate) repository: RepositoryName,
    /// As far as the file goes, for those who only ask.
    length: AtomicU64,
    touched: Mutex<Instant>,
    /// Counts those who wanted to write.
    turn: watch::Sender<u64>,
    spool: Arc<tokio::sync::Mutex<Spool>>,
}

#[derive(Debug)]
struct Spool {
    /// `None` until somebody writes, of an upload that an earlier server has begun.
    file: Option<Arc<File>>,
    length: u64,
    /// Of the first `hashed` bytes.
    hasher: Hasher,
    hashed: u64,
    /// It has become a blob, or was given up.
    is_over: bool,
}

/// Who writes to an upload.
#[derive(Debug)]
pub(crate) struct Writer {
    upload: Arc<Upload>,
    spool: OwnedMutexGuard<Spool>,
    turn: watch::Receiver<u64>,
}

impl Upload {
    fn new(
        id: UploadId,
        repository: RepositoryName,
        algorithm: Algorithm,
        length: u64,
        file: Option<Arc<File>>,
    ) -> Self {
        let spool = Spool { file, length, hasher: Hasher::new(algorithm), hashed: 0, is_over: false };
        Self {
            id,
            repository,
            length: AtomicU64::new(length),
            touched: Mutex::new(Instant::now()),
            turn: watch::Sender::new(0),
            spool: Arc::new(tokio::sync::Mutex::new(spool)),
        }
    }

    /// One that an earlier server has begun.
    pub(super) fn found(id: UploadId, repository: RepositoryName, algorithm: Algorithm, length: u64) -> Self {
        Self::new(id, repository, algorithm, length, None)
    }

    /// How much is there.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits for whoever writes to give up.
    pub(crate) async fn write(self: &Arc<Self>) -> Result<Writer, Refusal> {
        self.turn.send_modify(|turn| *turn += 1);
        let turn = self.turn.subscribe();
        let spool = self.spool.clone().lock_owned().await;
        if spool.is_over {
            return Err(unknown());
        }
        if turn.has_changed().unwrap_or(false) {
            return Err(taken_over());
        }
        self.touch();
        Ok(Writer { upload: self.clone(), spool, turn })
    }
}

impl Writer {
    /// How much is there.
    pub(crate) fn length(&self) -> u64 {
        self.spool.length
    }

    /// What it is written to, for who reads it meanwhile. It can be read after it has become a blob, too.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        self.spool.file.clone()
    }

    /// To whom it is done.
    pub(crate) fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }

    /// Comes true when another request wants to go on with the upload.
    pub(crate) async fn overtaken(&mut self) -> Refusal {
        // The sender lives as long as the upload, which we have.
        let _ = self.turn.changed().await;
        taken_over()
    }

    /// Opens the file, and hashes what has not been hashed yet.
    fn catch_up(&mut self, directory: &Directory) -> Result<(), Refusal> {
        let spool = &mut *self.spool;
        if spool.file.is_none() {
            spool.file = Some(Arc::new(directory.open_upload(&self.upload.id)?));
        }
        if spool.hashed != spool.length {
            spool.rehash(directory, &self.upload.id, spool.hasher.algorithm())?;
        }
        Ok(())
    }

    fn append(&mut self, directory: &Directory, batch: &[Bytes]) -> Result<(), Refusal> {
        self.catch_up(directory)?;
        let spool = &mut *self.spool;
        let Some(file) = &spool.file else { return Err(unknown()) };
        for bytes in batch {
            directory.append(&self.upload.id, file, spool.length, bytes)?;
            spool.hasher.update(bytes);
            spool.length += bytes.len() as u64;
            spool.hashed = spool.length;
            self.upload.length.store(spool.length, Ordering::Release);
        }
        self.upload.touch();
        Ok(())
    }

    /// Whether it is the blob that it is said to be: its file.
    fn verify(&mut self, directory: &Directory, digest: &Digest) -> Result<Arc<File>, Refusal> {
        self.catch_up(directory)?;
        let spool = &mut *self.spool;
        if spool.hasher.algorithm() != Algorithm::of(digest) {
            spool.rehash(directory, &self.upload.id, Algorithm::of(digest))?;
        }
        let found = spool.hasher.digest();
        if found != *digest {
            let words = format!("provided digest did not match uploaded content: it has {found}");
            return Err(Refusal::new(Kind::DigestInvalid, words));
        }
        spool.file.clone().ok_or_else(unknown)
    }
}

impl Spool {
    fn rehash(&mut self, directory: &Directory, id: &UploadId, algorithm: Algorithm) -> Result<(), Refusal> {
        let Some(file) = &self.file else { return Err(unknown()) };
        let mut hasher = Hasher::new(algorithm);
        let read = read_all(file, |bytes| hasher.update(bytes));
        let read = read.map_err(|error| Refusal::of_disk("read", &directory.upload(id), &error))?;
        (self.hasher, self.hashed, self.length) = (hasher, read, read);
        Ok(())
    }
}

impl Store {
    /// Begins an upload. `lasting`: its client will come back to it, and may find another server.
    pub(crate) async fn begin_upload(
        self: &Arc<Self>,
        repository: &RepositoryName,
        algorithm: Algorithm,
        lasting: bool,
    ) -> Result<Arc<Upload>, Refusal> {
        let upload = Arc::new(Upload::new(UploadId::random(), repository.clone(), algorithm, 0, None));
        {
            let mut table = self.table();
            if table.len() >= self.options.most_uploads {
                let words = format!("{} uploads are open already: end or cancel some", table.len());
                return Err(Refusal::new(Kind::TooMany, words).with_field("Retry-After", "30"));
            }
            table.insert(upload.id.clone(), upload.clone());
        }
        // Not given up in the middle, whatever becomes of the client.
        let (store, begun) = (self.clone(), upload.clone());
        let begin = async move {
            let (directory, id) = (store.directory.clone(), begun.id.clone());
            let file = blocking(move || directory.make_upload(&id)).await?;
            begun.spool.lock().await.file = Some(Arc::new(file));
            if lasting {
                let (id, repository) = (begun.id.clone(), begun.repository.clone());
                store.index.record_upload(UploadRow { id, repository, algorithm, boot: store.boot.clone() }).await?;
                failpoint("upload.recorded");
            }
            Ok(())
        };
        if let Err(refusal) = to_its_end(begin).await {
            self.table().remove(&upload.id);
            self.directory.remove_upload(&upload.id);
            return Err(refusal);
        }
        Ok(upload)
    }

    /// One that is open in this repository.
    pub(crate) fn upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<Arc<Upload>, Refusal> {
        let upload = self.table().get(id).cloned();
        // Another repository's is none: what is uploaded to one is not to be had by another.
        upload.filter(|upload| upload.repository == *repository).ok_or_else(unknown)
    }

    /// Writes on. The writer comes back when all is written; it is gone if that fails, and its upload stays.
    pub(crate) async fn append(&self, mut writer: Writer, batch: Vec<Bytes>) -> Result<Writer, Refusal> {
        let directory = self.directory.clone();
        // The writer goes along: nobody else writes before this is done, also if the request is given up.
        blocking(move || {
            writer.append(&directory, &batch)?;
            Ok(writer)
        })
        .await
    }

    /// Whether there is room for so many bytes more in the repository, besides what is being uploaded to it.
    /// `used_bytes` is what it has.
    pub(crate) fn check_room(
        &self,
        repository: &RepositoryName,
        used_bytes: u64,
        more_bytes: u64,
    ) -> Result<(), Refusal> {
        let Some(quota_bytes) = self.options.quota_bytes else { return Ok(()) };
        let open: u64 = {
            let table = self.table();
            table.values().filter(|upload| upload.repository == *repository).map(|upload| upload.length()).sum()
        };
        let used_bytes = used_bytes.saturating_add(open);
        if used_bytes.saturating_add(more_bytes) > quota_bytes {
            return Err(quota_exceeded(repository, used_bytes, quota_bytes));
        }
        Ok(())
    }

    /// What a repository has, if that matters.
    pub(crate) async fn used_bytes(&self, repository: &RepositoryName) -> Result<u64, Refusal> {
        if self.options.quota_bytes.is_none() { Ok(0) } else { self.index.used_bytes(repository).await }
    }

    /// Makes an upload the blob of this digest. It is over afterwards, whether it was that blob or not. Durable.
    pub(crate) async fn finish(self: &Arc<Self>, mut writer: Writer, digest: &Digest) -> Result<(), Refusal> {
        let (store, digest) = (self.clone(), digest.clone());
        to_its_end(async move {
            let directory = store.directory.clone();
            let blob = BlobFile { digest: digest.clone(), upload: writer.upload.id.clone() };
            let (mut writer, verified) = blocking(move || {
                let verified = writer.verify(&directory, &digest);
                Ok((writer, verified))
            })
            .await?;
            let (length, id) = (writer.length(), writer.upload.id.clone());
            let placed = match verified {
                Ok(file) => store.shelves.place(&store.directory, &id, file, length, &blob).await,
                Err(refusal) => Err(refusal),
            };
            let placed = match placed {
                Ok(()) => StoredBlob { file: blob, size_bytes: length },
                // What is wrong with disk or store may be mended: the client can try again.
                Err(refusal) if matches!(refusal.kind, Kind::DiskFull | Kind::Internal | Kind::StoreUnavailable) => {
                    return Err(refusal);
                }
                Err(refusal) => {
                    store.end(&mut writer).await;
                    return Err(refusal);
                }
            };
            writer.spool.is_over = true;
            store.table().remove(&writer.upload.id);
            let file = placed.file.clone();
            let recorded = store.index.record_blob(&writer.upload.repository, placed, store.options.quota_bytes).await;
            failpoint("blob.recorded");
            if matches!(store.shelves, Shelves::Bucket(_)) {
                let directory = store.directory.clone();
                blocking(move || {
                    directory.remove_upload(&id);
                    Ok(())
                })
                .await?;
            }
            match recorded {
                Ok(Recorded::New) => Ok(()),
                Ok(Recorded::Known) => store.remove_placed(file).await,
                // It may have its row: what the store has not heard of yet it hears with the next change.
                Err(refusal) if matches!(refusal.kind, Kind::StoreUnavailable | Kind::Ending) => Err(refusal),
                Err(refusal) => {
                    store.remove_placed(file).await?;
                    let _ = store.index.forget_upload(&writer.upload.id).await;
                    Err(refusal)
                }
            }
        })
        .await
    }

    async fn remove_placed(&self, file: BlobFile) -> Result<(), Refusal> {
        self.shelves.remove(vec![file]).await
    }

    /// Gives an upload up.
    pub(crate) async fn cancel(self: &Arc<Self>, mut writer: Writer) -> Result<(), Refusal> {
        let store = self.clone();
        to_its_end(async move {
            store.end(&mut writer).await;
            Ok(())
        })
        .await
    }

    async fn end(&self, writer: &mut Writer) {
        writer.spool.is_over = true;
        let id = writer.upload.id.clone();
        self.table().remove(&id);
        // If that fails, a row without a file is left, which the next server forgets.
        let _ = self.index.forget_upload(&id).await;
        let directory = self.directory.clone();
        let _ = blocking(move || {
            directory.remove_upload(&id);
            Ok(())
        })
        .await;
    }

    /// Ends uploads that nobody has gone on with. How many.
    pub(super) async fn give_up_uploads(self: &Arc<Self>) -> Result<usize, Refusal> {
        let patience = self.options.upload_patience;
        let is_idle =
            |upload: &&Arc<Upload>| upload.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= patience;
        let idle: Vec<_> = self.table().values().filter(is_idle).cloned().collect();
        let mut count = 0;
        for upload in idle {
            // Whoever writes at this moment is not idle.
            let Ok(spool) = upload.spool.clone().try_lock_owned() else { continue };
            if !spool.is_over {
                let turn = upload.turn.subscribe();
                self.cancel(Writer { upload: upload.clone(), spool, turn }).await?;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// Runs something with effects that belong together to its end, also if the request is given up.
async fn to_its_end(work: impl Future<Output = Result<(), Refusal>> + Send + 'static) -> Result<(), Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Refusal::of_task(&error)))
}

fn unknown() -> Refusal {
    Refusal::new(Kind::UploadUnknown, "blob upload unknown to registry")
}

fn taken_over() -> Refusal {
    Refusal::new(Kind::TakenOver, "another request has gone on with this upload")
}
