//! A bucket in memory, which can be told to fail.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dozen_distribution::{Bucket, BucketError, BucketErrorKind, Later, Object, Pieces};

/// Objects of a page: few, so that a test comes to the second one.
const PAGE: usize = 3;

/// Of a verb and a name.
pub type Fails = fn(&str, &str) -> Failure;

#[derive(Debug, Default)]
pub struct Memory {
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    /// Whoever asks whether a request with this word and name is to fail gets this.
    pub fails: Mutex<Option<Fails>>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    None,
    /// It does not arrive.
    Before,
    /// It is carried out, and the answer is lost.
    After,
}

impl Memory {
    fn act<T>(
        &self,
        verb: &str,
        name: &str,
        act: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T,
    ) -> Result<T, BucketError> {
        let failure = self.fails.lock().unwrap().map_or(Failure::None, |fails| fails(verb, name));
        let down = Err(BucketError::new(BucketErrorKind::Unavailable, format!("{verb} {name}: the store is down")));
        if failure == Failure::Before {
            return down;
        }
        let done = act(&mut self.objects.lock().unwrap());
        if failure == Failure::After { down } else { Ok(done) }
    }

    pub fn names(&self, prefix: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        objects.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    pub fn fail(&self, fails: Option<Fails>) {
        *self.fails.lock().unwrap() = fails;
    }
}

impl Bucket for Memory {
    fn address(&self) -> String {
        "memory".to_owned()
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Later<'a, ()> {
        Box::pin(async move { self.act("put", name, |objects| drop(objects.insert(name.to_owned(), bytes))) })
    }

    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> Later<'a, bool> {
        Box::pin(async move {
            self.act("put_new", name, |objects| {
                let is_new = !objects.contains_key(name);
                if is_new {
                    objects.insert(name.to_owned(), bytes);
                }
                is_new
            })
        })
    }

    fn put_file<'a>(&'a self, name: &'a str, file: Arc<File>, length: u64) -> Later<'a, ()> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        self.put(name, bytes.into())
    }

    fn read<'a>(&'a self, name: &'a str, part: Option<Range<u64>>) -> Later<'a, Pieces> {
        Box::pin(async move {
            let found = self.act("read", name, |objects| objects.get(name).cloned())?;
            let bytes =
                found.ok_or_else(|| BucketError::new(BucketErrorKind::Missing, format!("{name}: no such key")))?;
            let part = part.map_or(0..bytes.len(), |part| {
                // What is beyond the end is not there (RFC 9110, section 14.1.2).
                usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap().min(bytes.len())
            });
            let bytes = bytes.slice(part);
            let (send, pieces) = tokio::sync::mpsc::channel(2);
            tokio::spawn(async move {
                for piece in bytes.chunks(64 << 10) {
                    if send.send(Ok(Bytes::copy_from_slice(piece))).await.is_err() {
                        return;
                    }
                }
            });
            Ok(pieces)
        })
    }

    fn lend<'a>(&'a self, name: &'a str, lasts: Duration) -> Later<'a, String> {
        let address = format!("https://store.example/{name}?seconds={}&sign=secret", lasts.as_secs());
        Box::pin(async move { self.act("lend", name, |_| address) })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Later<'a, ()> {
        Box::pin(async move { self.act("remove", name, |objects| drop(objects.remove(name))) })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Later<'a, Vec<Object>> {
        Box::pin(async move {
            self.act("list", prefix, |objects| {
                let wanted = objects
                    .iter()
                    .filter(|(name, _)| name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after));
                let object =
                    |(name, bytes): (&String, &Bytes)| Object { name: name.clone(), size_bytes: bytes.len() as u64 };
                wanted.take(PAGE).map(object).collect()
            })
        })
    }
}
