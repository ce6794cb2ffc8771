//! What is told of a push to the one who watches: all that happens, in order; of bytes only how many there are now, now and
//! then. Nobody is waited for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dozen_model::Digest;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{PushEvent, PushStep};
use crate::EngineError;

/// How often bytes are told. More often, a terminal shows nothing more.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    said: VecDeque<PushEvent>,
    /// What has moved since it was told.
    moving: BTreeMap<Digest, PushStep>,
    quiet_until: Option<Instant>,
    end: Option<Result<(), EngineError>>,
}

enum Next {
    Event(PushEvent),
    End(Result<(), EngineError>),
    /// Bytes that are to be told, at that time.
    Later(Instant),
    Nothing,
}

impl Told {
    pub(crate) fn say(&self, event: PushEvent) {
        let mut state = self.lock();
        if let PushEvent::Layer { id, .. } = &event {
            state.moving.remove(id);
        }
        state.said.push_back(event);
        drop(state);
        self.0.changed.notify_one();
    }

    pub(crate) fn layer(&self, id: &Digest, step: PushStep) {
        self.say(PushEvent::Layer { id: id.clone(), step });
    }

    /// Bytes went.
    pub(super) fn moves(&self, id: &Digest, step: PushStep) {
        self.lock().moving.insert(id.clone(), step);
        self.0.changed.notify_one();
    }

    pub(super) fn end(&self, end: Result<(), EngineError>) {
        self.lock().end = Some(end);
        self.0.changed.notify_one();
    }

    pub(super) async fn next(&self) -> Result<Option<PushEvent>, EngineError> {
        loop {
            match self.look() {
                Next::Event(event) => return Ok(Some(event)),
                Next::End(end) => return end.map(|()| None),
                Next::Later(time) => _ = tokio::time::timeout_at(time, self.0.changed.notified()).await,
                Next::Nothing => self.0.changed.notified().await,
            }
        }
    }

    fn look(&self) -> Next {
        let mut state = self.lock();
        if let Some(event) = state.said.pop_front() {
            return Next::Event(event);
        }
        if let Some(end) = state.end.take() {
            return Next::End(end);
        }
        let now = Instant::now();
        match state.quiet_until {
            _ if state.moving.is_empty() => return Next::Nothing,
            Some(time) if now < time => return Next::Later(time),
            _ => {}
        }
        let Some((id, step)) = state.moving.pop_first() else { return Next::Nothing };
        // Several layers are told one after the other.
        if state.moving.is_empty() {
            state.quiet_until = Some(now + PAUSE);
        }
        Next::Event(PushEvent::Layer { id, step })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
    }

    fn layer(letter: char, step: PushStep) -> Option<PushEvent> {
        Some(PushEvent::Layer { id: digest(letter), step })
    }

    #[tokio::test]
    async fn what_happens_is_told_and_bytes_now_and_then() {
        let told = Told::default();
        let at = |bytes| PushStep::Pushing { bytes, of_bytes: 1000 };
        told.layer(&digest('a'), PushStep::Preparing);
        for bytes in 0..1000 {
            told.moves(&digest('a'), at(bytes));
            told.moves(&digest('b'), at(bytes));
        }
        assert_eq!(told.next().await.unwrap(), layer('a', PushStep::Preparing));
        assert_eq!(told.next().await.unwrap(), layer('a', at(999)));
        assert_eq!(told.next().await.unwrap(), layer('b', at(999)));
        let before = Instant::now();
        told.moves(&digest('a'), at(1000));
        assert_eq!(told.next().await.unwrap(), layer('a', at(1000)));
        assert!(before.elapsed() >= PAUSE / 2);
        // What has happened takes the place of what was on its way.
        told.moves(&digest('a'), at(1));
        told.layer(&digest('a'), PushStep::Pushed);
        told.end(Ok(()));
        assert_eq!(told.next().await.unwrap(), layer('a', PushStep::Pushed));
        assert_eq!(told.next().await.unwrap(), None);
    }
}
