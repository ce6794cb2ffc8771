//! The owner's part of connecting a container to a network, and of disconnecting it.
//!
//! ```text
//! connect, while it runs               disconnect, while it runs
//!   ├─ addresses, link, routes           ├─ ledger: spec and run without the place
//!   ├─ ports, if it is the first way out │
//!   ├─ ledger: spec and run              ├─ routes, link, addresses
//!   ├─ ports, if the way out changed     ├─ ports, if the way out changed
//!   └─ publish, announce                 └─ publish, announce
//! ```
//!
//! A link or a port that the ledger does not know, whichever side of it an engine dies on, goes at the next start.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dozen_model::{ContainerId, ContainerSpec, EndpointSpec, NetworkId, NetworkMode, error_chain};
use dozen_network::PublishedPort;

use super::Owner;
use crate::EngineError;
use crate::container::snapshot::{Phase, Run, RunEndpoint, Snapshot};
use crate::container::{files, launch, oci};
use crate::failpoint::failpoint;
use crate::network::{objects, rows};
use crate::shared::Shared;

impl Owner {
    /// One more place.
    pub(super) async fn connect_to(&mut self, place: EndpointSpec) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        let spec = with_place(&snapshot, &place)?;
        let Phase::Running(run) = self.life.phase.clone() else {
            return self.replace_places(spec, "connect", &place.network, &place.network_name).await;
        };
        let (shared, id) = (self.shared.clone(), snapshot.id.clone());
        let (wanted, wanted_ports) = (place.clone(), oci::wanted_ports(&spec));
        failpoint("connect.before");
        let plugged = self
            .shared
            .blocking(move || {
                let namespace = launch::namespace_of(&shared, &id)?;
                let endpoints = shared.network.plug(&id, namespace.as_fd(), &run.endpoints, &wanted)?;
                failpoint("connect.linked");
                let ports = shared.network.publish_at_last(&id, &endpoints, &run.ports, &wanted_ports);
                let ports = ports.inspect_err(|_| unplug(&shared, &namespace, &endpoints))?;
                Ok(Plugged { id, namespace, endpoints, ports })
            })
            .await?;
        let before = self.life.phase.clone();
        self.set_places(plugged.endpoints.clone(), plugged.ports.clone());
        let network = plugged.endpoints.last().map_or(place.network.clone(), |place| place.network.clone());
        if let Err(error) = self.write_places(&spec).await {
            self.life.phase = before;
            let shared = self.shared.clone();
            self.shared.blocking(move || plugged.undo(&shared)).await?;
            return Err(error);
        }
        failpoint("connect.row");
        self.settle_places(spec, "connect", &network, &place.network_name).await;
        failpoint("connect.published");
        Ok(())
    }

    /// A place less. `network` is its id or its name.
    pub(super) async fn disconnect(&mut self, network: NetworkId, name: String) -> Result<(), EngineError> {
        let snapshot = self.snapshot();
        let spec = without_place(&snapshot, &network, &name)?;
        let gone = |place: &RunEndpoint| place.network == network || place.network_name == name;
        let Phase::Running(run) = self.life.phase.clone() else {
            return self.replace_places(spec, "disconnect", &network, &name).await;
        };
        failpoint("disconnect.before");
        let (lost, remaining): (Vec<_>, Vec<_>) = run.endpoints.iter().cloned().partition(gone);
        let before = self.life.phase.clone();
        self.set_places(remaining.clone(), None);
        if let Err(error) = self.write_places(&spec).await {
            self.life.phase = before;
            return Err(error);
        }
        failpoint("disconnect.row");
        let (shared, id) = (self.shared.clone(), snapshot.id.clone());
        let unlinked = self.shared.blocking(move || {
            let namespace: OwnedFd = match launch::namespace_of(&shared, &id) {
                Ok(namespace) => namespace,
                Err(error) => {
                    // Its process is gone, and its links go with it; its run, when it is over, knows of them no more.
                    shared.network.give_back(&lost);
                    return Err(error);
                }
            };
            lost.iter().for_each(|place| shared.network.unplug(namespace.as_fd(), place, &remaining));
            Ok(())
        });
        if let Err(error) = unlinked.await {
            tracing::warn!(container = snapshot.id.short(), error = error_chain(&error), "cannot disconnect");
        }
        failpoint("disconnect.unlinked");
        self.settle_places(spec, "disconnect", &network, &name).await;
        failpoint("disconnect.after");
        Ok(())
    }

    /// Of a container that does not run: only what is asked for changes.
    async fn replace_places(
        &mut self,
        spec: ContainerSpec,
        action: &'static str,
        network: &NetworkId,
        name: &str,
    ) -> Result<(), EngineError> {
        if !matches!(self.life.phase, Phase::Created { .. } | Phase::Exited(_) | Phase::Waiting(_)) {
            return Err(EngineError::Conflict {
                message: format!("container {} is on its way up or out", self.snapshot().name),
                hint: None,
            });
        }
        self.write_places(&spec).await?;
        self.show_places(spec, action, network, name);
        Ok(())
    }

    async fn write_places(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        let (shared, id) = (self.shared.clone(), self.snapshot().id.clone());
        let (spec, life) = (spec.clone(), self.life.clone());
        self.shared.blocking(move || Ok(rows::save_places(&shared.ledger, &id, &spec, &life)?)).await
    }

    fn set_places(&mut self, endpoints: Vec<RunEndpoint>, ports: Option<Vec<PublishedPort>>) {
        if let Phase::Running(run) = &mut self.life.phase {
            run.endpoints = endpoints;
            if let Some(ports) = ports {
                run.ports = ports;
            }
        }
    }

    /// What follows from the places: ports, files, and what everyone sees. What fails is logged.
    async fn settle_places(&mut self, spec: ContainerSpec, action: &'static str, network: &NetworkId, name: &str) {
        if let Phase::Running(run) = self.life.phase.clone() {
            let (shared, mut snapshot) = (self.shared.clone(), (*self.snapshot()).clone());
            snapshot.spec = Arc::new(spec.clone());
            let settled = self.shared.blocking(move || follow(&shared, &snapshot, &run)).await;
            if let Err(error) = settled {
                let id = self.snapshot().id.clone();
                tracing::error!(container = id.short(), error = error_chain(&error), "ports or files do not follow");
            }
        }
        self.show_places(spec, action, network, name);
    }

    fn show_places(&mut self, spec: ContainerSpec, action: &'static str, network: &NetworkId, name: &str) {
        let (phase, shared) = (self.life.phase.clone(), self.shared.clone());
        self.update(|snapshot| {
            snapshot.spec = Arc::new(spec);
            snapshot.phase = phase;
            objects::announce_place(&shared, network, name, action, &snapshot.id);
        });
    }
}

/// A place that the ledger does not know yet.
struct Plugged {
    id: ContainerId,
    namespace: OwnedFd,
    /// The new one is the last.
    endpoints: Vec<RunEndpoint>,
    /// If they were published with this place.
    ports: Option<Vec<PublishedPort>>,
}

impl Plugged {
    fn undo(&self, shared: &Shared) -> Result<(), EngineError> {
        let unpublish = |ports: &Vec<_>| shared.network.unpublish(&self.id, &self.endpoints, ports);
        let result = self.ports.as_ref().map_or(Ok(()), unpublish);
        unplug(shared, &self.namespace, &self.endpoints);
        result
    }
}

/// Takes the last of these places away again.
fn unplug(shared: &Shared, namespace: &OwnedFd, endpoints: &[RunEndpoint]) {
    let Some((new, before)) = endpoints.split_last() else { return };
    shared.network.unplug(namespace.as_fd(), new, before);
}

fn follow(shared: &Shared, snapshot: &Snapshot, run: &Run) -> Result<(), EngineError> {
    let wanted = oci::wanted_ports(&snapshot.spec);
    let ports = shared.network.move_ports(&snapshot.id, &run.endpoints, &run.ports, &wanted);
    let written = files::write(shared, snapshot, &run.endpoints, &shared.network.host_gateway());
    ports.and(written).and(shared.network.names.refresh(snapshot, run))
}

/// The spec with one more place. Docker's words.
fn with_place(snapshot: &Snapshot, place: &EndpointSpec) -> Result<ContainerSpec, EngineError> {
    refuse_without_networks(snapshot)?;
    let mut places = snapshot.spec.places();
    if places.iter().any(|other| other.network_name == place.network_name) {
        return Err(EngineError::Forbidden {
            message: format!("endpoint with name {} already exists in network {}", snapshot.name, place.network_name),
        });
    }
    places.push(place.clone());
    Ok(ContainerSpec { endpoints: Some(places), ..(*snapshot.spec).clone() })
}

fn without_place(snapshot: &Snapshot, network: &NetworkId, name: &str) -> Result<ContainerSpec, EngineError> {
    refuse_without_networks(snapshot)?;
    let mut places = snapshot.spec.places();
    let before = places.len();
    places.retain(|place| place.network != *network && place.network_name != name);
    if places.len() == before {
        return Err(EngineError::Forbidden {
            message: format!("container {} is not connected to network {name}", snapshot.id),
        });
    }
    Ok(ContainerSpec { endpoints: Some(places), ..(*snapshot.spec).clone() })
}

fn refuse_without_networks(snapshot: &Snapshot) -> Result<(), EngineError> {
    let message = match snapshot.spec.network {
        NetworkMode::Bridge | NetworkMode::Network(_) => return Ok(()),
        NetworkMode::Host => "container cannot be disconnected from host network or connected to host network",
        NetworkMode::None => {
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        }
        NetworkMode::Container(_) => {
            "container sharing network namespace with another container or host cannot be connected to any other network"
        }
    };
    Err(EngineError::Forbidden { message: message.into() })
}
