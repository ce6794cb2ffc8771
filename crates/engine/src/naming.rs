//! Who is called what on which network: told to the keeper, which answers containers while no engine is there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dozen_model::{
    Classified, ContainerId, ContainerName, ContainerSpec, DEFAULT_NETWORK, DnsSpec, NetworkId, Protocol, error_chain,
};
use dozen_names::{Asker, Member, NetworkZone, ServicePort, Zones};

use crate::EngineError;
use crate::container::snapshot::{Run, RunEndpoint, Snapshot};
use crate::failpoint::failpoint;
use crate::keeper_link::KeeperLink;

/// A running container on networks that have names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its process 1.
    pub(crate) pid: i32,
    /// What it is called on each of its networks: the first name is the one that its addresses lead to.
    pub(crate) names: Vec<String>,
    /// The ports that it says to serve.
    pub(crate) ports: Vec<(u16, Protocol)>,
    /// Whom it asks for what its networks do not know.
    pub(crate) dns: DnsSpec,
    /// Where it is: the first network that knows a name answers.
    pub(crate) places: Vec<Place>,
    /// One of its networks leads out, with names or without: others are asked.
    pub(crate) leads_out: bool,
}

/// A container's place on a network that has names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The network's id.
    pub(crate) network: String,
    /// The network's name.
    pub(crate) network_name: String,
    /// What it is called on this network alone.
    pub(crate) aliases: Vec<String>,
    /// Its addresses there.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Whether one of these networks has names: the default bridge has none, as with Docker.
pub(crate) fn has_names(places: &[RunEndpoint]) -> bool {
    places.iter().any(is_named)
}

fn is_named(place: &RunEndpoint) -> bool {
    place.network != NetworkId::predefined(DEFAULT_NETWORK)
}

impl Named {
    /// Of a container that runs; `None` if it is on no network that has names.
    pub(crate) fn of(id: &ContainerId, name: &ContainerName, spec: &ContainerSpec, run: &Run) -> Option<Self> {
        let asked = spec.places();
        let place = |place: &RunEndpoint| {
            let asked = asked.iter().find(|asked| asked.network == place.network);
            Place {
                network: place.network.to_string(),
                network_name: place.network_name.clone(),
                aliases: asked.map(|asked| asked.aliases.clone()).unwrap_or_default(),
                addresses: place.endpoint.addresses().collect(),
            }
        };
        let places: Vec<Place> = run.endpoints.iter().filter(|it| is_named(it)).map(place).collect();
        if places.is_empty() {
            return None;
        }
        let names = [name.to_string(), id.short().to_owned()];
        Some(Self {
            pid: run.pid,
            names: names.into_iter().chain(spec.hostname.clone()).collect(),
            ports: spec.exposed_ports.iter().copied().collect(),
            dns: spec.dns.clone(),
            places,
            leads_out: run.endpoints.iter().any(|place| !place.endpoint.internal),
        })
    }
}

/// All that are named. Calls block.
pub(crate) struct Naming {
    keeper: KeeperLink,
    /// Locked while the keeper is asked, which may hang: those who start and end on networks with names wait.
    named: Mutex<BTreeMap<ContainerId, Named>>,
}

impl Naming {
    pub(crate) fn new(keeper: KeeperLink) -> Self {
        Self { keeper, named: Mutex::default() }
    }

    /// Names a container that runs by what it is called now and where it is, if it is anywhere where that matters. An
    /// error if it cannot ask.
    pub(crate) fn refresh(&self, snapshot: &Snapshot, run: &Run) -> Result<(), EngineError> {
        match Named::of(&snapshot.id, &snapshot.name, &snapshot.spec, run) {
            Some(named) => self.name(&snapshot.id, named),
            None => self.forget(&snapshot.id),
        }
    }

    fn name(&self, id: &ContainerId, named: Named) -> Result<(), EngineError> {
        let mut all = self.lock();
        if all.get(id) == Some(&named) {
            return Ok(());
        }
        let before = all.insert(id.clone(), named);
        failpoint("name.before");
        let told = self.tell(&all, Some(id));
        failpoint("name.after");
        if told.is_err() {
            // What it was called before, it still is.
            match before {
                Some(before) => drop(all.insert(id.clone(), before)),
                None => drop(all.remove(id)),
            }
            if let Err(undo) = self.tell(&all, None) {
                tracing::error!(error = error_chain(&undo), "cannot take back a container's names");
            }
        }
        told
    }

    /// It has ended, or left its networks: nobody finds it any more.
    pub(crate) fn forget(&self, id: &ContainerId) -> Result<(), EngineError> {
        let mut all = self.lock();
        if all.remove(id).is_none() {
            return Ok(());
        }
        let told = self.tell(&all, None);
        failpoint("forget_name.after");
        told
    }

    /// What an earlier engine's runs are called, and nobody else.
    pub(crate) fn adopt(&self, runs: BTreeMap<ContainerId, Named>) -> Result<(), EngineError> {
        let mut all = self.lock();
        *all = runs;
        if all.is_empty() && !self.keeper.has_names() {
            return Ok(());
        }
        self.tell(&all, None)
    }

    fn tell(&self, all: &BTreeMap<ContainerId, Named>, of: Option<&ContainerId>) -> Result<(), EngineError> {
        let failures = self.keeper.name(&zones(all)).map_err(|error| {
            let message = format!("cannot answer for names: {}", error_chain(&error));
            EngineError::Conflict { message, hint: error.hint() }
        })?;
        let mut own = Ok(());
        for failure in failures {
            let message = format!("cannot answer for names in the container's network: {}", failure.message);
            if of.is_some_and(|id| id.as_str() == failure.container_id) {
                own = Err(EngineError::Conflict { message, hint: None });
            } else {
                tracing::error!(container = failure.container_id, "{message}");
            }
        }
        own
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Named>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keeper needs of them.
fn zones(all: &BTreeMap<ContainerId, Named>) -> Zones {
    let mut zones = Zones::default();
    for (id, named) in all {
        for place in &named.places {
            let zone = zones.networks.entry(place.network.clone());
            let zone = zone.or_insert_with(|| NetworkZone { name: place.network_name.clone(), members: Vec::new() });
            let ports = named.ports.iter().map(|(port, protocol)| ServicePort { port: *port, protocol: *protocol });
            zone.members.push(Member {
                names: names(&named.names, &place.aliases),
                addresses: place.addresses.clone(),
                ports: ports.collect(),
            });
        }
        let asker = Asker {
            pid: named.pid,
            networks: named.places.iter().map(|place| place.network.clone()).collect(),
            forwards: named.leads_out,
            servers: named.dns.servers.clone(),
            ndots_set: named.dns.searches_first(),
        };
        zones.askers.insert(id.to_string(), asker);
    }
    zones
}

/// Each once.
fn names(names: &[String], aliases: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names.iter().chain(aliases) {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keeper_is_told_who_is_where() {
        let place = |network: &str, aliases: &[&str], address: &str| Place {
            network: network.to_owned(),
            network_name: format!("{network}-name"),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            addresses: vec![address.parse().unwrap()],
        };
        let named = |pid, name: &str, places| Named {
            pid,
            names: vec![name.to_owned(), format!("{pid:012x}")],
            ports: vec![(80, Protocol::Tcp)],
            dns: DnsSpec { options: vec!["ndots:2".into()], ..DnsSpec::default() },
            places,
            leads_out: pid == 1,
        };
        let id = |digit: &str| -> ContainerId { digit.repeat(64).parse().unwrap() };
        let all = [
            (
                id("a"),
                named(1, "web", vec![place("n1", &["www", "web"], "172.18.0.2"), place("n2", &[], "172.19.0.2")]),
            ),
            (id("b"), named(2, "db", vec![place("n2", &["base"], "172.19.0.3")])),
        ];
        let zones = zones(&all.into());
        assert_eq!(zones.networks.keys().collect::<Vec<_>>(), ["n1", "n2"]);
        let n2 = &zones.networks["n2"];
        assert_eq!(n2.name, "n2-name");
        let told: Vec<String> =
            n2.members.iter().map(|it| format!("{} {:?}", it.names.join(","), it.addresses)).collect();
        assert_eq!(told, ["web,000000000001 [172.19.0.2]", "db,000000000002,base [172.19.0.3]"]);
        assert_eq!(zones.networks["n1"].members[0].names, ["web", "000000000001", "www"]);
        assert_eq!(zones.networks["n1"].members[0].ports, [ServicePort { port: 80, protocol: Protocol::Tcp }]);
        let asker = &zones.askers[id("a").as_str()];
        assert_eq!((asker.pid, asker.forwards, asker.ndots_set), (1, true, true));
        assert_eq!(asker.networks, ["n1", "n2"]);
        assert!(!zones.askers[id("b").as_str()].forwards);
    }
}
