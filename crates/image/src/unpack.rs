//! One layer into its directory: its plain bytes are read by one thread, hashed by a second, extracted by a third.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use dozen_model::Digest;
use rustix::fs::Mode;

use crate::ImageError;
use crate::budget::Budget;
use crate::chunks::{Chunk, Pool};
use crate::compression::{Compression, allowance, decompress};
use crate::extract::{ExtractError, Extracted, Limits, extract};
use crate::hashing::{CHUNKS_WAITING, Hashed, Hashing, joined, spawn};
use crate::recording::{Kept, Paths, Recording, Sum};
use crate::tree;

/// How many entries a layer may have, with directories that only their names imply. A test that makes two million of them takes minutes.
pub(crate) const ENTRIES_LIMIT: u64 = if cfg!(test) { 20_000 } else { 2_000_000 };
/// Holes of all files in a layer together: more than `lastlog` has of the highest user number there is, and no more than
/// one file on ext4 may have.
pub(crate) const HOLES_LIMIT_BYTES: u64 = 16 << 40;
/// A layer with so much in it goes to the disk as soon as it is unpacked, while the next one comes, instead of with all
/// others at the end.
const LARGE_BYTES: u64 = 16 * 1024 * 1024;

/// Where a layer is unpacked, below a scratch directory.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    root: OwnedFd,
    paths: Paths,
}

/// What a layer turned out to be.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) directory: PathBuf,
    /// The digest of the plain tar stream.
    pub(crate) diff_id: Digest,
    pub(crate) tar_crc32: u32,
    pub(crate) tar_size_bytes: u64,
    pub(crate) extracted: Extracted,
    pub(crate) kept: Kept,
    pub(crate) paths: Paths,
}

impl Place {
    /// Makes the directory of the layer of this number.
    pub(crate) fn new(scratch: &Path, number: usize) -> Result<Self, ImageError> {
        let at = |suffix: &str| scratch.join(format!("l{number}{suffix}"));
        let directory = at("");
        let root = rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o755))
            .and_then(|()| tree::open_root(&directory))
            .and_then(|root| rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map(|()| root))
            .map_err(ImageError::io("make directory", directory.display()))?;
        Ok(Self { directory, root, paths: Paths { recipe: at(".recipe"), blob: at(".blob") } })
    }
}

impl Unpacked {
    /// The file that is kept beside the directory, if this unpacking has made one.
    pub(crate) fn kept_path(&self) -> Option<&Path> {
        match self.kept {
            Kept::Nothing => None,
            Kept::Recipe { .. } => Some(&self.paths.recipe),
            Kept::Blob => Some(&self.paths.blob),
        }
    }
}

type Piece = io::Result<Arc<Chunk>>;

/// What was made of it.
struct Done {
    extracted: Extracted,
    kept: Kept,
    /// Of what the recipe gives.
    sum: Option<(u32, u64)>,
}

/// A layer that is being unpacked. Dropped, it is given up, and its threads have ended.
pub(crate) struct Unpacking {
    to_extract: Option<SyncSender<Piece>>,
    hashing: Option<Hashing>,
    hashed: Option<Hashed>,
    extracting: Option<JoinHandle<Result<Done, ExtractError>>>,
    directory: PathBuf,
    paths: Paths,
}

impl Unpacking {
    /// Begins. The files may be as large as [`allowance`] says for a blob of this size, or of any if it is our own. With
    /// `keep`, what is needed to give the plain stream again is kept; without, its blob lies elsewhere.
    pub(crate) fn start(place: Place, blob_size_bytes: Option<u64>, keep: bool) -> Result<Self, ImageError> {
        let Place { directory, root, paths } = place;
        let limits = Limits {
            entries: ENTRIES_LIMIT,
            content_bytes: blob_size_bytes.map_or(u64::MAX, allowance),
            hole_bytes: HOLES_LIMIT_BYTES,
        };
        let hashing = Hashing::start()?;
        let (to_extract, chunks) = sync_channel(CHUNKS_WAITING);
        let recorded = keep.then(|| paths.clone());
        let extracting = spawn("layer files", move || {
            work(Chunks { chunks, current: None, used: 0 }, root.as_fd(), recorded, limits)
        });
        let mut unpacking = Self {
            to_extract: Some(to_extract),
            hashing: Some(hashing),
            hashed: None,
            extracting: None,
            directory,
            paths,
        };
        unpacking.extracting = Some(extracting?);
        Ok(unpacking)
    }

    /// The next plain bytes; false if the extractor has given up, and only the digest is still of interest.
    pub(crate) fn feed(&mut self, chunk: Chunk) -> bool {
        let chunk = Arc::new(chunk);
        if let Some(hashing) = &self.hashing {
            hashing.feed(chunk.clone());
        }
        self.to_extract = self.to_extract.take().filter(|to_extract| to_extract.send(Ok(chunk)).is_ok());
        self.to_extract.is_some()
    }

    /// The plain bytes could not be read.
    pub(crate) fn fail(&mut self, error: io::Error) {
        if let Some(to_extract) = self.to_extract.take() {
            // The extractor may have given up, and then its error is the one that counts.
            let _ = to_extract.send(Err(error));
        }
    }

    /// The digest of all that was fed, which was all. What is unpacked may still be under way.
    pub(crate) fn digest(&mut self) -> Digest {
        self.end().digest.clone()
    }

    fn end(&mut self) -> &Hashed {
        self.to_extract = None;
        self.hashed.get_or_insert_with(|| self.hashing.take().expect("it was started").finish())
    }

    /// Waits until it is done.
    pub(crate) fn finish(mut self) -> Result<Unpacked, ExtractError> {
        let Hashed { digest, sum } = self.end().clone();
        let done = joined(self.extracting.take()).expect("it was started")?;
        if done.sum.is_some_and(|given| given != sum) {
            let what = "what was unpacked does not give the layer again; it is not loaded";
            return Err(ExtractError::Record(io::Error::other(what)));
        }
        Ok(Unpacked {
            directory: std::mem::take(&mut self.directory),
            diff_id: digest,
            tar_crc32: sum.0,
            tar_size_bytes: sum.1,
            extracted: done.extracted,
            kept: done.kept,
            paths: self.paths.clone(),
        })
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        (self.hashing, self.to_extract) = (None, None);
        joined(self.extracting.take());
    }
}

/// Unpacks a blob that lies on the disk, plain or compressed, and stays there. `progress` is told how many plain bytes
/// are done.
pub(crate) fn unpack(
    blob: File,
    blob_size_bytes: u64,
    place: Place,
    pool: &Pool,
    budget: &Budget,
    mut progress: impl FnMut(u64),
) -> Result<Result<(Compression, Unpacked), ExtractError>, ImageError> {
    let mut unpacking = Unpacking::start(place, Some(blob_size_bytes), false)?;
    let mut compression = Compression::None;
    let read: io::Result<()> = (|| {
        let (found, mut plain) = decompress(blob)?;
        compression = found;
        let mut done = 0;
        loop {
            let mut chunk = pool.chunk();
            chunk.fill_from(&mut plain)?;
            let is_last = !chunk.is_full();
            budget.take(chunk.bytes().len() as u64)?;
            done += chunk.bytes().len() as u64;
            progress(done);
            if !unpacking.feed(chunk) || is_last {
                return Ok(());
            }
        }
    })();
    if let Err(error) = read {
        unpacking.fail(error);
    }
    Ok(unpacking.finish().map(|unpacked| (compression, unpacked)))
}

/// Feeds an unpacking with what is written.
pub(crate) struct Feeder<'a> {
    unpacking: &'a mut Unpacking,
    pool: &'a Pool,
    chunk: Chunk,
}

impl<'a> Feeder<'a> {
    pub(crate) fn new(unpacking: &'a mut Unpacking, pool: &'a Pool) -> Self {
        Self { unpacking, pool, chunk: pool.chunk() }
    }
}

impl Write for Feeder<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let taken = self.chunk.read_from(&mut bytes)?;
        if self.chunk.is_full() {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, self.pool.chunk());
        if self.unpacking.feed(chunk) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

/// Extracts, proves what is kept, and begins to write to the disk.
fn work(chunks: Chunks, root: BorrowedFd<'_>, recorded: Option<Paths>, limits: Limits) -> Result<Done, ExtractError> {
    let recording = Recording::new(root, recorded.clone()).map_err(ExtractError::Record)?;
    let (extracted, kept) = extract(chunks, root, recording, limits)?;
    let sum = match (&kept, &recorded) {
        (Kept::Recipe { .. }, Some(paths)) => {
            Some(Sum::of_recipe(&paths.recipe, root).map_err(ExtractError::Record)?.finish())
        }
        _ => None,
    };
    if extracted.content_bytes >= LARGE_BYTES {
        // An error is told once to each descriptor that was open by then: this one, and again the scratch directory's.
        rustix::fs::syncfs(root).map_err(|source| ExtractError::Write {
            entry: "./".into(),
            attempted: "write to the disk what is in",
            source,
        })?;
    }
    Ok(Done { extracted, kept, sum })
}

/// Chunks as a reader.
struct Chunks {
    chunks: Receiver<Piece>,
    current: Option<Arc<Chunk>>,
    used: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = &self.current {
                let rest = &chunk.bytes()[self.used..];
                if !rest.is_empty() {
                    let length = buffer.len().min(rest.len());
                    buffer[..length].copy_from_slice(&rest[..length]);
                    self.used += length;
                    return Ok(length);
                }
            }
            // Given back before the next is waited for.
            (self.current, self.used) = (None, 0);
            match self.chunks.recv() {
                Ok(chunk) => self.current = Some(chunk?),
                Err(_) => return Ok(0),
            }
        }
    }
}
