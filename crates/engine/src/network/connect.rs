//! `network connect` and `network disconnect`, as the API asks for them.

use dozen_model::{EndpointSpec, NetworkId};

use crate::EngineError;
use crate::container::Container;
use crate::container::owner::Command;
use crate::engine::Engine;

impl Engine {
    /// Connects a container, running or not, to a network.
    pub async fn connect(&self, container: &Container, place: EndpointSpec) -> Result<(), EngineError> {
        container.ask(|reply| Command::Connect { place: Box::new(place), reply }).await
    }

    /// Disconnects it. The network may be gone by now: then its name counts.
    pub async fn disconnect(&self, container: &Container, network: &str) -> Result<(), EngineError> {
        let (id, name) = match self.network(network) {
            Ok(network) => (network.id, network.name),
            Err(error) => {
                let places = container.snapshot().spec.places();
                let place = places.into_iter().find(|place| place.network_name == network);
                place
                    .map(|place: EndpointSpec| -> (NetworkId, String) { (place.network, place.network_name) })
                    .ok_or(error)?
            }
        };
        container.ask(|reply| Command::Disconnect { network: id, name, reply }).await
    }
}
