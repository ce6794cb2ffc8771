//! Networks as things that users make and remove. Their bridges come with the first container that needs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_model::{ContainerId, DEFAULT_NETWORK, NetworkDriver, NetworkId, NetworkMode, NetworkName, NetworkSpec};
use dozen_network::{BridgeAddresses, Ipv4Subnet};
use dozen_settings::NetworkSettings;
use jiff::Timestamp;

use super::addressing::{self, Surroundings};
use super::locked;
use super::parents;
use super::rows::{self, NetworkRow};
use crate::EngineError;
use crate::container::snapshot::{RunEndpoint, Snapshot};
use crate::engine::Engine;
use crate::events::EventKind;
use crate::failpoint::failpoint;
use crate::shared::Shared;

/// What every engine has and nobody may remove.
pub(crate) const PREDEFINED: [&str; 3] = [DEFAULT_NETWORK, "host", "none"];

/// What the names of engines' bridges begin with.
const OUR_PREFIX: &str = "dz-";

/// A network at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// When it was made; `None` for one that every engine has.
    pub created: Option<Timestamp>,
    /// What it was asked to be.
    pub spec: NetworkSpec,
    /// Its bridge: of the default one only once a container has needed it, and none of `host` and `none`.
    pub addresses: Option<BridgeAddresses>,
}

/// A request for a network.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    /// Its name.
    pub name: NetworkName,
    /// What it shall be.
    pub spec: NetworkSpec,
}

impl Network {
    /// One that every engine has.
    pub fn is_predefined(&self) -> bool {
        self.created.is_none()
    }

    /// `bridge`, `macvlan`, `ipvlan`, `host` or `null`.
    pub fn driver(&self) -> &str {
        match self.name.as_str() {
            "none" if self.is_predefined() => "null",
            "host" if self.is_predefined() => "host",
            _ => self.spec.driver.as_str(),
        }
    }

    fn of(row: &NetworkRow) -> Self {
        Self {
            id: row.id.clone(),
            name: row.name.to_string(),
            created: Some(row.created),
            spec: row.spec.clone(),
            addresses: Some(row.addresses.clone()),
        }
    }
}

impl Engine {
    /// All of them: those that every engine has, and then the user's by name.
    pub fn networks(&self) -> Vec<Network> {
        let network = &self.shared.network;
        let settings = self.settings();
        let predefined = PREDEFINED.map(|name| predefined(name, network.addresses(), &settings.networks));
        let mut own: Vec<Network> = network.rows().values().map(|row| Network::of(row)).collect();
        own.sort_by(|a, b| a.name.cmp(&b.name));
        predefined.into_iter().chain(own).collect()
    }

    /// By whole id, then name, then unique beginning of an id.
    pub fn network(&self, text: &str) -> Result<Network, EngineError> {
        find(self.networks(), text)
    }

    /// Makes a network; durable once answered.
    pub async fn create_network(&self, request: NetworkRequest) -> Result<Network, EngineError> {
        let shared = self.shared.clone();
        self.shared.blocking(move || create(&shared, request)).await
    }

    /// Removes a network that no running container is on.
    pub async fn remove_network(&self, text: &str) -> Result<Network, EngineError> {
        let network = self.network(text)?;
        let shared = self.shared.clone();
        self.shared.blocking(move || remove(&shared, network)).await
    }

    /// The running containers on a network.
    pub fn containers_on(&self, network: &NetworkId) -> Vec<Arc<Snapshot>> {
        containers_on(&self.shared, network)
    }
}

fn containers_on(shared: &Shared, network: &NetworkId) -> Vec<Arc<Snapshot>> {
    let is_on = |snapshot: &Arc<Snapshot>| {
        let run = snapshot.phase.run();
        run.is_some_and(|run| run.endpoints.iter().any(|place| place.network == *network))
    };
    shared.registry.snapshots().into_iter().filter(is_on).collect()
}

fn predefined(name: &str, default_bridge: Option<BridgeAddresses>, settings: &NetworkSettings) -> Network {
    let addresses = default_bridge.filter(|_| name == DEFAULT_NETWORK);
    let ipv6 = addresses.as_ref().is_some_and(|addresses| addresses.ipv6_gateway.is_some());
    let mut spec = NetworkSpec { ipv6, ..NetworkSpec::default() };
    if name == DEFAULT_NETWORK {
        (spec.bridge.mtu, spec.bridge.between_containers) = (settings.mtu, settings.between_containers);
        let options = [
            settings.mtu.map(|mtu| ("com.docker.network.driver.mtu", mtu.to_string())),
            Some(("com.docker.network.bridge.enable_icc", settings.between_containers.to_string())),
        ];
        spec.options = options.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect();
    }
    Network { id: NetworkId::predefined(name), name: name.to_owned(), created: None, spec, addresses }
}

fn find(networks: Vec<Network>, text: &str) -> Result<Network, EngineError> {
    let missing = || EngineError::NoSuchNetwork(text.chars().take(260).collect());
    if text.is_empty() {
        return Err(missing());
    }
    if let Some(found) = networks.iter().find(|network| network.id.as_str() == text) {
        return Ok(found.clone());
    }
    if let Some(found) = networks.iter().find(|network| network.name == text) {
        return Ok(found.clone());
    }
    let mut beginning = networks.into_iter().filter(|network| network.id.as_str().starts_with(text));
    match (beginning.next(), beginning.next()) {
        (Some(network), None) => Ok(network),
        (Some(_), Some(_)) => Err(EngineError::Invalid {
            message: format!("network {text} is ambiguous (2 matches found based on ID prefix)"),
            hint: Some("give more digits of the id, or the name".into()),
        }),
        (None, _) => Err(missing()),
    }
}

/// The bridge of a network that names none: `dz-` and twelve digits fill the fifteen characters that a name may have.
fn bridge_name(id: &NetworkId) -> String {
    format!("{OUR_PREFIX}{}", id.short())
}

fn create(shared: &Shared, request: NetworkRequest) -> Result<Network, EngineError> {
    let NetworkRequest { name, mut spec } = request;
    if PREDEFINED.contains(&name.as_str()) || name.as_str() == "default" {
        let message = format!("operation is not permitted on predefined {name} network");
        return Err(EngineError::Forbidden { message });
    }
    let network = &shared.network;
    // One after the other: two that are made at once must not choose the same subnet.
    let mut bridges = locked(&network.bridges);
    let known = network.rows();
    let conflict = |message: String| EngineError::Conflict { message, hint: None };
    if known.values().any(|row| row.name == name) {
        return Err(conflict(format!("network with name {name} already exists")));
    }
    let id = NetworkId::random();
    if let Some(name) = spec.bridge.interface.as_ref().filter(|name| name.starts_with(OUR_PREFIX) || *name == "dozen0")
    {
        let message = format!("the bridge's name {name} is kept for networks that name none");
        return Err(EngineError::Invalid {
            message,
            hint: Some(format!("choose one that does not begin with {OUR_PREFIX}")),
        });
    }
    let host = network.host(&mut bridges)?;
    spec.driver = parents::decide(spec.driver, &known, &|name| Ok(host.has_interface(name)?))?;
    let interface = match spec.driver.parent() {
        Some(parent) => parent.interface(&id),
        None => {
            let bridge = spec.bridge.interface.clone().unwrap_or_else(|| bridge_name(&id));
            if known.values().any(|row| row.addresses.name == bridge) || host.has_interface(&bridge)? {
                let message = format!("the interface {bridge} is there already, and is not this network's");
                return Err(conflict(message));
            }
            bridge
        }
    };
    let settings = &network.settings.get().networks;
    let mut taken: Vec<BridgeAddresses> = known.values().map(|row| row.addresses.clone()).collect();
    taken.extend(network.default_addresses()?);
    let mut avoid: Vec<_> = taken.iter().filter_map(BridgeAddresses::ipv4_subnet).collect();
    if network.default_addresses()?.is_none() {
        // What the default bridge will want: Docker's has the first of the pools.
        avoid.extend(match settings.bridge {
            Some((address, length)) => Some(Ipv4Subnet::containing(address, length)),
            None => host.choose_subnet(&settings.pools, &avoid).ok(),
        });
    }
    let around = Surroundings {
        taken: &taken,
        free_ipv4: &|| Ok(host.choose_subnet(&settings.pools, &avoid)?),
        free_ipv6: &|| host.choose_ipv6_subnet(&network.instance, id.as_str()),
    };
    let addresses = addressing::decide(&spec, interface, &around)?;
    let row = NetworkRow { id: id.clone(), name, created: Timestamp::now(), spec, addresses };
    failpoint("network_create.before");
    rows::insert(&shared.ledger, row.clone())?;
    failpoint("network_create.row");
    let (made, row) = (Network::of(&row), Arc::new(row));
    if row.spec.driver.parent().is_some() {
        network.rows.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id.clone(), row.clone());
        // As Docker does: whoever makes it learns whether its interface can be had.
        if let Err(error) = network.open(&mut bridges, &id) {
            parents::remove(&host, &row, &known);
            rows::delete(&shared.ledger, id.clone())?;
            network.rows.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id);
            return Err(error);
        }
    }
    network.rows.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, row);
    announce(shared, &made, "create", None);
    Ok(made)
}

fn remove(shared: &Shared, network: Network) -> Result<Network, EngineError> {
    if network.is_predefined() {
        let message = format!("{} is a pre-defined network and cannot be removed", network.name);
        return Err(EngineError::Forbidden { message });
    }
    let own = &shared.network;
    let mut bridges = locked(&own.bridges);
    if !own.rows().contains_key(&network.id) {
        return Err(EngineError::NoSuchNetwork(network.name));
    }
    if bridges.opened.get(&network.id).is_some_and(|opened| opened.endpoints > 0) {
        let users: Vec<String> = containers_on(shared, &network.id)
            .iter()
            .map(|user| format!("name:\"{}\" id:\"{}\"", user.name, user.id.short()))
            .collect();
        let users = users.join(", ");
        let message = format!("error while removing network: network {} has active endpoints ({users})", network.name);
        return Err(EngineError::Forbidden { message });
    }
    failpoint("network_remove.before");
    let row = own.rows().get(&network.id).cloned();
    if let Some(row) = row.filter(|row| row.spec.driver.parent().is_some()) {
        // Before the row: without that nobody would know whose it is.
        parents::remove(&*own.host(&mut bridges)?, &row, &own.rows());
    }
    rows::delete(&shared.ledger, network.id.clone())?;
    own.rows.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&network.id);
    failpoint("network_remove.row");
    let was_opened = bridges.opened.remove(&network.id).is_some();
    // One with a name of our own may be there half made.
    let bridge = network.addresses.as_ref().filter(|_| network.spec.driver == NetworkDriver::Bridge);
    if let Some(addresses) = bridge.filter(|of| was_opened || of.name.starts_with(OUR_PREFIX)) {
        // The row is gone, and what is left of it goes at the next start.
        if let Err(errors) = own.host(&mut bridges)?.remove_bridge(&addresses.name) {
            errors.iter().for_each(|error| {
                tracing::error!(error = dozen_model::error_chain(error), "cannot remove a network's bridge")
            });
        }
    }
    failpoint("network_remove.after");
    announce(shared, &network, "destroy", None);
    Ok(network)
}

/// Tells the world about a network, with the attributes that Docker gives.
pub(crate) fn announce(shared: &Shared, network: &Network, action: &str, container: Option<&ContainerId>) {
    let mut attributes =
        BTreeMap::from([("name".to_owned(), network.name.clone()), ("type".to_owned(), network.driver().to_owned())]);
    attributes.extend(container.map(|id| ("container".to_owned(), id.to_string())));
    shared.emit(EventKind::Network, action, network.id.to_string(), attributes);
}

/// As [`announce`], for a place whose network may be gone by now.
pub(crate) fn announce_place(shared: &Shared, network: &NetworkId, name: &str, action: &str, container: &ContainerId) {
    let known = shared.network.rows().get(network).map(|row| Network::of(row));
    let known = known.unwrap_or_else(|| Network {
        id: network.clone(),
        name: name.to_owned(),
        created: None,
        spec: NetworkSpec::default(),
        addresses: None,
    });
    announce(shared, &known, action, Some(container));
}

/// That a run has its places on networks, or gives them back. As Docker has it: before the container's `start`, and before
/// its `die`; for the host's network and for none as well, and not for another container's.
pub(crate) fn announce_places(
    shared: &Shared,
    mode: &NetworkMode,
    places: &[RunEndpoint],
    action: &str,
    container: &ContainerId,
) {
    let predefined = |name: &str| announce_place(shared, &NetworkId::predefined(name), name, action, container);
    match mode {
        NetworkMode::Host => predefined("host"),
        NetworkMode::None => predefined("none"),
        NetworkMode::Container(_) => {}
        NetworkMode::Bridge | NetworkMode::Network(_) => {
            for place in places {
                announce_place(shared, &place.network, &place.network_name, action, container);
            }
        }
    }
}

/// What the ledger knows, at an engine's start.
pub(super) fn read(ledger: &dozen_ledger::Ledger) -> Result<BTreeMap<NetworkId, Arc<NetworkRow>>, EngineError> {
    Ok(rows::all(ledger)?.into_iter().map(|row| (row.id.clone(), Arc::new(row))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_by_id_name_and_the_beginning_of_an_id() {
        let mut own = predefined("backend", None, &NetworkSettings::default());
        (own.id, own.created) = ("ab".repeat(32).parse().unwrap(), Some(Timestamp::UNIX_EPOCH));
        let mut networks = PREDEFINED.map(|name| predefined(name, None, &NetworkSettings::default())).to_vec();
        networks.push(own.clone());
        for text in ["backend", "abab", own.id.as_str()] {
            assert_eq!(find(networks.clone(), text).unwrap(), own, "{text}");
        }
        for name in PREDEFINED {
            let found = find(networks.clone(), name).unwrap();
            assert_eq!(find(networks.clone(), &found.id.as_str()[..12]).unwrap().name, name);
        }
        assert!(find(networks.clone(), "").is_err());
        assert_eq!(find(networks.clone(), "back").unwrap_err().to_string(), "network back not found");
        assert!(find(networks, "6").unwrap_err().to_string().contains("ambiguous"), "bridge and host begin so");
        assert_eq!([predefined("none", None, &NetworkSettings::default()).driver(), own.driver()], ["null", "bridge"]);
    }
}
