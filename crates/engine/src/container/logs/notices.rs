//! Word that something in a directory has changed, for any number of listeners, by one inotify instance.
//!
//! A user has 128 instances (inotify(7), max_user_instances) and many thousands of watches: so all share one instance,
//! and those who listen to the same directory one watch of it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use rustix::fs::inotify;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The instance, which is there while someone listens.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<Weak<Instance>>);

#[derive(Debug)]
struct Instance {
    parts: Arc<Parts>,
    listener: AbortHandle,
}

#[derive(Debug)]
struct Parts {
    /// No pipe, but read as one.
    inotify: pipe::Receiver,
    /// By watch descriptor; the kernel gives the same directory the same one.
    watched: Mutex<HashMap<i32, watch::Sender<()>>>,
}

/// Word of one directory, for as long as it is held.
#[derive(Debug)]
pub(super) struct Subscription {
    instance: Arc<Instance>,
    watch: i32,
    receiver: watch::Receiver<()>,
}

impl Notices {
    /// Listens to a directory from now on. Needs the async runtime.
    pub(super) fn subscribe(&self, directory: &Path) -> io::Result<Subscription> {
        let instance = self.instance()?;
        // The directory is watched, not the file: a rotation makes another file.
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::ONLYDIR;
        // Under the lock, so that the last to leave does not end the watch of one who comes.
        let mut watched = instance.parts.lock();
        let watch = inotify::add_watch(&instance.parts.inotify, directory, events)?;
        let receiver = watched.entry(watch).or_insert_with(|| watch::Sender::new(())).subscribe();
        drop(watched);
        Ok(Subscription { instance, watch, receiver })
    }

    fn instance(&self) -> io::Result<Arc<Instance>> {
        let mut known = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(instance) = known.upgrade()
            && !instance.listener.is_finished()
        {
            return Ok(instance);
        }
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let inotify = pipe::Receiver::from_owned_fd_unchecked(inotify)?;
        let parts = Arc::new(Parts { inotify, watched: Mutex::default() });
        let listener = tokio::spawn(listen(parts.clone())).abort_handle();
        let instance = Arc::new(Instance { parts, listener });
        *known = Arc::downgrade(&instance);
        Ok(instance)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Parts {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, watch::Sender<()>>> {
        self.watched.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn heard(&self, watch: i32) {
        let watched = self.lock();
        match watched.get(&watch) {
            Some(listeners) => listeners.send_replace(()),
            // The queue has overflowed (inotify(7), IN_Q_OVERFLOW): anything may have happened.
            None if watch == -1 => watched.values().for_each(|listeners| listeners.send_replace(())),
            // Word of a watch that has ended meanwhile.
            None => {}
        }
    }
}

async fn listen(parts: Arc<Parts>) {
    // Room for an event with the longest name (inotify(7)): the kernel gives whole events only.
    let mut buffer = [0; 4096];
    while parts.inotify.readable().await.is_ok() {
        while let Ok(count) = parts.inotify.try_read(&mut buffer) {
            watches(&buffer[..count]).for_each(|watch| parts.heard(watch));
        }
    }
}

/// The watch descriptors of events: `int wd; uint32_t mask, cookie, len; char name[len];`
fn watches(mut events: &[u8]) -> impl Iterator<Item = i32> {
    std::iter::from_fn(move || {
        let (watch, rest) = events.split_first_chunk::<4>()?;
        let (length, rest) = rest.get(8..)?.split_first_chunk::<4>()?;
        events = rest.get(u32::from_ne_bytes(*length) as usize..)?;
        Some(i32::from_ne_bytes(*watch))
    })
}

impl Subscription {
    /// Something has happened since the last call, or since the subscription.
    pub(super) async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // Unreachable while this subscription is held; if it were, there would be no more word to wait for.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watched = self.instance.parts.lock();
        // This one's own receiver still counts.
        if watched.get(&self.watch).is_some_and(|listeners| listeners.receiver_count() <= 1) {
            watched.remove(&self.watch);
            // It is gone already if the directory is.
            let _ = inotify::remove_watch(&self.instance.parts.inotify, self.watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn everyone_hears_of_their_directory_and_the_last_one_ends_the_watch() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        runtime().block_on(async {
            let notices = Notices::default();
            let mut of_one: Vec<_> = (0..300).map(|_| notices.subscribe(one.path()).unwrap()).collect();
            let mut of_other = notices.subscribe(other.path()).unwrap();
            let parts = of_other.instance.parts.clone();
            assert_eq!(parts.lock().len(), 2);
            std::fs::write(one.path().join("log.json"), "x").unwrap();
            for listener in &mut of_one {
                listener.changed().await;
            }
            assert!(!of_other.receiver.has_changed().unwrap());
            std::fs::write(other.path().join("log.json"), "x").unwrap();
            of_other.changed().await;
            of_one.truncate(1);
            assert_eq!(parts.lock().len(), 2);
            of_one.clear();
            assert_eq!(parts.lock().len(), 1);
            // A directory that is watched again is heard of again.
            let mut again = notices.subscribe(one.path()).unwrap();
            std::fs::write(one.path().join("log.json"), "y").unwrap();
            again.changed().await;
            drop((again, of_other));
            assert!(notices.0.lock().unwrap().upgrade().is_none(), "with the last listener the instance goes, too");
        });
    }

    #[test]
    fn events_are_told_apart() {
        let event = |watch: i32, name: &[u8]| {
            [&watch.to_ne_bytes()[..], &[2; 8], &(name.len() as u32).to_ne_bytes(), name].concat()
        };
        let events = [event(3, b"log.json\0\0\0\0\0\0\0\0"), event(-1, b""), event(7, b"")].concat();
        assert_eq!(watches(&events).collect::<Vec<_>>(), [3, -1, 7]);
        assert_eq!(watches(&events[..40]).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn an_overflow_wakes_everyone() {
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut listener = Notices::default().subscribe(directory.path()).unwrap();
            listener.instance.parts.heard(-1);
            listener.changed().await;
        });
    }
}
