//! All that a registry keeps moves from a directory to a bucket, or back. What it has come from stays as it is.
//!
//! Blobs go first, each compared with its digest on the way, and rows last: a registry is there when all of it is. What was
//! cut goes on where it was: a blob that is there is there as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::bucket::{Bucket, BucketError, list_all, read_whole};
use super::claim::{self, Found, owner, restore};
use super::directory::{BlobFile, Directory};
use super::index::Index;
use super::journal::{self, Header, Position};
use super::shelves::{Shelves, object_name};
use super::{OpenError, blocking, lock};
use crate::hasher::{Algorithm, Hasher};
use crate::refusal::{Kind, Refusal};

/// Blobs under way at once.
const AT_ONCE: usize = 8;
/// In a bucket for as long as a migration to it is not over: of which directory.
const MARK: &str = "migration";

/// How far it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are there, of all.
    pub bytes: u64,
    /// What all blobs have together.
    pub total_bytes: u64,
    /// Blobs that are there.
    pub blobs: usize,
    /// All of them.
    pub total_blobs: usize,
}

/// What was moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Blobs of the registry.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were there already, from an earlier try.
    pub known: usize,
}

/// From a directory, which nobody serves, to an empty bucket.
///
/// # Errors
/// One of both cannot be used, there is a registry in the bucket, or a blob is damaged.
pub async fn migrate_to_bucket(
    from: &Path,
    bucket: Arc<dyn Bucket>,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Migrated, OpenError> {
    let (path, failed) = (from.join("index.db"), in_directory(from));
    std::fs::metadata(&path).map_err(in_directory(&path))?;
    let _lock = lock(from)?;
    let unread = in_bucket(&bucket);
    if Found::look(&*bucket).await.map_err(&unread)?.last().is_some() {
        return Err(OpenError::Taken(bucket.address()));
    }
    let owner = owner(from).map_err(&failed)?;
    let mut there = HashMap::new();
    list_all(&*bucket, "", |object| {
        there.insert(object.name, object.size_bytes);
    })
    .await
    .map_err(&unread)?;
    if !there.is_empty() && !there.contains_key(MARK)
        || !bucket.put_new(MARK, Bytes::from(owner.clone())).await.map_err(&unread)?
            && read_whole(&*bucket, MARK).await.map_err(&unread)? != owner.as_bytes()
    {
        return Err(OpenError::Foreign(bucket.address()));
    }
    let index = Index::open(&path)?;
    let directory = Directory::open(from).map_err(&failed)?;
    let (mut counter, known) = Counter::begin(index.blob_files().await?, |file, size_bytes| {
        there.get(&object_name(file)) == Some(&size_bytes)
    });
    let take = |file: BlobFile, size_bytes: u64| {
        let (bucket, directory) = (bucket.clone(), directory.clone());
        async move {
            let verdict = Shelves::Directory(directory.clone()).verify(&file, size_bytes, None).await?;
            if let Some(problem) = verdict.problem(&file.digest) {
                return Err(Refusal::new(Kind::Internal, problem));
            }
            let path = directory.blob(&file);
            let opened = File::open(&path).map_err(|error| Refusal::of_disk("open", &path, &error))?;
            let name = object_name(&file);
            let put = bucket.put_file(&name, Arc::new(opened), size_bytes).await;
            put.map_err(|error| Refusal::of_bucket("write", &name, &error))
        }
    };
    counter.carry(take, &mut progress).await?;
    // All of the rows at once: whoever looks from now on finds a registry that nobody serves.
    let position = Position { next: 2, last: journal::fresh_name(), fences: Vec::new() };
    let header = Header::of_snapshot(&owner, &position, true);
    index.put_snapshot(&bucket, &position, header, &directory.scratch()).await?;
    bucket.remove(MARK).await.map_err(&unread)?;
    Ok(counter.migrated(known))
}

/// From a bucket to an empty directory. A registry that serves the bucket ends when it next writes; `takes_over`: also if it
/// has not said that it is over.
///
/// # Errors
/// One of both cannot be used, there is a registry in the directory, or a blob is damaged.
pub async fn migrate_to_directory(
    bucket: Arc<dyn Bucket>,
    to: &Path,
    takes_over: bool,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Migrated, OpenError> {
    let (failed, unread) = (in_directory(to), in_bucket(&bucket));
    let _lock = lock(to)?;
    let path = to.join("index.db");
    if path.exists() {
        return Err(OpenError::Taken(to.display().to_string()));
    }
    let owner = owner(to).map_err(&failed)?;
    let found = Found::look(&*bucket).await.map_err(&unread)?;
    let Some(last) = found.last_header(&*bucket).await? else {
        let source = io::Error::other("there is no registry in it");
        return Err(OpenError::Directory { path: bucket.address().into(), source });
    };
    if last.owner != owner && !last.closes && !takes_over {
        return Err(OpenError::Claimed { address: bucket.address(), host: last.host });
    }
    let new = to.join("migration.db");
    let mut position = restore(&bucket, &found, &new).await?;
    claim::put_header(&bucket, &mut position, Header::opening(&owner)).await?;
    let directory = Directory::open(to).map_err(&failed)?;
    let index = Index::open(&new)?;
    let (mut counter, known) = Counter::begin(index.blob_files().await?, |file, size_bytes| {
        std::fs::metadata(directory.blob(file)).is_ok_and(|metadata| metadata.len() == size_bytes)
    });
    drop(index);
    let take = |file: BlobFile, size_bytes: u64| {
        let (bucket, directory) = (bucket.clone(), directory.clone());
        async move { fetch(&bucket, &directory, &file, size_bytes).await }
    };
    counter.carry(take, &mut progress).await?;
    let (reserve, shelf) = (to.join("migration.db-reserve"), to.to_owned());
    blocking(move || {
        let _ = std::fs::remove_file(reserve);
        let placed = File::open(&new)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&new, &path))
            .and_then(|()| File::open(shelf)?.sync_all());
        placed.map_err(|error| Refusal::of_disk("place", &path, &error))
    })
    .await?;
    claim::put_header(&bucket, &mut position, Header::new(&owner, true)).await?;
    Ok(counter.migrated(known))
}

/// One blob, from the bucket to its place.
async fn fetch(
    bucket: &Arc<dyn Bucket>,
    directory: &Directory,
    blob: &BlobFile,
    size_bytes: u64,
) -> Result<(), Refusal> {
    let name = object_name(blob);
    let unread = |error: BucketError| Refusal::of_bucket("read", &name, &error);
    directory.remove_upload(&blob.upload);
    let file = Arc::new(directory.make_upload(&blob.upload)?);
    let mut hasher = Hasher::new(Algorithm::of(&blob.digest));
    let mut length = 0;
    let mut pieces = bucket.read(&name, None).await.map_err(unread)?;
    while let Some(piece) = pieces.recv().await {
        let piece = piece.map_err(unread)?;
        let (offset, directory, id, file) = (length, directory.clone(), blob.upload.clone(), file.clone());
        length += piece.len() as u64;
        hasher = blocking(move || {
            hasher.update(&piece);
            directory.append(&id, &file, offset, &piece)?;
            Ok(hasher)
        })
        .await?;
    }
    if length != size_bytes || hasher.digest() != blob.digest {
        directory.remove_upload(&blob.upload);
        let words =
            format!("the blob {} is damaged: what came has {length} bytes, and {}", blob.digest, hasher.digest());
        return Err(Refusal::new(Kind::Internal, words));
    }
    let (directory, blob) = (directory.clone(), blob.clone());
    blocking(move || directory.place(&blob.upload, &file, &blob.digest).map(|_| ())).await
}

struct Counter {
    left: Vec<(BlobFile, u64)>,
    progress: Progress,
}

impl Counter {
    /// What is left to do, and how many blobs are there already.
    fn begin(all: Vec<(BlobFile, u64)>, is_there: impl Fn(&BlobFile, u64) -> bool) -> (Self, usize) {
        let mut progress = Progress { total_blobs: all.len(), ..Progress::default() };
        progress.total_bytes = all.iter().map(|(_, size_bytes)| size_bytes).sum();
        let (there, left): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(file, size_bytes)| is_there(file, *size_bytes));
        progress.blobs = there.len();
        progress.bytes = there.iter().map(|(_, size_bytes)| size_bytes).sum();
        (Self { left, progress }, there.len())
    }

    /// Several at once; the first failure ends it.
    async fn carry<W: Future<Output = Result<(), Refusal>> + Send + 'static>(
        &mut self,
        take: impl Fn(BlobFile, u64) -> W,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<(), Refusal> {
        let mut under_way = JoinSet::new();
        progress(self.progress);
        loop {
            while under_way.len() < AT_ONCE
                && let Some((file, size_bytes)) = self.left.pop()
            {
                let work = take(file, size_bytes);
                under_way.spawn(async move { work.await.map(|()| size_bytes) });
            }
            let Some(done) = under_way.join_next().await else { return Ok(()) };
            let failed = |error: tokio::task::JoinError| Refusal::new(Kind::Internal, error.to_string());
            self.progress.bytes += done.map_err(failed)??;
            self.progress.blobs += 1;
            progress(self.progress);
        }
    }

    fn migrated(&self, known: usize) -> Migrated {
        Migrated { blobs: self.progress.blobs, bytes: self.progress.bytes, known }
    }
}

fn in_directory(path: &Path) -> impl Fn(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Directory { path: path.clone(), source }
}

fn in_bucket(bucket: &Arc<dyn Bucket>) -> impl Fn(BucketError) -> OpenError + use<> {
    let address = bucket.address();
    move |source| OpenError::Bucket { address: address.clone(), source }
}
