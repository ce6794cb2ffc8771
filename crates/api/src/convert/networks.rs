//! The three networks that are there, and a container's place in them, in Docker's shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_engine::{BridgeAddresses, Endpoint, Run, Snapshot};
use dozen_model::NetworkMode;
use serde_json::{Map, Value, json};

use crate::time::NEVER;

/// The networks that every engine has.
pub(crate) const NAMES: [&str; 3] = ["bridge", "host", "none"];

/// A stable id for a network that is not a row anywhere: its name in hexadecimal, filled up to 64 digits.
pub(crate) fn id(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:0<64}")
}

/// Finds one by name, id or the beginning of an id.
pub(crate) fn find(text: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|name| *name == text || (!text.is_empty() && id(name).starts_with(text)))
}

/// A network's inspect. The list shows no containers.
pub(crate) fn inspect(name: &str, bridge: Option<&BridgeAddresses>, containers: Option<&[Arc<Snapshot>]>) -> Value {
    let bridge = bridge.filter(|_| name == "bridge");
    let mut subnets = Vec::new();
    let mut options = Map::new();
    if let Some(bridge) = bridge {
        let subnet = bridge.ipv4_subnet();
        subnets.push(json!({
            "Subnet": format!("{}/{}", subnet.network(), subnet.prefix_length()),
            "Gateway": bridge.ipv4_gateway.to_string(),
        }));
        if let (Some(subnet), Some(gateway)) = (bridge.ipv6_subnet(), bridge.ipv6_gateway) {
            subnets.push(json!({
                "Subnet": format!("{subnet}/{}", bridge.ipv6_prefix_length),
                "Gateway": gateway.to_string(),
            }));
        }
        options.insert("com.docker.network.bridge.default_bridge".into(), json!("true"));
        options.insert("com.docker.network.bridge.name".into(), json!(bridge.name));
    }
    let inside: BTreeMap<String, Value> = containers
        .unwrap_or(&[])
        .iter()
        .filter(|snapshot| mode(&snapshot.spec.network) == name)
        .filter_map(|snapshot| snapshot.phase.run().map(|run| (snapshot, run)))
        .map(|(snapshot, run)| {
            let endpoint = run.endpoint.as_ref();
            let ipv6 = endpoint.and_then(|e| e.ipv6.map(|ip| format!("{ip}/{}", e.ipv6_prefix_length)));
            let value = json!({
                "Name": snapshot.name.as_str(),
                "EndpointID": snapshot.id.as_str(),
                "MacAddress": endpoint.map(|e| e.mac.to_string()).unwrap_or_default(),
                "IPv4Address": endpoint.map(|e| format!("{}/{}", e.ipv4, e.ipv4_prefix_length)).unwrap_or_default(),
                "IPv6Address": ipv6.unwrap_or_default(),
            });
            (snapshot.id.to_string(), value)
        })
        .collect();
    json!({
        "Name": name,
        "Id": id(name),
        "Created": NEVER,
        "Scope": "local",
        "Driver": if name == "none" { "null" } else { name },
        "EnableIPv4": name == "bridge",
        "EnableIPv6": bridge.is_some_and(|bridge| bridge.ipv6_gateway.is_some()),
        "IPAM": { "Driver": "default", "Options": null, "Config": subnets },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": inside,
        "Options": options,
        "Labels": {},
    })
}

/// Docker's word for a network mode.
pub(crate) fn mode(network: &NetworkMode) -> String {
    match network {
        NetworkMode::Bridge => "bridge".into(),
        NetworkMode::None => "none".into(),
        NetworkMode::Host => "host".into(),
        NetworkMode::Container(id) => format!("container:{id}"),
    }
}

/// `NetworkSettings.Networks`; another container's network is not one of its own.
pub(crate) fn of_container(snapshot: &Snapshot) -> Value {
    let name = match &snapshot.spec.network {
        NetworkMode::Container(_) => return json!({}),
        network => mode(network),
    };
    let endpoint = snapshot.phase.run().and_then(|run| run.endpoint.as_ref());
    let running = snapshot.phase.run().is_some();
    let settings = json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "DriverOpts": null,
        "GwPriority": 0,
        "DNSNames": null,
        "NetworkID": id(&name),
        "EndpointID": if running { snapshot.id.as_str() } else { "" },
        "Gateway": text(endpoint.map(|e| e.ipv4_gateway)),
        "IPAddress": text(endpoint.map(|e| e.ipv4)),
        "IPPrefixLen": endpoint.map_or(0, |e| e.ipv4_prefix_length),
        "IPv6Gateway": text(endpoint.and_then(|e| e.ipv6_gateway)),
        "GlobalIPv6Address": text(endpoint.and_then(|e| e.ipv6)),
        "GlobalIPv6PrefixLen": endpoint.map_or(0, |e| e.ipv6_prefix_length),
        "MacAddress": text(endpoint.map(|e| &e.mac)),
    });
    json!({ name: settings })
}

/// The whole of an inspect's `NetworkSettings`.
pub(crate) fn settings(snapshot: &Snapshot) -> Value {
    let run = snapshot.phase.run();
    let endpoint: Option<&Endpoint> = run.and_then(|run| run.endpoint.as_ref());
    json!({
        "Bridge": "",
        "SandboxID": if run.is_some() { snapshot.id.as_str() } else { "" },
        "SandboxKey": run.map(|run| format!("/proc/{}/ns/net", run.pid)).unwrap_or_default(),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": if endpoint.is_some() { snapshot.id.as_str() } else { "" },
        "Gateway": text(endpoint.map(|e| e.ipv4_gateway)),
        "IPAddress": text(endpoint.map(|e| e.ipv4)),
        "IPPrefixLen": endpoint.map_or(0, |e| e.ipv4_prefix_length),
        "IPv6Gateway": text(endpoint.and_then(|e| e.ipv6_gateway)),
        "GlobalIPv6Address": text(endpoint.and_then(|e| e.ipv6)),
        "GlobalIPv6PrefixLen": endpoint.map_or(0, |e| e.ipv6_prefix_length),
        "MacAddress": text(endpoint.map(|e| &e.mac)),
        "Ports": run.map_or_else(|| json!({}), |run| ports(snapshot, run)),
        "Networks": of_container(snapshot),
    })
}

/// `{"80/tcp": [{"HostIp": …, "HostPort": …}], "90/tcp": null}`: exposed ports that are not published are null.
fn ports(snapshot: &Snapshot, run: &Run) -> Value {
    let mut ports = Map::new();
    if snapshot.spec.network != NetworkMode::Bridge {
        return Value::Object(ports);
    }
    for (port, protocol) in &snapshot.spec.exposed_ports {
        ports.insert(format!("{port}/{protocol}"), Value::Null);
    }
    for published in &run.ports {
        let entry = ports.entry(format!("{}/{}", published.container_port, published.protocol)).or_insert(Value::Null);
        let host = json!({
            "HostIp": published.host_address.to_string(), "HostPort": published.host_port.to_string(),
        });
        match entry {
            Value::Array(hosts) => hosts.push(host),
            _ => *entry = json!([host]),
        }
    }
    Value::Object(ports)
}

fn text(value: Option<impl std::fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_by_name_id_and_its_beginning() {
        for name in NAMES {
            assert_eq!(id(name).len(), 64);
            assert_eq!(find(name), Some(name));
            assert_eq!(find(&id(name)), Some(name));
            assert_eq!(find(&id(name)[..12]), Some(name));
        }
        assert_eq!((find(""), find("backend")), (None, None));
        let value = inspect("none", None, None);
        assert_eq!((value["Driver"].as_str(), value["Name"].as_str()), (Some("null"), Some("none")));
    }
}
