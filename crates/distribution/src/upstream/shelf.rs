//! Lists of upstreams that are kept: in memory alone, within a bound, and those that nobody has asked for the longest go first.
//!
//! A server that has just begun and finds the upstream down tells what is here, which is what can be had then. On a disk a list
//! would be one more thing to collect, that says of most of its entries what nobody can pull.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::asking::PAUSE;
use super::{Inner, Source, UpstreamError, lock};
use crate::metrics::Cached;
use crate::name::RepositoryName;

/// Of all lists of a kind that are kept.
const MOST_BYTES: usize = 32 << 20;
/// What a list takes with nothing in it, more or less.
const LIST_BYTES: usize = 4 << 10;
/// So long after a list was asked for its pages are parts of it, however long it is fresh.
const ONE_LIST: Duration = Duration::from_secs(60);

/// A list that upstreams have.
pub(super) trait Listing: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static {
    type Entry: Send + Sync + 'static;
    fn shelf(inner: &Inner) -> &Shelf<Self>;
    fn repository(&self) -> &RepositoryName;
    /// In order, each once.
    fn ask(&self, source: &Source) -> impl Future<Output = Result<Vec<Self::Entry>, UpstreamError>> + Send;
    fn bytes(entry: &Self::Entry) -> usize;
}

/// What is known of a list.
#[derive(Debug)]
pub(super) struct Listed<E> {
    /// As the upstream last told it; `None`: it never has.
    pub(super) known: Option<Arc<[E]>>,
    /// It could not be asked.
    pub(super) failure: Option<UpstreamError>,
    pub(super) how: Cached,
}

/// Lists that are kept.
#[derive(Debug)]
pub(super) struct Shelf<L: Listing>(Mutex<HashMap<L, Kept<L::Entry>>>);

#[derive(Debug)]
struct Kept<E> {
    known: Option<Arc<[E]>>,
    bytes: usize,
    told_at: Instant,
    until: Instant,
    failure: Option<UpstreamError>,
    used_at: Instant,
}

impl<L: Listing> Default for Shelf<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Listing> Shelf<L> {
    /// What is told without a question. `goes_on`: it is a page after the first.
    pub(super) fn at_hand(&self, list: &L, goes_on: bool, now: Instant) -> Option<Listed<L::Entry>> {
        self.look(list, now, |kept| {
            kept.until > now || goes_on && kept.known.is_some() && now.duration_since(kept.told_at) < ONE_LIST
        })
    }

    /// Whatever is known, however old.
    pub(super) fn newest(&self, list: &L, now: Instant) -> Option<Listed<L::Entry>> {
        self.look(list, now, |_| true)
    }

    /// Whether the upstream has ever told it.
    pub(super) fn knows(&self, list: &L) -> bool {
        lock(&self.0).get(list).is_some_and(|kept| kept.known.is_some())
    }

    fn look(&self, list: &L, now: Instant, is_good: impl Fn(&Kept<L::Entry>) -> bool) -> Option<Listed<L::Entry>> {
        let mut all = lock(&self.0);
        let kept = all.get_mut(list).filter(|kept| is_good(kept))?;
        kept.used_at = now;
        let how = if kept.failure.is_some() { Cached::Stale } else { Cached::Hit };
        Some(Listed { known: kept.known.clone(), failure: kept.failure.clone(), how })
    }

    /// It was told, or was not: then the last one stays. `is_wanted` is asked under the lock.
    pub(super) fn put(
        &self,
        list: L,
        told: Result<Arc<[L::Entry]>, UpstreamError>,
        lasts: Duration,
        now: Instant,
        is_wanted: impl FnOnce() -> bool,
    ) -> Listed<L::Entry> {
        let mut all = lock(&self.0);
        let before = all.remove(&list);
        let kept = match told {
            Ok(known) => {
                let bytes = known.iter().map(L::bytes).sum();
                Kept { known: Some(known), bytes, told_at: now, until: now + lasts, failure: None, used_at: now }
            }
            Err(error) => {
                let (until, failure) = (now + PAUSE, Some(error));
                match before {
                    Some(before) => Kept { until, failure, used_at: now, ..before },
                    None => Kept { known: None, bytes: 0, told_at: now, until, failure, used_at: now },
                }
            }
        };
        let how = if kept.failure.is_some() { Cached::Stale } else { Cached::Miss };
        let listed = Listed { known: kept.known.clone(), failure: kept.failure.clone(), how };
        if is_wanted() {
            make_room(&mut all, LIST_BYTES + kept.bytes);
            all.insert(list, kept);
        }
        listed
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// Those go that nobody has asked for the longest.
fn make_room<L: Listing>(all: &mut HashMap<L, Kept<L::Entry>>, bytes: usize) {
    let mut total: usize = all.values().map(|kept| LIST_BYTES + kept.bytes).sum();
    while total + bytes > MOST_BYTES {
        let oldest = all.iter().min_by_key(|(_, kept)| kept.used_at).map(|(list, _)| list.clone());
        let Some(gone) = oldest.and_then(|list| all.remove(&list)) else { break };
        total -= LIST_BYTES + gone.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::lists::TagsOf;

    fn list(name: &str) -> TagsOf {
        TagsOf::new(name.parse().unwrap())
    }

    fn tags(all: &[&str]) -> Arc<[Box<str>]> {
        all.iter().map(|tag| Box::from(*tag)).collect()
    }

    fn failure() -> UpstreamError {
        UpstreamError::wrong("so it is")
    }

    #[test]
    fn a_list_is_told_while_it_is_fresh_and_its_pages_a_little_longer() {
        let (shelf, begun, second) = (Shelf::default(), Instant::now(), Duration::from_secs(1));
        let told = shelf.put(list("a"), Ok(tags(&["1"])), second, begun, || true);
        assert_eq!((told.how, told.failure), (Cached::Miss, None));
        let told = |goes_on, after| shelf.at_hand(&list("a"), goes_on, begun + after).map(|listed| listed.how);
        for (goes_on, after, want) in [
            (false, Duration::ZERO, Some(Cached::Hit)),
            (false, second, None),
            (true, second, Some(Cached::Hit)),
            (true, ONE_LIST, None),
        ] {
            assert_eq!(told(goes_on, after), want, "{goes_on} {after:?}");
        }
        // One that cannot be asked takes nothing away, and is left alone for a while.
        let later = begun + ONE_LIST;
        let stale = shelf.put(list("a"), Err(failure()), second, later, || true);
        assert_eq!((stale.how, stale.known, stale.failure), (Cached::Stale, Some(tags(&["1"])), Some(failure())));
        assert_eq!(told(false, ONE_LIST + second), Some(Cached::Stale));
        assert_eq!(told(false, ONE_LIST + PAUSE), None);
        // Of one that is no longer an upstream's nothing is kept.
        shelf.put(list("b"), Ok(tags(&["1"])), second, later, || false);
        assert!(shelf.at_hand(&list("b"), false, later).is_none());
    }

    #[test]
    fn lists_have_a_bound_and_the_one_that_is_not_asked_for_goes() {
        let (shelf, begun, second) = (Shelf::default(), Instant::now(), Duration::from_secs(1));
        let long: Arc<[Box<str>]> = [Box::from("x".repeat(MOST_BYTES / 3))].into();
        for (at, name) in ["a", "b"].into_iter().enumerate() {
            let now = begun + Duration::from_millis(at as u64);
            shelf.put(list(name), Ok(long.clone()), second, now, || true);
        }
        let now = begun + Duration::from_millis(10);
        assert!(shelf.at_hand(&list("a"), false, now).is_some());
        shelf.put(list("c"), Ok(long), second, now, || true);
        let is_there = ["a", "b", "c"].map(|name| shelf.at_hand(&list(name), false, now).is_some());
        assert_eq!(is_there, [true, false, true]);
    }
}
