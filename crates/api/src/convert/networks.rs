//! Networks in Docker's shapes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dozen_engine::{DirectPort, Network, PublishedPort, Run, Snapshot, direct_ports};
use dozen_model::{GatewayMode, NetworkMode, Parent, Protocol, SubnetSpec};
use serde_json::{Map, Value, json};

use super::endpoints::{in_network, is_on, of_container, text};
use crate::time::NEVER;

/// A network's inspect. The list shows no containers.
pub(crate) fn inspect(network: &Network, containers: Option<&[Arc<Snapshot>]>) -> Value {
    let inside: BTreeMap<String, Value> = containers
        .unwrap_or(&[])
        .iter()
        .filter(|snapshot| snapshot.phase.run().is_some_and(|run| is_in(network, snapshot, run)))
        .map(|snapshot| (snapshot.id.to_string(), in_network(snapshot, &network.id)))
        .collect();
    let is_no_network = matches!(network.driver(), "host" | "null");
    json!({
        "Name": network.name,
        "Id": network.id.as_str(),
        "Created": network.created.map_or(NEVER.to_owned(), |created| created.to_string()),
        "Scope": "local",
        "Driver": network.driver(),
        "EnableIPv4": network.spec.ipv4 && !is_no_network,
        "EnableIPv6": network.spec.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": if network.is_predefined() { Value::Null } else { json!({}) },
            "Config": if is_no_network { Value::Null } else { json!(subnets(network)) },
        },
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": inside,
        "Options": options(network),
        "Labels": network.spec.labels,
    })
}

fn is_in(network: &Network, snapshot: &Snapshot, run: &Run) -> bool {
    match network.driver() {
        "host" | "null" => is_on(snapshot, &network.name),
        _ => run.endpoints.iter().any(|place| place.network == network.id),
    }
}

fn subnets(network: &Network) -> Vec<Value> {
    let Some(addresses) = &network.addresses else { return Vec::new() };
    let asked = |ipv4: bool| network.spec.subnets.iter().find(|subnet| subnet.network.is_ipv4() == ipv4);
    let own = |mode, gateway: IpAddr| Some(gateway).filter(|_| mode != GatewayMode::Isolated);
    let mut subnets = Vec::new();
    if let (Some(subnet), Some(gateway)) = (addresses.ipv4_subnet(), addresses.ipv4_gateway) {
        subnets.push(shown(
            subnet.to_string(),
            own(network.spec.bridge.gateway_mode_ipv4, gateway.into()),
            asked(true),
        ));
    }
    if let (Some(subnet), Some(gateway)) = (addresses.ipv6_subnet(), addresses.ipv6_gateway) {
        subnets.push(shown(
            subnet.to_string(),
            own(network.spec.bridge.gateway_mode_ipv6, gateway.into()),
            asked(false),
        ));
    }
    subnets
}

fn shown(subnet: String, gateway: Option<IpAddr>, asked: Option<&SubnetSpec>) -> Value {
    let mut value = json!({ "Subnet": subnet });
    if let Some(gateway) = gateway {
        value["Gateway"] = json!(gateway);
    }
    if let Some((range, prefix_length)) = asked.and_then(|asked| asked.range) {
        value["IPRange"] = json!(format!("{range}/{prefix_length}"));
    }
    if let Some(auxiliary) = asked.map(|asked| &asked.auxiliary).filter(|auxiliary| !auxiliary.is_empty()) {
        value["AuxiliaryAddresses"] = json!(auxiliary);
    }
    value
}

fn options(network: &Network) -> Map<String, Value> {
    let mut options: Map<String, Value> =
        network.spec.options.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    if let Some(addresses) = network.addresses.as_ref().filter(|_| network.is_predefined()) {
        options.insert("com.docker.network.bridge.default_bridge".into(), json!("true"));
        options.insert("com.docker.network.bridge.name".into(), json!(addresses.name));
        for (name, value) in [
            ("bridge.enable_icc", "true"),
            ("bridge.enable_ip_masquerade", "true"),
            ("bridge.host_binding_ipv4", "0.0.0.0"),
            ("driver.mtu", "1500"),
        ] {
            // What the settings say is there already.
            options.entry(format!("com.docker.network.{name}")).or_insert_with(|| json!(value));
        }
    }
    // As Docker shows the interface that none was named for.
    if let (Some(Parent::Nowhere), Some(addresses)) = (network.spec.driver.parent(), &network.addresses) {
        options.insert("parent".into(), json!(addresses.name));
    }
    options
}

/// Docker's word for a network mode.
pub(crate) fn mode(network: &NetworkMode) -> String {
    match network {
        NetworkMode::Bridge => "bridge".into(),
        NetworkMode::None => "none".into(),
        NetworkMode::Host => "host".into(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Network(name) => name.clone(),
    }
}

/// The whole of an inspect's `NetworkSettings`. Docker's older fields are about the default bridge alone.
pub(crate) fn settings(snapshot: &Snapshot) -> Value {
    let run = snapshot.phase.run();
    let networks = of_container(snapshot);
    let default = networks.get("bridge");
    let field = |name: &str, empty: Value| default.and_then(|default| default.get(name)).cloned().unwrap_or(empty);
    let words = |name: &str| field(name, json!(""));
    json!({
        "Bridge": "",
        "SandboxID": if run.is_some() { snapshot.id.as_str() } else { "" },
        "SandboxKey": run.map(|run| format!("/proc/{}/ns/net", run.pid)).unwrap_or_default(),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": words("EndpointID"),
        "Gateway": words("Gateway"),
        "IPAddress": words("IPAddress"),
        "IPPrefixLen": field("IPPrefixLen", json!(0)),
        "IPv6Gateway": words("IPv6Gateway"),
        "GlobalIPv6Address": words("GlobalIPv6Address"),
        "GlobalIPv6PrefixLen": field("GlobalIPv6PrefixLen", json!(0)),
        "MacAddress": text(run.and_then(|run| run.endpoints.iter().find(|e| e.network_name == "bridge")).map(|e| &e.endpoint.mac)),
        "Ports": run.map_or_else(|| json!({}), |run| ports(snapshot, run)),
        "Networks": networks,
    })
}

/// `{"80/tcp": [{"HostIp": …, "HostPort": …}], "90/tcp": null}`: exposed ports that are not published are null.
fn ports(snapshot: &Snapshot, run: &Run) -> Value {
    let mut ports = Map::new();
    if !matches!(snapshot.spec.network, NetworkMode::Bridge | NetworkMode::Network(_)) {
        return Value::Object(ports);
    }
    for (port, protocol) in &snapshot.spec.exposed_ports {
        ports.insert(format!("{port}/{protocol}"), Value::Null);
    }
    let mut add = |port: u16, protocol: Protocol, host: Value| match ports
        .entry(format!("{port}/{protocol}"))
        .or_insert(Value::Null)
    {
        Value::Array(hosts) => hosts.push(host),
        entry => *entry = json!([host]),
    };
    for PublishedPort { container_port, protocol, host_address, host_port } in &run.ports {
        let host = json!({ "HostIp": host_address.to_string(), "HostPort": host_port.to_string() });
        add(*container_port, *protocol, host);
    }
    // One that is reached at the container's own address has no port of the host's.
    for DirectPort { address, port, protocol } in direct_ports(&snapshot.spec, &run.endpoints) {
        let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
        add(port, protocol, json!({ "HostIp": any, "HostPort": "" }));
    }
    Value::Object(ports)
}
