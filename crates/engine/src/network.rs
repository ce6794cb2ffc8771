//! Networks and published ports, as the engine uses them: a bridge is made with the first container that needs it,
//! and found again after a restart.
//!
//! Inside: `objects` are the networks that users make, `addressing` decides their addresses, `rows` keeps them; `places`
//! are containers' places on them, `publishing` has their ports.

mod addressing;
mod connect;
pub(crate) mod objects;
mod parents;
pub(crate) mod places;
mod publishing;
pub(crate) mod reach;
pub(crate) mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dozen_ledger::Ledger;
use dozen_model::{ContainerId, NetworkId, error_chain};
use dozen_network::{
    BridgeAddresses, BridgeNetwork, DirectPort, Endpoint, HostNetwork, Ipv4Subnet, NetworkConfig, PublishedPort,
    firewall_check,
};
use dozen_settings::SharedSettings;

pub use self::publishing::direct_ports;
use self::publishing::{Publication, Published, reachable};
use self::rows::NetworkRow;
use crate::container::snapshot::RunEndpoint;
use crate::failpoint::failpoint;
use crate::keeper_link::KeeperLink;
use crate::naming::Naming;
use crate::rows as facts;
use crate::{EngineConfig, EngineError};

/// The fact under which the ledger keeps the bridge's addresses.
const BRIDGE_FACT: &str = "bridge";
/// The fact that a network of the user's own has had a bridge.
const OWN_NETWORKS_FACT: &str = "own_networks";

/// After a look at the host's firewall, containers may start for so long before it is looked at again.
const FIREWALL_LOOK: Duration = Duration::from_secs(10);

/// One engine's networks. All calls block, but for [`Network::addresses`] and [`Network::host_gateway`].
pub(crate) struct Network {
    instance: String,
    settings: SharedSettings,
    ledger: Ledger,
    keeper: KeeperLink,
    /// What its containers call each other.
    pub(crate) names: Naming,
    /// Opened when the first container needs them: an engine without one leaves the host's network alone. Locked while
    /// one is made or removed, which only the kernel and the ledger can delay.
    bridges: Mutex<Bridges>,
    /// The networks of the user's own. Written with [`Self::bridges`] locked.
    rows: RwLock<BTreeMap<NetworkId, Arc<NetworkRow>>>,
    /// What readers see of the default bridge: never locked while anything is waited for.
    addresses: RwLock<Option<BridgeAddresses>>,
    /// Locked while the keeper is asked, which may hang: those who publish and give back ports wait, nobody else.
    published: Mutex<Published>,
    firewall: Mutex<FirewallLook>,
}

/// What an earlier engine's run holds of the network.
pub(crate) struct HeldPlaces {
    pub(crate) id: ContainerId,
    pub(crate) endpoints: Vec<RunEndpoint>,
    pub(crate) ports: Vec<PublishedPort>,
    pub(crate) direct: BTreeSet<DirectPort>,
}

#[derive(Default)]
struct Bridges {
    host: Option<Arc<HostNetwork>>,
    opened: BTreeMap<NetworkId, Opened>,
}

/// A network whose bridge is there.
struct Opened {
    bridge: Arc<BridgeNetwork>,
    /// How many places on it are taken: it stays for as long as there is one.
    endpoints: usize,
}

#[derive(Default)]
struct FirewallLook {
    at: Option<Instant>,
    /// What the log has said about the host's firewall.
    warned: Vec<String>,
}

impl Network {
    /// `cgroup` is the keeper's.
    pub(crate) fn new(
        config: &EngineConfig,
        instance: String,
        cgroup: String,
        ledger: Ledger,
    ) -> Result<Self, EngineError> {
        let rows = RwLock::new(objects::read(&ledger)?);
        let keeper = KeeperLink::new(config.program.clone(), config.run_root.clone(), cgroup);
        Ok(Self {
            instance,
            settings: config.settings.clone(),
            ledger,
            rows,
            names: Naming::new(keeper.clone()),
            keeper,
            bridges: Mutex::default(),
            addresses: RwLock::default(),
            published: Mutex::default(),
            firewall: Mutex::default(),
        })
    }

    /// The API's socket, listening in the keeper.
    pub(crate) fn listener(&self, path: &Path, group: Option<u32>) -> Result<OwnedFd, EngineError> {
        self.keeper.listener(path, group).map_err(keeper_failed)
    }

    /// Takes down bridge, firewall table and keeper: nothing runs, and the engine goes down. Whoever comes next
    /// makes them again. Goes on past a failure; the first is reported.
    pub(crate) fn retire(&self) -> Result<(), EngineError> {
        failpoint("retire.before");
        let mut bridges = locked(&self.bridges);
        let was_there = self.was_there()?;
        let torn_down = if was_there { self.tear_down(&mut bridges) } else { Ok(()) };
        *bridges = Bridges::default();
        drop(bridges);
        self.show(None);
        failpoint("retire.torn_down");
        let ended = self.keeper.retire().map_err(keeper_failed);
        failpoint("retire.after");
        torn_down.and(ended)
    }

    /// Everything that is known of the host's network; changes nothing there.
    fn host(&self, bridges: &mut Bridges) -> Result<Arc<HostNetwork>, EngineError> {
        if let Some(host) = &bridges.host {
            return Ok(host.clone());
        }
        let host = Arc::new(HostNetwork::open(&self.instance)?);
        self.open_firewall_again(&host);
        bridges.host = Some(host.clone());
        Ok(host)
    }

    /// A network's bridge, made if it is not there.
    fn open<'a>(&self, bridges: &'a mut Bridges, id: &NetworkId) -> Result<&'a mut Opened, EngineError> {
        if !bridges.opened.contains_key(id) {
            let bridge = if *id == default_id() { self.open_default(bridges)? } else { self.open_own(bridges, id)? };
            bridges.opened.insert(id.clone(), Opened { bridge: Arc::new(bridge), endpoints: 0 });
        }
        Ok(bridges.opened.get_mut(id).expect("it was put there, if it was not there before"))
    }

    fn open_default(&self, bridges: &mut Bridges) -> Result<BridgeNetwork, EngineError> {
        let previous = self.default_addresses()?;
        let settings = &self.settings.get().networks;
        let config = NetworkConfig {
            instance: self.instance.clone(),
            address_pools: settings.pools.clone(),
            avoid: self.rows().values().filter_map(|row| row.addresses.ipv4_subnet()).collect(),
            ipv6: settings.ipv6,
            ipv4: settings.bridge,
            ipv4_range: settings.range.map(|(address, length)| Ipv4Subnet::containing(address, length)),
            mtu: settings.mtu,
            isolated: !settings.between_containers,
            previous: previous.clone(),
        };
        let bridge = self.host(bridges)?.default_bridge(&config)?;
        let BridgeAddresses { ipv4_gateway: gateway, ipv4_prefix_length, .. } = bridge.addresses();
        if let (Some(wanted), Some(gateway)) = (settings.bridge, *gateway)
            && wanted != (gateway, *ipv4_prefix_length)
        {
            tracing::warn!("containers on the default bridge keep it at {gateway}: bip waits until there are none");
        }
        if previous.as_ref() != Some(bridge.addresses()) {
            facts::set_fact(&self.ledger, BRIDGE_FACT, bridge.addresses())?;
        }
        self.show(Some(bridge.addresses().clone()));
        Ok(bridge)
    }

    fn open_own(&self, bridges: &mut Bridges, id: &NetworkId) -> Result<BridgeNetwork, EngineError> {
        let row = self.rows().get(id).cloned().ok_or_else(|| EngineError::NoSuchNetwork(id.to_string()))?;
        if facts::fact::<bool>(&self.ledger, OWN_NETWORKS_FACT)?.is_none() {
            facts::set_fact(&self.ledger, OWN_NETWORKS_FACT, &true)?;
        }
        let (host, config) = (self.host(bridges)?, addressing::config(&row.spec, &row.addresses));
        Ok(match parents::link(&row.spec.driver, id) {
            None => host.bridge(config)?,
            Some((parent, mode)) => host.on_parent(config, parent, mode)?,
        })
    }

    /// The default bridge's addresses, which it has or had last.
    fn default_addresses(&self) -> Result<Option<BridgeAddresses>, EngineError> {
        Ok(facts::fact(&self.ledger, BRIDGE_FACT)?)
    }

    fn tear_down(&self, bridges: &mut Bridges) -> Result<(), EngineError> {
        let host = self.host(bridges)?;
        for row in self.rows().values() {
            parents::remove(&host, row, &BTreeMap::new());
        }
        host.teardown().map_err(|errors| {
            let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
            EngineError::Conflict { message: format!("cannot take the bridges down: {}", words.join("; ")), hint: None }
        })
    }

    /// Whether there may be something of this engine's on the host's network, from an earlier engine or this one.
    fn was_there(&self) -> Result<bool, EngineError> {
        let own = || facts::fact::<bool>(&self.ledger, OWN_NETWORKS_FACT);
        Ok(self.default_addresses()?.is_some() || own()?.is_some())
    }

    /// The networks of the user's own, as they are now.
    fn rows(&self) -> BTreeMap<NetworkId, Arc<NetworkRow>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, addresses: Option<BridgeAddresses>) {
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// What on this host drops containers' packets, in words for the user: each names the firewall's chain and the
    /// commands that open it. Without a bridge nothing is looked at but for the default one, which is made: the commands
    /// name it.
    pub(crate) fn firewall_warnings(&self) -> Result<Vec<String>, EngineError> {
        let mut chains = Vec::new();
        for name in &self.bridge_names()? {
            chains.extend(firewall_check::dropping_chains(name)?);
        }
        let say = |chain: &firewall_check::DroppingChain| {
            let what = if chain.published_pass { "send" } else { "send and are sent" };
            let commands = chain.commands.join("; ");
            format!(
                "{chain}, also what containers {what}; to let it through: {commands}; or: dozen system firewall allow"
            )
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
        self.addresses()?.ipv4_gateway.map(IpAddr::V4)
    }

    /// What an earlier engine's runs hold, dead or alive: it is theirs until they are known to have ended. Whatever
    /// else the earlier engine left of bridges and in the table goes.
    pub(crate) fn adopt(&self, runs: Vec<HeldPlaces>) -> Result<(), EngineError> {
        let had_default = self.default_addresses()?.is_some();
        if runs.is_empty() && !self.was_there()? {
            return Ok(());
        }
        let mut bridges = locked(&self.bridges);
        let host = self.host(&mut bridges)?;
        // One network's or container's trouble is not the others': its traffic stops, and the log says why.
        let trouble = |error: &dyn std::error::Error| {
            tracing::error!(error = error_chain(error), "cannot restore the network of running containers");
        };
        if had_default && let Err(error) = self.open(&mut bridges, &default_id()) {
            trouble(&error);
        }
        let inherited = host.inherited_bridges();
        for row in self.rows().values().filter(|row| inherited.contains(&row.addresses.name)) {
            if let Err(error) = self.open(&mut bridges, &row.id) {
                trouble(&error);
            }
        }
        for HeldPlaces { endpoints, .. } in &runs {
            for place in endpoints {
                let restored = self.open(&mut bridges, &place.network).and_then(|opened| {
                    opened.endpoints += 1;
                    Ok(opened.bridge.restore(&place.endpoint)?)
                });
                if let Err(error) = restored {
                    trouble(&error);
                }
            }
        }
        drop(bridges);
        let mut all = locked(&self.published);
        for HeldPlaces { id, endpoints, ports, direct } in &runs {
            if ports.is_empty() && direct.is_empty() {
                continue;
            }
            let way = places::way_out(endpoints);
            let (to, routed) = (way.destination(), way.routed());
            if let Err(error) = host.publish(to, &reachable(to, ports), direct) {
                trouble(&error);
            }
            all.insert(id.clone(), Publication { to, routed, ports: ports.clone() });
        }
        let endpoints: Vec<Endpoint> =
            runs.iter().flat_map(|run| &run.endpoints).map(|place| place.endpoint.clone()).collect();
        if let Err(errors) = host.retain(&endpoints) {
            errors.iter().for_each(|error| {
                tracing::error!(error = error_chain(error), "cannot clear what an earlier engine left")
            });
        }
        self.hold(&all, None)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn default_id() -> NetworkId {
    NetworkId::predefined(dozen_model::DEFAULT_NETWORK)
}

impl Bridges {
    /// Gives a place back. Of a network that is gone nothing is left to give.
    fn release(&mut self, place: &RunEndpoint) {
        if let Some(opened) = self.opened.get_mut(&place.network) {
            opened.bridge.release(&place.endpoint);
            opened.endpoints = opened.endpoints.saturating_sub(1);
        }
    }
}

fn keeper_failed(error: dozen_keeper::KeeperError) -> EngineError {
    use dozen_model::Classified;
    dozen_monitor::protocol::Failure { kind: error.kind(), message: error_chain(&error), hint: error.hint() }.into()
}
