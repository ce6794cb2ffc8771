//! What is told of a pull. Whoever watches is told everything that has happened, in order; of bytes only how many there are
//! now, now and then: nobody is waited for, and nothing grows with the time that a pull takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dozen_model::Digest;
use tokio::sync::watch;
use tokio::time::Instant;

use super::PullFailure;

/// How often bytes are told. More often, a terminal shows nothing more.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// It begins with an image.
    Begins {
        /// The tag or digest.
        what: String,
        /// The repository's path in the registry.
        repository: String,
    },
    /// A layer moved on.
    Layer {
        /// Of its blob.
        digest: Digest,
        /// How far it is.
        step: LayerStep,
    },
    /// How many pulls the registry still gives, if it says so.
    Left {
        /// So many, until the window is over.
        remaining: u64,
        /// Of so many in each window.
        limit: Option<u64>,
        /// The window.
        window_s: Option<u64>,
    },
    /// What the name leads to in the registry.
    Resolved(Digest),
    /// An image is here.
    Done {
        /// Its name, as people type it.
        name: String,
        /// Something of it came; otherwise all of it was here.
        is_new: bool,
    },
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub enum LayerStep {
    /// It is here already.
    Exists,
    /// It is going to be fetched.
    Found,
    Downloading {
        bytes: u64,
        of_bytes: u64,
    },
    /// It is asked for again after so many seconds.
    Retrying {
        seconds: u64,
    },
    /// All of it has come.
    Downloaded,
    Extracting {
        bytes: u64,
        of_bytes: u64,
    },
    /// It is verified and unpacked.
    Complete,
}

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    said: Vec<PullEvent>,
    moving: BTreeMap<Digest, LayerStep>,
    downloaded: BTreeSet<Digest>,
    end: Option<Result<(), PullFailure>>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), changed: watch::Sender::new(()) }))
    }

    /// Something happened.
    pub(crate) fn say(&self, event: PullEvent) {
        let mut state = self.lock();
        if let PullEvent::Layer { digest, step } = &event {
            state.moving.remove(digest);
            if *step == LayerStep::Downloaded {
                state.downloaded.insert(digest.clone());
            }
        }
        state.said.push(event);
        drop(state);
        self.0.changed.send_replace(());
    }

    pub(crate) fn layer(&self, digest: &Digest, step: LayerStep) {
        self.say(PullEvent::Layer { digest: digest.clone(), step });
    }

    /// Bytes came.
    pub(crate) fn moves(&self, digest: &Digest, step: LayerStep) {
        self.lock().moving.insert(digest.clone(), step);
        self.0.changed.send_replace(());
    }

    /// Bytes are unpacked. While they come, that is what is told.
    pub(super) fn unpacks(&self, digest: &Digest, bytes: u64, of_bytes: u64) {
        if self.lock().downloaded.contains(digest) {
            self.moves(digest, LayerStep::Extracting { bytes, of_bytes });
        }
    }

    pub(crate) fn end(&self, end: Result<(), PullFailure>) {
        self.lock().end = Some(end);
        self.0.changed.send_replace(());
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch {
            board: self.clone(),
            changed: self.0.changed.subscribe(),
            read: 0,
            shown: BTreeMap::new(),
            quiet_until: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who watches.
#[derive(Debug)]
pub(crate) struct Watch {
    board: Board,
    changed: watch::Receiver<()>,
    /// Of what was said.
    read: usize,
    shown: BTreeMap<Digest, LayerStep>,
    quiet_until: Instant,
}

enum Next {
    Event(PullEvent),
    End(Result<(), PullFailure>),
    /// Bytes that are to be told, at some time.
    Later,
    Nothing,
}

impl Watch {
    pub(crate) async fn next(&mut self) -> Result<Option<PullEvent>, PullFailure> {
        loop {
            self.changed.mark_unchanged();
            match self.look() {
                Next::Event(event) => return Ok(Some(event)),
                Next::End(end) => return end.map(|()| None),
                Next::Later => _ = tokio::time::timeout_at(self.quiet_until, self.changed.changed()).await,
                // The board is ours, and so is who changes it.
                Next::Nothing => _ = self.changed.changed().await,
            }
        }
    }

    fn look(&mut self) -> Next {
        let state = self.board.lock();
        if let Some(event) = state.said.get(self.read) {
            self.read += 1;
            return Next::Event(event.clone());
        }
        if let Some(end) = &state.end {
            return Next::End(end.clone());
        }
        let new = state.moving.iter().find(|(digest, step)| self.shown.get(digest) != Some(step));
        let Some((digest, step)) = new else { return Next::Nothing };
        let now = Instant::now();
        if now < self.quiet_until {
            return Next::Later;
        }
        let (digest, step) = (digest.clone(), *step);
        drop(state);
        self.shown.insert(digest.clone(), step);
        // A few layers are told one after the other.
        let is_last = !self.board.lock().moving.iter().any(|(digest, step)| self.shown.get(digest) != Some(step));
        if is_last {
            self.quiet_until = now + PAUSE;
        }
        Next::Event(PullEvent::Layer { digest, step })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    fn layer(letter: char, step: LayerStep) -> PullEvent {
        PullEvent::Layer { digest: digest(letter), step }
    }

    #[tokio::test]
    async fn who_comes_later_is_told_everything() {
        let board = Board::new();
        let mut early = board.watch();
        board.layer(&digest('a'), LayerStep::Found);
        for bytes in 0..1000 {
            board.moves(&digest('a'), LayerStep::Downloading { bytes, of_bytes: 1000 });
        }
        assert_eq!(early.next().await, Ok(Some(layer('a', LayerStep::Found))));
        let now = LayerStep::Downloading { bytes: 999, of_bytes: 1000 };
        assert_eq!(early.next().await, Ok(Some(layer('a', now))));
        board.layer(&digest('a'), LayerStep::Complete);
        board.end(Ok(()));
        let mut late = board.watch();
        assert_eq!(late.next().await, Ok(Some(layer('a', LayerStep::Found))));
        for watch in [&mut early, &mut late] {
            assert_eq!(watch.next().await, Ok(Some(layer('a', LayerStep::Complete))));
            assert_eq!(watch.next().await, Ok(None));
        }
    }

    #[tokio::test]
    async fn bytes_are_told_now_and_then() {
        let board = Board::new();
        let mut watch = board.watch();
        let step = |bytes| LayerStep::Extracting { bytes, of_bytes: 9 };
        board.moves(&digest('a'), step(1));
        assert_eq!(watch.next().await, Ok(Some(layer('a', step(1)))));
        let before = Instant::now();
        board.moves(&digest('a'), step(2));
        assert_eq!(watch.next().await, Ok(Some(layer('a', step(2)))));
        assert!(before.elapsed() >= PAUSE);
        // What has happened takes the place of what was on its way.
        board.moves(&digest('a'), step(3));
        board.layer(&digest('a'), LayerStep::Complete);
        assert_eq!(watch.next().await, Ok(Some(layer('a', LayerStep::Complete))));
    }
}
