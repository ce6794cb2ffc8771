//! What happened, as it happens: Docker's events, with a short memory for `--since`, which engines hand on.

mod kept;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::kept::Kept;

/// The kind of thing that an event is about (Docker's Type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "Docker's words")]
pub enum EventKind {
    Container,
    Image,
    Volume,
    Network,
    Daemon,
    Builder,
}

impl EventKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Daemon => "daemon",
            Self::Builder => "builder",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To what kind of thing.
    pub kind: EventKind,
    /// What: create, start, die, …; `exec_start: sh` has its detail after a colon, as Docker's has.
    pub action: String,
    /// The id, or a volume's name; empty of what has happened to several (`prune`).
    pub id: String,
    /// Name, image, labels, exit code.
    pub attributes: BTreeMap<String, String>,
}

/// Which events.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventsQuery {
    /// Also remembered ones, from here on.
    pub since: Option<Timestamp>,
    /// The stream ends here; if it is in the past, after the remembered ones.
    pub until: Option<Timestamp>,
}

/// Events in order; the channel closes at `until`, when the engine goes down, or if the reader is too slow.
pub type EventStream = mpsc::Receiver<Arc<Event>>;

/// How many past events are kept, as many as Docker keeps.
const REMEMBERED: usize = 256;
/// How far a reader may fall behind before it is dropped: an engine's memory is bounded.
const READER_BUFFER: usize = 4096;

/// Takes events from owners and gives them to readers; never waits for a reader.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    remembered: VecDeque<Arc<Event>>,
    /// For the next engine.
    kept: Option<Kept>,
    readers: Vec<mpsc::Sender<Arc<Event>>>,
}

impl EventLog {
    /// With what earlier engines have left in the run root.
    pub(crate) fn open(run_root: &Path) -> Self {
        let (kept, remembered) = Kept::open(run_root);
        Self { state: Mutex::new(State { remembered, kept: Some(kept), readers: Vec::new() }) }
    }

    pub(crate) fn emit(&self, event: Event) {
        let event = Arc::new(event);
        let state = &mut *self.lock();
        if state.remembered.len() == REMEMBERED {
            state.remembered.pop_front();
        }
        state.remembered.push_back(event.clone());
        if let Some(kept) = &mut state.kept {
            kept.append(&event, &state.remembered);
        }
        state.readers.retain(|reader| reader.try_send(event.clone()).is_ok());
    }

    /// Remembered events since `since`, and then new ones.
    pub(crate) fn subscribe(&self, since: Option<Timestamp>) -> EventStream {
        let (sender, receiver) = mpsc::channel(READER_BUFFER);
        let mut state = self.lock();
        if let Some(since) = since {
            for event in state.remembered.iter().filter(|event| event.time >= since) {
                sender.try_send(event.clone()).expect("the buffer is larger than the memory");
            }
        }
        state.readers.push(sender);
        receiver
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn event(second: i64) -> Event {
        let time = Timestamp::from_second(second).unwrap();
        Event {
            time,
            kind: EventKind::Container,
            action: "start".into(),
            id: String::new(),
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn a_reader_gets_the_remembered_and_then_the_new() {
        let log = EventLog::default();
        (0..300).for_each(|second| log.emit(event(second)));
        let mut reader = log.subscribe(Some(Timestamp::from_second(298).unwrap()));
        log.emit(event(300));
        let seconds: Vec<i64> = std::iter::from_fn(|| reader.try_recv().ok()).map(|e| e.time.as_second()).collect();
        assert_eq!(seconds, [298, 299, 300]);
    }

    #[test]
    fn a_reader_that_stops_reading_is_dropped() {
        let log = EventLog::default();
        let mut reader = log.subscribe(None);
        (0..READER_BUFFER as i64 + 1).for_each(|second| log.emit(event(second)));
        assert!(log.lock().readers.is_empty());
        assert_eq!(std::iter::from_fn(|| reader.try_recv().ok()).count(), READER_BUFFER);
    }
}
