//! What a store of objects has to be able to do, for a registry to keep its data in it: names, bytes, and one condition.
//! Whoever wires the server brings one (`crates/bucket` does, for S3); nothing here knows by which protocol.
//!
//! ```text
//! blobs/sha256/0a/0a3f….ID        a blob; ID is that of the upload that brought it (`shelves.rs`)
//! journal/00000000000000000042    what the 42nd change has done to the rows (`journal.rs`)
//! snapshot/00000000000000000040   all rows as they were after the 40th
//! ```

use std::fmt::Debug;
use std::fs::File;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

/// What comes of a request to the store.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, BucketError>> + Send + 'a>>;

/// An object's bytes as they come. Whoever takes them slowly is sent them slowly. It ends early without an error only if
/// whoever sends them has died: the receiver counts.
pub type Pieces = mpsc::Receiver<Result<Bytes, BucketError>>;

/// An object, as a list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Without the store's own prefix.
    pub name: String,
    /// How long it is.
    pub size_bytes: u64,
}

/// Why a store does not do what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketErrorKind {
    /// There is no such object.
    Missing,
    /// It cannot be reached, is too slow, or has too much to do: later it may.
    Unavailable,
    /// It does not let us: keys, rights, the name of the bucket.
    Denied,
    /// Anything else.
    Failed,
}

/// See [`BucketErrorKind`]. The words have no secret in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct BucketError {
    /// Which.
    pub kind: BucketErrorKind,
    /// For the log.
    pub words: String,
}

impl BucketError {
    /// With these words.
    pub fn new(kind: BucketErrorKind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }
}

/// See the module. An object is there as a whole or not at all, and once a request has succeeded everyone sees it: what S3
/// promises since 2020 (docs.aws.amazon.com, "Amazon S3 data consistency model").
pub trait Bucket: Debug + Send + Sync + 'static {
    /// For people: `s3://bucket/prefix`.
    fn address(&self) -> String;

    /// Puts an object in the place of whatever has its name.
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Later<'a, ()>;

    /// Puts it if no object has its name: whether it did. Of two who do so at the same moment one is told no. One whose
    /// answer was lost is told no when it tries again, too.
    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> Later<'a, bool>;

    /// Puts so many bytes of a file, from its beginning.
    fn put_file<'a>(&'a self, name: &'a str, file: Arc<File>, length: u64) -> Later<'a, ()>;

    /// Gives this part of an object, which is not empty; all of it without one.
    fn read<'a>(&'a self, name: &'a str, part: Option<Range<u64>>) -> Later<'a, Pieces>;

    /// An address at which whoever has it gets an object for so long, and nothing else; it is a secret for as long.
    fn lend<'a>(&'a self, name: &'a str, lasts: Duration) -> Later<'a, String>;

    /// It is gone afterwards, if it was there.
    fn remove<'a>(&'a self, name: &'a str) -> Later<'a, ()>;

    /// Some objects whose names begin so, by their names, those after one: none at the end.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Later<'a, Vec<Object>>;
}

/// All of an object.
pub(crate) async fn read_whole(bucket: &dyn Bucket, name: &str) -> Result<Vec<u8>, BucketError> {
    let mut pieces = bucket.read(name, None).await?;
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// Calls `each` with all objects whose names begin so.
pub(crate) async fn list_all(
    bucket: &dyn Bucket,
    prefix: &str,
    mut each: impl FnMut(Object),
) -> Result<(), BucketError> {
    let mut last: Option<String> = None;
    loop {
        let page = bucket.list(prefix, last.as_deref()).await?;
        let Some(end) = page.last() else { return Ok(()) };
        last = Some(end.name.clone());
        page.into_iter().for_each(&mut each);
    }
}
