//! Several networks of one engine: who reaches whom, and what comes and goes with them.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use dozen_model::ContainerId;
use dozen_network::{
    BridgeAddresses, BridgeConfig, BridgeNetwork, Endpoint, EndpointWish, Ipv4Subnet, NetworkError, Plug, plug,
    set_gateways, unplug,
};

use super::support::*;
use super::{links, port, tcp, until_links_are};

/// 10.N.0.0/24 and fd00:N::/64.
fn addresses(number: u8) -> BridgeAddresses {
    BridgeAddresses {
        name: format!("dz-{number}"),
        ipv4_gateway: Some(Ipv4Addr::new(10, number, 0, 1)),
        ipv4_prefix_length: 24,
        ipv6_gateway: Some(format!("fd00:{number}::1").parse().unwrap()),
        ipv6_prefix_length: 64,
    }
}

fn plain(number: u8) -> BridgeConfig {
    BridgeConfig::plain(addresses(number))
}

fn attach_to(network: &BridgeNetwork) -> Container {
    let mut endpoint = network.take(&ContainerId::random(), &EndpointWish::default()).unwrap();
    let namespace = link(&mut [(network, &mut endpoint)]).unwrap();
    Container { endpoint, namespace }
}

fn addresses_of(endpoint: &Endpoint) -> [String; 2] {
    [endpoint.ipv4.unwrap().to_string(), endpoint.ipv6.unwrap().to_string()]
}

#[test]
fn networks_are_kept_apart_and_reach_out() {
    apart("0");
}

#[test]
fn networks_are_kept_apart_and_reach_out_with_br_netfilter() {
    apart("1");
}

fn apart(br_netfilter: &str) {
    on_a_host(|neighbour| {
        set("bridge/bridge-nf-call-iptables", br_netfilter);
        set("bridge/bridge-nf-call-ip6tables", br_netfilter);
        let engine = open();
        let networks = [engine.host.bridge(plain(1)).unwrap(), engine.host.bridge(plain(2)).unwrap()];
        let default = attach(&engine);
        let containers = [attach_to(&networks[0]), attach_to(&networks[1])];
        let friend = attach_to(&networks[0]);
        let listeners = containers.each_ref().map(|container| listen(&container.namespace, 80));
        let on_default = listen(&default.namespace, 80);
        let outside = listen(neighbour, 80);
        for (from, to) in [(0, 1), (1, 0)] {
            for address in addresses_of(&containers[to].endpoint) {
                unreachable(&containers[from].namespace, &address, 80);
                unreachable(&default.namespace, &address, 80);
            }
            for address in addresses_of(&default.endpoint) {
                unreachable(&containers[from].namespace, &address, 80);
            }
            reach(&containers[from].namespace, NEIGHBOUR, 80, &outside).unwrap();
            reach(&containers[from].namespace, NEIGHBOUR_6, 80, &outside).unwrap();
        }
        for address in addresses_of(&containers[0].endpoint) {
            let seen = reach(&friend.namespace, &address, 80, &listeners[0]).unwrap();
            assert!(
                [friend.endpoint.ipv4.unwrap().into(), friend.endpoint.ipv6.unwrap().into()].contains(&seen),
                "{seen}"
            );
        }
        // As somebody of the other network, who is on the way to it all the same.
        within(&containers[0].namespace, || {
            run(&format!("ip addr add {}/32 dev eth0", Ipv4Addr::new(10, 2, 0, 77)));
        });
        unreachable(&containers[0].namespace, &containers[1].endpoint.ipv4.unwrap().to_string(), 80);
        // By the host's address, another network's published port is open to all.
        engine.publish(&containers[1].endpoint, &tcp(8080)).unwrap();
        for (from, to) in [
            (containers[0].namespace.as_fd(), HOST),
            (containers[0].namespace.as_fd(), HOST_6),
            (default.namespace.as_fd(), HOST),
            (containers[1].namespace.as_fd(), HOST),
            (neighbour, HOST),
        ] {
            reach(from, to, 8080, &listeners[1]).unwrap();
        }
        // It is our rules that keep them apart.
        run("nft flush chain inet dozen forward");
        reach(&containers[1].namespace, &default.endpoint.ipv4.unwrap().to_string(), 80, &on_default).unwrap();
    });
}

#[test]
fn an_internal_network_reaches_itself_alone() {
    on_a_host(|neighbour| {
        let engine = open();
        let network = engine.host.bridge(BridgeConfig { internal: true, ..plain(1) }).unwrap();
        let (one, other, default) = (attach_to(&network), attach_to(&network), attach(&engine));
        let (listener, outside, beside) =
            (listen(&one.namespace, 80), listen(neighbour, 80), listen(&default.namespace, 80));
        engine.publish(&default.endpoint, &tcp(8080)).unwrap();
        assert_eq!(within(&one.namespace, || run("ip route show default")), "");
        // As one with CAP_NET_ADMIN may.
        within(&one.namespace, || {
            run("ip route add default via 10.1.0.1");
            run("ip route add default via fd00:1::1");
        });
        for to in [NEIGHBOUR, NEIGHBOUR_6] {
            unreachable(&one.namespace, to, 80);
        }
        unreachable(&one.namespace, HOST, 8080);
        for address in addresses_of(&default.endpoint) {
            unreachable(&one.namespace, &address, 80);
        }
        for address in addresses_of(&one.endpoint) {
            reach(&other.namespace, &address, 80, &listener).unwrap();
            reach(here(), &address, 80, &listener).unwrap();
        }
        reach(neighbour, HOST, 8080, &beside).unwrap();
        reach(&default.namespace, NEIGHBOUR, 80, &outside).unwrap();
    });
}

#[test]
fn containers_that_are_to_be_apart_reach_only_the_world() {
    on_a_host(|neighbour| {
        // It carries the translation out inside the bridge, from one lonely port to another.
        set("bridge/bridge-nf-call-iptables", "0");
        let engine = open();
        let network = engine.host.bridge(BridgeConfig { between_containers: false, ..plain(1) }).unwrap();
        let (one, other) = (attach_to(&network), attach_to(&network));
        let (listener, outside) = (listen(&one.namespace, 80), listen(neighbour, 80));
        for address in addresses_of(&one.endpoint) {
            unreachable(&other.namespace, &address, 80);
        }
        // By the host as a router, which one with CAP_NET_ADMIN may ask.
        within(&other.namespace, || run(&format!("ip route add {}/32 via 10.1.0.1", one.endpoint.ipv4.unwrap())));
        unreachable(&other.namespace, &one.endpoint.ipv4.unwrap().to_string(), 80);
        reach(&other.namespace, NEIGHBOUR, 80, &outside).unwrap();
        engine.publish(&one.endpoint, &tcp(8080)).unwrap();
        reach(&other.namespace, HOST, 8080, &listener).unwrap();
    });
}

#[test]
fn without_masquerading_a_container_speaks_as_itself() {
    on_a_host(|neighbour| {
        let engine = open();
        let network = engine.host.bridge(BridgeConfig { masquerade: false, mtu: Some(1400), ..plain(1) }).unwrap();
        let container = attach_to(&network);
        within(neighbour, || run(&format!("ip route add 10.1.0.0/24 via {HOST}")));
        let listener = listen(neighbour, 80);
        let seen = reach(&container.namespace, NEIGHBOUR, 80, &listener).unwrap();
        assert_eq!(seen, IpAddr::V4(container.endpoint.ipv4.unwrap()));
        assert!(within(&container.namespace, || run("ip link show eth0")).contains("mtu 1400"));
        assert!(run("ip link show dz-1").contains("mtu 1400"));
    });
}

#[test]
fn a_container_has_several_networks_and_gets_and_loses_them() {
    on_a_host(|neighbour| {
        let engine = open();
        let one = engine.host.bridge(plain(1)).unwrap();
        let two = engine.host.bridge(plain(2)).unwrap();
        let (friend_of_one, friend_of_two) = (attach_to(&one), attach_to(&two));
        let outside = listen(neighbour, 80);
        let (on_one, on_two) = (listen(&friend_of_one.namespace, 80), listen(&friend_of_two.namespace, 80));
        let id = ContainerId::random();
        let wish = |inside: &str| EndpointWish { inside: inside.to_owned(), ..EndpointWish::default() };
        let (mut first, mut second) = (one.take(&id, &wish("eth0")).unwrap(), two.take(&id, &wish("eth1")).unwrap());
        let namespace = link(&mut [(&one, &mut first), (&two, &mut second)]).unwrap();
        let [first_4, first_6] = addresses_of(&friend_of_one.endpoint);
        let [second_4, second_6] = addresses_of(&friend_of_two.endpoint);
        for address in [&first_4, &first_6] {
            reach(&namespace, address, 80, &on_one).unwrap();
        }
        for address in [&second_4, &second_6] {
            reach(&namespace, address, 80, &on_two).unwrap();
        }
        reach(&namespace, NEIGHBOUR, 80, &outside).unwrap();
        let default_by = |interface: &str| {
            let routes = within(&namespace, || run("ip route show default") + &run("ip -6 route show default"));
            assert_eq!(routes.matches(&format!("dev {interface}")).count(), 2, "{routes}");
        };
        default_by("eth0");
        // One more, which is now the way out.
        let mut third = engine.bridge.take(&id, &wish("eth2")).unwrap();
        let by_third = gateways(&third);
        plug(namespace.as_fd(), Plug { network: &engine.bridge, endpoint: &mut third }, &by_third).unwrap();
        default_by("eth2");
        reach(&namespace, NEIGHBOUR, 80, &outside).unwrap();
        // And goes again.
        set_gateways(namespace.as_fd(), &gateways(&second)).unwrap();
        unplug(namespace.as_fd(), "eth2").unwrap();
        unplug(namespace.as_fd(), "eth2").unwrap();
        engine.bridge.release(&third);
        default_by("eth1");
        reach(&namespace, NEIGHBOUR, 80, &outside).unwrap();
        reach(&namespace, NEIGHBOUR_6, 80, &outside).unwrap();
        unplug(namespace.as_fd(), "eth0").unwrap();
        unreachable(&namespace, &first_4, 80);
        reach(&namespace, &second_4, 80, &on_two).unwrap();
    });
}

#[test]
fn fixed_addresses_are_had_once_and_of_the_subnet() {
    on_a_host(|_| {
        let engine = open();
        let range = Some(Ipv4Subnet::containing(Ipv4Addr::new(10, 1, 0, 128), 25));
        let network = engine.host.bridge(BridgeConfig { ipv4_range: range, ..plain(1) }).unwrap();
        let id = ContainerId::random();
        let wish = EndpointWish {
            ipv4: Some(Ipv4Addr::new(10, 1, 0, 9)),
            ipv6: Some("fd00:1::9".parse().unwrap()),
            mac: Some("02:00:00:00:00:09".parse().unwrap()),
            ..EndpointWish::default()
        };
        let mut endpoint = network.take(&id, &wish).unwrap();
        let namespace = link(&mut [(&network, &mut endpoint)]).unwrap();
        let shown = within(&namespace, || run("ip addr show eth0"));
        for part in ["02:00:00:00:00:09", "10.1.0.9/24", "fd00:1::9/64"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(matches!(network.take(&id, &wish), Err(NetworkError::AddressInUse { .. })));
        let foreign = EndpointWish { ipv4: Some(Ipv4Addr::new(10, 2, 0, 9)), ..EndpointWish::default() };
        assert!(matches!(network.take(&id, &foreign), Err(NetworkError::OutsideSubnets { .. })));
        let half = EndpointWish { ipv4: Some(Ipv4Addr::new(10, 1, 0, 10)), ..wish.clone() };
        assert!(matches!(network.take(&id, &half), Err(NetworkError::AddressInUse { .. })));
        assert_eq!(network.take(&id, &EndpointWish::default()).unwrap().ipv4, Some(Ipv4Addr::new(10, 1, 0, 128)));
    });
}

#[test]
fn a_restart_finds_the_networks_and_clears_what_nobody_knows() {
    on_a_host(|neighbour| {
        let before = links();
        let engine = open();
        let (kept, gone) = (engine.host.bridge(plain(1)).unwrap(), engine.host.bridge(plain(2)).unwrap());
        let (container, stranger) = (attach_to(&kept), attach_to(&gone));
        let (listener, outside) = (listen(&container.namespace, 80), listen(neighbour, 80));
        let ports = [port("0.0.0.0", 8080, 80, dozen_model::Protocol::Tcp)];
        engine.publish(&container.endpoint, &ports).unwrap();
        drop((engine, kept, gone));

        let engine = open();
        let both = ["dz-1", "dz-2"].map(str::to_owned).into();
        assert_eq!(engine.host.inherited_bridges(), both);
        // Not opened yet, and nothing is missing.
        reach(neighbour, HOST, 8080, &listener).unwrap();
        reach(&container.namespace, NEIGHBOUR, 80, &outside).unwrap();
        let kept = engine.host.bridge(plain(1)).unwrap();
        kept.restore(&container.endpoint).unwrap();
        assert!(kept.restore(&container.endpoint).is_err(), "it is restored once");
        engine.publish(&container.endpoint, &ports).unwrap();
        engine.retain(std::slice::from_ref(&container.endpoint)).unwrap();
        assert!(engine.host.inherited_bridges().is_empty());
        let ruleset = run("nft list ruleset");
        assert!(ruleset.contains("dz-1") && !ruleset.contains("\"dz-2\""), "{ruleset}");
        assert!(!run("ip -o link show").contains("dz-2"));
        reach(neighbour, HOST, 8080, &listener).unwrap();
        reach(&container.namespace, NEIGHBOUR, 80, &outside).unwrap();

        engine.host.remove_bridge("dz-1").unwrap();
        engine.host.remove_bridge("dz-1").unwrap();
        assert!(!run("nft list ruleset").contains("\"dz-1\""));
        drop((container, stranger, listener));
        engine.teardown().unwrap();
        assert_eq!(run("nft list ruleset"), "");
        until_links_are(before);
    });
}
