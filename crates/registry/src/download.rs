//! A large blob by several connections: of a registry that is far away each connection brings only so much. The first one
//! brings the blob from its beginning, as of any other; when turns are to be had that nobody else wants, parts of what
//! follows are asked for besides, and are held in memory until it is theirs. So there are never more connections than turns,
//! and never more in memory than [`PARTS`] parts. Nothing depends on it: of a server that sends no parts, or breaks one off,
//! the rest comes as it would without.
//!
//! ```text
//! head      ─────────────────▶┊                        ends where the first part begins, once that comes as it was asked for
//! parts                       ├──────▶├──────▶├──────▶  several at once, read one after the other
//! head anew                                           ├────────▶   when there are no spare turns any more
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::blob::Source;
use crate::{Blob, RegistryError, Repository};

/// What one connection is asked for at a time: long beside the time that a question takes.
const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Gathered of a part before that is held: in however small pieces it comes, they take no more memory than it.
const PIECE_BYTES: usize = 64 * 1024;
/// Of a blob, at once.
const PARTS: usize = 3;
/// A blob of which less is left is there before more connections would be.
const LEAST_BYTES: u64 = 4 * PART_BYTES;

/// See the module.
#[derive(Debug)]
pub struct Download<'r> {
    repository: &'r Arc<Repository>,
    source: Source,
    /// Where the next byte stands that is given.
    at: u64,
    head: Option<Blob<'r>>,
    /// What comes behind the head, without a gap.
    parts: VecDeque<Part>,
    ranges: Ranges,
    turns: Arc<Semaphore>,
}

/// What is known of who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ranges {
    Untried,
    /// A part was asked for, of which nothing has come.
    Asked,
    Sent,
    Not,
}

/// A part on its way. Dropped, it is given up.
#[derive(Debug)]
struct Part {
    begin: u64,
    end: u64,
    /// Its bytes, after an empty piece that says that it is what was asked for. No more of them than it has.
    pieces: mpsc::UnboundedReceiver<Bytes>,
    task: AbortHandle,
    /// `None`: the head's, which is over.
    turn: Option<OwnedSemaphorePermit>,
}

impl<'r> Download<'r> {
    /// Goes on with a blob that has begun to come. For this one a turn is taken already.
    pub fn new(repository: &'r Arc<Repository>, blob: Blob<'r>, turns: Arc<Semaphore>) -> Self {
        let source = blob.source().clone();
        Self { repository, source, at: 0, head: Some(blob), parts: VecDeque::new(), ranges: Ranges::Untried, turns }
    }

    /// See [`Blob::next_unverified`].
    ///
    /// # Errors
    /// As there.
    pub async fn next_unverified(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            self.ask_for_more();
            let first = self.parts.front().filter(|_| self.ranges == Ranges::Sent).map(|part| part.begin);
            if let Some(head) = &mut self.head {
                if first.is_some_and(|first| self.at >= first) {
                    self.head = None;
                    continue;
                }
                let Some(mut piece) = head.next_unverified().await? else { return Ok(None) };
                // The part may have begun to come while this was waited for; what it has is not given twice.
                let most = first.map_or(u64::MAX, |first| first - self.at);
                piece.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                self.at += piece.len() as u64;
                return Ok(Some(piece));
            }
            let Some(part) = self.parts.front_mut() else {
                if self.at == self.source.size_bytes {
                    return Ok(None);
                }
                self.head = Some(self.repository.rest(self.source.clone(), self.at).await?);
                continue;
            };
            match part.pieces.recv().await {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    self.at += piece.len() as u64;
                    return Ok(Some(piece));
                }
                None if self.at == part.end => drop(self.parts.pop_front()),
                None => self.do_without(),
            }
        }
    }

    /// From here on as if there were no parts.
    fn do_without(&mut self) {
        tracing::info!(at = self.at, "the rest comes by one connection");
        self.parts.clear();
        self.ranges = Ranges::Not;
    }

    /// Asks for parts, if there are turns for them.
    fn ask_for_more(&mut self) {
        let size_bytes = self.source.size_bytes;
        match self.ranges {
            Ranges::Not => {}
            Ranges::Untried if size_bytes - self.at >= LEAST_BYTES => {
                if let Ok(turn) = self.turns.clone().try_acquire_owned() {
                    self.ask_for(self.at + PART_BYTES, Some(turn));
                    self.ranges = Ranges::Asked;
                }
            }
            Ranges::Untried => self.ranges = Ranges::Not,
            Ranges::Asked => match self.parts.front_mut().map(|part| (part.begin, part.pieces.try_recv())) {
                Some((begin, Ok(_))) if self.at <= begin => self.ranges = Ranges::Sent,
                Some((begin, Err(mpsc::error::TryRecvError::Empty))) if self.at < begin => {}
                _ => self.do_without(),
            },
            Ranges::Sent => {
                while self.parts.len() < PARTS {
                    let begin =
                        self.parts.back().map_or(self.at + PART_BYTES * u64::from(self.head.is_some()), |it| it.end);
                    // A short rest is the head's.
                    if begin >= size_bytes || (self.parts.is_empty() && size_bytes - begin < PART_BYTES) {
                        return;
                    }
                    let is_heads_free = self.head.is_none() && self.parts.iter().all(|part| part.turn.is_some());
                    match self.turns.clone().try_acquire_owned() {
                        Ok(turn) => self.ask_for(begin, Some(turn)),
                        Err(_) if is_heads_free && !self.parts.is_empty() => self.ask_for(begin, None),
                        Err(_) => return,
                    }
                }
            }
        }
    }

    fn ask_for(&mut self, begin: u64, turn: Option<OwnedSemaphorePermit>) {
        let end = (begin + PART_BYTES).min(self.source.size_bytes);
        let (sender, pieces) = mpsc::unbounded_channel();
        let (repository, source) = (self.repository.clone(), self.source.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = fetch(&repository, source, begin, end, &sender).await {
                tracing::info!(begin, end, %error, "a part of a blob does not come");
            }
        });
        self.parts.push_back(Part { begin, end, pieces, task: task.abort_handle(), turn });
    }
}

async fn fetch(
    repository: &Repository,
    source: Source,
    begin: u64,
    end: u64,
    sender: &mpsc::UnboundedSender<Bytes>,
) -> Result<(), RegistryError> {
    let Some(mut part) = repository.part(source, begin, end).await? else { return Ok(()) };
    // Who does not want it any more has gone, and this task with it.
    let _ = sender.send(Bytes::new());
    let mut gathered = BytesMut::with_capacity(PIECE_BYTES);
    while let Some(piece) = part.next_unverified().await? {
        if gathered.len() + piece.len() > PIECE_BYTES && !gathered.is_empty() {
            let full = std::mem::replace(&mut gathered, BytesMut::with_capacity(PIECE_BYTES));
            let _ = sender.send(full.freeze());
        }
        gathered.extend_from_slice(&piece);
    }
    if !gathered.is_empty() {
        let _ = sender.send(gathered.freeze());
    }
    Ok(())
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}
