//! Pulls that are under way: of two who want the same, the second joins the first, if the policy for signatures has not
//! changed since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dozen_model::{Classified, error_chain};
use dozen_registry::Client;
use tokio::task::AbortHandle;

use super::board::{Board, Watch};
use super::{PullFailure, PullRequest, Vouching, fetch};
use crate::shared::Shared;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    /// What is known of registries from one pull or push to the next.
    pub(crate) client: Client,
    flights: Mutex<HashMap<PullRequest, Weak<Flight>>>,
}

/// A pull. It ends when nobody has it any more.
#[derive(Debug)]
pub(super) struct Flight {
    board: Board,
    /// By which it is judged.
    vouching: Vouching,
    task: AbortHandle,
}

impl Pulls {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn join(&self, shared: &Arc<Shared>, request: PullRequest) -> Arc<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        let vouching = Vouching::of(shared);
        let known = flights.get(&request).and_then(Weak::upgrade);
        let known = known.filter(|flight| !flight.board.has_ended() && flight.vouching == vouching);
        if let Some(flight) = known {
            return flight;
        }
        let board = Board::new();
        let (shared, pulled, judge, told) = (shared.clone(), request.clone(), vouching.clone(), board.clone());
        let task = tokio::spawn(async move {
            let ended = fetch::pull(&shared, &pulled, &judge, &told).await;
            told.end(ended.map_err(|error| PullFailure {
                kind: error.kind(),
                message: error_chain(&error),
                hint: error.hint(),
            }));
        });
        let flight = Arc::new(Flight { board, vouching, task: task.abort_handle() });
        flights.insert(request, Arc::downgrade(&flight));
        flight
    }
}

impl Flight {
    pub(super) fn watch(&self) -> Watch {
        self.board.watch()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}
