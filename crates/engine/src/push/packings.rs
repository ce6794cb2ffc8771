//! Layers that are being compressed: of two pushes that want the same one, the second waits for the first, and goes on with it
//! if that is given up. A few are compressed at once, each by all processors: what they hold does not grow with the number of
//! pushes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dozen_image::{LayerBlob, LayerForm, OutgoingBlob, OutgoingBlobs, Packing};
use dozen_model::{Classified, Digest, error_chain};
use tokio::sync::{Semaphore, watch};

use crate::{EngineError, PullFailure};

/// One reads from the disk while another one is compressed.
const AT_ONCE: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Packings {
    flights: Mutex<HashMap<(Digest, LayerForm), Weak<Flight>>>,
    turns: Arc<Semaphore>,
}

impl Default for Packings {
    fn default() -> Self {
        Self { flights: Mutex::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// A layer on its way to being compressed. It is given up, and what was made of it goes, with the last who has it.
#[derive(Debug)]
pub(super) struct Flight {
    packing: Arc<Packing>,
    state: watch::Receiver<State>,
}

#[derive(Debug, Clone)]
enum State {
    Waits,
    Goes,
    Ended(Result<LayerBlob, PullFailure>),
}

impl Packings {
    /// Begins to compress a layer, or joins who does.
    pub(super) fn join(
        &self,
        outgoing: &OutgoingBlobs,
        layer: &OutgoingBlob,
        form: LayerForm,
    ) -> Result<Arc<Flight>, EngineError> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        let key = (layer.id.clone(), form);
        let known = flights.get(&key).and_then(Weak::upgrade).filter(|flight| !flight.has_failed());
        if let Some(flight) = known {
            return Ok(flight);
        }
        let packing = outgoing.packing(layer, form).ok_or_else(|| {
            let source = std::io::Error::other(format!("there is nothing of {} to be compressed", layer.id));
            EngineError::System { action: "compress a layer".into(), source }
        })?;
        let packing = Arc::new(packing);
        let (tell, state) = watch::channel(State::Waits);
        tokio::spawn(run(packing.clone(), self.turns.clone(), tell));
        let flight = Arc::new(Flight { packing, state });
        flights.insert(key, Arc::downgrade(&flight));
        Ok(flight)
    }
}

async fn run(packing: Arc<Packing>, turns: Arc<Semaphore>, tell: watch::Sender<State>) {
    let tell = Arc::new(tell);
    let turn = tokio::select! {
        // Nobody closes it.
        turn = turns.acquire_owned() => turn,
        // Everybody has gone meanwhile.
        () = tell.closed() => return,
    };
    let told = tell.clone();
    let work = move || {
        let _turn = turn;
        packing.run(|| _ = told.send_replace(State::Goes)).map_err(|error| failure(&error.into()))
    };
    let packed = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(failure(&EngineError::System { action: "compress a layer".into(), source }))
    });
    tell.send_replace(State::Ended(packed));
}

fn failure(error: &EngineError) -> PullFailure {
    PullFailure { kind: error.kind(), message: error_chain(error), hint: error.hint() }
}

impl Flight {
    /// Reads it: see [`Packing::read`].
    pub(super) fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Waits until there is something to read.
    pub(super) async fn begun(&self) -> Result<(), EngineError> {
        match self.state(|state| !matches!(state, State::Waits)).await {
            State::Ended(Err(failure)) => Err(failure.into()),
            _ => Ok(()),
        }
    }

    /// Waits for its end; gives what it is then.
    pub(super) async fn packed(&self) -> Result<LayerBlob, EngineError> {
        match self.state(|state| matches!(state, State::Ended(_))).await {
            State::Ended(packed) => Ok(packed?),
            // The task that would say so has gone with the engine.
            _ => Err(EngineError::ShuttingDown),
        }
    }

    async fn state(&self, is_wanted: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.clone();
        let reached = state.wait_for(is_wanted).await.map(|state| state.clone());
        reached.unwrap_or_else(|_| self.state.borrow().clone())
    }

    fn has_failed(&self) -> bool {
        matches!(*self.state.borrow(), State::Ended(Err(_)))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.packing.stop();
    }
}
