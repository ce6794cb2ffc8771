//! A registry's data on an S3-compatible store: what `dozen-distribution` asks of a bucket, by the crate `object_store`.
//!
//! `object_store` signs requests and reads answers; connections are `dozen-fetch`'s (`connector`), so that one HTTP and one
//! TLS is in the program. A leaf: only `dozen` has it linked.

mod connector;
mod keys;
mod location;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dozen_distribution::{Bucket, BucketError, BucketErrorKind, Later, Object, Pieces};
use dozen_model::error_chain;
use futures_util::{StreamExt, TryStreamExt};
use http::Method;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, Error, GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, RetryConfig,
};
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::task::JoinSet;

use connector::Connector;
pub use keys::{Keys, KeysError};
pub use location::{Location, LocationError};

/// What is longer goes in parts of this size or more. S3 takes none of less than 5 MiB, and no more than 10 000 of them
/// (docs.aws.amazon.com, "Amazon S3 multipart upload limits").
const PART_BYTES: u64 = 8 << 20;
const MOST_PARTS: u64 = 9_000;
/// Parts of one object under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Parts in memory, of all objects.
const MOST_IN_MEMORY: usize = 8;
/// Objects of one page.
const PAGE: usize = 1000;
/// Pieces that have come and are not taken yet.
const PIECES_AHEAD: usize = 4;
/// So much of what a store says goes into the log.
const MOST_WORDS: usize = 400;
/// What is put there and taken away again, to see what the store can do.
const PROBE: &str = "probe";

/// How often a request is made again that found the store busy or gone. A client waits meanwhile.
fn patience() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(3),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(20) }
}

/// See the module.
#[derive(Debug)]
pub struct S3Bucket {
    store: AmazonS3,
    location: Location,
    memory: Arc<Semaphore>,
    /// Whether it puts objects only where there are none, if it is told so.
    has_conditions: OnceCell<bool>,
}

impl S3Bucket {
    /// Nothing is asked of the store yet.
    ///
    /// # Errors
    /// Something of this cannot be meant.
    pub fn new(location: Location, keys: &Keys) -> Result<Self, LocationError> {
        let connector = Connector::new().map_err(LocationError::Certificates)?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&location.bucket)
            .with_region(&location.region)
            .with_access_key_id(&keys.id)
            .with_secret_access_key(&keys.secret)
            // Whoever says http means it.
            .with_allow_http(location.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")))
            // One at a time: every store knows that.
            .with_disable_bulk_delete(true)
            .with_retry(patience())
            .with_http_connector(connector);
        if let Some(token) = &keys.token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &location.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|error| LocationError::Store(error.to_string()))?;
        let memory = Arc::new(Semaphore::new(MOST_IN_MEMORY));
        Ok(Self { store, location, memory, has_conditions: OnceCell::new() })
    }

    /// Whether it is reached by TLS.
    pub fn is_secure(&self) -> bool {
        self.location.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https://"))
    }

    fn path(&self, name: &str) -> Result<Path, BucketError> {
        let path = Path::parse(format!("{}/{name}", self.location.prefix));
        path.map_err(|error| BucketError::new(BucketErrorKind::Failed, format!("{name}: {error}")))
    }

    /// An object's name without the prefix.
    fn object(&self, found: &ObjectMeta) -> Option<Object> {
        let name = found.location.as_ref().strip_prefix(self.location.prefix.as_str())?.trim_start_matches('/');
        Some(Object { name: name.to_owned(), size_bytes: found.size })
    }

    /// Whether the store heeds `If-None-Match: *`. Asked once.
    async fn has_conditions(&self) -> Result<bool, BucketError> {
        let asked = self.has_conditions.get_or_try_init(|| async {
            let path = self.path(PROBE)?;
            let create = || self.store.put_opts(&path, "probe".into(), PutOptions::from(PutMode::Create));
            // One may have been left there.
            let answers = [create().await, create().await];
            self.store.delete(&path).await.map_err(told)?;
            let has_conditions = match answers {
                [_, Err(Error::AlreadyExists { .. } | Error::Precondition { .. })] => true,
                [_, Ok(_)] => false,
                [Err(error), _] | [_, Err(error)] => return Err(told(error)),
            };
            if !has_conditions {
                tracing::warn!(
                    "{} does not heed If-None-Match: see to it that no second registry serves it, for the store does not",
                    self.location
                );
            }
            Ok(has_conditions)
        });
        asked.await.copied()
    }

    async fn put_parts(&self, path: &Path, file: &Arc<File>, length: u64) -> Result<(), BucketError> {
        let mut upload = self.store.put_multipart(path).await.map_err(told)?;
        let put = put_all(&mut *upload, file, length, &self.memory).await;
        if let Err(error) = put {
            // What of it is there would be paid for. If this fails too, the bucket's own rules take it away.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.complete().await.map(|_| ()).map_err(told)
    }
}

impl Bucket for S3Bucket {
    fn address(&self) -> String {
        self.location.to_string()
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Later<'a, ()> {
        Box::pin(async move {
            let path = self.path(name)?;
            self.store.put(&path, bytes.into()).await.map(|_| ()).map_err(told)
        })
    }

    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> Later<'a, bool> {
        Box::pin(async move {
            let path = self.path(name)?;
            if !self.has_conditions().await? {
                return match self.store.head(&path).await {
                    Ok(_) => Ok(false),
                    Err(Error::NotFound { .. }) => {
                        self.store.put(&path, bytes.into()).await.map(|_| true).map_err(told)
                    }
                    Err(error) => Err(told(error)),
                };
            }
            match self.store.put_opts(&path, bytes.into(), PutOptions::from(PutMode::Create)).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
                Err(error) => Err(told(error)),
            }
        })
    }

    fn put_file<'a>(&'a self, name: &'a str, file: Arc<File>, length: u64) -> Later<'a, ()> {
        Box::pin(async move {
            let path = self.path(name)?;
            if length > PART_BYTES {
                return self.put_parts(&path, &file, length).await;
            }
            let _place = self.memory.acquire().await.map_err(closed)?;
            let bytes = read_part(file, 0..length).await?;
            self.store.put(&path, bytes.into()).await.map(|_| ()).map_err(told)
        })
    }

    fn read<'a>(&'a self, name: &'a str, part: Option<Range<u64>>) -> Later<'a, Pieces> {
        Box::pin(async move {
            let path = self.path(name)?;
            let options = GetOptions { range: part.map(GetRange::Bounded), ..GetOptions::default() };
            let found = self.store.get_opts(&path, options).await.map_err(told)?;
            let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
            tokio::spawn(async move {
                let mut stream = found.into_stream();
                while let Some(piece) = stream.next().await {
                    // Whoever has asked may not want the rest.
                    if sender.send(piece.map_err(told)).await.is_err() {
                        return;
                    }
                }
            });
            Ok(pieces)
        })
    }

    fn lend<'a>(&'a self, name: &'a str, lasts: Duration) -> Later<'a, String> {
        Box::pin(async move {
            let address = self.store.signed_url(Method::GET, &self.path(name)?, lasts).await;
            address.map(String::from).map_err(told)
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Later<'a, ()> {
        Box::pin(async move {
            match self.store.delete(&self.path(name)?).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(told(error)),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Later<'a, Vec<Object>> {
        Box::pin(async move {
            let within = self.path(prefix.trim_end_matches('/'))?;
            let found = match after {
                None => self.store.list(Some(&within)),
                Some(after) => self.store.list_with_offset(Some(&within), &self.path(after)?),
            };
            let found: Vec<_> = found.take(PAGE).try_collect().await.map_err(told)?;
            let objects = found.iter().filter_map(|found| self.object(found));
            Ok(objects.filter(|object| object.name != PROBE).collect())
        })
    }
}

/// All parts, several at once.
async fn put_all(
    upload: &mut dyn MultipartUpload,
    file: &Arc<File>,
    length: u64,
    memory: &Arc<Semaphore>,
) -> Result<(), BucketError> {
    let part_bytes = part_bytes(length);
    let mut under_way = JoinSet::new();
    let mut offset = 0;
    while offset < length {
        if under_way.len() == PARTS_AT_ONCE {
            settled(under_way.join_next().await)?;
        }
        let place = memory.clone().acquire_owned().await.map_err(closed)?;
        let end = length.min(offset + part_bytes);
        let put = upload.put_part(read_part(file.clone(), offset..end).await?.into());
        under_way.spawn(async move {
            let put = put.await.map_err(told);
            drop(place);
            put
        });
        offset = end;
    }
    while let Some(put) = under_way.join_next().await {
        settled(Some(put))?;
    }
    Ok(())
}

fn settled(put: Option<Result<Result<(), BucketError>, tokio::task::JoinError>>) -> Result<(), BucketError> {
    match put {
        None => Ok(()),
        Some(Ok(put)) => put,
        Some(Err(error)) => Err(BucketError::new(BucketErrorKind::Failed, error.to_string())),
    }
}

/// Larger ones where there would be too many.
fn part_bytes(length: u64) -> u64 {
    PART_BYTES.max(length.div_ceil(MOST_PARTS))
}

async fn read_part(file: Arc<File>, part: Range<u64>) -> Result<Bytes, BucketError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, part.start).map(|()| Bytes::from(bytes))
    });
    let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|error| BucketError::new(BucketErrorKind::Failed, format!("cannot read what is to be put: {error}")))
}

fn closed(error: tokio::sync::AcquireError) -> BucketError {
    BucketError::new(BucketErrorKind::Failed, error.to_string())
}

/// What an error means. What `object_store` has no name for comes of a store that does not answer, or not in time; or of a
/// list, where it gives the status in words alone.
fn told(error: Error) -> BucketError {
    let has_status = |status: &str| error.to_string().contains(&format!("status code: {status}"));
    let kind = match &error {
        Error::Generic { .. } if has_status("403") || has_status("401") => BucketErrorKind::Denied,
        Error::Generic { .. } if has_status("404") => BucketErrorKind::Failed,
        Error::NotFound { .. } => BucketErrorKind::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => BucketErrorKind::Denied,
        Error::Generic { .. } => BucketErrorKind::Unavailable,
        _ => BucketErrorKind::Failed,
    };
    let mut words = error_chain(&error).replace('\n', " ");
    if let Some((end, _)) = words.char_indices().nth(MOST_WORDS) {
        words.truncate(end);
        words.push('…');
    }
    BucketError::new(kind, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_neither_too_small_nor_too_many() {
        for (length, bytes) in [(PART_BYTES + 1, PART_BYTES), (9_000 * PART_BYTES, PART_BYTES), (5 << 40, 610_839_794)]
        {
            assert_eq!(part_bytes(length), bytes, "{length}");
            assert!(length.div_ceil(part_bytes(length)) <= 10_000);
        }
    }

    #[test]
    fn what_an_error_means_is_decided_once() {
        let source = || -> Box<dyn std::error::Error + Send + Sync> { "x".repeat(1000).into() };
        let path = || "p".to_owned();
        for (error, kind) in [
            (Error::NotFound { path: path(), source: source() }, BucketErrorKind::Missing),
            (Error::PermissionDenied { path: path(), source: source() }, BucketErrorKind::Denied),
            (Error::Unauthenticated { path: path(), source: source() }, BucketErrorKind::Denied),
            (Error::Generic { store: "S3", source: source() }, BucketErrorKind::Unavailable),
            (Error::Generic { store: "S3", source: "status code: 403 Forbidden".into() }, BucketErrorKind::Denied),
            (Error::Generic { store: "S3", source: "status code: 404 Not Found".into() }, BucketErrorKind::Failed),
            (Error::NotSupported { source: source() }, BucketErrorKind::Failed),
        ] {
            let told = told(error);
            assert_eq!(told.kind, kind);
            assert!(told.words.chars().count() <= MOST_WORDS + 1);
        }
    }
}
