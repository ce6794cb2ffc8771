//! The container's output: cut into lines, encoded, and kept.
//!
//! [`lines`] cuts, [`json`] and [`compact`] say how an entry is written (all of them pure), [`timestamp`] says when;
//! [`file`] writes and rotates, and has a child of its own compress what is rotated ([`compression`]). A log server gets
//! its messages from [`remote`], as [`messages`] writes them. All of it but the driver can change while it is in use (`change`).

mod change;
pub mod compact;
pub mod compression;
pub mod file;
pub mod json;
pub mod lines;
pub mod messages;
pub mod remote;
pub mod settings;
pub mod timestamp;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::process::Pid;
use rustix::time::Timespec;

use self::file::LogFile;
use self::lines::{LineCutter, Piece};
use self::remote::Remote;
use self::settings::{LogFileSettings, LogFormat, LogSettings};
use crate::protocol::LogEnd;

/// Which of the process's streams a piece of output came from. A terminal has only `Stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its word in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Takes all that the container's first process writes.
#[derive(Debug)]
pub struct ContainerLog {
    cutters: [LineCutter; 2],
    kept: Option<Kept>,
    remote: Option<Box<Remote>>,
}

/// What is kept on disk.
#[derive(Debug)]
struct Kept {
    file: LogFile,
    encoder: Encoder,
    /// So many entries could not be written, and nobody has been told yet.
    missing: u64,
}

/// Writes entries down.
#[derive(Debug)]
enum Encoder {
    /// With the attributes of every entry, encoded already.
    Json(Vec<u8>),
    Compact,
}

impl Encoder {
    fn new(settings: &LogFileSettings) -> Self {
        match settings.format {
            LogFormat::Json => Self::Json(json::attributes(&settings.attributes)),
            LogFormat::Compact => Self::Compact,
        }
    }

    fn encode(&self, piece: Piece<'_>, stream: Stream, now: &Now, entries: &mut Vec<u8>) {
        match self {
            Self::Json(attributes) => json::encode(piece, stream, &now.text, attributes, entries),
            Self::Compact => compact::encode(piece, stream, now.time, entries),
        }
    }
}

/// The moment at which something was read.
pub struct Now {
    time: Timespec,
    text: [u8; timestamp::LENGTH_BYTES],
}

impl Now {
    fn new() -> Self {
        let time = timestamp::time_now();
        Self { time, text: timestamp::format(time) }
    }
}

impl ContainerLog {
    /// Opens what is kept in the container's directory for more, or begins it.
    ///
    /// # Errors
    /// A file can be neither opened nor made, or a log server cannot be reached.
    pub fn open(data_directory: &Path, settings: &LogSettings) -> io::Result<Self> {
        let kept = settings.file.as_ref().map(|file| Kept::open(data_directory, file)).transpose()?;
        let remote = settings.remote.clone().map(Remote::open).transpose()?.map(Box::new);
        Ok(Self { cutters: Default::default(), kept, remote })
    }

    /// A stream's unfinished line, which is in no entry yet.
    pub fn held(&self, stream: Stream) -> &[u8] {
        self.cutters[stream as usize].held()
    }

    /// Where what is kept ends now; `None`: nothing is.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn end(&self) -> io::Result<Option<LogEnd>> {
        self.kept.as_ref().map(|kept| kept.file.end()).transpose()
    }

    /// More of a stream.
    pub fn push(&mut self, stream: Stream, chunk: &[u8]) {
        let now = Now::new();
        // Lines of a hundred bytes become half as long again.
        let mut entries = Vec::with_capacity(chunk.len() * 2);
        self.cutters[stream as usize].push(chunk, &mut |piece| {
            if let Some(kept) = &self.kept {
                kept.encoder.encode(piece, stream, &now, &mut entries);
            }
            if let Some(remote) = &mut self.remote {
                remote.push(piece, stream, &now);
            }
        });
        if let Some(kept) = &mut self.kept {
            kept.append(&entries, &now);
        }
        if let Some(remote) = &mut self.remote {
            remote.flush(Instant::now());
        }
    }

    /// True while more output may be taken: a log server holds the container up, if it may.
    pub fn has_room(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.has_room())
    }

    /// Has the kernel watch the connection to a log server, and a child that compresses.
    ///
    /// # Errors
    /// epoll_ctl(2)'s.
    pub fn watch(&mut self, epoll: &OwnedFd) -> rustix::io::Result<()> {
        self.kept.as_mut().map_or(Ok(()), |kept| kept.file.watch(epoll))?;
        self.remote.as_mut().map_or(Ok(()), |remote| remote.watch(epoll))
    }

    /// Something has happened to them. Who waits for children says [what became of that one](Self::child_ended).
    pub fn on_event(&mut self) {
        if let Some(remote) = &mut self.remote {
            remote.on_event(Instant::now());
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.remote.as_ref().and_then(|remote| remote.deadline())
    }

    /// Does what it is time for.
    pub fn tick(&mut self) {
        if let Some(remote) = &mut self.remote {
            let now = Instant::now();
            if remote.deadline().is_some_and(|deadline| now >= deadline) {
                remote.tick(now);
            }
        }
    }

    /// The streams have ended: what was held back is written, and no child is left.
    pub fn finish(&mut self) {
        let now = Now::new();
        let mut entries = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.cutters[stream as usize].finish(&mut |piece| {
                if let Some(kept) = &self.kept {
                    kept.encoder.encode(piece, stream, &now, &mut entries);
                }
                if let Some(remote) = &mut self.remote {
                    remote.push(piece, stream, &now);
                }
            });
        }
        if let Some(kept) = &mut self.kept {
            kept.append(&entries, &now);
            kept.file.close();
        }
        if let Some(remote) = &mut self.remote {
            remote.finish();
        }
    }

    /// A child of this process has ended; `successful`: with 0. It may have been one that compresses.
    pub fn child_ended(&mut self, child: Pid, successful: bool) {
        if let Some(kept) = &mut self.kept {
            kept.file.child_ended(child, successful);
        }
    }

    /// How many entries could not be written since the last that could, and why.
    pub fn missing(&self) -> Option<(u64, String)> {
        let kept = self.kept.as_ref().filter(|kept| kept.missing > 0);
        kept.map(|kept| (kept.missing, kept.file.last_error()))
            .or_else(|| self.remote.as_ref().and_then(|remote| remote.missing()))
    }
}

impl Kept {
    fn open(data_directory: &Path, settings: &LogFileSettings) -> io::Result<Self> {
        let file = LogFile::open(&data_directory.join(settings.format.file_name()), settings.files)?;
        Ok(Self { file, encoder: Encoder::new(settings), missing: 0 })
    }

    /// What is missing is said in its place, as soon as there is room for it.
    fn append(&mut self, entries: &[u8], now: &Now) {
        if self.missing > 0 {
            let text = format!(
                "dozen: {} entries of the log are missing here: {}\n",
                self.missing,
                self.file.last_error().trim_end()
            );
            let mut notice = Vec::new();
            self.encoder.encode(Piece { text: text.as_bytes(), part: 0 }, Stream::Stderr, now, &mut notice);
            if self.file.append(&notice) == 0 {
                self.missing = 0;
            }
        }
        self.missing += self.file.append(entries);
    }
}

#[cfg(test)]
mod tests;
