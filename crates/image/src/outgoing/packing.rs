//! A layer that is compressed into a file of its own, by several threads, while others read what is there of it: so it goes
//! while it is made, and goes again from any place if a connection breaks. Nobody knows what it is called before its end,
//! and nobody is told before all of the layer has been compared with its digest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use dozen_gzip::{GzipWriter, Level};
use dozen_model::Digest;
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::CParameter;

use crate::ImageError;
use crate::chunks::CHUNK_BYTES;
use crate::compression::Compression;
use crate::failpoint::failpoint;
use crate::pins::Pin;
use crate::places::LayerBlob;
use crate::schema::LayerRow;
use crate::scratch::Scratch;
use crate::store::Inner;
use crate::stored_layer::{Check, StoredLayer};

/// How many threads compress a layer: each holds a megabyte, or zstd's several, and an engine at work is to stay small.
const MOST_THREADS: usize = 8;
/// What a thread of zstd's compresses at a time. By itself it would take four times its window, which is 8 MiB at its usual
/// level (zstd.h, ZSTD_c_jobSize).
const ZSTD_JOB_BYTES: u32 = 1 << 20;
/// zstd's own (its manual, "ZSTD_CLEVEL_DEFAULT").
const ZSTD_LEVEL: u8 = 3;
/// Above that, windows are larger than others take (RFC 8878, section 3.1.1.1.2).
const ZSTD_MOST: u8 = 19;

/// How layers are compressed that go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerForm {
    /// RFC 1952.
    Gzip(Level),
    /// RFC 8878, at a level from 1 to 19.
    Zstd(u8),
}

impl Default for LayerForm {
    fn default() -> Self {
        Self::Gzip(Level::Fast)
    }
}

impl LayerForm {
    /// By the words of podman and BuildKit.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn read(format: &str, level: Option<i64>) -> Result<Self, String> {
        let between = |most: u8| match level.map(u8::try_from) {
            None => Ok(None),
            Some(Ok(level)) if (1..=most).contains(&level) => Ok(Some(level)),
            Some(_) => Err(format!("invalid compression level: of {format} it is between 1 and {most}")),
        };
        match format {
            "gzip" => Ok(Self::Gzip(between(9)?.map_or(Level::Fast, Level::Zlib))),
            "zstd" => Ok(Self::Zstd(between(ZSTD_MOST)?.unwrap_or(ZSTD_LEVEL))),
            "zstd:chunked" | "estargz" | "uncompressed" => Err(format!("compression {format} is not built yet")),
            _ => Err(format!("unknown compression {format:?}: it is gzip or zstd")),
        }
    }

    /// Of a layer that is compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip(_) => Compression::Gzip.layer_media_type(),
            Self::Zstd(_) => Compression::Zstd.layer_media_type(),
        }
    }
}

/// See the module. Its file goes with it.
pub struct Packing {
    inner: Arc<Inner>,
    row: Arc<LayerRow>,
    form: LayerForm,
    scratch: OnceLock<Scratch>,
    progress: Arc<Progress>,
    _pin: Pin,
}

#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    written_bytes: u64,
    /// Whether it went well.
    end: Option<bool>,
    is_stopped: bool,
}

impl std::fmt::Debug for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packing").field("layer", &self.row.diff_id).field("form", &self.form).finish_non_exhaustive()
    }
}

impl Packing {
    pub(super) fn of(inner: &Arc<Inner>, row: Arc<LayerRow>, form: LayerForm) -> Option<Self> {
        let (inner, pin) = (inner.clone(), inner.pin(&row.diff_id)?);
        Some(Self { inner, row, form, scratch: OnceLock::new(), progress: Arc::default(), _pin: pin })
    }

    /// Compresses it; gives what it is then. `begun` is called when there is something to read. Once. Blocks.
    pub fn run(&self, begun: impl FnOnce()) -> Result<LayerBlob, ImageError> {
        let packed = self.pack(begun);
        self.progress.change(|state| state.end = Some(packed.is_ok()));
        packed
    }

    /// Nobody wants it any more.
    pub fn stop(&self) {
        self.progress.change(|state| state.is_stopped = true);
    }

    /// Whether nobody wants it any more.
    pub fn is_stopped(&self) -> bool {
        self.progress.lock().is_stopped
    }

    fn path(scratch: &Scratch) -> PathBuf {
        scratch.0.join("packed")
    }

    fn pack(&self, begun: impl FnOnce()) -> Result<LayerBlob, ImageError> {
        let scratch = self.inner.scratch()?;
        let path = Self::path(&scratch);
        let failed = |error| ImageError::io("write", path.display())(error);
        let file = File::create(&path).map_err(failed)?;
        let _ = self.scratch.set(scratch);
        failpoint("image.packing.begun");
        begun();
        let growing = Growing { file, hash: Sha256::new(), size_bytes: 0, progress: self.progress.clone() };
        let mut packer = Packer::new(growing, self.form).map_err(failed)?;
        let written = StoredLayer::open(&self.inner, &self.row)?.write(&self.row, Check::Sum, |bytes| {
            if self.is_stopped() {
                return Err(failed(io::ErrorKind::BrokenPipe.into()));
            }
            packer.write_all(bytes).map_err(failed)
        });
        written.inspect_err(|error| self.inner.note_damage(&self.row.diff_id, error))?;
        let Growing { hash, size_bytes, .. } = packer.finish().map_err(failed)?;
        failpoint("image.packing.ended");
        let (digest, media_type) = (Digest::from_sha256(hash.finalize().into()), self.form.media_type().to_owned());
        Ok(LayerBlob { digest, size_bytes, media_type })
    }

    /// Reads what has been made of it and what will be, from a place to its end, in pieces of at most so many bytes as a
    /// chunk has. It is not compared with its digest once more: it was written just now, and whoever gets it does.
    ///
    /// # Errors
    /// It cannot be made, or read, or `out` fails.
    pub fn read(&self, from: u64, mut out: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ImageError> {
        let scratch = self.scratch.get().ok_or_else(|| self.given_up())?;
        let path = Self::path(scratch);
        let mut file = open(&path, from)?;
        let (mut at, mut buffer) = (from, vec![0; CHUNK_BYTES]);
        loop {
            let there = self.wait_beyond(at)?;
            if there <= at {
                return Ok(());
            }
            let most = buffer.len().min(usize::try_from(there - at).unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..most]).map_err(ImageError::io("read", path.display()))?;
            if read == 0 {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(ImageError::io("read", path.display())(source));
            }
            at += read as u64;
            out(&buffer[..read]).map_err(super::bytes::sending)?;
        }
    }

    /// Waits until there is more than so much of it, or all; how much there is.
    fn wait_beyond(&self, at: u64) -> Result<u64, ImageError> {
        let state = self.progress.lock();
        let is_waiting = |state: &mut State| state.written_bytes <= at && state.end.is_none() && !state.is_stopped;
        let state = self.progress.changed.wait_while(state, is_waiting).unwrap_or_else(PoisonError::into_inner);
        match state.end {
            Some(false) => Err(self.given_up()),
            None if state.is_stopped => Err(self.given_up()),
            _ => Ok(state.written_bytes),
        }
    }

    fn given_up(&self) -> ImageError {
        let source = io::Error::from(io::ErrorKind::BrokenPipe);
        ImageError::Io { attempted: "compress", object: format!("the layer {}", self.row.diff_id), source }
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

fn open(path: &Path, from: u64) -> Result<File, ImageError> {
    let opened = File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(from)).map(|_| file));
    opened.map_err(ImageError::io("open", path.display()))
}

enum Packer {
    Gzip(GzipWriter<Growing>),
    Zstd(zstd::stream::write::Encoder<'static, Growing>),
}

impl Packer {
    fn new(out: Growing, form: LayerForm) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        Ok(match form {
            LayerForm::Gzip(level) => Self::Gzip(GzipWriter::new(out, level, threads)?),
            LayerForm::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level.into())?;
                // One at least: without any it is compressed in another way (zstd.h, ZSTD_c_nbWorkers).
                encoder.multithread(threads as u32)?;
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(writer) => writer.write_all(bytes),
            Self::Zstd(writer) => writer.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Growing> {
        match self {
            Self::Gzip(writer) => writer.finish(),
            Self::Zstd(writer) => writer.finish(),
        }
    }
}

/// A file, hashed as it is written; who reads it is told.
struct Growing {
    file: File,
    hash: Sha256,
    size_bytes: u64,
    progress: Arc<Progress>,
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size_bytes += written as u64;
        self.progress.change(|state| state.written_bytes = self.size_bytes);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_or_refused() {
        for (format, level, want) in [
            ("gzip", None, Ok(LayerForm::Gzip(Level::Fast))),
            ("gzip", Some(9), Ok(LayerForm::Gzip(Level::Zlib(9)))),
            ("zstd", None, Ok(LayerForm::Zstd(3))),
            ("zstd", Some(19), Ok(LayerForm::Zstd(19))),
            ("gzip", Some(0), Err("invalid compression level: of gzip it is between 1 and 9")),
            ("zstd", Some(20), Err("invalid compression level: of zstd it is between 1 and 19")),
            ("zstd", Some(-5), Err("invalid compression level: of zstd it is between 1 and 19")),
            ("zstd", Some(1 << 40), Err("invalid compression level: of zstd it is between 1 and 19")),
            ("zstd:chunked", None, Err("compression zstd:chunked is not built yet")),
            ("xz", None, Err("unknown compression \"xz\": it is gzip or zstd")),
        ] {
            assert_eq!(LayerForm::read(format, level), want.map_err(str::to_owned), "{format} {level:?}");
        }
    }
}
