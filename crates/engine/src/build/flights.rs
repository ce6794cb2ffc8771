//! Steps that are being done: of two builds that want the same one, the second waits and finds it done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dozen_model::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Steps by their keys.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>);

impl Flights {
    /// Waits until nobody else does this step. Who then does not find it done does it.
    pub(super) async fn enter(&self, key: &Digest) -> OwnedMutexGuard<()> {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            flights.retain(|_, flight| Arc::strong_count(flight) > 1);
            flights.entry(key.clone()).or_default().clone()
        };
        flight.lock_owned().await
    }
}
