//! The network on the real kernel: who reaches whom, and what is left behind.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says by its panic what failed")]

mod foreign;
mod networks;
mod restart;
mod support;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use dozen_model::Protocol;
use dozen_network::{BridgeAddresses, NetworkConfig, PublishedPort, firewall_check, new_loopback_namespace};
use support::*;

fn port(address: &str, host_port: u16, container_port: u16, protocol: Protocol) -> PublishedPort {
    PublishedPort { container_port, protocol, host_address: address.parse().unwrap(), host_port }
}

fn tcp(host_port: u16) -> [PublishedPort; 2] {
    ["0.0.0.0", "::"].map(|address| port(address, host_port, 80, Protocol::Tcp))
}

fn links() -> usize {
    run("ip -o link show").lines().count()
}

/// Waits for the kernel to take away what is going.
fn until_links_are(count: usize) {
    let begin = Instant::now();
    while links() != count {
        assert!(begin.elapsed() < SOON, "left: {}", run("ip -o link show"));
    }
}

#[test]
fn containers_reach_out_behind_the_hosts_address() {
    on_a_host(|neighbour| {
        let network = open();
        let container = attach(&network);
        let listener = listen(neighbour, 80);
        let four = reach(&container.namespace, NEIGHBOUR, 80, &listener).unwrap();
        assert_eq!(four, HOST.parse::<IpAddr>().unwrap());
        let six = reach(&container.namespace, NEIGHBOUR_6, 80, &listener).unwrap();
        assert_eq!(six, HOST_6.parse::<IpAddr>().unwrap());
    });
}

#[test]
fn a_published_port_answers_from_everywhere() {
    published_from_everywhere("1");
}

#[test]
fn a_published_port_answers_from_everywhere_without_br_netfilter() {
    published_from_everywhere("0");
}

fn published_from_everywhere(br_netfilter: &str) {
    on_a_host(|neighbour| {
        set("bridge/bridge-nf-call-iptables", br_netfilter);
        set("bridge/bridge-nf-call-ip6tables", br_netfilter);
        let network = open();
        let (container, other) = (attach(&network), attach(&network));
        let listener = listen(&container.namespace, 80);
        network.publish(&container.endpoint, &tcp(8080)).unwrap();
        let gateway = network.addresses().ipv4_gateway.unwrap().to_string();
        let gateway_6 = network.addresses().ipv6_gateway.unwrap().to_string();
        let host = here();
        for (name, from, to, seen) in [
            ("the neighbour", neighbour, HOST, Some(NEIGHBOUR)),
            ("the neighbour", neighbour, HOST_6, Some(NEIGHBOUR_6)),
            ("the host's loopback", host.as_fd(), "127.0.0.1", Some(gateway.as_str())),
            ("the host", host.as_fd(), HOST, Some(HOST)),
            ("the host", host.as_fd(), HOST_6, Some(HOST_6)),
            ("another container by the gateway", other.namespace.as_fd(), &gateway, None),
            ("another container by the gateway", other.namespace.as_fd(), &gateway_6, None),
            ("another container by the host", other.namespace.as_fd(), HOST, None),
            ("itself by the gateway", container.namespace.as_fd(), &gateway, None),
            ("itself by the gateway", container.namespace.as_fd(), &gateway_6, None),
            (
                "another container directly",
                other.namespace.as_fd(),
                &container.endpoint.ipv4.unwrap().to_string(),
                None,
            ),
        ] {
            let port = if name.ends_with("directly") { 80 } else { 8080 };
            let peer = reach(from, to, port, &listener).unwrap_or_else(|error| panic!("{name} to {to}: {error}"));
            if let Some(seen) = seen {
                assert_eq!(peer, seen.parse::<IpAddr>().unwrap(), "{name} to {to}");
            }
        }
        network.unpublish(&container.endpoint, &tcp(8080)).unwrap();
        unreachable(neighbour, HOST, 8080);
        unreachable(&host, "127.0.0.1", 8080);
        network.unpublish(&container.endpoint, &tcp(8080)).unwrap();
    });
}

#[test]
fn a_port_on_one_address_answers_on_that_address_only() {
    on_a_host(|neighbour| {
        let network = open();
        let container = attach(&network);
        let listener = listen(&container.namespace, 80);
        let ports = [port("127.0.0.1", 8080, 80, Protocol::Tcp), port(HOST, 8081, 80, Protocol::Tcp)];
        network.publish(&container.endpoint, &ports).unwrap();
        reach(here(), "127.0.0.1", 8080, &listener).unwrap();
        reach(neighbour, HOST, 8081, &listener).unwrap();
        unreachable(neighbour, HOST, 8080);
        unreachable(here(), "127.0.0.1", 8081);
    });
}

#[test]
fn what_is_not_published_is_not_reachable_even_by_a_route() {
    on_a_host(|neighbour| {
        let network = open();
        let container = attach(&network);
        let listener = listen(&container.namespace, 80);
        network.publish(&container.endpoint, &tcp(8080)).unwrap();
        let (four, six) = (container.endpoint.ipv4.unwrap().to_string(), container.endpoint.ipv6.unwrap().to_string());
        within(neighbour, || {
            run(&format!("ip route add {four}/32 via {HOST}"));
            run(&format!("ip route add {six}/128 via {HOST_6}"));
        });
        unreachable(neighbour, &four, 80);
        unreachable(neighbour, &six, 80);
        // The same way is open as soon as our rules are gone, so it is they that close it.
        run("nft flush chain inet dozen forward");
        reach(neighbour, &four, 80, &listener).unwrap();
        reach(neighbour, &six, 80, &listener).unwrap();
    });
}

#[test]
fn nobody_speaks_to_or_as_the_hosts_loopback() {
    on_a_host(|neighbour| {
        let network = open();
        let container = attach(&network);
        let private = std::net::TcpListener::bind("127.0.0.1:7000").unwrap();
        let _private_6 = std::net::TcpListener::bind("[::1]:7000").unwrap();
        // The strictest source checks come first in the kernel; without them it is our rules that must hold.
        for interface in ["all", "up0", "dozen0"] {
            set(&format!("ipv4/conf/{interface}/rp_filter"), "0");
        }
        set("ipv4/conf/up0/route_localnet", "1");
        let gateway = network.addresses().ipv4_gateway.unwrap().to_string();
        for (namespace, way) in [(container.namespace.as_fd(), gateway.as_str()), (neighbour, HOST)] {
            // As a container with CAP_NET_ADMIN, or anyone on the wire, can.
            within(namespace, || {
                set("ipv4/conf/eth0/route_localnet", "1");
                run("ip addr del 127.0.0.1/8 dev lo");
                run(&format!("ip route add 127.0.0.1/32 via {way}"));
            });
            unreachable(namespace, "127.0.0.1", 7000);
        }
        let gateway_6 = network.addresses().ipv6_gateway.unwrap().to_string();
        for (namespace, way) in [(container.namespace.as_fd(), gateway_6.as_str()), (neighbour, HOST_6)] {
            within(namespace, || {
                run("ip addr del ::1/128 dev lo");
                run(&format!("ip route add ::1/128 via {way}"));
            });
            unreachable(namespace, "::1", 7000);
        }
        let service = udp(here(), "0.0.0.0", 7001);
        let spoofed = within(&container.namespace, || {
            run("ip addr add 127.9.9.9/32 dev eth0");
            UdpSocket::bind("127.9.9.9:7002").unwrap()
        });
        spoofed.send_to(b"trust me", (gateway.as_str(), 7001)).unwrap();
        service.set_read_timeout(Some(NEVER)).unwrap();
        assert!(service.recv_from(&mut [0; 16]).is_err());

        // All three ways are open once the rules are gone: it is they that close them.
        run("nft flush chain inet dozen guard");
        reach(&container.namespace, "127.0.0.1", 7000, &private).unwrap();
        reach(neighbour, "127.0.0.1", 7000, &private).unwrap();
        service.set_read_timeout(Some(SOON)).unwrap();
        spoofed.send_to(b"trust me", (gateway.as_str(), 7001)).unwrap();
        assert_eq!(service.recv_from(&mut [0; 16]).unwrap().1, "127.9.9.9:7002".parse().unwrap());
    });
}

/// As a container with CAP_NET_ADMIN or CAP_NET_RAW, or anyone on the wire, may try.
#[test]
fn a_source_is_whose_it_is() {
    sources("0");
}

#[test]
fn a_source_is_whose_it_is_with_br_netfilter() {
    sources("1");
}

fn sources(br_netfilter: &str) {
    on_a_host(|neighbour| {
        set("bridge/bridge-nf-call-iptables", br_netfilter);
        set("bridge/bridge-nf-call-ip6tables", br_netfilter);
        let network = open();
        let container = attach(&network);
        let BridgeAddresses { ipv4_gateway, ipv6_gateway, .. } = network.addresses().clone();
        let (gateway, gateway_6) = (ipv4_gateway.unwrap().to_string(), ipv6_gateway.unwrap().to_string());
        // The kernel's own check of sources is off on many hosts, and there is none for IPv6.
        for interface in ["all", "up0", "dozen0"] {
            set(&format!("ipv4/conf/{interface}/rp_filter"), "0");
        }
        let (here_4, here_6) = (udp(here(), "0.0.0.0", 7000), udp(here(), "::", 7001));
        let there = udp(neighbour, "::", 7000);
        let say = |from: BorrowedFd<'_>, source: &str, to: &str, port: u16| {
            within(from, || {
                // Not one that is there for good: that of a neighbour would be answered by itself.
                let length = if source.contains(':') { 128 } else { 32 };
                run(&format!("ip addr add {source}/{length} dev eth0 {}", if length == 128 { "nodad" } else { "" }));
                let socket = UdpSocket::bind((source.parse::<IpAddr>().unwrap(), 0)).unwrap();
                socket.send_to(b"?", (to.parse::<IpAddr>().unwrap(), port)).unwrap();
                run(&format!("ip addr del {source}/{length} dev eth0"));
            });
        };
        let unheard = |socket: &UdpSocket, what: &str| {
            socket.set_read_timeout(Some(NEVER)).unwrap();
            assert!(socket.recv_from(&mut [0; 8]).is_err(), "{what}");
        };
        // One datagram may be lost: the address that it comes from is gone before a neighbour's answer is there.
        let heard = |socket: &UdpSocket, what: &str, say: &dyn Fn()| {
            socket.set_read_timeout(Some(NEVER)).unwrap();
            let begin = Instant::now();
            loop {
                say();
                match socket.recv_from(&mut [0; 8]) {
                    Ok(_) => return,
                    Err(error) => assert!(begin.elapsed() < SOON, "{what}: {error}"),
                }
            }
        };
        let inside = container.namespace.as_fd();
        // As itself, and until it is heard: whose answer is to be had before a source is gone again has to be known.
        let speak = |from: BorrowedFd<'_>, to: &str, port: u16| {
            within(from, || {
                let any = if to.contains(':') { "::" } else { "0.0.0.0" };
                UdpSocket::bind((any, 0)).unwrap().send_to(b"?", (to.parse::<IpAddr>().unwrap(), port)).unwrap();
            });
        };
        heard(&there, "a container", &|| speak(inside, NEIGHBOUR, 7000));
        heard(&there, "a container by IPv6", &|| speak(inside, NEIGHBOUR_6, 7000));
        heard(&here_4, "a neighbour", &|| speak(neighbour, HOST, 7000));
        heard(&here_6, "a neighbour by IPv6", &|| speak(neighbour, HOST_6, 7001));
        for socket in [&there, &here_4, &here_6] {
            socket.set_nonblocking(true).unwrap();
            while socket.recv_from(&mut [0; 8]).is_ok() {}
            socket.set_nonblocking(false).unwrap();
        }
        // Not to the outside, nor to the host, as someone who is elsewhere.
        let attempts = [
            (&there, "192.0.2.7", NEIGHBOUR),
            (&there, "2001:db8:9::7", NEIGHBOUR_6),
            (&here_4, "192.0.2.7", gateway.as_str()),
            (&here_4, "203.0.113.9", gateway.as_str()),
            (&here_6, "2001:db8:1::9", gateway_6.as_str()),
            (&here_6, HOST_6, gateway_6.as_str()),
        ];
        for (socket, source, to) in attempts {
            let port = if std::ptr::eq(socket, &here_6) { 7001 } else { 7000 };
            say(inside, source, to, port);
            unheard(socket, &format!("a container as {source} to {to}"));
        }
        // Nor someone outside as a container.
        let (four, six) = (container.endpoint.ipv4.unwrap().to_string(), container.endpoint.ipv6.unwrap().to_string());
        say(neighbour, &four, HOST, 7000);
        unheard(&here_4, "a neighbour as a container");
        say(neighbour, &six, HOST_6, 7001);
        unheard(&here_6, "a neighbour as a container by IPv6");
        // What the host has a route for is whose the route says, and link-local addresses are of every link.
        run(&format!("ip route add 192.0.2.7/32 via {four}"));
        run(&format!("ip route add 2001:db8:9::7/128 via {six}"));
        heard(&there, "a container as one that is routed to it", &|| say(inside, "192.0.2.7", NEIGHBOUR, 7000));
        heard(&there, "a container as one that is routed to it by IPv6", &|| {
            say(inside, "2001:db8:9::7", NEIGHBOUR_6, 7000)
        });
        run("ip route add 172.17.200.0/24 dev up0");
        heard(&here_4, "a network of the host's that overlaps ours", &|| say(neighbour, "172.17.200.9", HOST, 7000));
        let addresses = run("ip -6 -o addr show dev dozen0 scope link");
        let link_local = addresses.split(' ').find_map(|word| word.strip_suffix("/64")).unwrap();
        let socket = within(inside, || UdpSocket::bind("[::]:0").unwrap());
        let eth0 = within(inside, || run("ip -o link show dev eth0"));
        let index = eth0.split(':').next().unwrap().parse().unwrap();
        let scoped = std::net::SocketAddrV6::new(link_local.parse().unwrap(), 7001, 0, index);
        heard(&here_6, "a neighbour on the link", &|| {
            socket.send_to(b"?", scoped).unwrap();
        });
        // The same ways are open as soon as our rules are gone, so it is they that close them.
        run("nft flush chain inet dozen guard");
        for (socket, source, to) in attempts {
            let port = if std::ptr::eq(socket, &here_6) { 7001 } else { 7000 };
            heard(socket, &format!("a container as {source} to {to}"), &|| say(inside, source, to, port));
        }
    });
}

#[test]
fn the_host_forwards_for_containers_only() {
    on_a_host(|neighbour| {
        let second = add_neighbour("up1", ("198.51.100.1", "198.51.100.2"), ("2001:db8:2::1", "2001:db8:2::2"));
        let network = open();
        assert_eq!(get("ipv4/ip_forward"), "0");
        let container = attach(&network);
        let listener = listen(&second, 80);
        within(neighbour, || {
            run(&format!("ip route add default via {HOST}"));
            run(&format!("ip route add default via {HOST_6}"));
        });
        within(&second, || {
            run("ip route add default via 198.51.100.1");
            run("ip route add default via 2001:db8:2::1");
        });
        reach(&container.namespace, "198.51.100.2", 80, &listener).unwrap();
        reach(&container.namespace, "2001:db8:2::2", 80, &listener).unwrap();
        unreachable(neighbour, "198.51.100.2", 80);
        unreachable(neighbour, "2001:db8:2::2", 80);
        // Somebody else turns forwarding on: then it is theirs, after our next look.
        set("ipv4/ip_forward", "1");
        network.refresh().unwrap();
        reach(neighbour, "198.51.100.2", 80, &listener).unwrap();
        network.teardown().unwrap();
        assert_eq!(get("ipv4/ip_forward"), "1");
        assert_eq!(get("ipv4/conf/up0/forwarding"), "1");
    });
}

#[test]
fn udp_is_published_and_a_flow_follows_the_port_to_its_new_container() {
    on_a_host(|neighbour| {
        let network = open();
        let (first, second) = (attach(&network), attach(&network));
        let ports = [port("0.0.0.0", 5300, 53, Protocol::Udp)];
        let servers = [&first, &second].map(|container| udp(&container.namespace, "0.0.0.0", 53));
        let client = udp(neighbour, NEIGHBOUR, 40000);
        let ask = |server: &UdpSocket| {
            client.send_to(b"?", (HOST, 5300)).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, format!("{NEIGHBOUR}:40000").parse().unwrap());
            server.send_to(b"!", from).unwrap();
            let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, format!("{HOST}:5300").parse().unwrap());
        };
        // The flow begins before anything is published, as when a client keeps asking a server that restarts.
        let own = udp(here(), "0.0.0.0", 5300);
        client.send_to(b"?", (HOST, 5300)).unwrap();
        own.recv_from(&mut [0; 8]).unwrap();
        network.publish(&first.endpoint, &ports).unwrap();
        ask(&servers[0]);
        network.unpublish(&first.endpoint, &ports).unwrap();
        client.send_to(b"?", (HOST, 5300)).unwrap();
        own.recv_from(&mut [0; 8]).unwrap();
        network.publish(&second.endpoint, &ports).unwrap();
        ask(&servers[1]);
        // Without a word to the first one's end, as after a crash.
        network.publish(&first.endpoint, &ports).unwrap();
        ask(&servers[0]);
    });
}

#[test]
fn nothing_is_left_of_hundreds_of_containers_and_addresses_come_back() {
    on_a_host(|_| {
        let pools = vec![(Ipv4Addr::new(10, 99, 0, 0), 28)];
        let network = Network::open(NetworkConfig { address_pools: pools, ..config() }).unwrap();
        let before = links();
        for round in 0..200 {
            let container = attach(&network);
            network.publish(&container.endpoint, &tcp(8080)).unwrap();
            network.unpublish(&container.endpoint, &tcp(8080)).unwrap();
            assert!(container.endpoint.interface.len() < 16, "{round}");
            network.release(&container.endpoint);
        }
        until_links_are(before);
        assert!(!run("nft list table inet dozen").contains("8080"));
        // All thirteen are to be had at once, and no more.
        let all: Vec<_> = (0..13).map(|_| attach(&network)).collect();
        let error = network.attach(&dozen_model::ContainerId::random()).unwrap_err();
        assert!(error.to_string().contains("all 13 of 10.99.0.0/28 are in use"), "{error}");
        drop(all);
    });
}

#[test]
fn an_uplink_that_comes_later_forwards_too() {
    on_a_host(|_| {
        let network = open();
        let container = attach(&network);
        let listener = listen(&container.namespace, 80);
        network.publish(&container.endpoint, &tcp(8080)).unwrap();
        let late = add_neighbour("up1", ("198.51.100.1", "198.51.100.2"), ("2001:db8:2::1", "2001:db8:2::2"));
        let begin = Instant::now();
        // IPv6 forwards by the interface since Linux 6.17, before that everywhere or not at all.
        let by_interface = std::path::Path::new("/proc/sys/net/ipv6/conf/up1/force_forwarding").exists();
        let ipv6 = if by_interface { "ipv6/conf/up1/force_forwarding" } else { "ipv6/conf/all/forwarding" };
        while get("ipv4/conf/up1/forwarding") != "1" || get(ipv6) != "1" {
            assert!(begin.elapsed() < SOON);
            std::thread::yield_now();
        }
        reach(&late, "198.51.100.1", 8080, &listener).unwrap();
        network.teardown().unwrap();
        assert_eq!(get("ipv4/conf/up1/forwarding"), "0");
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn a_half_made_network_is_completed() {
    on_a_host(|neighbour| {
        // As after a crash between any two steps, or with the table of an older version.
        run("ip link add dozen0 type bridge");
        run("ip addr add 10.0.0.1/24 dev dozen0");
        run("nft add table inet dozen");
        run("nft add set inet dozen opened4 { type ifname; elements = { \"up0\" }; }");
        run("nft add chain inet dozen forward { type filter hook forward priority 0; policy drop; }");
        set("ipv4/conf/up0/forwarding", "1");
        let network = open();
        let container = attach(&network);
        let listener = listen(neighbour, 80);
        reach(&container.namespace, NEIGHBOUR, 80, &listener).unwrap();
        network.teardown().unwrap();
        assert_eq!(get("ipv4/conf/up0/forwarding"), "0", "the record of what was ours was kept");
        assert_eq!(run("nft list ruleset"), "");
        assert_eq!(links(), 2);
        network.teardown().unwrap();
        open();
    });
}

#[test]
fn the_subnet_avoids_the_hosts_and_is_kept_while_it_can_be() {
    on_a_host(|_| {
        run("ip addr add 172.17.0.9/24 dev up0");
        run(&format!("ip route add 172.18.4.0/24 via {NEIGHBOUR}"));
        let network = open();
        assert_eq!(network.addresses().ipv4_gateway, Some(Ipv4Addr::new(172, 19, 0, 1)));
        let previous = network.addresses().clone();
        network.teardown().unwrap();
        run("ip addr del 172.17.0.9/24 dev up0");
        let again = || NetworkConfig { previous: Some(previous.clone()), ..config() };
        let network = Network::open(again()).unwrap();
        assert_eq!(*network.addresses(), previous);
        network.teardown().unwrap();
        run(&format!("ip route add 172.19.0.0/16 via {NEIGHBOUR}"));
        let network = Network::open(again()).unwrap();
        assert_eq!(network.addresses().ipv4_gateway, Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(network.addresses().ipv6_gateway, previous.ipv6_gateway);
    });
}

#[test]
fn engines_side_by_side_leave_each_other_alone() {
    on_a_host(|neighbour| {
        let one = open();
        let two = Network::open(NetworkConfig { instance: "test1".into(), ..config() }).unwrap();
        let (in_one, in_two) = (attach(&one), attach(&two));
        let listener = listen(&in_two.namespace, 80);
        two.publish(&in_two.endpoint, &tcp(8080)).unwrap();
        unreachable(&in_one.namespace, &in_two.endpoint.ipv4.unwrap().to_string(), 80);
        reach(&in_one.namespace, HOST, 8080, &listener).unwrap();
        one.teardown().unwrap();
        reach(neighbour, HOST, 8080, &listener).unwrap();
        two.teardown().unwrap();
        assert_eq!(get("ipv4/conf/up0/forwarding"), "0", "the last one turns off what the first turned on");
        assert_eq!(run("nft list ruleset"), "");
        assert_eq!(links(), 2);
    });
}

#[test]
fn without_ipv6_a_container_has_none() {
    on_a_host(|neighbour| {
        let network = Network::open(NetworkConfig::default()).unwrap();
        let container = attach(&network);
        assert_eq!((container.endpoint.ipv6, network.addresses().ipv6_gateway), (None, None));
        within(&container.namespace, || assert!(!run("ip -6 addr show dev eth0").contains("inet6")));
        assert!(network.publish(&container.endpoint, &tcp(8080)).is_err());
        let listener = listen_4(&container);
        network.publish(&container.endpoint, &tcp(8080)[..1]).unwrap();
        reach(neighbour, HOST, 8080, &listener).unwrap();
    });
}

fn listen_4(container: &Container) -> std::net::TcpListener {
    within(&container.namespace, || std::net::TcpListener::bind("0.0.0.0:80").unwrap())
}

#[test]
fn a_container_cannot_become_the_router_of_the_host_or_of_another() {
    on_a_host(|_| {
        let network = open();
        let container = attach(&network);
        assert_eq!(get("ipv6/conf/dozen0/accept_ra"), "0");
        within(&container.namespace, || assert_eq!(get("ipv6/conf/eth0/accept_ra"), "0"));
    });
}

#[test]
fn an_attach_that_fails_leaves_nothing() {
    on_a_host(|_| {
        let network = open();
        run("ip link del dozen0");
        let before = links();
        let error = network.attach(&dozen_model::ContainerId::random()).unwrap_err();
        assert!(error.to_string().starts_with("cannot create the link dz"), "{error}");
        until_links_are(before);
        // The next engine mends it.
        drop(network);
        attach(&open());
    });
}

#[test]
fn network_none_has_loopback_and_nothing_else() {
    let namespace = new_loopback_namespace(None).unwrap();
    within(&namespace, || {
        assert_eq!(links(), 1);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn the_interface_of_another_kind_is_left_alone() {
    on_a_host(|_| {
        run("ip link add dozen0 type veth peer name other");
        let error = Network::open(config()).unwrap_err();
        assert_eq!(error.to_string(), "the interface dozen0 is not a bridge");
        for bad in ["Test", "a-b", "ninechars", "ä"] {
            let config = NetworkConfig { instance: bad.into(), ..config() };
            assert!(Network::open(config).is_err(), "{bad}");
        }
    });
}

#[test]
fn the_table_reads_as_intended() {
    on_a_host(|_| {
        let network = open();
        let container = attach(&network);
        let ports =
            [port("0.0.0.0", 8080, 80, Protocol::Tcp), port("127.0.0.1", 53, 5353, Protocol::Udp), tcp(8080)[1]];
        network.publish(&container.endpoint, &ports).unwrap();
        let subnet = network.addresses().ipv6_subnet().unwrap().network().to_string();
        let listed = run("nft list table inet dozen").replace(&subnet, "SUBNET6::");
        let listed = listed.replace(&subnet[..subnet.len() - 1], "SUBNET6:");
        let mut expected = include_str!("table.nft").to_owned();
        // Before Linux 6.17 IPv6 is forwarded for every interface or for none, and the uplink's own routes are kept.
        if !std::path::Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists() {
            let opened6 = "set opened6 {\n\t\ttype ifname\n\t\telements = { \"";
            let drop6 = "meta nfproto ipv6 iifname @opened6 drop\n";
            let advertised = "set advertised {\n\t\ttype ifname\n";
            for (newer, older) in [
                (format!("{opened6}up0"), format!("{opened6}all")),
                (advertised.to_owned(), format!("{advertised}\t\telements = {{ \"up0\" }}\n")),
                (drop6.to_owned(), format!("{drop6}\t\tmeta nfproto ipv6 drop\n")),
            ] {
                assert!(expected.contains(&newer));
                expected = expected.replace(&newer, &older);
            }
        }
        assert_eq!(listed, expected, "{listed}");
    });
}

#[test]
#[ignore = "prints figures, judges nothing"]
fn how_long_an_attach_takes() {
    on_a_host(|_| {
        let network = open();
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let begin = Instant::now();
                let container = attach(&network);
                network.publish(&container.endpoint, &tcp(8080)).unwrap();
                let attached = begin.elapsed();
                network.unpublish(&container.endpoint, &tcp(8080)).unwrap();
                network.release(&container.endpoint);
                (attached, begin.elapsed())
            })
            .collect();
        times.sort();
        println!("median {:?}, worst {:?}", times[100], times[199]);
    });
}
