//! Somewhere on the way where a test's requests wait until it lets them go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
    visits: AtomicUsize,
}

impl Gate {
    /// Waits until it is open.
    pub fn pass(&self) {
        self.visits.fetch_add(1, Ordering::SeqCst);
        let open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(open, |is_open| !*is_open));
    }

    /// For all who wait, and who come later.
    pub fn open(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// How many have come so far.
    pub fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}
