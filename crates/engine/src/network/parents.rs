//! Networks on interfaces of the host's (macvlan, ipvlan): which interface, who else is on it, and whose it is to remove.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_model::{EndpointSpec, NetworkDriver, NetworkId, Parent, error_chain};
use dozen_network::{HostNetwork, IpvlanFlag, IpvlanMode, MacvlanMode, ParentLink, ParentMode};

use super::Network;
use super::rows::NetworkRow;
use crate::EngineError;

type Rows = BTreeMap<NetworkId, Arc<NetworkRow>>;

/// A new network's driver with the parent that it gets, decided without touching the host. An interface that is not there
/// and is called like a VLAN's is to be made. Docker's words where it refuses.
pub(super) fn decide(
    asked: NetworkDriver,
    others: &Rows,
    is_there: &dyn Fn(&str) -> Result<bool, EngineError>,
) -> Result<NetworkDriver, EngineError> {
    let Some(Parent::Interface(name)) = asked.parent().cloned() else { return Ok(asked) };
    let of_name = |row: &&Arc<NetworkRow>| row.spec.driver.parent().is_some_and(|it| it.interface(&row.id) == name);
    let mut made_by_us = None;
    for row in others.values().filter(of_name) {
        refuse_beside(&asked, row, &name)?;
        made_by_us = made_by_us.or(row.spec.driver.parent().filter(|it| matches!(it, Parent::Vlan { .. })).cloned());
    }
    if let Some(parent) = made_by_us {
        return Ok(asked.on(parent));
    }
    if is_there(&name)? {
        return Ok(asked);
    }
    let (of, id) = vlan(&name)?;
    match is_there(&of)? {
        true => Ok(asked.on(Parent::Vlan { of, id })),
        false => Err(invalid(format!("-o parent interface does not exist on the host: {of}"))),
    }
}

/// The kernel lets one kind of links lie on an interface, all ipvlan ones in one mode, and beside who has it to itself none.
fn refuse_beside(asked: &NetworkDriver, other: &NetworkRow, name: &str) -> Result<(), EngineError> {
    use NetworkDriver::{Ipvlan, Macvlan};
    let refused = |before: &str| {
        let (driver, id) = (other.spec.driver.as_str(), &other.id);
        let message = format!("{before}{driver} network {id} is already using parent interface {name}");
        Err(EngineError::Forbidden { message })
    };
    let alone = dozen_model::MacvlanMode::Passthru;
    match (asked, &other.spec.driver) {
        (Macvlan { mode, .. }, Macvlan { mode: others, .. }) if *mode == alone || *others == alone => {
            refused("cannot use mode passthru, ")
        }
        (Macvlan { .. }, Macvlan { .. }) => Ok(()),
        (Ipvlan { mode, flag, .. }, Ipvlan { mode: others, flag: others_flag, .. })
            if (mode, flag) == (others, others_flag) =>
        {
            Ok(())
        }
        _ => refused(""),
    }
}

/// `eth0.10`, in Docker's words.
fn vlan(name: &str) -> Result<(String, u16), EngineError> {
    let parts: Vec<&str> = name.split('.').collect();
    let (of, id) = match parts[..] {
        [_] => return Err(invalid(format!("invalid subinterface vlan name {name}, example formatting is eth0.10"))),
        [of, id] => (of, id),
        _ => {
            return Err(invalid(format!(
                "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
            )));
        }
    };
    let number: i64 = id
        .parse()
        .map_err(|_| invalid(format!("unable to parse a valid vlan id from: {id} (ex. eth0.10 for vlan 10)")))?;
    match u16::try_from(number) {
        Ok(number @ 1..=4094) => Ok((of.to_owned(), number)),
        _ => Err(invalid(format!("vlan id must be between 1-4094, received: {number}"))),
    }
}

/// The parent as the host is to have it, and how links lie on it; `None` for a bridge.
pub(super) fn link(driver: &NetworkDriver, id: &NetworkId) -> Option<(ParentLink, ParentMode)> {
    use dozen_model as model;
    let mode = match driver {
        NetworkDriver::Bridge => return None,
        NetworkDriver::Macvlan { mode, .. } => ParentMode::Macvlan(match mode {
            model::MacvlanMode::Bridge => MacvlanMode::Bridge,
            model::MacvlanMode::Private => MacvlanMode::Private,
            model::MacvlanMode::Vepa => MacvlanMode::Vepa,
            model::MacvlanMode::Passthru => MacvlanMode::Passthru,
        }),
        NetworkDriver::Ipvlan { mode, flag, .. } => {
            let mode = match mode {
                model::IpvlanMode::L2 => IpvlanMode::L2,
                model::IpvlanMode::L3 => IpvlanMode::L3,
                model::IpvlanMode::L3s => IpvlanMode::L3s,
            };
            let flag = match flag {
                model::IpvlanFlag::Bridge => IpvlanFlag::Bridge,
                model::IpvlanFlag::Private => IpvlanFlag::Private,
                model::IpvlanFlag::Vepa => IpvlanFlag::Vepa,
            };
            ParentMode::Ipvlan(mode, flag)
        }
    };
    let parent = driver.parent()?;
    let name = parent.interface(id);
    let link = match parent {
        Parent::Interface(_) => ParentLink::Present { name },
        Parent::Vlan { of, id } => ParentLink::Vlan { name, of: of.clone(), id: *id },
        Parent::Nowhere => ParentLink::Dummy { name },
    };
    Some((link, mode))
}

/// Removes the interface that was made for this network, unless one of the others lies on it too.
pub(super) fn remove(host: &HostNetwork, row: &NetworkRow, others: &Rows) {
    let Some((parent, _)) = link(&row.spec.driver, &row.id) else { return };
    let is_on_it = |other: &Arc<NetworkRow>| {
        other.id != row.id && link(&other.spec.driver, &other.id).is_some_and(|(link, _)| link == parent)
    };
    if others.values().any(is_on_it) {
        return;
    }
    if let Err(error) = host.remove_parent(&parent) {
        tracing::error!(error = error_chain(&error), "cannot remove the interface {} of a network", parent.name());
    }
}

impl Network {
    /// Why ports are not published, in words for the user: all of the networks lie on interfaces of the host's. Docker
    /// does not publish them either, and says nothing.
    pub(crate) fn past_the_host(&self, places: &[EndpointSpec]) -> Option<String> {
        let rows = self.rows();
        let driver = |place: &EndpointSpec| rows.get(&place.network).map(|row| row.spec.driver.as_str());
        let past = |place: &EndpointSpec| driver(place).is_some_and(|driver| driver != NetworkDriver::Bridge.as_str());
        let first = places.first().filter(|_| places.iter().all(past))?;
        let (driver, name) = (driver(first)?, &first.network_name);
        Some(format!(
            "no port is published: containers on the {driver} network {name} are reached by their own addresses, past the host"
        ))
    }
}

fn invalid(message: String) -> EngineError {
    EngineError::Invalid { message, hint: None }
}

#[cfg(test)]
mod tests {
    use dozen_model::{NetworkSpec, SubnetSpec};
    use dozen_network::BridgeAddresses;

    use super::*;

    fn on(name: &str) -> Parent {
        Parent::Interface(name.to_owned())
    }

    fn macvlan(parent: Parent, mode: dozen_model::MacvlanMode) -> NetworkDriver {
        NetworkDriver::Macvlan { parent, mode }
    }

    fn ipvlan(parent: Parent, mode: dozen_model::IpvlanMode) -> NetworkDriver {
        NetworkDriver::Ipvlan { parent, mode, flag: dozen_model::IpvlanFlag::Bridge }
    }

    fn row(digit: char, driver: NetworkDriver) -> Arc<NetworkRow> {
        let id: NetworkId = digit.to_string().repeat(64).parse().unwrap();
        let subnets: Vec<SubnetSpec> = Vec::new();
        Arc::new(NetworkRow {
            id,
            name: format!("n{digit}").parse().unwrap(),
            created: jiff::Timestamp::UNIX_EPOCH,
            spec: NetworkSpec { driver, subnets, ..NetworkSpec::default() },
            addresses: BridgeAddresses {
                name: "eth0".into(),
                ipv4_gateway: Some([10, 0, 0, 1].into()),
                ipv4_prefix_length: 24,
                ipv6_gateway: None,
                ipv6_prefix_length: 64,
            },
        })
    }

    #[track_caller]
    fn check(asked: NetworkDriver, others: &[NetworkDriver], want: Result<Parent, &str>) {
        let rows: Rows = others
            .iter()
            .zip('1'..)
            .map(|(driver, digit)| row(digit, driver.clone()))
            .map(|r| (r.id.clone(), r))
            .collect();
        let is_there = |name: &str| Ok(["eth0", "eth1", "eth1.7"].contains(&name));
        let decided = decide(asked, &rows, &is_there).map(|driver| driver.parent().unwrap().clone());
        match (decided, want) {
            (Ok(parent), Ok(want)) => assert_eq!(parent, want),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
            (decided, want) => panic!("{decided:?}, not {want:?}"),
        }
    }

    #[test]
    fn a_parent_is_there_or_is_made() {
        use dozen_model::IpvlanMode::{L2, L3};
        use dozen_model::MacvlanMode::{Bridge, Passthru, Private};
        let made = |id| Parent::Vlan { of: "eth0".into(), id };
        check(macvlan(on("eth0"), Bridge), &[], Ok(on("eth0")));
        check(macvlan(Parent::Nowhere, Bridge), &[], Ok(Parent::Nowhere));
        check(macvlan(on("eth1.7"), Bridge), &[], Ok(on("eth1.7")));
        check(macvlan(on("eth0.10"), Bridge), &[], Ok(made(10)));
        // A second one on it knows that it is not the host's.
        check(ipvlan(on("eth0.10"), L2), &[ipvlan(made(10), L2)], Ok(made(10)));
        check(macvlan(on("eth9.10"), Bridge), &[], Err("-o parent interface does not exist on the host: eth9"));
        check(macvlan(on("eth9"), Bridge), &[], Err("invalid subinterface vlan name eth9"));
        check(macvlan(on("eth0.x"), Bridge), &[], Err("unable to parse a valid vlan id from: x"));
        check(macvlan(on("eth0.1.2"), Bridge), &[], Err("required interface name format is: name.vlan_id"));
        check(macvlan(on("eth0.4095"), Bridge), &[], Err("vlan id must be between 1-4094, received: 4095"));
        check(macvlan(on("eth0.-1"), Bridge), &[], Err("vlan id must be between 1-4094, received: -1"));
        let in_use = || Err("is already using parent interface eth0");
        check(macvlan(on("eth0"), Bridge), &[macvlan(on("eth0"), Private)], Ok(on("eth0")));
        check(macvlan(on("eth0"), Bridge), &[ipvlan(on("eth0"), L2)], in_use());
        check(ipvlan(on("eth0"), L2), &[ipvlan(on("eth0"), L3)], in_use());
        check(ipvlan(on("eth0"), L2), &[macvlan(on("eth0"), Bridge)], in_use());
        let alone = || Err("cannot use mode passthru, macvlan network 1111");
        check(macvlan(on("eth0"), Passthru), &[macvlan(on("eth0"), Bridge)], alone());
        check(macvlan(on("eth0"), Bridge), &[macvlan(on("eth0"), Passthru)], alone());
        check(macvlan(on("eth1"), Bridge), &[ipvlan(on("eth0"), L2)], Ok(on("eth1")));
    }

    #[test]
    fn each_parent_is_called_as_docker_calls_it() {
        let id: NetworkId = "ab".repeat(32).parse().unwrap();
        let name = |parent| {
            let driver = macvlan(parent, dozen_model::MacvlanMode::Bridge);
            link(&driver, &id).map(|(link, _)| link.name().to_owned()).unwrap()
        };
        assert_eq!(name(Parent::Nowhere), "dm-abababababab");
        assert_eq!(name(Parent::Vlan { of: "eth0".into(), id: 7 }), "eth0.7");
        assert_eq!(name(on("eth0")), "eth0");
        assert_eq!(link(&NetworkDriver::Bridge, &id), None);
    }
}
