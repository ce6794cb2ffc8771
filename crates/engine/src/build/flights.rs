//! Steps that are being done: of two builds that want the same one, the second waits and finds it done. And how many
//! commands of all builds run at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dozen_model::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// A Dockerfile may have a thousand stages that wait for nothing: so many containers run, the others wait.
const RUNNING: usize = 64;

/// Steps by their keys.
#[derive(Debug)]
pub(crate) struct Flights {
    steps: Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>,
    running: Arc<Semaphore>,
}

impl Default for Flights {
    fn default() -> Self {
        Self { steps: Mutex::default(), running: Arc::new(Semaphore::new(RUNNING)) }
    }
}

/// Nobody else does this step while it is held.
#[derive(Debug)]
pub(super) struct Flight(OwnedMutexGuard<()>);

impl Flights {
    /// Waits until nobody else does this step. Who then does not find it done does it.
    pub(super) async fn enter(&self, key: &Digest) -> Flight {
        let flight = {
            let mut flights = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            flights.retain(|_, flight| Arc::strong_count(flight) > 1);
            flights.entry(key.clone()).or_default().clone()
        };
        Flight(flight.lock_owned().await)
    }

    /// No more commands may run.
    pub(super) fn close(&self) {
        self.running.close();
    }

    /// Waits until one more command may run; `None`: the engine goes down. Who has it waits for no other build.
    pub(super) async fn run(&self) -> Option<OwnedSemaphorePermit> {
        self.running.clone().acquire_owned().await.ok()
    }
}

impl Flight {
    /// Another build waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        // The table has it, and this one.
        Arc::strong_count(OwnedMutexGuard::mutex(&self.0)) > 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_known() {
        let flights = Arc::new(Flights::default());
        let key = Digest::from_sha256([1; 32]);
        let first = flights.enter(&key).await;
        let other = flights.enter(&Digest::from_sha256([2; 32])).await;
        assert!(!first.is_awaited() && !other.is_awaited());
        let (waiting, waited_for) = (flights.clone(), key.clone());
        let second = tokio::spawn(async move { waiting.enter(&waited_for).await });
        while !first.is_awaited() {
            tokio::task::yield_now().await;
        }
        second.abort();
        assert!(second.await.is_err() && !first.is_awaited() && !other.is_awaited());
        drop(first);
        assert!(!flights.enter(&key).await.is_awaited());
    }
}
