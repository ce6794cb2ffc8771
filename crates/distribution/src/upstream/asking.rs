//! How an upstream is asked: by so many at once, for so long at the most, and by one of those who want the same.
//!
//! **The rule.** Each upstream has places of its own for questions, and a question has its time with all the waiting for a
//! place in it: neither an upstream that says a byte at a time nor a client who asks for everything holds others for long. Who
//! wants what somebody is asking for waits for him, and is told what he is told. One that cannot be reached is left alone for
//! a moment by all who can be given something without it: they need not each find out. That there is none, or that we may not
//! have it, is believed for as long as a tag would be, but no longer than a moment: who waits for an image to be pushed there
//! is not made to wait for us.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Asked, Source, UpstreamError, UpstreamErrorKind, Upstreams, lock};
use crate::name::RepositoryName;

/// An upstream that could not be asked is left alone for so long, where there is something to give meanwhile; and so long a
/// refusal is believed at the most.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// Of a question about a manifest, from when it wants a place.
const QUESTION_PATIENCE: Duration = Duration::from_secs(60);
/// Of a list, which may have many pages.
const LIST_PATIENCE: Duration = Duration::from_secs(120);
/// Refusals that are remembered: beyond these none is, until some are over.
const MOST_REFUSALS: usize = 4096;

/// How much an upstream is asked for at once. What comes of a list may be long, and is in memory; a blob is an upload, of which
/// there are to be some for those who push.
#[derive(Debug)]
pub(super) struct Places {
    manifests: Semaphore,
    tags: Semaphore,
    referrers: Semaphore,
    blobs: Semaphore,
    rests_until: Mutex<Option<Instant>>,
}

impl Default for Places {
    fn default() -> Self {
        let [manifests, tags, referrers, blobs] = [64, 4, 8, 256].map(Semaphore::new);
        Self { manifests, tags, referrers, blobs, rests_until: Mutex::default() }
    }
}

impl Places {
    /// Whether somebody could not reach it a moment ago.
    fn rests(&self, now: Instant) -> bool {
        lock(&self.rests_until).is_some_and(|until| until > now)
    }

    fn look_at<T>(&self, answer: &Result<T, UpstreamError>, now: Instant) {
        let is_unreachable = answer.as_ref().is_err_and(|error| error.kind == UpstreamErrorKind::Unreachable);
        // Whatever else it says, it is there. A place that was not had says nothing of it, nor does what came too late.
        let is_there = answer.as_ref().map_or_else(|error| error.kind != UpstreamErrorKind::Unavailable, |_| true);
        match (is_unreachable, is_there) {
            (true, _) => *lock(&self.rests_until) = Some(now + PAUSE),
            (false, true) => *lock(&self.rests_until) = None,
            (false, false) => {}
        }
    }
}

impl Source {
    /// A question about a manifest.
    pub(super) async fn question<T>(&self, asked: Asked<'_, T>) -> Result<T, UpstreamError> {
        self.ask(&self.places.manifests, QUESTION_PATIENCE, asked).await
    }

    pub(super) async fn question_of_tags<T>(&self, asked: Asked<'_, T>) -> Result<T, UpstreamError> {
        self.ask(&self.places.tags, LIST_PATIENCE, asked).await
    }

    pub(super) async fn question_of_referrers<T>(&self, asked: Asked<'_, T>) -> Result<T, UpstreamError> {
        self.ask(&self.places.referrers, LIST_PATIENCE, asked).await
    }

    async fn ask<T>(&self, places: &Semaphore, patience: Duration, asked: Asked<'_, T>) -> Result<T, UpstreamError> {
        let answer = within(places, patience, asked).await;
        self.places.look_at(&answer, Instant::now());
        answer
    }

    /// For a blob, which may take as long as it likes once it has one.
    pub(super) async fn place_for_blob(&self) -> Result<SemaphorePermit<'_>, UpstreamError> {
        let place = async { Ok(self.places.blobs.acquire().await) };
        let place =
            tokio::time::timeout(QUESTION_PATIENCE, place).await.unwrap_or_else(|_| Err(late(QUESTION_PATIENCE)));
        place?.map_err(|closed| UpstreamError::wrong(closed.to_string()))
    }

    /// It could not be reached a moment ago: who has something else to give gives that.
    pub(super) fn rests(&self) -> bool {
        self.places.rests(Instant::now())
    }
}

async fn within<T>(places: &Semaphore, patience: Duration, asked: Asked<'_, T>) -> Result<T, UpstreamError> {
    let asking = async {
        // They are never closed.
        let _place = places.acquire().await;
        asked.await
    };
    tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| Err(late(patience)))
}

fn late(patience: Duration) -> UpstreamError {
    UpstreamError { kind: UpstreamErrorKind::Unavailable, words: format!("the answer was not there in {patience:?}") }
}

/// How somebody fared who has asked.
#[derive(Debug)]
pub(super) struct Told {
    at: Instant,
    outcome: Result<(), UpstreamError>,
}

impl Told {
    pub(super) fn now(outcome: Result<(), UpstreamError>) -> Self {
        Self { at: Instant::now(), outcome }
    }

    /// As good as an answer of one's own, for who has waited since.
    pub(super) fn since(&self, arrived: Instant) -> Option<Result<(), &UpstreamError>> {
        (self.at >= arrived).then(|| self.outcome.as_ref().copied())
    }
}

/// Of those who want the same of an upstream one asks at a time.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Turn>>>);

/// How the last one fared.
pub(super) type Turn = tokio::sync::Mutex<Option<Told>>;

impl Turns {
    pub(super) fn of(&self, what: String) -> Arc<Turn> {
        let mut turns = lock(&self.0);
        if let Some(turn) = turns.get(&what).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(what, Arc::downgrade(&turn));
        turn
    }
}

/// What upstreams have said a moment ago that there is not, or not for us.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<String, (Instant, UpstreamError)>>);

impl Refusals {
    pub(super) fn of(&self, what: &str) -> Option<UpstreamError> {
        let found = lock(&self.0).get(what).cloned();
        found.filter(|(until, _)| *until > Instant::now()).map(|(_, error)| error)
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}

impl Upstreams {
    /// Somebody was refused: the log is told, and the next one, if he comes soon.
    pub(super) fn refused(&self, source: &Source, repository: &RepositoryName, what: String, error: &UpstreamError) {
        if error.kind != UpstreamErrorKind::Missing {
            tracing::warn!("{what}: {error}");
        }
        let lasts = source.plan.fresh.min(PAUSE);
        if error.is_silence() || lasts.is_zero() {
            return;
        }
        let (mut all, now) = (lock(&self.0.refusals.0), Instant::now());
        if all.len() >= MOST_REFUSALS {
            all.retain(|_, (until, _)| *until > now);
        }
        if all.len() < MOST_REFUSALS && self.is_of(source, repository) {
            all.insert(what, (now + lasts, error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never<T: Send + 'static>() -> Asked<'static, T> {
        Box::pin(std::future::pending())
    }

    #[tokio::test]
    async fn who_is_slow_holds_nobody_for_long() {
        let (places, patience) = (Semaphore::new(1), Duration::from_millis(20));
        // The second one never gets a place: its time is over with the first one's.
        let (first, second) =
            tokio::join!(within(&places, patience, never::<()>()), within(&places, patience, never()));
        for refused in [first, second] {
            let error: UpstreamError = refused.unwrap_err();
            assert!(error.kind == UpstreamErrorKind::Unavailable && error.words.contains("20ms"), "{error:?}");
        }
        assert_eq!(within(&places, patience, Box::pin(async { Ok(7) })).await, Ok(7));
    }

    #[test]
    fn one_that_cannot_be_reached_rests_until_it_is_there() {
        use UpstreamErrorKind::{Denied, Missing, Unavailable, Unreachable, Wrong};
        let (places, now) = (Places::default(), Instant::now());
        let said = |kind: Option<UpstreamErrorKind>| match kind {
            None => Ok(()),
            Some(kind) => Err(UpstreamError { kind, words: String::new() }),
        };
        assert!(!places.rests(now));
        for (then, rests) in [
            (None, false),
            (Some(Missing), false),
            (Some(Denied), false),
            (Some(Wrong), false),
            (Some(Unavailable), true),
            (Some(Unreachable), true),
        ] {
            places.look_at(&said(Some(Unreachable)), now);
            places.look_at(&said(then), now);
            assert_eq!((places.rests(now), places.rests(now + PAUSE)), (rests, false), "{then:?}");
        }
    }

    #[test]
    fn who_has_waited_is_told_what_the_other_was_and_who_comes_later_asks() {
        let before = Instant::now();
        let error = UpstreamError::wrong("so it is");
        let told = Told::now(Err(error.clone()));
        assert_eq!(told.since(before), Some(Err(&error)));
        assert_eq!(told.since(told.at + Duration::from_millis(1)), None);
        let turns = Turns::default();
        let one = turns.of("one".to_owned());
        assert!(Arc::ptr_eq(&one, &turns.of("one".to_owned())) && !Arc::ptr_eq(&one, &turns.of("two".to_owned())));
        drop(one);
        turns.of("three".to_owned());
        assert_eq!(lock(&turns.0).len(), 1);
    }
}
