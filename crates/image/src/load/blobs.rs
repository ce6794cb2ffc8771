//! Blobs of an archive that were set aside, compressed layers mostly: each is unpacked into a directory of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dozen_model::Digest;

use super::{Progress, ProgressEvent};
use crate::ImageError;
use crate::budget::Budget;
use crate::chunks::Pool;
use crate::compression::Compression;
use crate::install::Staged;
use crate::scratch::Scratch;
use crate::unpack::{Place, unpack};

/// A blob that lies on the disk and is to be unpacked.
pub(crate) struct Job {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) expected: Digest,
}

/// Unpacks blobs, two at a time: decompression is the longest part of it, and one thread's. But one of zstd's, which is
/// quick, and may take 32 MiB of memory.
pub(crate) fn unpack_all(
    scratch: &Scratch,
    jobs: &[Job],
    pool: &Pool,
    budget: &Budget,
    progress: &dyn Progress,
) -> Result<Vec<Staged>, ImageError> {
    let (next, zstd) = (AtomicUsize::new(0), Mutex::new(()));
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return done };
            let staged = job.stage(scratch, &zstd, (pool, budget), progress);
            if staged.is_err() {
                next.store(jobs.len(), Ordering::Relaxed);
            }
            done.push((at, staged));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let second = (jobs.len() > 1).then(|| scope.spawn(work));
        let mut done = work();
        done.extend(second.into_iter().flat_map(|second| second.join().expect("an unpacking does not panic")));
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, staged)| staged).collect()
}

impl Job {
    fn stage(
        &self,
        scratch: &Scratch,
        zstd: &Mutex<()>,
        (pool, budget): (&Pool, &Budget),
        progress: &dyn Progress,
    ) -> Result<Staged, ImageError> {
        let place = Place::new(&scratch.0, self.number)?;
        let blob = File::open(&self.path).map_err(ImageError::io("open", self.path.display()))?;
        let mut magic = [0; 4];
        let length = blob.read_at(&mut magic, 0).map_err(ImageError::io("read", self.path.display()))?;
        let is_zstd = matches!(Compression::of(&magic[..length]), Ok(Compression::Zstd));
        let _alone = is_zstd.then(|| zstd.lock().unwrap_or_else(PoisonError::into_inner));
        let watch = |bytes| {
            progress.report(ProgressEvent::Unpacking { layer: &self.expected, bytes, blob_bytes: self.size });
        };
        let unpacked = unpack(blob, self.size, place, pool, budget, watch)?;
        let (compression, unpacked) = unpacked.map_err(|error| ImageError::layer(&self.name, error))?;
        check_digest(&self.name, &self.expected, &unpacked.diff_id)?;
        Ok(Staged::new(unpacked, compression, self.digest.clone(), self.size, self.path.clone()))
    }
}

/// The plain stream has to be the one that the image was made of.
pub(crate) fn check_digest(name: &str, expected: &Digest, found: &Digest) -> Result<(), ImageError> {
    if expected == found {
        return Ok(());
    }
    Err(ImageError::Layer {
        layer: name.to_owned(),
        what: format!("the configuration wants {expected}, but its bytes have the digest {found}"),
    })
}
