//! Reading a container's log, and following it.
//!
//! A reader is a task, with or without `follow`: it has a thread only while it takes the next batch off the disk, so that
//! neither a log that is idle nor a client that is slow holds one. Word that a log has grown comes from the one inotify
//! instance that all followers share.

mod change;
mod cursor;
mod entries;
mod files;
mod gelf;
mod notices;
pub(crate) mod remote;
mod settings;
mod tag;

use std::pin::Pin;
use std::sync::Arc;

use dozen_monitor::protocol::LogEnd;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};

pub(crate) use self::change::change;
use self::cursor::{Cursor, State};
pub use self::entries::{LogBatch, LogEntry, LogTime, OutputStream};
use self::notices::{Notices, Subscription};
pub use self::settings::check;
pub(crate) use self::settings::settings;
use crate::container::Container;
use crate::container::snapshot::Phase;
use crate::{EngineError, Snapshot};

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Not after this.
    pub until: Option<Timestamp>,
    /// Not what was written after this.
    pub end: Option<LogEnd>,
    /// Only the last so many entries of the log, whatever of them is wanted (Docker's order); `None`: all.
    pub tail: Option<u64>,
    /// Go on until the container has ended.
    pub follow: bool,
}

/// Entries in order, by the batch; the channel closes after the last. Dropping it ends the reader.
pub type LogStream = mpsc::Receiver<Result<LogBatch, EngineError>>;

/// How many logs are read at one moment: enough for a disk, and few beside the threads that all other work needs.
const READING: usize = 8;

/// What all readers of an engine's logs share.
#[derive(Debug)]
pub(crate) struct Logs {
    notices: Notices,
    reading: Arc<Semaphore>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { notices: Notices::default(), reading: Arc::new(Semaphore::new(READING)) }
    }
}

/// Starts a reader; an unreadable file ends it with an error. Needs the async runtime.
pub(crate) fn read(container: &Container, options: LogOptions) -> Result<LogStream, EngineError> {
    let logs = &container.shared.logs;
    let snapshot = container.snapshot();
    let format = settings::format(&snapshot.spec.log).ok_or_else(unreadable)?;
    let follower = if options.follow {
        // Watched before anything is read: what is written in between is not missed.
        let notice = logs.notices.subscribe(&snapshot.directory).map_err(|error| match error.kind() {
            // It is being removed.
            std::io::ErrorKind::NotFound => EngineError::NoSuchContainer(snapshot.id.to_string()),
            _ => EngineError::System {
                action: format!("watch the log in {}", snapshot.directory.display()),
                source: error,
            },
        })?;
        let mut snapshots = container.entry.snapshots.clone();
        let exits_before = snapshots.borrow().exits;
        let end = async move {
            // An error means that the container is gone: that is an end, too.
            drop(snapshots.wait_for(|snapshot| is_over(snapshot, exits_before)).await);
        };
        Some(Follower { notice, end: Box::pin(end), over: false })
    } else {
        None
    };
    // One batch waits for a slow client, and one is in its hands.
    let (sender, receiver) = mpsc::channel(1);
    let cursor = Cursor::new(snapshot.directory.join(format.file_name()), format, options);
    tokio::spawn(serve(cursor, follower, logs.reading.clone(), sender));
    Ok(receiver)
}

/// In Docker's words.
fn unreadable() -> EngineError {
    EngineError::NotBuilt {
        message: "configured logging driver does not support reading".to_owned(),
        hint: Some("nothing of its output is kept here".to_owned()),
    }
}

/// A follower's log ends with the run that it follows, also if the next one begins at once.
fn is_over(snapshot: &Snapshot, exits_before: u64) -> bool {
    snapshot.exits > exits_before || !matches!(snapshot.phase, Phase::Running(_) | Phase::Starting { .. })
}

/// What a reader that follows waits for.
struct Follower {
    notice: Subscription,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
}

impl Follower {
    /// More of the log, or the end of the run.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            () = &mut self.end => self.over = true,
            () = self.notice.changed() => {}
        }
    }
}

async fn serve(
    mut cursor: Cursor,
    mut follower: Option<Follower>,
    reading: Arc<Semaphore>,
    sender: mpsc::Sender<Result<LogBatch, EngineError>>,
) {
    loop {
        // Known before reading: whatever was written before the end is still read after it.
        let over = follower.as_ref().is_none_or(|follower| follower.over);
        loop {
            let permit = reading.acquire().await;
            let client = sender.clone();
            let batch = tokio::task::spawn_blocking(move || {
                let batch = cursor.next_batch(&|| client.is_closed());
                (cursor, batch)
            });
            let Ok((back, batch)) = batch.await else { return };
            drop(permit);
            cursor = back;
            let (message, state) = match batch {
                Ok((batch, state)) => (Ok(batch), state),
                Err(error) => (Err(error), State::Finished),
            };
            let empty = matches!(&message, Ok(batch) if batch.is_empty());
            if !empty && sender.send(message).await.is_err() {
                return;
            }
            match state {
                State::More => {}
                State::CaughtUp => break,
                State::Finished => return,
            }
        }
        let Some(follower) = follower.as_mut().filter(|_| !over) else { return };
        tokio::select! {
            () = follower.wait() => {}
            () = sender.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests;
