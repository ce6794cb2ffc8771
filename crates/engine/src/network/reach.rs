//! Who can reach published ports, and other people's firewalls in the way: what `dozen system ports` and `dozen system
//! firewall` tell and do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dozen_model::{ContainerId, NetworkId, error_chain};
use dozen_network::firewall_check::{self, DroppingChain, Look};
use dozen_network::reach::{self, Facts, Reach};
use dozen_network::{HostNetwork, PublishedPort, Unopened};

use super::publishing::can_bind;
use super::{Bridges, Network, default_id, locked, places};
use crate::EngineError;
use crate::container::snapshot::Run;
use crate::engine::Engine;
use crate::failpoint::failpoint;
use crate::rows as facts;

/// The fact that somebody asked for rules of ours in other people's chains.
const OPENS_FIREWALL_FACT: &str = "opens_firewall";

/// A published port of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReach {
    /// Whose it is.
    pub container: ContainerId,
    /// The port.
    pub port: PublishedPort,
    /// Who can reach it.
    pub reach: Reach,
}

/// All published ports at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortsReport {
    /// The ports, by container.
    pub ports: Vec<PortReach>,
    /// What of this machine's firewall could not be judged: it may drop more.
    pub unjudged: Vec<String>,
}

/// Other people's firewalls, as far as they are about our bridges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirewallReport {
    /// Somebody asked for rules of ours in them.
    pub is_asked: bool,
    /// What drops what our bridges forward, by the bridge's name.
    pub dropping: Vec<(String, DroppingChain)>,
    /// What could not be judged.
    pub unjudged: Vec<String>,
}

impl Engine {
    /// Every published port and who can reach it, read from the host at this moment.
    pub async fn port_reach(&self) -> Result<PortsReport, EngineError> {
        let running = |snapshot: &std::sync::Arc<crate::Snapshot>| {
            snapshot.phase.run().filter(|run| !run.ports.is_empty()).map(|run| (snapshot.id.clone(), run.clone()))
        };
        let runs: Vec<(ContainerId, Run)> = self.containers().iter().filter_map(running).collect();
        let shared = self.shared.clone();
        self.shared.blocking(move || shared.network.port_reach(&runs)).await
    }

    /// What of other people's firewalls drops containers' packets.
    pub async fn firewall(&self) -> Result<FirewallReport, EngineError> {
        let shared = self.shared.clone();
        self.shared.blocking(move || shared.network.firewall_report()).await
    }

    /// Opens other people's firewalls for our bridges, for good, or takes the rules for that away.
    pub async fn open_firewall(&self, is_asked: bool) -> Result<FirewallReport, EngineError> {
        let shared = self.shared.clone();
        self.shared.blocking(move || shared.network.open_firewall(is_asked)).await
    }
}

impl Network {
    fn port_reach(&self, runs: &[(ContainerId, Run)]) -> Result<PortsReport, EngineError> {
        let mut report = PortsReport::default();
        if runs.is_empty() {
            return Ok(report);
        }
        let host = self.host(&mut locked(&self.bridges))?;
        let (translations, interfaces) = (host.translations()?, host.interfaces()?);
        let mut looks: BTreeMap<NetworkId, Look> = BTreeMap::new();
        for (id, run) in runs {
            let way = places::way_out(&run.endpoints);
            for network in [way.ipv4, way.ipv6].into_iter().flatten().map(|place| &place.network) {
                if !looks.contains_key(network) {
                    looks.insert(network.clone(), self.look_for(network)?);
                }
            }
            let nothing = Look::default();
            let destination = way.destination();
            let container: Vec<IpAddr> =
                [destination.ipv4.map(IpAddr::V4), destination.ipv6.map(IpAddr::V6)].into_iter().flatten().collect();
            for port in &run.ports {
                let place = if port.host_address.is_ipv4() { way.ipv4 } else { way.ipv6 };
                let look = place.and_then(|place| looks.get(&place.network)).unwrap_or(&nothing);
                let reach = reach::reach(Facts {
                    port,
                    container: &container,
                    is_held: !can_bind(port.host_address, port.host_port, port.protocol),
                    translations: &translations,
                    interfaces: &interfaces,
                    dropping: &look.dropping,
                });
                report.ports.push(PortReach { container: id.clone(), port: *port, reach });
            }
        }
        report.unjudged = unjudged(looks.into_values());
        Ok(report)
    }

    fn look_for(&self, network: &NetworkId) -> Result<Look, EngineError> {
        let bridges = locked(&self.bridges);
        let name = bridges.opened.get(network).and_then(|opened| opened.bridge.bridge_name().map(str::to_owned));
        drop(bridges);
        Ok(name.map(|name| firewall_check::look(&name)).transpose()?.unwrap_or_default())
    }

    /// The names of the bridges that are there; the default one's is made if none is.
    pub(super) fn bridge_names(&self) -> Result<Vec<String>, EngineError> {
        let mut bridges = locked(&self.bridges);
        let names = |bridges: &Bridges| -> Vec<String> {
            bridges.opened.values().filter_map(|opened| opened.bridge.bridge_name().map(str::to_owned)).collect()
        };
        if names(&bridges).is_empty() {
            self.open(&mut bridges, &default_id())?;
        }
        Ok(names(&bridges))
    }

    fn firewall_report(&self) -> Result<FirewallReport, EngineError> {
        let mut report = FirewallReport { is_asked: self.opens_firewall()?, ..FirewallReport::default() };
        let mut looks = Vec::new();
        for name in self.bridge_names()? {
            let look = firewall_check::look(&name)?;
            report.dropping.extend(look.dropping.iter().map(|chain| (name.clone(), chain.clone())));
            looks.push(look);
        }
        report.unjudged = unjudged(looks);
        Ok(report)
    }

    fn opens_firewall(&self) -> Result<bool, EngineError> {
        Ok(facts::fact(&self.ledger, OPENS_FIREWALL_FACT)?.unwrap_or(false))
    }

    fn open_firewall(&self, is_asked: bool) -> Result<FirewallReport, EngineError> {
        self.bridge_names()?;
        facts::set_fact(&self.ledger, OPENS_FIREWALL_FACT, &is_asked)?;
        failpoint("open_firewall.fact");
        let host = self.host(&mut locked(&self.bridges))?;
        let unopened = host.open_others(is_asked)?;
        failpoint("open_firewall.after");
        match unopened.first() {
            Some(Unopened { chain, refusal }) => Err(EngineError::Conflict {
                message: format!("cannot open the host's firewall: {chain}: {}", error_chain(refusal)),
                hint: Some(format!("whoever made the chain can: {}", chain.commands.join("; "))),
            }),
            None => self.firewall_report(),
        }
    }

    /// Of a host's network that was just looked at: what was asked for still is.
    pub(super) fn open_firewall_again(&self, host: &HostNetwork) {
        let opened = self.opens_firewall().and_then(|is_asked| match is_asked {
            true => Ok(host.open_others(true)?),
            false => Ok(Vec::new()),
        });
        match opened {
            Ok(unopened) => unopened.iter().for_each(|Unopened { chain, refusal }| {
                tracing::warn!(error = error_chain(refusal), "cannot open the host's firewall: {chain}");
            }),
            Err(error) => tracing::warn!(error = error_chain(&error), "cannot open the host's firewall"),
        }
    }
}

/// What they say, each once.
fn unjudged(looks: impl IntoIterator<Item = Look>) -> Vec<String> {
    let mut words: Vec<String> = looks.into_iter().flat_map(|look| look.unjudged).collect();
    words.sort();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_bridges_have_in_common_is_said_once() {
        let look =
            |words: &[&str]| Look { unjudged: words.iter().map(|it| (*it).to_owned()).collect(), dropping: vec![] };
        assert_eq!(unjudged([look(&["b", "a"]), look(&["b"])]), ["a", "b"]);
    }
}
