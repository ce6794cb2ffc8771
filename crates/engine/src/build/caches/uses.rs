//! Who has which cache mount at this moment. Builds share one, or wait for each other as they ask to; who removes one needs
//! it alone for that moment; who reads one hinders no build, and is told if one has come.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dozen_dockerfile::Sharing;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

/// Which one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// As Dockerfiles have it.
    pub(crate) name: String,
    /// 0; more for builds that want one of their own at the same time.
    pub(crate) number: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    locked: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    used: Mutex<HashMap<Place, Use>>,
    /// Somebody has let go of one that was had alone.
    given_back: Notify,
    /// How often a build has begun or ceased to have one.
    changes: AtomicU64,
    /// Held by who removes what is too much.
    pub(crate) sweeping: Arc<AsyncMutex<()>>,
    /// Bytes by directory, of those that no build has had since they were measured.
    sizes: Mutex<HashMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Use {
    /// How many steps of builds have it now.
    builds: usize,
    /// How many have begun to have it, since somebody looks at it.
    begun: u64,
    readers: usize,
    is_taken: bool,
}

/// A cache that a step has; given back when it is dropped.
#[derive(Debug)]
pub(in super::super) struct UsedCache {
    pub(in super::super) path: PathBuf,
    pub(super) place: Place,
    caches: Arc<Caches>,
    _alone: Option<OwnedMutexGuard<()>>,
}

/// A cache that nobody else has; builds that want it wait until this is dropped.
#[derive(Debug)]
pub(super) struct TakenCache {
    place: Place,
    caches: Arc<Caches>,
}

/// A cache that is looked at, and not removed meanwhile.
#[derive(Debug)]
pub(super) struct ReadCache {
    place: Place,
    caches: Arc<Caches>,
    begun: u64,
}

impl Caches {
    /// For a step: who asks for it `locked` waits until nobody else who asked so has it, who asks for it `private` has one
    /// that nobody else has.
    pub(super) async fn begin(self: &Arc<Self>, name: &str, sharing: Sharing) -> UsedCache {
        let alone = match sharing {
            Sharing::Locked => {
                let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
                locked.retain(|_, lock| Arc::strong_count(lock) > 1);
                Some(locked.entry(name.to_owned()).or_default().clone())
            }
            Sharing::Shared | Sharing::Private => None,
        };
        let alone = match alone {
            Some(lock) => Some(lock.lock_owned().await),
            None => None,
        };
        loop {
            let given_back = self.given_back.notified();
            if let Some(place) = self.enter(name, sharing) {
                return UsedCache { path: PathBuf::new(), place, caches: self.clone(), _alone: alone };
            }
            given_back.await;
        }
    }

    /// `None`: somebody has it alone.
    fn enter(&self, name: &str, sharing: Sharing) -> Option<Place> {
        let mut used = self.lock();
        let place = |number| Place { name: name.to_owned(), number };
        let place = match sharing {
            Sharing::Private => (0..).map(place).find(|place| !used.contains_key(place)).expect("numbers do not end"),
            Sharing::Shared | Sharing::Locked => place(0),
        };
        let here = used.entry(place.clone()).or_default();
        if here.is_taken {
            return None;
        }
        here.builds += 1;
        here.begun += 1;
        self.changes.fetch_add(1, Ordering::SeqCst);
        Some(place)
    }

    /// Has it alone; `None` while somebody has it.
    pub(super) fn take(self: &Arc<Self>, place: &Place) -> Option<TakenCache> {
        let mut used = self.lock();
        if used.contains_key(place) {
            return None;
        }
        used.insert(place.clone(), Use { is_taken: true, ..Use::default() });
        Some(TakenCache { place: place.clone(), caches: self.clone() })
    }

    /// Looks at it; `None` while a build has it, or somebody has it alone.
    pub(super) fn read(self: &Arc<Self>, place: &Place) -> Option<ReadCache> {
        let mut used = self.lock();
        let here = used.entry(place.clone()).or_default();
        if here.builds > 0 || here.is_taken {
            return None;
        }
        here.readers += 1;
        Some(ReadCache { place: place.clone(), caches: self.clone(), begun: here.begun })
    }

    /// Somebody has it.
    pub(crate) fn is_used(&self, place: &Place) -> bool {
        self.lock().contains_key(place)
    }

    /// Bytes of the disk that a cache's directory takes; walked only if a build has had one since. Blocks.
    pub(crate) fn size_bytes(&self, directory: &str, path: &Path) -> u64 {
        let sizes = || self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sizes().get(directory) {
            return *known;
        }
        let before = self.changes.load(Ordering::SeqCst);
        let bytes = dozen_image::disk_bytes(path);
        let mut sizes = sizes();
        let is_idle = self.lock().values().all(|used| used.builds == 0);
        if is_idle && self.changes.load(Ordering::SeqCst) == before {
            sizes.insert(directory.to_owned(), bytes);
        }
        bytes
    }

    fn forget_sizes(&self) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Changes what is known of a place, and forgets it once nobody is there.
    fn leave(&self, place: &Place, change: impl FnOnce(&mut Use)) {
        let mut used = self.lock();
        let Some(here) = used.get_mut(place) else { return };
        change(here);
        if here.builds == 0 && here.readers == 0 && !here.is_taken {
            used.remove(place);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Use>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadCache {
    /// No build has had it since.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.caches.lock().get(&self.place).is_some_and(|here| here.begun == self.begun)
    }
}

impl Drop for UsedCache {
    fn drop(&mut self) {
        self.caches.changes.fetch_add(1, Ordering::SeqCst);
        self.caches.leave(&self.place, |here| here.builds -= 1);
        self.caches.forget_sizes();
    }
}

impl Drop for TakenCache {
    fn drop(&mut self) {
        self.caches.leave(&self.place, |here| here.is_taken = false);
        self.caches.forget_sizes();
        self.caches.given_back.notify_waiters();
    }
}

impl Drop for ReadCache {
    fn drop(&mut self) {
        self.caches.leave(&self.place, |here| here.readers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn builds_share_and_removals_need_it_alone() {
        let caches = Arc::new(Caches::default());
        let place = |number| Place { name: "a".into(), number };
        let shared = caches.begin("a", Sharing::Shared).await;
        let private = caches.begin("a", Sharing::Private).await;
        assert_eq!((&shared.place, &private.place), (&place(0), &place(1)));
        assert!(caches.take(&place(0)).is_none() && caches.read(&place(0)).is_none());
        drop((shared, private));
        let taken = caches.take(&place(0)).unwrap();
        assert!(caches.take(&place(0)).is_none() && caches.read(&place(0)).is_none());
        // Who wants one of its own does not wait; who wants this one does.
        assert_eq!(caches.begin("a", Sharing::Private).await.place, place(1));
        let waiting = tokio::spawn({
            let caches = caches.clone();
            async move { caches.begin("a", Sharing::Locked).await.place.clone() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(taken);
        assert_eq!(waiting.await.unwrap(), place(0));
        assert!(!caches.is_used(&place(0)));
    }

    #[tokio::test]
    async fn who_reads_is_told_of_builds() {
        let caches = Arc::new(Caches::default());
        let place = Place { name: "a".into(), number: 0 };
        let (read, other) = (caches.read(&place).unwrap(), caches.read(&place).unwrap());
        assert!(read.is_undisturbed() && caches.take(&place).is_none());
        drop(caches.begin("a", Sharing::Shared).await);
        assert!(!read.is_undisturbed() && !other.is_undisturbed());
        drop((read, other));
        assert!(caches.read(&place).unwrap().is_undisturbed());
    }

    #[tokio::test]
    async fn sizes_are_measured_again_after_a_build() {
        let caches = Arc::new(Caches::default());
        let directory = tempfile::tempdir().unwrap();
        let size = || caches.size_bytes("d", directory.path());
        let empty = size();
        std::fs::write(directory.path().join("f"), vec![1; 100_000]).unwrap();
        assert_eq!(size(), empty, "nobody has had it");
        let used = caches.begin("a", Sharing::Shared).await;
        drop(used);
        assert!(size() >= empty + 100_000);
    }
}
