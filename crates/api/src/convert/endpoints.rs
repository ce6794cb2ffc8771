//! A container's places on networks: from requests, and into inspect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dozen_engine::{EndpointLink, MacAddress, Network, RunEndpoint, Snapshot};
use dozen_model::{ContainerId, DEFAULT_NETWORK, EndpointSpec, NetworkId, NetworkMode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::endpoint_options;
use super::fields::{Field, Fields};
use super::network_request::contains;
use super::networks::mode;
use super::request::Create;
use crate::error::ApiError;
use Field::{Acts, Ignored, Refused, Within};

/// Docker's EndpointSettings.
pub(crate) const ENDPOINT: Fields = &[
    ("IPAMConfig", Within(ADDRESSES)),
    ("Links", Refused),
    ("Aliases", Acts),
    ("MacAddress", Acts),
    ("DriverOpts", Acts),
    ("GwPriority", Acts),
    // The rest is state, which clients copy from an inspect; Docker ignores it here too.
    ("NetworkID", Ignored),
    ("EndpointID", Ignored),
    ("Gateway", Ignored),
    ("IPAddress", Ignored),
    ("IPPrefixLen", Ignored),
    ("IPv6Gateway", Ignored),
    ("GlobalIPv6Address", Ignored),
    ("GlobalIPv6PrefixLen", Ignored),
    ("DNSNames", Ignored),
];

pub(crate) const ADDRESSES: Fields = &[("IPv4Address", Acts), ("IPv6Address", Acts), ("LinkLocalIPs", Acts)];

/// The body of `POST /networks/{id}/connect`.
pub(crate) const CONNECT: Fields = &[("Container", Acts), ("EndpointConfig", Within(ENDPOINT))];

/// The body of `POST /networks/{id}/disconnect`.
pub(crate) const DISCONNECT: Fields = &[("Container", Acts), ("Force", Acts)];

/// What is asked of a place on a network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    pub(crate) addresses: Addresses,
    pub(crate) aliases: Vec<String>,
    pub(crate) mac_address: String,
    pub(crate) driver_opts: BTreeMap<String, String>,
    pub(crate) gw_priority: i64,
}

/// Fixed addresses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Addresses {
    #[serde(rename = "IPv4Address")]
    pub(crate) ipv4: String,
    #[serde(rename = "IPv6Address")]
    pub(crate) ipv6: String,
    #[serde(rename = "LinkLocalIPs")]
    pub(crate) link_local: Vec<String>,
}

/// `POST /networks/{id}/connect`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Connect {
    pub(crate) container: String,
    pub(crate) endpoint_config: Endpoint,
}

/// `POST /networks/{id}/disconnect`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Disconnect {
    pub(crate) container: String,
    pub(crate) force: bool,
}

type Find<'a> = &'a dyn Fn(&str) -> Result<Network, ApiError>;

/// All places of a new container: that of `NetworkMode` first, then the others by name.
pub(crate) fn places(request: &Create, network: &NetworkMode, find: Find<'_>) -> Result<Vec<EndpointSpec>, ApiError> {
    let asked = &request.networking_config.endpoints_config;
    let primary = match network {
        NetworkMode::Bridge => find(DEFAULT_NETWORK)?,
        NetworkMode::Network(text) => find(text)?,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => {
            return check_alone(request, network).map(|()| Vec::new());
        }
    };
    let mut by_network: BTreeMap<(bool, String), EndpointSpec> = BTreeMap::new();
    let mut interfaces: BTreeSet<String> = BTreeSet::new();
    let none = Endpoint::default();
    let mut add = |network: Network, endpoint: &Endpoint| {
        let key = (network.id != primary.id, network.name.clone());
        let spec = place(&network, endpoint)?;
        if let Some(name) = spec.interface.clone().filter(|name| !interfaces.insert(name.clone())) {
            return Err(ApiError::invalid(format!("two interfaces of the container are to be called {name}")));
        }
        match by_network.insert(key, spec) {
            Some(_) => Err(ApiError::invalid(format!("the network {} is named twice", network.name))),
            None => Ok(()),
        }
    };
    for (name, endpoint) in asked {
        let network = if name == "default" { find(DEFAULT_NETWORK)? } else { find(name)? };
        if matches!(network.driver(), "host" | "null") {
            let message = format!(
                "container cannot be connected to the network {} and to others: it has NetworkMode {:?}",
                network.name, request.host_config.network_mode
            );
            return Err(ApiError::invalid(message));
        }
        add(network, endpoint.as_ref().unwrap_or(&none))?;
    }
    let mut main = match by_network.remove(&(false, primary.name.clone())) {
        Some(place) => place,
        None => place(&primary, &none)?,
    };
    // As clients before 1.44 have it.
    if !request.mac_address.is_empty() {
        let mac = mac(&request.mac_address)?;
        if main.mac.as_ref().is_some_and(|other| *other != mac) {
            return Err(ApiError::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or \
                 be left empty",
            ));
        }
        main.mac = Some(mac);
    }
    Ok([main].into_iter().chain(by_network.into_values()).collect())
}

/// Clients name the network a second time; it has to be the same one, and nothing can be asked of it.
fn check_alone(request: &Create, network: &NetworkMode) -> Result<(), ApiError> {
    if !request.mac_address.is_empty() {
        return Err(ApiError::invalid("conflicting options: mac-address and the network mode"));
    }
    for (name, endpoint) in &request.networking_config.endpoints_config {
        let same = match network {
            NetworkMode::None => name == "none",
            NetworkMode::Host => name == "host",
            _ => name.starts_with("container:"),
        };
        if !same {
            return Err(ApiError::invalid(format!(
                "NetworkingConfig.EndpointsConfig names {name:?}, and HostConfig.NetworkMode {:?}",
                request.host_config.network_mode
            )));
        }
        let Some(endpoint) = endpoint else { continue };
        if !endpoint.addresses.ipv4.is_empty() || !endpoint.addresses.ipv6.is_empty() {
            return Err(ApiError::invalid("user specified IP address is supported on user defined networks only"));
        }
        if !endpoint.aliases.is_empty() {
            return Err(only_user_defined_aliases());
        }
        if !endpoint.driver_opts.is_empty() || !endpoint.addresses.link_local.is_empty() {
            return Err(ApiError::invalid("conflicting options: driver-opt, link-local-ip and the network mode"));
        }
        if !endpoint.mac_address.is_empty() {
            return Err(ApiError::invalid("conflicting options: mac-address and the network mode"));
        }
    }
    Ok(())
}

fn only_user_defined_aliases() -> ApiError {
    ApiError::invalid("network-scoped alias is supported only for containers in user defined networks")
}

/// A place on this network, checked against what the network is.
pub(crate) fn place(network: &Network, asked: &Endpoint) -> Result<EndpointSpec, ApiError> {
    let mut place = EndpointSpec::on(network.id.clone(), network.name.as_str());
    let fixed = |text: &str, ipv4: bool| -> Result<Option<IpAddr>, ApiError> {
        if text.is_empty() {
            return Ok(None);
        }
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        let address: IpAddr = text
            .parse()
            .ok()
            .filter(|address: &IpAddr| address.is_ipv4() == ipv4)
            .ok_or_else(|| ApiError::invalid(format!("invalid {family} address: {}", short(text))))?;
        if network.is_predefined() {
            return Err(ApiError::invalid("user specified IP address is supported on user defined networks only"));
        }
        let outside =
            || ApiError::invalid(format!("no configured subnet or ip-range contain the IP address {address}"));
        if !(if ipv4 { network.spec.ipv4 } else { network.spec.ipv6 }) {
            return Err(outside());
        }
        let subnet = network.spec.subnets.iter().find(|subnet| subnet.network.is_ipv4() == ipv4);
        let subnet = subnet.ok_or_else(|| {
            ApiError::invalid(
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            )
        })?;
        if !contains((subnet.network, subnet.prefix_length), address) {
            return Err(outside());
        }
        Ok(Some(address))
    };
    if let Some(IpAddr::V4(address)) = fixed(&asked.addresses.ipv4, true)? {
        place.ipv4 = Some(address);
    }
    if let Some(IpAddr::V6(address)) = fixed(&asked.addresses.ipv6, false)? {
        place.ipv6 = Some(address);
    }
    if !asked.aliases.is_empty() && network.is_predefined() {
        return Err(only_user_defined_aliases());
    }
    for alias in &asked.aliases {
        let fits = alias.bytes().all(|byte| byte.is_ascii_graphic()) && alias.len() <= 253;
        if alias.is_empty() || !fits {
            return Err(ApiError::invalid(format!("invalid network alias {:?}", short(alias))));
        }
        if !place.aliases.contains(alias) {
            place.aliases.push(alias.clone());
        }
    }
    if !asked.mac_address.is_empty() {
        if network.driver() == "ipvlan" {
            return Err(ApiError::invalid("ipvlan interfaces do not support custom mac address assignment"));
        }
        place.mac = Some(mac(&asked.mac_address)?);
    }
    place.gateway_priority = asked.gw_priority;
    endpoint_options::apply(&mut place, network, asked)?;
    Ok(place)
}

fn mac(text: &str) -> Result<String, ApiError> {
    let bad = || ApiError::invalid(format!("invalid MAC address: {}", short(text)));
    let mac: MacAddress = text.replace('-', ":").parse().map_err(|_| bad())?;
    // The kernel takes neither of the two for an interface (`is_valid_ether_addr`).
    if mac.0[0] & 1 == 1 || mac.0 == [0; 6] { Err(bad()) } else { Ok(mac.to_string()) }
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// An id for a place: that of container and network, mixed, so that every place has one of its own.
fn endpoint_id(container: &ContainerId, network: &NetworkId) -> String {
    let mixed = hex_digits(container.as_str()).zip(hex_digits(network.as_str())).map(|(a, b)| a ^ b);
    mixed.map(|digit| char::from_digit(digit, 16).unwrap_or('0')).collect()
}

fn hex_digits(text: &str) -> impl Iterator<Item = u32> {
    text.bytes().map(|digit| char::from(digit).to_digit(16).unwrap_or(0))
}

/// `NetworkSettings.Networks`; another container's network is not one of its own.
pub(crate) fn of_container(snapshot: &Snapshot) -> Value {
    let spec = &snapshot.spec;
    let run = snapshot.phase.run();
    let mut networks = serde_json::Map::new();
    match &spec.network {
        NetworkMode::Container(_) => {}
        NetworkMode::Host | NetworkMode::None => {
            let name = mode(&spec.network);
            let place = EndpointSpec::on(NetworkId::predefined(&name), name.as_str());
            networks.insert(name, settings(snapshot, &place, None, run.is_some()));
        }
        NetworkMode::Bridge | NetworkMode::Network(_) => {
            for place in spec.places() {
                let found = run.and_then(|run| run.endpoints.iter().find(|run| run.network_name == place.network_name));
                let shown = settings(snapshot, &place, found, found.is_some());
                networks.insert(place.network_name, shown);
            }
        }
    }
    Value::Object(networks)
}

fn settings(snapshot: &Snapshot, place: &EndpointSpec, run: Option<&RunEndpoint>, is_there: bool) -> Value {
    let network = run.map_or(&place.network, |run| &run.network);
    let is_own = *network != NetworkId::predefined(&place.network_name);
    let names = || {
        let mut names = vec![snapshot.name.to_string()];
        names.extend(place.aliases.iter().cloned());
        names.push(snapshot.id.short().to_owned());
        names
    };
    let endpoint = run.map(|run| &run.endpoint);
    let open = endpoint.filter(|endpoint| !endpoint.internal);
    json!({
        "IPAMConfig": addresses(place),
        "Links": null,
        "Aliases": if place.aliases.is_empty() { Value::Null } else { json!(place.aliases) },
        "DriverOpts": if place.driver_options.is_empty() { Value::Null } else { json!(place.driver_options) },
        "GwPriority": place.gateway_priority,
        "DNSNames": if is_own { json!(names()) } else { Value::Null },
        "NetworkID": network.as_str(),
        "EndpointID": if is_there { endpoint_id(&snapshot.id, network) } else { String::new() },
        "Gateway": text(open.filter(|e| e.link != EndpointLink::RoutedParent).and_then(|e| e.ipv4_gateway)),
        "IPAddress": text(endpoint.and_then(|e| e.ipv4)),
        "IPPrefixLen": endpoint.map_or(0, |e| e.ipv4_prefix_length),
        "IPv6Gateway": text(open.filter(|e| e.link != EndpointLink::RoutedParent).and_then(|e| e.ipv6_gateway)),
        "GlobalIPv6Address": text(endpoint.and_then(|e| e.ipv6)),
        "GlobalIPv6PrefixLen": endpoint.map_or(0, |e| e.ipv6_prefix_length),
        "MacAddress": endpoint.map(|e| e.mac.to_string()).or(place.mac.clone()).unwrap_or_default(),
    })
}

fn addresses(place: &EndpointSpec) -> Value {
    let mut shown = serde_json::Map::new();
    shown.extend(place.ipv4.map(|address| ("IPv4Address".to_owned(), json!(address.to_string()))));
    shown.extend(place.ipv6.map(|address| ("IPv6Address".to_owned(), json!(address.to_string()))));
    if !place.link_local.is_empty() {
        shown.insert("LinkLocalIPs".to_owned(), json!(place.link_local));
    }
    if shown.is_empty() { Value::Null } else { Value::Object(shown) }
}

/// A running container's row in a network's inspect.
pub(crate) fn in_network(snapshot: &Snapshot, network: &NetworkId) -> Value {
    let place = snapshot.phase.run().and_then(|run| run.endpoints.iter().find(|place| place.network == *network));
    let endpoint = place.map(|place| &place.endpoint);
    let ipv4 = endpoint.and_then(|e| e.ipv4.map(|ip| format!("{ip}/{}", e.ipv4_prefix_length)));
    let ipv6 = endpoint.and_then(|e| e.ipv6.map(|ip| format!("{ip}/{}", e.ipv6_prefix_length)));
    json!({
        "Name": snapshot.name.as_str(),
        "EndpointID": endpoint_id(&snapshot.id, network),
        "MacAddress": text(endpoint.map(|e| &e.mac)),
        "IPv4Address": ipv4.unwrap_or_default(),
        "IPv6Address": ipv6.unwrap_or_default(),
    })
}

/// Whether the container is on this network: by name, id, or the beginning of one.
pub(crate) fn is_on(snapshot: &Snapshot, wanted: &str) -> bool {
    let mode = mode(&snapshot.spec.network);
    let named = |name: &str, id: &NetworkId| name == wanted || (!wanted.is_empty() && id.as_str().starts_with(wanted));
    match &snapshot.spec.network {
        NetworkMode::Bridge | NetworkMode::Network(_) => {
            snapshot.spec.places().iter().any(|place| named(&place.network_name, &place.network))
        }
        _ => named(&mode, &NetworkId::predefined(&mode)),
    }
}

pub(crate) fn text(value: Option<impl std::fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use dozen_model::{ErrorKind, NetworkSpec, SubnetSpec};

    use super::*;
    use crate::convert::{fields, request};

    fn network(name: &str) -> Result<Network, ApiError> {
        let own = match name {
            "bridge" | "host" | "none" => false,
            "front" | "back" | "auto" => true,
            _ => return Err(ApiError::new(ErrorKind::NotFound, format!("network {name} not found"))),
        };
        let subnet = |network: &str, prefix_length| SubnetSpec {
            network: network.parse().unwrap(),
            prefix_length,
            gateway: None,
            range: None,
            auxiliary: BTreeMap::new(),
        };
        let subnets = if name == "back" { vec![subnet("10.1.0.0", 16), subnet("fd01::", 64)] } else { Vec::new() };
        Ok(Network {
            id: if own { format!("{:0<64}", name.len()).parse().unwrap() } else { NetworkId::predefined(name) },
            name: name.to_owned(),
            created: own.then_some(jiff::Timestamp::UNIX_EPOCH),
            spec: NetworkSpec { ipv6: !subnets.is_empty(), subnets, ..NetworkSpec::default() },
            addresses: None,
        })
    }

    fn made(mode: &str, endpoints: Value) -> Result<Vec<EndpointSpec>, String> {
        let body = json!({
            "HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": endpoints},
        });
        let request: Create = request::read(body, fields::CREATE).map_err(|error| error.message)?;
        let network_mode = match mode {
            "" | "default" | "bridge" => NetworkMode::Bridge,
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            text => NetworkMode::Network(text.to_owned()),
        };
        places(&request, &network_mode, &network).map_err(|error| error.message)
    }

    #[test]
    fn the_main_network_comes_first_and_the_others_by_name() {
        let names = |mode, endpoints| -> Vec<String> {
            made(mode, endpoints).unwrap().into_iter().map(|place| place.network_name).collect()
        };
        assert_eq!(names("", json!({})), ["bridge"]);
        assert_eq!(names("default", json!({"default": null})), ["bridge"]);
        assert_eq!(names("front", json!({"back": {}, "auto": null, "front": {}})), ["front", "auto", "back"]);
        assert_eq!(names("front", json!({"back": {}, "bridge": {}})), ["front", "back", "bridge"]);
        assert!(names("host", json!({"host": {}})).is_empty());
    }

    #[test]
    fn the_containers_own_mac_address_is_that_on_its_main_network() {
        let made = |of_place: &str| {
            let body = json!({
                "MacAddress": "02:42:ac:11:00:09", "HostConfig": {"NetworkMode": "back"},
                "NetworkingConfig": {"EndpointsConfig": {"back": {"MacAddress": of_place}, "auto": {}}},
            });
            let request: Create = request::read(body, fields::CREATE).unwrap();
            let places = places(&request, &NetworkMode::Network("back".into()), &network);
            places.map(|places| places.into_iter().map(|place| place.mac).collect::<Vec<_>>())
        };
        assert_eq!(made("").unwrap(), [Some("02:42:ac:11:00:09".to_owned()), None]);
        assert_eq!(made("02:42:ac:11:00:09").unwrap()[1], None);
        assert!(made("02:42:ac:11:00:08").unwrap_err().message.contains("must match the endpoint-specific"));
    }

    #[test]
    fn what_is_asked_of_a_place_is_understood_or_refused_in_dockers_words() {
        let place = made(
            "back",
            json!({"back": {
                "IPAMConfig": {"IPv4Address": "10.1.0.9", "IPv6Address": "fd01::9"}, "Aliases": ["db", "db"],
                "MacAddress": "02-42-AC-11-00-09", "GwPriority": 7, "Gateway": "1.2.3.4",
            }}),
        )
        .unwrap()
        .remove(0);
        assert_eq!((place.ipv4, place.ipv6), (Some([10, 1, 0, 9].into()), "fd01::9".parse().ok()));
        assert_eq!((place.aliases, place.gateway_priority), (vec!["db".to_owned()], 7));
        assert_eq!(place.mac.as_deref(), Some("02:42:ac:11:00:09"));
        let address = |address: &str| json!({"IPAMConfig": {"IPv4Address": address}});
        let interface = |name: &str| json!({"DriverOpts": {"com.docker.network.endpoint.ifname": name}});
        for (mode, endpoints, words) in [
            ("bridge", json!({"bridge": address("172.17.0.9")}), "supported on user defined networks only"),
            ("host", json!({"host": address("172.17.0.9")}), "supported on user defined networks only"),
            ("auto", json!({"auto": address("172.18.0.9")}), "networks with user configured subnets"),
            ("back", json!({"back": address("10.2.0.9")}), "no configured subnet or ip-range contain the IP address"),
            ("back", json!({"back": address("fd01::9")}), "invalid IPv4 address: fd01::9"),
            ("bridge", json!({"bridge": {"Aliases": ["db"]}}), "only for containers in user defined networks"),
            ("back", json!({"back": {"Aliases": ["a b"]}}), "invalid network alias"),
            ("back", json!({"back": {"MacAddress": "01:00:00:00:00:01"}}), "invalid MAC address"),
            ("back", json!({"back": {"DriverOpts": {"a": "b"}}}), "the endpoint option \"a\" is not built yet"),
            ("host", json!({"host": {"DriverOpts": {"a": "b"}}}), "driver-opt, link-local-ip and the network mode"),
            (
                "back",
                json!({"back": interface("lan0"), "auto": interface("lan0")}),
                "two interfaces of the container are to be called lan0",
            ),
            ("back", json!({"nowhere": {}}), "network nowhere not found"),
            ("nowhere", json!({}), "network nowhere not found"),
            ("back", json!({"host": {}}), "container cannot be connected to the network host"),
            ("none", json!({"back": {}}), "names \"back\", and HostConfig.NetworkMode \"none\""),
        ] {
            let message = made(mode, endpoints).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
