//! Published ports and who can reach them, and other people's firewalls: routes of ours alone.

use axum::extract::State;
use dozen_engine::{DroppingChain, Engine, FirewallReport, Neighbourhood, PortReach, Reach};
use serde_json::{Value, json};

use crate::error::{Answer, ok};

/// `GET /system/ports`.
pub(super) async fn ports(State(engine): State<Engine>) -> Answer {
    let report = engine.port_reach().await?;
    let names: std::collections::BTreeMap<_, _> =
        engine.containers().iter().map(|snapshot| (snapshot.id.clone(), snapshot.name.to_string())).collect();
    let ports: Vec<Value> = report
        .ports
        .iter()
        .map(|port| shown(port, names.get(&port.container).map(String::as_str).unwrap_or_default()))
        .collect();
    ok(&json!({ "Ports": ports, "Unjudged": report.unjudged }))
}

/// `GET /system/firewall`.
pub(super) async fn firewall(State(engine): State<Engine>) -> Answer {
    ok(&report(&engine.firewall().await?))
}

/// `POST /system/firewall/allow`.
pub(super) async fn allow(State(engine): State<Engine>) -> Answer {
    ok(&report(&engine.open_firewall(true).await?))
}

/// `POST /system/firewall/forget`.
pub(super) async fn forget(State(engine): State<Engine>) -> Answer {
    ok(&report(&engine.open_firewall(false).await?))
}

fn shown(port: &PortReach, name: &str) -> Value {
    let (who, networks, why) = match &port.reach {
        Reach::Nobody(trouble) => ("nobody", None, Some(trouble)),
        Reach::Machine(trouble) => ("machine", None, trouble.as_ref()),
        Reach::Networks(networks) => ("networks", Some(networks), None),
        Reach::Everybody(networks) => ("everybody", Some(networks), None),
    };
    let networks: Vec<Value> = networks.into_iter().flatten().map(network).collect();
    json!({
        "Container": port.container.as_str(),
        "Name": name,
        "HostIP": port.port.host_address.to_string(),
        "HostPort": port.port.host_port,
        "ContainerPort": port.port.container_port,
        "Protocol": port.port.protocol.to_string(),
        "Reach": who,
        "Networks": networks,
        "Why": why.map(ToString::to_string).unwrap_or_default(),
    })
}

fn network(network: &Neighbourhood) -> Value {
    let Neighbourhood { interface, subnet: (first, prefix_length), of_containers } = network;
    json!({ "Interface": interface, "Subnet": format!("{first}/{prefix_length}"), "Containers": of_containers })
}

fn report(report: &FirewallReport) -> Value {
    let chain = |(bridge, chain): &(String, DroppingChain)| {
        json!({
            "Bridge": bridge,
            "Family": chain.family,
            "Table": chain.table,
            "Chain": chain.chain,
            "ByPolicy": chain.by_policy,
            "PublishedPass": chain.published_pass,
            "Commands": chain.commands,
            "Message": chain.to_string(),
        })
    };
    let dropping: Vec<Value> = report.dropping.iter().map(chain).collect();
    json!({ "Allowed": report.is_asked, "Dropping": dropping, "Unjudged": report.unjudged })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dozen_engine::{PublishedPort, Trouble};
    use dozen_model::{ContainerId, Protocol};

    use super::*;

    #[test]
    fn a_port_is_shown_with_who_reaches_it() {
        let port = PublishedPort {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: [0, 0, 0, 0].into(),
            host_port: 8080,
        };
        let near = Neighbourhood { interface: "eth0".into(), subnet: ([10, 0, 0, 0].into(), 8), of_containers: false };
        let container: ContainerId = "ab".repeat(32).parse().unwrap();
        let show = |reach| shown(&PortReach { container: container.clone(), port, reach }, "web");
        let networks = show(Reach::Networks(BTreeSet::from([near])));
        assert_eq!(networks["Reach"], "networks");
        assert_eq!(networks["Networks"], json!([{"Interface": "eth0", "Subnet": "10.0.0.0/8", "Containers": false}]));
        assert_eq!((&networks["HostIP"], &networks["HostPort"]), (&json!("0.0.0.0"), &json!(8080)));
        let dropped = Trouble::Dropped { chain: "the chain".into(), commands: vec!["open it".into()] };
        assert_eq!(show(Reach::Machine(Some(dropped)))["Why"], "the chain; to let it through: open it");
        assert_eq!(show(Reach::Nobody(Trouble::NoWay))["Networks"], json!([]));
    }
}
