//! Containers' places on networks: which addresses, which way out, and the links themselves.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use dozen_model::{ContainerId, EndpointSpec, NetworkId, PortBinding};
use dozen_network::{BridgeNetwork, Destination, EndpointLink, EndpointWish, Gateways, Plug};

use super::{Network, locked};
use crate::EngineError;
use crate::container::snapshot::RunEndpoint;
use crate::failpoint::failpoint;

/// The places that the container's ports are published to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WayOut<'a> {
    /// Those of the host's IPv4 addresses.
    pub(crate) ipv4: Option<&'a RunEndpoint>,
    /// Those of the host's IPv6 addresses.
    pub(crate) ipv6: Option<&'a RunEndpoint>,
}

impl WayOut<'_> {
    /// The addresses that ports of the host's lead to.
    pub(crate) fn destination(self) -> Destination {
        let places = self.of(false);
        Destination {
            ipv4: places.ipv4.and_then(|place| place.endpoint.ipv4),
            ipv6: places.ipv6.and_then(|place| place.endpoint.ipv6),
        }
    }

    /// The addresses at which ports are reached as they are, for their networks are routed.
    pub(crate) fn routed(self) -> Destination {
        let places = self.of(true);
        Destination {
            ipv4: places.ipv4.and_then(|place| place.endpoint.ipv4),
            ipv6: places.ipv6.and_then(|place| place.endpoint.ipv6),
        }
    }

    fn of(self, routed: bool) -> Self {
        Self {
            ipv4: self.ipv4.filter(|place| place.endpoint.routed_ipv4 == routed),
            ipv6: self.ipv6.filter(|place| place.endpoint.routed_ipv6 == routed),
        }
    }

    /// Those that were asked for, on the address of the host's that the network has for those that name none.
    pub(crate) fn bound(self, wanted: &[PortBinding]) -> Vec<PortBinding> {
        let binding = self.ipv4.or(self.ipv6).and_then(|place| place.host_binding);
        wanted.iter().map(|port| PortBinding { host_address: port.host_address.or(binding), ..port.clone() }).collect()
    }
}

/// Of each family the place of the default route, by which answers go, unless that leads past the host.
pub(crate) fn way_out(endpoints: &[RunEndpoint]) -> WayOut<'_> {
    let on_host = |place: &&RunEndpoint| place.endpoint.link == EndpointLink::Bridge;
    let (ipv4, ipv6) = ways(endpoints);
    WayOut { ipv4: ipv4.filter(on_host), ipv6: ipv6.filter(on_host) }
}

/// The places that have the default routes for IPv4 and IPv6: of each family, the network of the highest priority that
/// has a way out; of several, the first by name (Docker's rule).
fn ways(endpoints: &[RunEndpoint]) -> (Option<&RunEndpoint>, Option<&RunEndpoint>) {
    let open: Vec<_> = by_priority(endpoints).into_iter().filter(|place| !place.endpoint.internal).collect();
    let ipv4 = open.iter().find(|place| place.endpoint.ipv4_gateway.is_some()).copied();
    (ipv4, open.iter().find(|place| place.endpoint.ipv6_gateway.is_some()).copied())
}

/// Whose gateways the container's default routes go by.
pub(crate) fn gateways(endpoints: &[RunEndpoint]) -> Gateways {
    let by = |place: &RunEndpoint, gateway: Option<IpAddr>| {
        let to_link = place.endpoint.link == EndpointLink::RoutedParent;
        (place.endpoint.inside.clone(), gateway.filter(|_| !to_link))
    };
    let (ipv4, ipv6) = ways(endpoints);
    Gateways {
        ipv4: ipv4.map(|place| by(place, place.endpoint.ipv4_gateway.map(IpAddr::V4))),
        ipv6: ipv6.map(|place| by(place, place.endpoint.ipv6_gateway.map(IpAddr::V6))),
    }
}

fn by_priority(endpoints: &[RunEndpoint]) -> Vec<&RunEndpoint> {
    let mut places: Vec<&RunEndpoint> = endpoints.iter().collect();
    places.sort_by_key(|place| (std::cmp::Reverse(place.gateway_priority), &place.network_name));
    places
}

/// What the interface of one more place is called inside: as was asked for, or by the lowest number that no other has or
/// is to have.
fn interface(
    wanted: &EndpointSpec,
    prefix: &str,
    present: &[RunEndpoint],
    others: &[EndpointSpec],
) -> Result<String, EngineError> {
    let holder = |name: &str| present.iter().find(|place| place.endpoint.inside == name);
    match &wanted.interface {
        Some(name) => match holder(name) {
            None => Ok(name.clone()),
            Some(place) => Err(EngineError::Conflict {
                message: format!(
                    "the container's interface {name} is there already, for the network {}",
                    place.network_name
                ),
                hint: Some("choose another com.docker.network.endpoint.ifname".into()),
            }),
        },
        None => {
            let is_asked_for = |name: &str| others.iter().any(|other| other.interface.as_deref() == Some(name));
            let mut names = (0..).map(|number| format!("{prefix}{number}"));
            let free = names.find(|name| holder(name).is_none() && !is_asked_for(name));
            Ok(free.expect("there are more numbers than networks"))
        }
    }
}

impl Network {
    /// A fresh namespace, or the empty one that is given, with a place on each of these networks. Nothing is left of it on
    /// failure.
    pub(crate) fn attach(
        &self,
        id: &ContainerId,
        wanted: &[EndpointSpec],
        empty: Option<OwnedFd>,
    ) -> Result<(Vec<RunEndpoint>, OwnedFd), EngineError> {
        failpoint("attach.before");
        let mut taken = Vec::new();
        let attached = self.take_all(id, wanted, &mut taken).and_then(|networks| {
            let gateways = gateways(&taken);
            let mut plugs: Vec<Plug<'_>> = networks
                .iter()
                .zip(&mut taken)
                .map(|(network, place)| Plug { network, endpoint: &mut place.endpoint })
                .collect();
            Ok(dozen_network::new_namespace(empty, &mut plugs, &gateways)?)
        });
        match attached {
            Ok(namespace) => {
                failpoint("attach.after");
                Ok((taken, namespace))
            }
            Err(error) => {
                // The namespace is going, and the links in it with it.
                self.give_back(&taken);
                Err(error)
            }
        }
    }

    fn take_all(
        &self,
        id: &ContainerId,
        wanted: &[EndpointSpec],
        taken: &mut Vec<RunEndpoint>,
    ) -> Result<Vec<Arc<BridgeNetwork>>, EngineError> {
        wanted.iter().map(|place| self.take(id, place, wanted, taken)).collect()
    }

    /// Finds addresses for one more place, of those that are to be had together.
    fn take(
        &self,
        id: &ContainerId,
        wanted: &EndpointSpec,
        together: &[EndpointSpec],
        taken: &mut Vec<RunEndpoint>,
    ) -> Result<Arc<BridgeNetwork>, EngineError> {
        let mac = wanted.mac.as_deref().map(str::parse).transpose();
        let mut bridges = locked(&self.bridges);
        let network = self.present(wanted)?;
        let options = self.rows().get(&network).map(|row| row.spec.bridge.clone()).unwrap_or_default();
        let prefix = options.interface_prefix.as_deref().unwrap_or("eth");
        let wish = EndpointWish {
            inside: interface(wanted, prefix, taken, together)?,
            ipv4: wanted.ipv4,
            ipv6: wanted.ipv6,
            mac: mac.map_err(|error: dozen_network::MacAddressError| EngineError::Invalid {
                message: error.to_string(),
                hint: None,
            })?,
            sysctls: wanted.sysctls.clone(),
            link_local: wanted.link_local.clone(),
        };
        let opened = self.open(&mut bridges, &network)?;
        let bridge = opened.bridge.clone();
        opened.endpoints += 1;
        drop(bridges);
        // Without the lock: where every address rests, it waits.
        match bridge.take(id, &wish) {
            Ok(endpoint) => {
                taken.push(RunEndpoint {
                    network,
                    network_name: wanted.network_name.clone(),
                    gateway_priority: wanted.gateway_priority,
                    host_binding: options.host_binding,
                    endpoint,
                });
                Ok(bridge)
            }
            Err(error) => {
                if let Some(opened) = locked(&self.bridges).opened.get_mut(&network) {
                    opened.endpoints = opened.endpoints.saturating_sub(1);
                }
                Err(error.into())
            }
        }
    }

    /// The network that is meant: the one of this id, or, should that be gone, one of its name, as with Docker.
    fn present(&self, wanted: &EndpointSpec) -> Result<NetworkId, EngineError> {
        let rows = self.rows();
        if wanted.network == super::default_id() || rows.contains_key(&wanted.network) {
            return Ok(wanted.network.clone());
        }
        let same_name = rows.values().find(|row| row.name.as_str() == wanted.network_name);
        same_name.map(|row| row.id.clone()).ok_or_else(|| EngineError::NoSuchNetwork(wanted.network_name.clone()))
    }

    /// Links a running container to one more network. Nothing is left of it on failure.
    pub(crate) fn plug(
        &self,
        id: &ContainerId,
        namespace: BorrowedFd<'_>,
        present: &[RunEndpoint],
        wanted: &EndpointSpec,
    ) -> Result<Vec<RunEndpoint>, EngineError> {
        let mut all = present.to_vec();
        let network = self.take(id, wanted, std::slice::from_ref(wanted), &mut all)?;
        let gateways = gateways(&all);
        let place = all.last_mut().expect("it was just taken");
        let plug = Plug { network: &network, endpoint: &mut place.endpoint };
        let plugged = dozen_network::plug(namespace, plug, &gateways);
        if let Err(error) = plugged {
            self.unplug(namespace, place, present);
            return Err(error.into());
        }
        Ok(all)
    }

    /// Takes a running container's link to a network away, and moves its default routes to those that remain. What fails
    /// is logged: the place is gone all the same, and its link goes with the namespace or at the next start.
    pub(crate) fn unplug(&self, namespace: BorrowedFd<'_>, place: &RunEndpoint, remaining: &[RunEndpoint]) {
        let moved = dozen_network::set_gateways(namespace, &gateways(remaining));
        let unplugged = dozen_network::unplug(namespace.as_fd(), &place.endpoint.inside);
        for error in [moved.err(), unplugged.err()].into_iter().flatten() {
            tracing::error!(error = dozen_model::error_chain(&error), "cannot take a container off a network cleanly");
        }
        self.give_back(std::slice::from_ref(place));
    }

    /// The addresses of places whose links are gone, or go with their namespace.
    pub(crate) fn give_back(&self, places: &[RunEndpoint]) {
        let mut bridges = locked(&self.bridges);
        places.iter().for_each(|place| bridges.release(place));
    }
}

#[cfg(test)]
mod tests {
    use dozen_network::Endpoint;

    use super::*;

    fn place(name: &str, number: u8, priority: i64, internal: bool, ipv6: bool) -> RunEndpoint {
        let ipv6_address = format!("fd00:{number}::2").parse().unwrap();
        let ipv4 = std::net::Ipv4Addr::new(10, number, 0, 2);
        RunEndpoint {
            network: NetworkId::random(),
            network_name: name.into(),
            gateway_priority: priority,
            host_binding: None,
            endpoint: Endpoint {
                interface: format!("dz{number}"),
                inside: format!("eth{number}"),
                mac: dozen_network::MacAddress::beside(ipv4),
                ipv4: Some(ipv4),
                ipv4_prefix_length: 16,
                ipv4_gateway: Some(std::net::Ipv4Addr::new(10, number, 0, 1)),
                ipv6: ipv6.then_some(ipv6_address),
                ipv6_prefix_length: 64,
                ipv6_gateway: ipv6.then_some(ipv6_address),
                internal,
                link: EndpointLink::Bridge,
                routed_ipv4: false,
                routed_ipv6: false,
                sysctls: Vec::new(),
                link_local: Vec::new(),
            },
        }
    }

    #[test]
    fn no_port_is_published_where_the_way_out_leads_past_the_host() {
        let mut past = place("a", 0, 1, false, false);
        past.endpoint.link = EndpointLink::Parent;
        let places = [past.clone(), place("b", 1, 0, false, false)];
        assert_eq!(way_out(&places), WayOut::default());
        assert_eq!(gateways(&places).ipv4, Some(("eth0".to_owned(), Some([10, 0, 0, 1].into()))));
        past.endpoint.link = EndpointLink::RoutedParent;
        assert_eq!(gateways(&[past]).ipv4, Some(("eth0".to_owned(), None)));
    }

    #[test]
    fn the_way_out_is_by_priority_then_by_name_and_never_internal() {
        let by = |places: &[RunEndpoint]| {
            let gateways = gateways(places);
            let name = |gateway: Option<(String, _)>| gateway.map(|(name, _)| name).unwrap_or_default();
            assert_eq!(
                way_out(places).ipv4.map(|place| place.endpoint.inside.clone()),
                gateways.ipv4.clone().map(|g| g.0)
            );
            [name(gateways.ipv4), name(gateways.ipv6)]
        };
        assert_eq!(by(&[]), ["", ""]);
        assert_eq!(by(&[place("b", 0, 0, false, true), place("a", 1, 0, false, true)]), ["eth1", "eth1"]);
        assert_eq!(by(&[place("b", 0, 1, false, true), place("a", 1, 0, false, true)]), ["eth0", "eth0"]);
        assert_eq!(by(&[place("a", 0, 9, true, true), place("b", 1, -1, false, true)]), ["eth1", "eth1"]);
        assert_eq!(by(&[place("a", 0, 0, false, false), place("b", 1, 0, false, true)]), ["eth0", "eth1"]);
        assert_eq!(by(&[place("a", 0, 0, true, true)]), ["", ""]);
    }

    #[test]
    fn each_family_has_a_way_of_its_own() {
        let mut six = place("a", 0, 0, false, true);
        (six.endpoint.ipv4, six.endpoint.ipv4_gateway) = (None, None);
        let four = place("b", 1, 0, false, false);
        let places = [six.clone(), four.clone()];
        let way = way_out(&places);
        assert_eq!((way.ipv4, way.ipv6), (Some(&four), Some(&six)));
        assert_eq!(way.destination(), Destination { ipv4: four.endpoint.ipv4, ipv6: six.endpoint.ipv6 });
        let gateways = gateways(&[six.clone()]);
        assert_eq!((gateways.ipv4, gateways.ipv6.map(|(inside, _)| inside)), (None, Some("eth0".to_owned())));
        assert_eq!(way_out(&[six]).destination().ipv4, None);
    }

    #[test]
    fn a_family_that_is_routed_has_no_port_of_the_hosts() {
        let mut both = place("a", 0, 0, false, true);
        both.endpoint.routed_ipv6 = true;
        both.host_binding = Some([127, 0, 0, 1].into());
        let places = [both.clone()];
        let way = way_out(&places);
        assert_eq!(way.destination(), Destination { ipv4: both.endpoint.ipv4, ipv6: None });
        assert_eq!(way.routed(), Destination { ipv4: None, ipv6: both.endpoint.ipv6 });
        let port = |host_address| PortBinding {
            container_port: 80,
            protocol: dozen_model::Protocol::Tcp,
            host_address,
            host_port: None,
        };
        let six = Some("::".parse().unwrap());
        assert_eq!(way.bound(&[port(None), port(six)]), [port(both.host_binding), port(six)]);
    }

    #[test]
    fn interfaces_are_numbered_and_gaps_are_filled() {
        let places = [place("a", 0, 0, false, false), place("b", 2, 0, false, false)];
        let any = EndpointSpec::default_bridge();
        let named = |name: &str| EndpointSpec { interface: Some(name.to_owned()), ..EndpointSpec::default_bridge() };
        let called = |wanted: &EndpointSpec, present: &[RunEndpoint], others: &[EndpointSpec]| {
            interface(wanted, "eth", present, others).map_err(|error| error.to_string())
        };
        assert_eq!([called(&any, &[], &[]).unwrap(), called(&any, &places, &[]).unwrap()], ["eth0", "eth1"]);
        // Who asks for a name has it, also where another one comes first.
        assert_eq!(called(&any, &places, &[named("eth1")]).unwrap(), "eth3");
        assert_eq!(called(&named("lan0"), &places, &[]).unwrap(), "lan0");
        let taken = "the container's interface eth2 is there already, for the network b";
        assert_eq!(called(&named("eth2"), &places, &[]).unwrap_err(), taken);
        assert_eq!(interface(&any, "lan", &places, &[]).unwrap(), "lan0");
    }
}
