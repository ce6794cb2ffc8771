//! The threads that make a gzip stream, and who keeps their order. Who writes gathers a part and gives it to whichever
//! thread is free; another one takes what they have made, in the order of the stream, and passes it on. All of them wait for
//! each other, so that few parts are held at once.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress};

use crate::deflate::Deflate;
use crate::{Level, PART_BYTES, WINDOW_BYTES};

/// Neither name nor time, and of an unknown system (RFC 1952, section 2.3): the same bytes are the same stream.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// A last block with nothing in it, of fixed codes (RFC 1951, section 3.2.6).
const LAST: [u8; 2] = [0x03, 0x00];

/// See the module. What is written is complete after [`finish`](Self::finish) alone. Dropped, its threads have ended.
pub struct GzipWriter<W> {
    /// What is gathered: what may be referred to, then what is new from `from` on.
    part: Vec<u8>,
    from: usize,
    free: Free,
    /// `None`: it is over.
    to: Option<Channels>,
    workers: Vec<JoinHandle<()>>,
    sink: Option<JoinHandle<io::Result<W>>>,
}

struct Channels {
    parts: SyncSender<Part>,
    order: SyncSender<Receiver<Packed>>,
}

struct Part {
    bytes: Vec<u8>,
    from: usize,
    done: SyncSender<Packed>,
}

struct Packed {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Buffers that nobody has.
type Free = Arc<Mutex<Vec<Vec<u8>>>>;

impl<W: Write + Send + 'static> GzipWriter<W> {
    /// A stream that goes to `out`, made by so many threads, of which there is at least one.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(out: W, level: Level, threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let free = Free::default();
        let (parts, taken) = sync_channel(threads);
        let (order, results) = sync_channel(2 * threads);
        let taken = Arc::new(Mutex::new(taken));
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let returned = free.clone();
        let sink = spawn("gzip order").spawn(move || pass_on(out, &results, &returned))?;
        let part = Vec::with_capacity(WINDOW_BYTES + PART_BYTES);
        let to = Some(Channels { parts, order });
        let mut writer = Self { part, from: 0, free: free.clone(), to, workers: Vec::new(), sink: Some(sink) };
        for _ in 0..threads {
            let (taken, free) = (taken.clone(), free.clone());
            writer.workers.push(spawn("gzip").spawn(move || compress(&taken, level, &free))?);
        }
        Ok(writer)
    }

    /// Ends the stream; gives what it went to.
    ///
    /// # Errors
    /// Of what it went to.
    pub fn finish(mut self) -> io::Result<W> {
        let sent = if self.part.len() > self.from { self.send() } else { Ok(()) };
        let ended = self.end();
        sent?;
        ended
    }

    /// One more part is full.
    fn send(&mut self) -> io::Result<()> {
        let mut next = take(&self.free);
        next.extend_from_slice(&self.part[self.part.len().saturating_sub(WINDOW_BYTES)..]);
        let from = std::mem::replace(&mut self.from, next.len());
        let bytes = std::mem::replace(&mut self.part, next);
        let (done, result) = sync_channel(1);
        let sent = self
            .to
            .as_ref()
            .is_some_and(|to| to.order.send(result).is_ok() && to.parts.send(Part { bytes, from, done }).is_ok());
        if sent {
            return Ok(());
        }
        // Who passes it on has stopped, and says why.
        Err(self.end().err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}

impl<W> GzipWriter<W> {
    /// Waits for all threads.
    fn end(&mut self) -> io::Result<W> {
        self.to = None;
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| io::Error::other("a thread that compresses has failed"))?;
        }
        let Some(sink) = self.sink.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        sink.join().unwrap_or_else(|_| Err(io::Error::other("the thread that gathers a stream has failed")))
    }
}

impl<W: Write + Send + 'static> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() == self.from + PART_BYTES {
            self.send()?;
        }
        let taken = bytes.len().min(self.from + PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Parts are cut where they are cut: nothing is passed on before its time.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W> Drop for GzipWriter<W> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl<W> std::fmt::Debug for GzipWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GzipWriter").finish_non_exhaustive()
    }
}

/// A buffer with nothing in it.
fn take(free: &Free) -> Vec<u8> {
    let free = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
    free.unwrap_or_else(|| Vec::with_capacity(WINDOW_BYTES + PART_BYTES))
}

fn give_back(free: &Free, mut buffer: Vec<u8>) {
    buffer.clear();
    free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
}

/// One of the threads.
fn compress(parts: &Mutex<Receiver<Part>>, level: Level, free: &Free) {
    let mut encoder = Encoder::new(level);
    loop {
        let taken = parts.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Part { bytes, from, done }) = taken else { return };
        let mut crc = Crc::new();
        crc.update(&bytes[from..]);
        let mut packed = take(free);
        encoder.compress(&bytes, from, &mut packed);
        give_back(free, bytes);
        // Who does not want it any more has stopped.
        let _ = done.send(Packed { bytes: packed, crc });
    }
}

/// The last of the threads.
fn pass_on<W: Write>(mut out: W, order: &Receiver<Receiver<Packed>>, free: &Free) -> io::Result<W> {
    let mut crc = Crc::new();
    out.write_all(&HEADER)?;
    for result in order {
        // A thread that fails takes the stream with it.
        let packed = result.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        crc.combine(&packed.crc);
        out.write_all(&packed.bytes)?;
        give_back(free, packed.bytes);
    }
    out.write_all(&LAST)?;
    out.write_all(&crc.sum().to_le_bytes())?;
    // Of the length its last 32 bits (RFC 1952, section 2.3.1).
    out.write_all(&crc.amount().to_le_bytes())?;
    out.flush()?;
    Ok(out)
}

enum Encoder {
    Own(Box<Deflate>),
    Zlib(Compression),
}

impl Encoder {
    fn new(level: Level) -> Self {
        match level {
            Level::Fast => Self::Own(Box::new(Deflate::new())),
            Level::Zlib(level) => Self::Zlib(Compression::new(u32::from(level.clamp(1, 9)))),
        }
    }

    /// See [`Deflate::compress`].
    fn compress(&mut self, bytes: &[u8], from: usize, out: &mut Vec<u8>) {
        let level = match self {
            Self::Own(own) => return own.compress(bytes, from, out),
            Self::Zlib(level) => *level,
        };
        // A new one each time: one that is reset (zlib-rs 0.6.8) makes now and then something else of the same bytes.
        let mut zlib = Compress::new(level, false);
        if from > 0 {
            zlib.set_dictionary(&bytes[..from]).expect("nothing is compressed yet");
        }
        let new = &bytes[from..];
        // More than it can become, so that it is done in one step: what comes out depends on the steps.
        out.reserve(new.len() + new.len() / 4 + 4096);
        zlib.compress_vec(new, out, FlushCompress::Sync).expect("nothing has ended");
        assert!(zlib.total_in() == new.len() as u64 && out.len() < out.capacity(), "there was room for all of it");
    }
}

#[cfg(test)]
mod tests;
