//! A scrub: all blobs are read and compared with their digests, again and again, while everyone is served.
//!
//! **The rule.** In each time that was said every blob is read once, one after the other, no faster than was said, and at a
//! quarter of that while clients are served. How far it has come is kept: the next server goes on there. A blob that turns
//! out damaged is nobody's from that moment on, so that it comes again with the next push, or of its upstream with the next
//! pull; its file stays where it is, and is the blob's again should it turn out right later: it is read again when a server
//! starts, and from time to time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::store::{Round, Store, now};

/// Less than this, between two readings, is no client: somebody looks at numbers.
const QUIET_BYTES: u64 = 64 << 10;
/// While clients are served it is slower by this.
const YIELDING: u32 = 4;
/// Between two rounds, however short these are.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two rounds what was set aside is read again so often, however long the pause.
pub(crate) const ASIDE_EVERY: Duration = Duration::from_secs(60 * 60);
/// Before a blob that could not be read is read again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// After a round that could not go on.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);

/// How often, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub {
    /// In each such time all blobs are read once.
    pub every: Duration,
    /// No more is read in a second.
    pub bytes_per_second: u64,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// All blobs after that of this row, in a round that began then (seconds since 1970).
    Round { begun_at: i64, after: i64 },
    /// Nothing for so long.
    Wait(Duration),
}

fn due(last: Option<Round>, every: Duration, now: i64) -> Due {
    let first = Due::Round { begun_at: now, after: 0 };
    let Some(last) = last else { return first };
    if let Some(after) = last.after {
        return Due::Round { begun_at: last.begun_at, after };
    }
    // A clock that was ahead once does not keep it waiting for longer than a round.
    let since = u64::try_from(now.saturating_sub(last.begun_at)).unwrap_or_default();
    match every.checked_sub(Duration::from_secs(since)).filter(|left| !left.is_zero()) {
        Some(left) => Due::Wait(left),
        None => first,
    }
}

/// For ever.
pub async fn scrub(store: Arc<Store>, scrub: Scrub, metrics: Arc<Metrics>) {
    let pace = Pace::new(scrub.bytes_per_second, metrics.clone());
    loop {
        let pause = go_on(&store, scrub.every, &pace, &metrics).await.unwrap_or_else(|refusal| {
            if !refusal.is_for_ending() {
                tracing::error!("the scrub cannot go on, and tries again in {FAILURE_PAUSE:?}: {refusal}");
            }
            FAILURE_PAUSE
        });
        tokio::time::sleep(pause).await;
    }
}

/// Does what is due: how long nothing is to be done then.
async fn go_on(store: &Arc<Store>, every: Duration, pace: &Pace, metrics: &Metrics) -> Result<Duration, Refusal> {
    match due(store.index.round().await?, every, now()) {
        Due::Wait(left) => store.look_aside(pace).await.map(|()| left.min(ASIDE_EVERY)),
        Due::Round { begun_at, after } => store.scrub(begun_at, after, pace, metrics).await.map(|()| SHORTEST_PAUSE),
    }
}

/// How fast blobs are read.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Before one that could not be read is read again; then it is twice as long each time.
    pub(crate) first_pause: Duration,
    bytes_per_second: u64,
    metrics: Arc<Metrics>,
    /// What had gone to and from clients by then.
    moved_bytes: AtomicU64,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64, metrics: Arc<Metrics>) -> Self {
        let moved_bytes = AtomicU64::new(metrics.moved_bytes());
        Self { first_pause: FIRST_PAUSE, bytes_per_second, metrics, moved_bytes }
    }

    /// So much has been read: waits until more may be.
    pub(crate) async fn rest_after(&self, bytes: u64) {
        let moved = self.metrics.moved_bytes();
        let before = self.moved_bytes.swap(moved, Ordering::Relaxed);
        let is_busy = moved.wrapping_sub(before) > QUIET_BYTES;
        tokio::time::sleep(rest(bytes, self.bytes_per_second, is_busy)).await;
    }
}

fn rest(bytes: u64, bytes_per_second: u64, is_busy: bool) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    let rest = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    if is_busy { rest.saturating_mul(YIELDING) } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_due_when_its_time_has_come_and_goes_on_where_it_was() {
        let (every, now) = (Duration::from_secs(100), 10_000);
        let over = |begun_at| Some(Round { begun_at, after: None });
        for (last, expected) in [
            (None, Due::Round { begun_at: now, after: 0 }),
            (Some(Round { begun_at: 9_000, after: Some(7) }), Due::Round { begun_at: 9_000, after: 7 }),
            (over(9_950), Due::Wait(Duration::from_secs(50))),
            (over(9_900), Due::Round { begun_at: now, after: 0 }),
            (over(10), Due::Round { begun_at: now, after: 0 }),
            (over(20_000), Due::Wait(every)),
        ] {
            assert_eq!(due(last, every, now), expected, "{last:?}");
        }
        assert_eq!(due(over(now), Duration::ZERO, now), Due::Round { begun_at: now, after: 0 });
    }

    #[test]
    fn it_rests_as_long_as_its_pace_says_and_longer_while_others_are_served() {
        for (bytes, rate, is_busy, ms) in [
            (1 << 20, 1 << 20, false, 1000),
            (1 << 20, 1 << 20, true, 4000),
            (1 << 20, 16 << 20, false, 62),
            (0, 1, true, 0),
            (5, u64::MAX, false, 0),
        ] {
            assert_eq!(rest(bytes, rate, is_busy).as_millis(), ms, "{bytes} {rate} {is_busy}");
        }
        assert!(rest(u64::MAX, 0, true) > Duration::from_secs(1 << 30));
    }
}
