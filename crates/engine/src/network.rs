//! The default bridge and published ports, as the engine uses them: made with the first container that needs
//! them, found again after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use dozen_keeper::{Keeper, PortReservation};
use dozen_ledger::Ledger;
use dozen_model::{ContainerId, PortBinding, Protocol, error_chain};
use dozen_network::{BridgeAddresses, BridgeNetwork, Endpoint, NetworkConfig, PublishedPort, ports};

use crate::rows;
use crate::{EngineConfig, EngineError};

/// The fact under which the ledger keeps the bridge's addresses.
const BRIDGE_FACT: &str = "bridge";

/// One engine's networks. All calls block.
pub(crate) struct Network {
    instance: String,
    program: PathBuf,
    run_root: PathBuf,
    ledger: Ledger,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Opened when the first container needs it: an engine without one leaves the host's network alone.
    bridge: Option<std::sync::Arc<BridgeNetwork>>,
    keeper: Option<Keeper>,
    published: BTreeMap<ContainerId, (Endpoint, Vec<PublishedPort>)>,
}

impl Network {
    pub(crate) fn new(config: &EngineConfig, instance: String, ledger: Ledger) -> Self {
        Self {
            instance,
            program: config.program.clone(),
            run_root: config.run_root.clone(),
            ledger,
            state: Mutex::default(),
        }
    }

    /// The API's socket, listening in the keeper.
    pub(crate) fn listener(&self, path: &Path) -> Result<OwnedFd, EngineError> {
        let mut state = self.lock();
        self.keeper(&mut state)?.listener(path, 0o660, None).map_err(keeper_failed)
    }

    /// Takes down bridge, firewall table and keeper: nothing runs, and the engine goes down. Whoever comes next
    /// makes them again. Goes on past a failure; the first is reported.
    pub(crate) fn retire(&self) -> Result<(), EngineError> {
        let was_there = rows::fact::<BridgeAddresses>(&self.ledger, BRIDGE_FACT)?.is_some();
        let torn_down = if was_there { self.bridge().and_then(|bridge| tear_down(&bridge)) } else { Ok(()) };
        let mut state = self.lock();
        state.bridge = None;
        let ended = self.keeper(&mut state).and_then(|keeper| keeper.clone().shutdown().map_err(keeper_failed));
        state.keeper = None;
        torn_down.and(ended)
    }

    fn keeper<'a>(&self, state: &'a mut State) -> Result<&'a mut Keeper, EngineError> {
        if state.keeper.is_none() {
            let keeper = Keeper::connect_or_spawn(&self.program, &self.run_root).map_err(keeper_failed)?;
            state.keeper = Some(keeper);
        }
        Ok(state.keeper.as_mut().expect("it was just put there"))
    }

    fn bridge(&self) -> Result<std::sync::Arc<BridgeNetwork>, EngineError> {
        let mut state = self.lock();
        if let Some(bridge) = &state.bridge {
            return Ok(bridge.clone());
        }
        let previous: Option<BridgeAddresses> = rows::fact(&self.ledger, BRIDGE_FACT)?;
        let config = NetworkConfig {
            instance: self.instance.clone(),
            address_pools: Vec::new(),
            ipv6: true,
            previous: previous.clone(),
        };
        let bridge = std::sync::Arc::new(BridgeNetwork::open(config)?);
        if previous.as_ref() != Some(bridge.addresses()) {
            rows::set_fact(&self.ledger, BRIDGE_FACT, bridge.addresses())?;
        }
        state.bridge = Some(bridge.clone());
        Ok(bridge)
    }

    /// A fresh namespace on the bridge.
    pub(crate) fn attach(&self, id: &ContainerId) -> Result<(Endpoint, OwnedFd), EngineError> {
        Ok(self.bridge()?.attach(id)?)
    }

    /// The bridge's addresses, once it is there.
    pub(crate) fn addresses(&self) -> Option<BridgeAddresses> {
        self.lock().bridge.as_ref().map(|bridge| bridge.addresses().clone())
    }

    /// The host as containers on the bridge see it.
    pub(crate) fn host_gateway(&self) -> Option<IpAddr> {
        self.lock().bridge.as_ref().map(|bridge| IpAddr::V4(bridge.addresses().ipv4_gateway))
    }

    /// Chooses host ports, holds them through the keeper, and opens them in the firewall's maps.
    pub(crate) fn publish(
        &self,
        id: &ContainerId,
        endpoint: &Endpoint,
        wanted: &[PortBinding],
    ) -> Result<Vec<PublishedPort>, EngineError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let bridge = self.bridge()?;
        let mut state = self.lock();
        let taken: BTreeSet<(Protocol, IpAddr, u16)> = state
            .published
            .values()
            .flat_map(|(_, ports)| ports)
            .map(|port| (port.protocol, port.host_address, port.host_port))
            .collect();
        let in_use = |address: IpAddr, protocol: Protocol, port: u16| {
            let overlaps =
                |(p, a, n): &(Protocol, IpAddr, u16)| (*p, *n) == (protocol, port) && ports::overlap(*a, address);
            taken.iter().any(overlaps) || !can_bind(address, port, protocol)
        };
        let published = ports::choose(wanted, bridge.addresses().ipv6_gateway.is_some(), in_use)?;
        state.published.insert(id.clone(), (endpoint.clone(), published.clone()));
        let opened = self.hold(&mut state).and_then(|()| Ok(bridge.publish(endpoint, &published)?));
        if let Err(error) = opened {
            state.published.remove(id);
            if let Err(undo) = self.hold(&mut state) {
                tracing::error!(error = error_chain(&undo), "cannot give back ports");
            }
            return Err(error);
        }
        Ok(published)
    }

    /// Gives back addresses and ports of a run that is over. Goes on past a failure; the first is reported.
    pub(crate) fn release(
        &self,
        id: &ContainerId,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) -> Result<(), EngineError> {
        let bridge = self.bridge()?;
        let mut result = Ok(());
        if !ports.is_empty() {
            result = bridge.unpublish(endpoint, ports).map_err(EngineError::from);
            let mut state = self.lock();
            state.published.remove(id);
            result = result.and(self.hold(&mut state));
        }
        bridge.release(endpoint);
        result
    }

    /// What an earlier engine's runs hold, dead or alive: it is theirs until they are known to have ended. Whatever
    /// else the earlier engine left on bridge and table goes.
    pub(crate) fn adopt(&self, runs: Vec<(ContainerId, Endpoint, Vec<PublishedPort>)>) -> Result<(), EngineError> {
        if runs.is_empty() && rows::fact::<BridgeAddresses>(&self.ledger, BRIDGE_FACT)?.is_none() {
            return Ok(());
        }
        let bridge = self.bridge()?;
        for (id, endpoint, ports) in &runs {
            // One container's trouble is not the others': its traffic stops, and the log says why.
            if let Err(error) = bridge.restore(endpoint, ports) {
                tracing::error!(
                    container = id.short(),
                    error = error_chain(&error),
                    "cannot restore the network of a running container"
                );
            }
        }
        let endpoints: Vec<Endpoint> = runs.iter().map(|(_, endpoint, _)| endpoint.clone()).collect();
        if let Err(errors) = bridge.retain(&endpoints) {
            errors.iter().for_each(|error| {
                tracing::error!(error = error_chain(error), "cannot clear what an earlier engine left")
            });
        }
        let mut state = self.lock();
        let published = runs.into_iter().filter(|(_, _, ports)| !ports.is_empty());
        state.published.extend(published.map(|(id, endpoint, ports)| (id, (endpoint, ports))));
        self.hold(&mut state)
    }

    /// Tells the keeper which ports to hold: all of them, each time, so that nothing is forgotten.
    fn hold(&self, state: &mut State) -> Result<(), EngineError> {
        let ports = state
            .published
            .iter()
            .flat_map(|(id, (endpoint, ports))| ports.iter().map(|port| held(id, endpoint, port)))
            .collect();
        let wanted = dozen_keeper::Snapshot { ports, ..Default::default() };
        let failures = self.keeper(state)?.apply(&wanted).map_err(keeper_failed)?;
        match failures.first() {
            None => Ok(()),
            Some(failure) => Err(EngineError::Conflict {
                message: format!(
                    "driver failed programming external connectivity on endpoint: Bind for {}:{} failed: port is already allocated",
                    failure.host_address, failure.host_port
                ),
                hint: Some("choose another host port, or stop what listens there".into()),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// IPv6's loopback cannot be translated to another address: the keeper forwards it.
fn held(id: &ContainerId, endpoint: &Endpoint, port: &PublishedPort) -> PortReservation {
    let forwarded = match port.host_address {
        IpAddr::V6(address) => address.is_unspecified() || address.is_loopback(),
        IpAddr::V4(_) => false,
    };
    PortReservation {
        container_id: id.to_string(),
        host_address: port.host_address,
        host_port: port.host_port,
        protocol: port.protocol,
        forward_to: (forwarded && port.protocol == Protocol::Tcp)
            .then(|| SocketAddr::new(IpAddr::V4(endpoint.ipv4), port.container_port)),
    }
}

/// Whether the host's address and port are free at this moment; the keeper's own bind decides.
fn can_bind(address: IpAddr, port: u16, protocol: Protocol) -> bool {
    let address = SocketAddr::new(address, port);
    match protocol {
        Protocol::Tcp => std::net::TcpListener::bind(address).is_ok(),
        Protocol::Udp => std::net::UdpSocket::bind(address).is_ok(),
    }
}

fn tear_down(bridge: &BridgeNetwork) -> Result<(), EngineError> {
    bridge.teardown().map_err(|errors| {
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        EngineError::Conflict { message: format!("cannot take the bridge down: {}", words.join("; ")), hint: None }
    })
}

fn keeper_failed(error: dozen_keeper::KeeperError) -> EngineError {
    use dozen_model::Classified;
    dozen_monitor::protocol::Failure { kind: error.kind(), message: error_chain(&error), hint: error.hint() }.into()
}
