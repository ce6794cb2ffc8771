//! Networks on an interface of the host's: macvlan, and ipvlan where the kernel has it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;

use dozen_testbox::{Engine, Machine, Side, next_second, until};

const SERVE: &str = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";
const SUBNET: [&str; 6] =
    ["--subnet", "198.51.100.0/24", "--gateway", "198.51.100.1", "--ip-range", "198.51.100.128/25"];

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

fn make(engine: &Engine<'_>, driver: &str, options: &[&str], name: &str) {
    let options = options.iter().flat_map(|option| ["-o", option]);
    let line: Vec<&str> =
        ["network", "create", "-d", driver].into_iter().chain(options).chain(SUBNET).chain([name]).collect();
    engine.dozen(&line).expect(0);
}

fn serve(engine: &Engine<'_>, name: &str, network: &str) -> SocketAddr {
    engine.dozen(&["run", "-d", "--name", name, "--network", network, "busybox", "sh", "-c", SERVE]).expect(0);
    address(engine, name, network)
}

/// By a container of the same network.
fn fetch(engine: &Engine<'_>, how: &[&str], web: SocketAddr) -> String {
    let url = format!("http://{web}/");
    let line: Vec<&str> = how.iter().copied().chain(["timeout", "5", "wget", "-q", "-O", "-", &url]).collect();
    until("it serves", || Some(engine.dozen(&line)).filter(|done| done.code == 0)).out
}

fn address(engine: &Engine<'_>, name: &str, network: &str) -> SocketAddr {
    let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    let text = engine.dozen(&["inspect", "-f", &template, name]).text();
    SocketAddr::new(text.trim().parse().unwrap(), 80)
}

#[test]
fn containers_on_a_macvlan_are_on_the_wire_and_know_each_other() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    make(&engine, "macvlan", &["parent=eth0"], "wire");
    let line = ["create", "--name", "idle", "--network", "wire", "-p", "80:80", "busybox", "true"];
    let warned = engine.dozen(&line).expect(0);
    assert!(warned.err.contains("no port is published: containers on the macvlan network wire"), "{}", warned.err);
    let web = serve(&engine, "web", "wire");
    assert!(web.ip().to_string().starts_with("198.51.100.1"), "{web}");
    assert_eq!(machine.page(Side::Neighbour, web), "served\n");
    // It speaks as itself, and has its own hardware address on the wire.
    engine.dozen(&["exec", "web", "ping", "-c", "1", "198.51.100.1"]).expect(0);
    let mac = engine.dozen(&["inspect", "-f", "{{.NetworkSettings.Networks.wire.MacAddress}}", "web"]).text();
    assert!(engine.dozen(&["exec", "web", "ip", "link", "show", "eth0"]).text().contains(mac.trim()));
    // The other one finds it by name, also while no engine is there.
    engine.dozen(&["run", "-d", "--name", "friend", "--network", "wire", "busybox", "sleep", "1000"]).expect(0);
    let finds = |engine: &Engine<'_>| {
        let found = engine.dozen(&["exec", "friend", "nslookup", "-type=a", "web"]).text();
        assert!(found.contains(&web.ip().to_string()), "{found}");
        assert_eq!(fetch(engine, &["exec", "friend"], web), "served\n");
    };
    finds(&engine);
    engine.kill();
    assert_eq!(machine.page(Side::Neighbour, web), "served\n");
    engine.restart();
    finds(&engine);
    // Its address is its own after the restart too.
    let third = serve(&engine, "third", "wire");
    assert!(third != web && third != address(&engine, "friend", "wire"));
    assert_eq!(address(&engine, "web", "wire"), web);
    let shown =
        engine.dozen(&["network", "inspect", "-f", "{{.Driver}} {{json .Options}} {{len .Containers}}", "wire"]);
    assert_eq!(shown.text(), "macvlan {\"parent\":\"eth0\"} 3\n");
    engine.dozen(&["rm", "-f", "web", "friend", "third", "idle"]).expect(0);
    engine.dozen(&["network", "rm", "wire"]).expect(0);
    assert!(machine.run("ip", &["link"]).text().contains("eth0"), "the host keeps its interface");
}

#[test]
fn a_fixed_address_is_had_again_at_once_and_a_network_comes_to_a_container_that_runs() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    make(&engine, "macvlan", &["parent=eth0", "com.docker.network.driver.mtu=1400"], "wire");
    let run = ["run", "-d", "--name", "web", "--network", "name=wire,ip=198.51.100.77,mac-address=02:42:00:00:00:07"];
    engine.dozen(&[&run[..], &["busybox", "sh", "-c", SERVE]].concat()).expect(0);
    let web = SocketAddr::from(([198, 51, 100, 77], 80));
    for _ in 0..3 {
        assert_eq!(machine.page(Side::Neighbour, web), "served\n");
        engine.dozen(&["restart", "-t", "0", "web"]).expect(0);
    }
    assert_eq!(machine.page(Side::Neighbour, web), "served\n");
    let link = engine.dozen(&["exec", "web", "ip", "link", "show", "eth0"]).text();
    assert!(link.contains("mtu 1400") && link.contains("02:42:00:00:00:07"), "{link}");
    // From a bridge to the wire and back.
    engine.dozen(&["run", "-d", "--name", "late", "-p", "8080:80", "busybox", "sh", "-c", SERVE]).expect(0);
    engine.dozen(&["network", "connect", "wire", "late"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, address(&engine, "late", "wire")), "served\n");
    engine.dozen(&["network", "disconnect", "wire", "late"]).expect(0);
    assert_eq!(engine.dozen(&["exec", "late", "ls", "/sys/class/net"]).text(), "eth0\nlo\n");
    // The neighbour's answers go by the bridge again.
    let published = SocketAddr::new(dozen_testbox::MACHINE_ADDRESS, 8080);
    assert_eq!(machine.page(Side::Neighbour, published), "served\n");
}

#[test]
fn a_mode_says_who_reaches_whom() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    make(&engine, "macvlan", &["parent=eth0", "macvlan_mode=private"], "apart");
    let web = serve(&engine, "web", "apart");
    assert_eq!(machine.page(Side::Neighbour, web), "served\n");
    let ping = ["run", "--rm", "--network", "apart", "busybox", "ping", "-c", "1", "-W", "2", &web.ip().to_string()];
    assert_ne!(engine.dozen(&ping).code, 0);
    engine.dozen(&["rm", "-f", "web"]).expect(0);
    engine.dozen(&["network", "rm", "apart"]).expect(0);
    // One has the interface to itself, and again at once.
    machine.run("sh", &["-ec", "ip link add pass0 type veth peer name pass1; ip link set pass1 up"]).expect(0);
    let line = ["network", "create", "-d", "macvlan", "-o", "parent=pass0", "-o", "macvlan_mode=passthru", "alone"];
    engine.dozen(&line).expect(0);
    for _ in 0..3 {
        let shown =
            engine.dozen(&["run", "--rm", "--network", "alone", "busybox", "cat", "/sys/class/net/eth0/address"]);
        assert_eq!(shown.text(), machine.run("cat", &["/sys/class/net/pass0/address"]).text());
    }
    engine.dozen(&["run", "-d", "--name", "only", "--network", "alone", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["run", "--rm", "--network", "alone", "busybox", "true"]).refuses(125, &["Invalid argument"]);
    let second = ["network", "create", "-d", "macvlan", "-o", "parent=pass0", "second"];
    engine.dozen(&second).refuses(1, &["cannot use mode passthru, macvlan network", "parent interface pass0"]);
    engine.dozen(&["rm", "-f", "only"]).expect(0);
    engine.dozen(&["network", "rm", "alone"]).expect(0);
    machine.run("ip", &["link", "del", "pass0"]).expect(0);
}

#[test]
fn what_cannot_be_is_refused_in_dockers_words() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let refused = |driver: &str, options: &[&str], words: &str| {
        let options = options.iter().flat_map(|option| ["-o", option]);
        let line: Vec<&str> = ["network", "create", "-d", driver].into_iter().chain(options).chain(["no"]).collect();
        engine.dozen(&line).refuses(1, &[words]);
    };
    refused("macvlan", &["parent=lo"], "loopback interface is not a valid macvlan parent link");
    refused("macvlan", &["parent=eth9.7"], "-o parent interface does not exist on the host: eth9");
    refused("macvlan", &["parent=eth9"], "invalid subinterface vlan name eth9, example formatting is eth0.10");
    refused("macvlan", &["parent=eth0.9999"], "vlan id must be between 1-4094, received: 9999");
    refused("macvlan", &["parent=eth0", "macvlan_mode=l2"], "requested macvlan mode 'l2' is not valid");
    refused("ipvlan", &["parent=eth0", "ipvlan_mode=l9"], "requested ipvlan mode 'l9' is not valid");
    refused("macvlan", &["com.docker.network.bridge.enable_icc=false"], "is not built yet");
    make(&engine, "macvlan", &["parent=eth0"], "wire");
    refused("ipvlan", &["parent=eth0"], "is already using parent interface eth0");
    assert_eq!(engine.dozen(&["network", "ls", "-q", "--filter", "type=custom"]).text().lines().count(), 1);
}

/// Docker's own order: before the container's start and before its end.
#[test]
fn a_containers_places_on_networks_are_announced() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["network", "create", "back"]).expect(0);
    make(&engine, "macvlan", &["parent=eth0"], "wire");
    engine.dozen(&["create", "--name", "web", "--network", "back", "--network", "wire", "busybox", "true"]).expect(0);
    engine.dozen(&["start", "-a", "web"]).expect(0);
    engine.dozen(&["run", "--rm", "--network", "host", "busybox", "true"]).expect(0);
    let template = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}";
    let line = ["events", "--since", "1h", "--until", &next_second(), "--filter", "event=connect"];
    let filters = ["--filter", "event=disconnect", "--filter", "event=start", "--filter", "event=die"];
    let heard = engine.docker(&[&line[..], &filters, &["--format", template]].concat()).text();
    let heard: Vec<&str> = heard.lines().map(|line| line.trim_end_matches(" <no value>")).collect();
    let name_of_other = heard[6 + 1].split(' ').nth(2).unwrap();
    assert_eq!(
        heard,
        [
            "network connect back bridge",
            "network connect wire macvlan",
            "container start web",
            "network disconnect back bridge",
            "network disconnect wire macvlan",
            "container die web",
            "network connect host host",
            &format!("container start {name_of_other}"),
            "network disconnect host host",
            &format!("container die {name_of_other}"),
        ]
    );
}

/// Interfaces that are made for networks, and go with the last of them.
#[test]
#[ignore = "the kernel has to have VLANs, dummies and ipvlan"]
fn vm_only_interfaces_are_made_for_networks() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let links = || machine.run("ip", &["-o", "link"]).text();
    for (name, subnet) in [("one", "10.70.0.0/24"), ("two", "10.71.0.0/24")] {
        let line = ["network", "create", "-d", "macvlan", "-o", "parent=eth0.70", "--subnet", subnet, name];
        engine.dozen(&line).expect(0);
    }
    assert!(links().contains("eth0.70@eth0"), "{}", links());
    engine.dozen(&["run", "-d", "--name", "web", "--network", "one", "busybox", "sleep", "1000"]).expect(0);
    engine.kill();
    engine.restart();
    engine.dozen(&["rm", "-f", "web"]).expect(0);
    engine.dozen(&["network", "rm", "one"]).expect(0);
    assert!(links().contains("eth0.70@eth0"), "the other lies on it too");
    engine.dozen(&["network", "rm", "two"]).expect(0);
    assert!(!links().contains("eth0.70"), "{}", links());
    // Without a parent it leads nowhere.
    engine.dozen(&["network", "create", "-d", "ipvlan", "inner"]).expect(0);
    assert!(links().contains(": dm-"), "{}", links());
    let web = serve(&engine, "web", "inner");
    assert_eq!(fetch(&engine, &["run", "--rm", "--network", "inner", "busybox"], web), "served\n");
    assert!(machine.get(Side::Neighbour, web).is_err());
    engine.dozen(&["rm", "-f", "web"]).expect(0);
    engine.dozen(&["network", "rm", "inner"]).expect(0);
    assert!(!links().contains(": dm-"), "{}", links());
}

#[test]
#[ignore = "the kernel has to have ipvlan"]
fn vm_only_containers_on_an_ipvlan_share_the_hardware_address() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    for mode in ["l2", "l3", "l3s"] {
        make(&engine, "ipvlan", &["parent=eth0", &format!("ipvlan_mode={mode}")], "wire");
        let web = serve(&engine, "web", "wire");
        if mode != "l2" {
            // At layer 3 nobody is asked on the wire: the neighbour has to know the way.
            let routes = engine.dozen(&["exec", "web", "ip", "route"]).text();
            assert!(routes.starts_with("default dev eth0"), "{routes}");
        } else {
            assert_eq!(machine.page(Side::Neighbour, web), "served\n");
        }
        let own = machine.run("cat", &["/sys/class/net/eth0/address"]).text();
        assert_eq!(engine.dozen(&["exec", "web", "cat", "/sys/class/net/eth0/address"]).text(), own);
        let by = ["run", "--rm", "--network", "wire", "busybox"];
        assert_eq!(fetch(&engine, &by, web), "served\n");
        engine.kill();
        engine.restart();
        assert_eq!(fetch(&engine, &by, web), "served\n");
        let mac = ["create", "--network", "name=wire,mac-address=02:42:00:00:00:07", "busybox"];
        engine.dozen(&mac).refuses(125, &["ipvlan interfaces do not support custom mac address assignment"]);
        engine.dozen(&["rm", "-f", "web"]).expect(0);
        engine.dozen(&["network", "rm", "wire"]).expect(0);
    }
}
