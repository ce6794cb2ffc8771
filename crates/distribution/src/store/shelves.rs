//! Where blobs lie: files of the directory, or objects of a bucket. Their names are the same (`directory.rs`), and are never
//! used twice.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::blocking;
use super::bucket::{Bucket, BucketErrorKind, Pieces, list_all};
use super::directory::{BlobFile, Directory, blob_file};
use crate::failpoint::failpoint;
use crate::name::UploadId;
use crate::refusal::{Kind, Refusal};

/// Who is sent to the store has so long to begin: one that is told of many blobs takes them one after the other.
const LENT: Duration = Duration::from_secs(20 * 60);

/// See the module.
#[derive(Debug, Clone)]
pub(crate) enum Shelves {
    Directory(Directory),
    Bucket(Arc<dyn Bucket>),
}

/// A blob, for whoever reads it.
#[derive(Debug)]
pub(crate) enum Content {
    File(File),
    Object(Arc<dyn Bucket>, BlobFile),
}

/// The object of a blob.
pub(super) fn object_name(file: &BlobFile) -> String {
    let (algorithm, digits) = (file.digest.algorithm(), file.digest.hex());
    format!("blobs/{algorithm}/{}/{digits}.{}", &digits[..2], file.upload)
}

/// The blob of such an object.
pub(super) fn blob_of(name: &str) -> Option<BlobFile> {
    let [_, algorithm, _, name] = name.split('/').collect::<Vec<_>>().try_into().ok()?;
    blob_file(algorithm, name)
}

impl Shelves {
    /// Makes an upload the blob of this digest, which whoever asks has made sure of. Durable when it returns. In a bucket
    /// the upload is there beside it until its row is gone.
    pub(super) async fn place(
        &self,
        spool: &Directory,
        id: &UploadId,
        file: Arc<File>,
        length: u64,
        blob: &BlobFile,
    ) -> Result<(), Refusal> {
        match self {
            Self::Directory(directory) => {
                let (directory, id, digest) = (directory.clone(), id.clone(), blob.digest.clone());
                blocking(move || directory.place(&id, &file, &digest).map(|_| ())).await
            }
            Self::Bucket(bucket) => {
                // What is read from a file that turned out shorter is not the blob.
                let path = spool.upload(id);
                let is_whole = file.metadata().is_ok_and(|metadata| metadata.len() == length);
                if !is_whole {
                    return Err(Refusal::of_disk("read", &path, &io::ErrorKind::UnexpectedEof.into()));
                }
                let name = object_name(blob);
                let put = bucket.put_file(&name, file, length).await;
                put.map_err(|error| Refusal::of_bucket("write", &name, &error))?;
                failpoint("blob.placed");
                Ok(())
            }
        }
    }

    /// For whoever reads it. A file is opened; whether an object is there shows when it is read.
    pub(super) async fn open(&self, file: &BlobFile) -> Result<io::Result<Content>, Refusal> {
        match self {
            Self::Directory(directory) => {
                let (directory, file) = (directory.clone(), file.clone());
                blocking(move || Ok(directory.open_blob(&file).map(Content::File))).await
            }
            Self::Bucket(bucket) => Ok(Ok(Content::Object(bucket.clone(), file.clone()))),
        }
    }

    /// They are gone afterwards, if they were there. Their rows have to be gone before.
    pub(super) async fn remove(&self, files: Vec<BlobFile>) -> Result<(), Refusal> {
        match self {
            Self::Directory(directory) => {
                let directory = directory.clone();
                blocking(move || {
                    for file in &files {
                        directory.remove_blob(file);
                        failpoint("collect.files");
                    }
                    Ok(())
                })
                .await
            }
            Self::Bucket(bucket) => {
                for file in &files {
                    if let Err(error) = bucket.remove(&object_name(file)).await {
                        // The next server tries again.
                        tracing::warn!("cannot remove {}: {error}", object_name(file));
                    }
                    failpoint("collect.files");
                }
                Ok(())
            }
        }
    }

    /// All there are.
    pub(super) async fn all(&self) -> Result<Vec<BlobFile>, Refusal> {
        let mut all = Vec::new();
        match self {
            Self::Directory(directory) => {
                let directory = directory.clone();
                return blocking(move || {
                    let looked = directory.for_each_blob(|file| all.push(file));
                    looked.map_err(|error| Refusal::of_disk("look through", std::path::Path::new("blobs"), &error))?;
                    Ok(all)
                })
                .await;
            }
            Self::Bucket(bucket) => {
                let listed = list_all(&**bucket, "blobs/", |object| all.extend(blob_of(&object.name))).await;
                listed.map_err(|error| Refusal::of_bucket("look through", "blobs", &error))?;
            }
        }
        Ok(all)
    }

    /// Those of them that are not there. A list is not believed so much: what is taken for lost would be thrown away when it
    /// shows again.
    pub(super) async fn missing(&self, files: HashSet<BlobFile>) -> Result<HashSet<BlobFile>, Refusal> {
        let Self::Bucket(bucket) = self else { return Ok(files) };
        let mut missing = HashSet::new();
        for file in files {
            let name = object_name(&file);
            match bucket.read(&name, Some(0..1)).await {
                Err(error) if error.kind == BucketErrorKind::Missing => {
                    missing.insert(file);
                }
                // There, or not to be had: one that is empty has no first byte.
                Ok(_) => tracing::warn!("{name} is there and in no list of the store's"),
                Err(error) => tracing::warn!("cannot see whether {name} is there: {error}"),
            }
        }
        Ok(missing)
    }
}

/// Where whoever asks gets all of an object, or a part, by himself for a while.
pub(crate) async fn lend(bucket: &Arc<dyn Bucket>, file: &BlobFile) -> Result<String, Refusal> {
    let name = object_name(file);
    bucket.lend(&name, LENT).await.map_err(|error| Refusal::of_bucket("lend", &name, &error))
}

/// A part of an object, which is not empty.
pub(crate) async fn pieces_of(bucket: &Arc<dyn Bucket>, file: &BlobFile, part: Range<u64>) -> Result<Pieces, Refusal> {
    let name = object_name(file);
    bucket.read(&name, Some(part)).await.map_err(|error| match error.kind {
        // It was deleted since its row was read, or somebody else has taken it away.
        BucketErrorKind::Missing => {
            tracing::error!("the blob {} is not there: {error}", file.digest);
            Refusal::new(Kind::BlobUnknown, "blob unknown to registry")
        }
        _ => Refusal::of_bucket("read", &name, &error),
    })
}
