//! The default bridge and published ports, as the engine uses them: made with the first container that needs
//! them, found again after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dozen_keeper::{PortFailure, PortReservation};
use dozen_ledger::Ledger;
use dozen_model::{ContainerId, PortBinding, Protocol, error_chain};
use dozen_network::{BridgeAddresses, BridgeNetwork, Endpoint, NetworkConfig, PublishedPort, firewall_check, ports};

use crate::failpoint::failpoint;
use crate::keeper_link::KeeperLink;
use crate::rows;
use crate::{EngineConfig, EngineError};

/// The fact under which the ledger keeps the bridge's addresses.
const BRIDGE_FACT: &str = "bridge";

/// After a look at the host's firewall, containers may start for so long before it is looked at again.
const FIREWALL_LOOK: Duration = Duration::from_secs(10);

/// One engine's networks. All calls block, but for [`Network::addresses`] and [`Network::host_gateway`].
pub(crate) struct Network {
    instance: String,
    ledger: Ledger,
    keeper: KeeperLink,
    /// Opened when the first container needs it: an engine without one leaves the host's network alone. Locked while
    /// it is made, which only the kernel can delay.
    bridge: Mutex<Option<Arc<BridgeNetwork>>>,
    /// What readers see of the bridge: never locked while anything is waited for.
    addresses: RwLock<Option<BridgeAddresses>>,
    /// Locked while the keeper is asked, which may hang: those who publish and give back ports wait, nobody else.
    published: Mutex<Published>,
    firewall: Mutex<FirewallLook>,
}

type Published = BTreeMap<ContainerId, (Endpoint, Vec<PublishedPort>)>;

#[derive(Default)]
struct FirewallLook {
    at: Option<Instant>,
    /// What the log has said about the host's firewall.
    warned: Vec<String>,
}

impl Network {
    /// `cgroup` is the keeper's.
    pub(crate) fn new(config: &EngineConfig, instance: String, cgroup: String, ledger: Ledger) -> Self {
        Self {
            instance,
            ledger,
            keeper: KeeperLink::new(config.program.clone(), config.run_root.clone(), cgroup),
            bridge: Mutex::default(),
            addresses: RwLock::default(),
            published: Mutex::default(),
            firewall: Mutex::default(),
        }
    }

    /// The API's socket, listening in the keeper.
    pub(crate) fn listener(&self, path: &Path, group: Option<u32>) -> Result<OwnedFd, EngineError> {
        self.keeper.listener(path, group).map_err(keeper_failed)
    }

    /// Takes down bridge, firewall table and keeper: nothing runs, and the engine goes down. Whoever comes next
    /// makes them again. Goes on past a failure; the first is reported.
    pub(crate) fn retire(&self) -> Result<(), EngineError> {
        failpoint("retire.before");
        let was_there = rows::fact::<BridgeAddresses>(&self.ledger, BRIDGE_FACT)?.is_some();
        let torn_down = if was_there { self.bridge().and_then(|bridge| tear_down(&bridge)) } else { Ok(()) };
        *locked(&self.bridge) = None;
        self.show(None);
        failpoint("retire.torn_down");
        let ended = self.keeper.retire().map_err(keeper_failed);
        failpoint("retire.after");
        torn_down.and(ended)
    }

    fn bridge(&self) -> Result<Arc<BridgeNetwork>, EngineError> {
        let mut present = locked(&self.bridge);
        if let Some(bridge) = &*present {
            return Ok(bridge.clone());
        }
        let previous: Option<BridgeAddresses> = rows::fact(&self.ledger, BRIDGE_FACT)?;
        let config = NetworkConfig {
            instance: self.instance.clone(),
            address_pools: Vec::new(),
            ipv6: true,
            previous: previous.clone(),
        };
        let bridge = Arc::new(BridgeNetwork::open(config)?);
        if previous.as_ref() != Some(bridge.addresses()) {
            rows::set_fact(&self.ledger, BRIDGE_FACT, bridge.addresses())?;
        }
        self.show(Some(bridge.addresses().clone()));
        *present = Some(bridge.clone());
        Ok(bridge)
    }

    fn show(&self, addresses: Option<BridgeAddresses>) {
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// A fresh namespace on the bridge.
    pub(crate) fn attach(&self, id: &ContainerId) -> Result<(Endpoint, OwnedFd), EngineError> {
        failpoint("attach.before");
        let attached = self.bridge()?.attach(id)?;
        failpoint("attach.after");
        Ok(attached)
    }

    /// What on this host drops containers' packets, in words for the user: each names the firewall's chain and the
    /// commands that open it. Makes the bridge if it is not there, since the commands name it.
    pub(crate) fn firewall_warnings(&self) -> Result<Vec<String>, EngineError> {
        let chains = firewall_check::dropping_chains(&self.bridge()?.addresses().name)?;
        let say = |chain: &firewall_check::DroppingChain| {
            format!("{chain}, also what containers send and are sent; to let it through: {}", chain.commands.join("; "))
        };
        let warnings: Vec<String> = chains.iter().map(say).collect();
        let mut look = locked(&self.firewall);
        for warning in warnings.iter().filter(|warning| !look.warned.contains(*warning)) {
            tracing::warn!("{warning}");
        }
        look.warned.clone_from(&warnings);
        look.at = Some(Instant::now());
        Ok(warnings)
    }

    /// As [`Self::firewall_warnings`], to the log alone, and not at every container's start.
    pub(crate) fn look_at_firewall(&self) {
        if locked(&self.firewall).at.is_some_and(|seen| seen.elapsed() < FIREWALL_LOOK) {
            return;
        }
        if let Err(error) = self.firewall_warnings() {
            tracing::warn!(error = dozen_model::error_chain(&error), "cannot look at the host's firewall");
        }
    }

    /// The bridge's addresses, once it is there.
    pub(crate) fn addresses(&self) -> Option<BridgeAddresses> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host as containers on the bridge see it.
    pub(crate) fn host_gateway(&self) -> Option<IpAddr> {
        self.addresses().map(|addresses| IpAddr::V4(addresses.ipv4_gateway))
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
        let mut all = locked(&self.published);
        let taken: BTreeSet<(Protocol, IpAddr, u16)> = all
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
        all.insert(id.clone(), (endpoint.clone(), published.clone()));
        failpoint("publish.before");
        let opened = self.hold(&all, Some(id)).and_then(|()| {
            failpoint("publish.held");
            Ok(bridge.publish(endpoint, &published)?)
        });
        failpoint("publish.after");
        if let Err(error) = opened {
            all.remove(id);
            if let Err(undo) = self.hold(&all, None) {
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
            failpoint("unpublish.before");
            result = bridge.unpublish(endpoint, ports).map_err(EngineError::from);
            failpoint("unpublish.after");
            let mut all = locked(&self.published);
            all.remove(id);
            result = result.and(self.hold(&all, None));
            failpoint("unhold.after");
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
        let mut all = locked(&self.published);
        let published = runs.into_iter().filter(|(_, _, ports)| !ports.is_empty());
        all.extend(published.map(|(id, endpoint, ports)| (id, (endpoint, ports))));
        self.hold(&all, None)
    }

    /// Tells the keeper which ports to hold: all of them, each time, so that nothing is forgotten. An error if one of
    /// this container's cannot be had; that another's cannot (it was taken while no keeper was there) is logged.
    fn hold(&self, all: &Published, of: Option<&ContainerId>) -> Result<(), EngineError> {
        let ports =
            all.iter().flat_map(|(id, (endpoint, ports))| ports.iter().map(|port| held(id, endpoint, port))).collect();
        let failures = self.keeper.hold(ports).map_err(keeper_failed)?;
        let (own, others): (Vec<_>, Vec<_>) =
            failures.into_iter().partition(|failure| of.is_some_and(|id| id.as_str() == failure.container_id));
        for PortFailure { container_id, host_address, host_port, .. } in others {
            tracing::error!(container = container_id, "port {host_port} of {host_address} is not held: another has it");
        }
        let Some(PortFailure { host_address, host_port, errno, .. }) = own.first() else { return Ok(()) };
        let why = match own[0].is_in_use() {
            true => "port is already allocated".to_owned(),
            false => std::io::Error::from_raw_os_error(*errno).to_string(),
        };
        Err(EngineError::Conflict {
            message: format!(
                "driver failed programming external connectivity on endpoint: Bind for {host_address}:{host_port} failed: {why}"
            ),
            hint: Some("choose another host port or address, or stop what listens there".into()),
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        forward_to: forwarded.then(|| SocketAddr::new(IpAddr::V4(endpoint.ipv4), port.container_port)),
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
