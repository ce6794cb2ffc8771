//! Networks of the user's own: made, used, kept apart, changed while containers run, and found again.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};

use dozen_testbox::{Engine, MACHINE_ADDRESS, Machine, Side, next_second, until};

const SERVE: &str = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";

fn run(engine: &Engine<'_>, name: &str, options: &[&str]) {
    let line = [&["run", "-d", "--name", name], options, &["busybox", "sh", "-c", SERVE]].concat();
    engine.dozen(&line).expect(0);
}

fn inspect(engine: &Engine<'_>, name: &str, format: &str) -> String {
    engine.dozen(&["inspect", "-f", format, name]).text().trim().to_owned()
}

fn address(engine: &Engine<'_>, name: &str, network: &str) -> String {
    inspect(engine, name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
}

/// Whether a container gets the page of this address.
fn gets(engine: &Engine<'_>, from: &str, address: &str) -> bool {
    let url = format!("http://{address}/");
    engine.dozen(&["exec", from, "timeout", "2", "wget", "-q", "-O", "-", &url]).code == 0
}

fn soon_gets(engine: &Engine<'_>, from: &str, address: &str) {
    until(&format!("{from} reaches {address}"), || gets(engine, from, address).then_some(()));
}

#[test]
fn containers_of_one_network_reach_each_other_and_no_others() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["network", "create", "front"]).expect(0);
    engine.dozen(&["network", "create", "--subnet", "10.77.0.0/24", "--label", "tier=data", "back"]).expect(0);
    run(&engine, "web", &["--network", "front"]);
    run(&engine, "db", &["--network", "back", "--ip", "10.77.0.9", "-p", "8080:80"]);
    run(&engine, "both", &["--network", "front", "--network", "name=back,alias=middle,mac-address=02:42:00:00:00:07"]);
    run(&engine, "plain", &[]);
    assert_eq!(address(&engine, "db", "back"), "10.77.0.9");
    assert_eq!(inspect(&engine, "db", "{{.HostConfig.NetworkMode}}"), "back");
    assert_eq!(inspect(&engine, "both", "{{range .NetworkSettings.Networks}}{{.Aliases}} {{end}}"), "[middle] []");
    let links = engine.dozen(&["exec", "both", "ls", "/sys/class/net"]).text();
    assert_eq!(links, "eth0\neth1\nlo\n");
    assert!(
        engine.dozen(&["exec", "both", "cat", "/sys/class/net/eth1/address"]).text().starts_with("02:42:00:00:00:07")
    );
    let hosts = engine.dozen(&["exec", "both", "cat", "/etc/hosts"]).text();
    for network in ["front", "back"] {
        assert!(hosts.contains(&address(&engine, "both", network)), "{hosts}");
    }
    // The first by name has the default route.
    let route = engine.dozen(&["exec", "both", "ip", "route", "show", "default"]).text();
    assert!(route.contains("via 10.77.0.1 dev eth1"), "{route}");
    let check = |engine: &Engine<'_>| {
        let (web, db) = (address(engine, "web", "front"), address(engine, "db", "back"));
        soon_gets(engine, "both", &web);
        soon_gets(engine, "both", &db);
        soon_gets(engine, "web", &address(engine, "both", "front"));
        assert!(!gets(engine, "web", &db) && !gets(engine, "db", &web) && !gets(engine, "plain", &db));
        assert!(!gets(engine, "db", &address(engine, "plain", "bridge")));
        // By the host's address what is published is for all.
        let published = SocketAddr::new(MACHINE_ADDRESS, 8080);
        soon_gets(engine, "web", &published.to_string());
        assert_eq!(machine.page(Side::Neighbour, published), "served\n");
        engine.dozen(&["exec", "web", "ping", "-c", "1", "-W", "5", "198.51.100.1"]).expect(0);
    };
    check(&engine);
    engine.kill();
    assert_eq!(machine.get(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)).as_deref(), Ok("served\n"));
    engine.restart();
    check(&engine);
    run(&engine, "late", &["--network", "back"]);
    assert_ne!(address(&engine, "late", "back"), "10.77.0.9");
    soon_gets(&engine, "late", "10.77.0.9");
    engine.dozen(&["network", "rm", "back"]).refuses(1, &["has active endpoints", "name:\"db\""]);
    engine.dozen(&["rm", "-f", "web", "db", "both", "plain", "late"]).expect(0);
    let ids = engine.dozen(&["network", "ls", "-q", "--filter", "type=custom"]).text();
    let bridge_is_there = || {
        let lines = machine.snapshot();
        ids.lines().any(|id| lines.iter().any(|line| line.contains(&format!("dz-{id}"))))
    };
    assert!(bridge_is_there());
    assert_eq!(engine.dozen(&["network", "prune", "-f"]).text(), "Deleted Networks:\nback\nfront\n\n");
    assert!(!bridge_is_there(), "a bridge is left");
}

#[test]
fn a_container_is_connected_and_disconnected_while_it_runs() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["network", "create", "one"]).expect(0);
    engine.dozen(&["network", "create", "two"]).expect(0);
    run(&engine, "web", &["--network", "one", "-p", "8080:80"]);
    run(&engine, "friend", &["--network", "two"]);
    let friend = address(&engine, "friend", "two");
    assert!(!gets(&engine, "web", &friend));
    engine.dozen(&["network", "connect", "--alias", "www", "--gw-priority", "5", "two", "web"]).expect(0);
    soon_gets(&engine, "web", &friend);
    soon_gets(&engine, "friend", &address(&engine, "web", "two"));
    let route = engine.dozen(&["exec", "web", "ip", "route", "show", "default"]).text();
    assert!(route.contains("dev eth1"), "{route}");
    engine.dozen(&["network", "connect", "two", "web"]).refuses(1, &["already exists in network two"]);
    let published = SocketAddr::new(MACHINE_ADDRESS, 8080);
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    assert_eq!(machine.page(Side::Neighbour, published), "served\n");
    // Nothing of it is lost with the engine.
    engine.kill();
    engine.restart();
    soon_gets(&engine, "web", &friend);
    // Its ports go the other way from here on.
    engine.dozen(&["network", "disconnect", "two", "web"]).expect(0);
    assert!(!gets(&engine, "web", &friend));
    assert_eq!(machine.page(Side::Neighbour, published), "served\n");
    assert_eq!(machine.page(Side::Machine, inside), "served\n");
    engine.dozen(&["exec", "web", "ping", "-c", "1", "-W", "5", "198.51.100.1"]).expect(0);
    engine.dozen(&["network", "disconnect", "one", "web"]).expect(0);
    assert_eq!(engine.dozen(&["exec", "web", "ls", "/sys/class/net"]).text(), "lo\n");
    engine.dozen(&["network", "disconnect", "one", "web"]).refuses(1, &["is not connected to network one"]);
    engine.dozen(&["network", "connect", "one", "web"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, published), "served\n");
    // Of a container that is stopped, what is asked for changes, and holds at its next start.
    engine.dozen(&["stop", "-t", "0", "web"]).expect(0);
    engine.dozen(&["network", "connect", "two", "web"]).expect(0);
    engine.dozen(&["network", "disconnect", "one", "web"]).expect(0);
    engine.dozen(&["start", "web"]).expect(0);
    soon_gets(&engine, "web", &friend);
    assert_eq!(inspect(&engine, "web", "{{len .NetworkSettings.Networks}}"), "1");
    let events = engine.dozen(&[
        "events",
        "--since",
        "1",
        "--until",
        &next_second(),
        "--filter",
        "type=network",
        "--format",
        "{{.Action}}",
    ]);
    let words: Vec<String> = events.text().lines().map(str::to_owned).collect();
    for action in ["connect", "disconnect"] {
        assert!(words.iter().any(|word| word == action), "{words:?}");
    }
}

#[test]
fn ports_of_who_is_on_no_network_are_kept_for_the_next_one() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["network", "create", "one"]).expect(0);
    run(&engine, "web", &["--network", "one", "-p", "8080:80"]);
    let published = SocketAddr::new(MACHINE_ADDRESS, 8080);
    assert_eq!(machine.page(Side::Neighbour, published), "served\n");
    engine.dozen(&["network", "disconnect", "one", "web"]).expect(0);
    engine.kill();
    engine.restart();
    let taken = engine.dozen(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    taken.refuses(125, &["port is already allocated"]);
    engine.dozen(&["network", "connect", "one", "web"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, published), "served\n");
}

#[test]
fn ports_of_who_began_without_a_way_out_come_with_the_first() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["network", "create", "one"]).expect(0);
    engine.dozen(&["network", "create", "--internal", "private"]).expect(0);
    run(&engine, "alone", &["--network", "one", "-p", "8080:80"]);
    engine.dozen(&["network", "disconnect", "one", "alone"]).expect(0);
    engine.dozen(&["restart", "-t", "0", "alone"]).expect(0);
    run(&engine, "inside", &["--network", "private", "-p", "8081:80"]);
    for (name, port) in [("alone", 8080), ("inside", 8081)] {
        engine.dozen(&["port", name]).expect(0);
        assert_eq!(engine.dozen(&["port", name]).out, "", "{name}");
        engine.dozen(&["network", "connect", "one", name]).expect(0);
        let published = SocketAddr::new(MACHINE_ADDRESS, port);
        assert_eq!(machine.page(Side::Neighbour, published), "served\n", "{name}");
        engine.kill();
        engine.restart();
        assert_eq!(machine.page(Side::Neighbour, published), "served\n", "{name}");
        let shown = engine.dozen(&["port", name]).expect(0).out;
        assert!(shown.contains(&format!("80/tcp -> 0.0.0.0:{port}")), "{shown}");
    }
    // One that cannot have them does not get the place either.
    run(&engine, "late", &["--network", "private", "-p", "8080:80"]);
    engine.dozen(&["network", "connect", "one", "late"]).refuses(1, &["port is already allocated"]);
    assert_eq!(inspect(&engine, "late", "{{len .NetworkSettings.Networks}}"), "1");
    engine.dozen(&["rm", "-f", "alone"]).expect(0);
    engine.dozen(&["network", "connect", "one", "late"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "served\n");
    engine.dozen(&["rm", "-f", "late", "inside"]).expect(0);
    engine.dozen(&["network", "rm", "one", "private"]).expect(0);
}

#[test]
fn an_internal_network_leads_nowhere() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["network", "create", "--internal", "--ipv6", "private"]).expect(0);
    run(&engine, "one", &["--network", "private"]);
    run(&engine, "two", &["--network", "private"]);
    soon_gets(&engine, "two", &address(&engine, "one", "private"));
    let ipv6 = inspect(&engine, "one", "{{.NetworkSettings.Networks.private.GlobalIPv6Address}}");
    assert!(ipv6.starts_with("fd"), "{ipv6}");
    soon_gets(&engine, "two", &format!("[{ipv6}]"));
    assert_ne!(engine.dozen(&["exec", "one", "ping", "-c", "1", "-W", "1", "198.51.100.1"]).code, 0);
    assert_eq!(inspect(&engine, "one", "{{.NetworkSettings.Networks.private.Gateway}}"), "");
}

#[test]
fn what_cannot_be_is_refused_in_dockers_words() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let refuses = |line: &[&str], code, words: &str| engine.dozen(line).refuses(code, &[words]);
    engine.dozen(&["network", "create", "--subnet", "10.77.0.0/24", "mine"]).expect(0);
    engine.dozen(&["network", "create", "auto"]).expect(0);
    refuses(&["network", "create", "mine"], 1, "network with name mine already exists");
    refuses(
        &["network", "create", "--subnet", "10.77.0.0/16", "wide"],
        1,
        "Pool overlaps with other one on this address space",
    );
    refuses(&["network", "create", "bridge"], 1, "operation is not permitted on predefined bridge network");
    refuses(&["network", "create", "-o", "com.docker.network.bridge.name=eth0", "taken"], 1, "eth0 is there already");
    refuses(&["network", "rm", "bridge"], 1, "bridge is a pre-defined network and cannot be removed");
    refuses(&["network", "rm", "nowhere"], 1, "network nowhere not found");
    let run = |options: &[&str], words: &str| {
        let line = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        engine.dozen(&line).refuses(125, &[words]);
    };
    run(&["--network", "nowhere"], "network nowhere not found");
    run(&["--ip", "172.17.0.9"], "user specified IP address is supported on user defined networks only");
    run(&["--network", "auto", "--ip", "172.30.0.9"], "only when connecting to networks with user configured subnets");
    run(&["--network", "mine", "--ip", "10.78.0.9"], "no configured subnet or ip-range contain the IP address");
    run(&["--network-alias", "x"], "network-scoped alias is supported only for containers in user defined networks");
    engine
        .dozen(&["run", "-d", "--name", "first", "--network", "mine", "--ip", "10.77.0.9", "busybox", "sleep", "1000"])
        .expect(0);
    run(&["--network", "mine", "--ip", "10.77.0.9"], "Address already in use");
    run(&["--network", "mine", "--ip", "10.77.0.1"], "Address already in use");
    refuses(&["network", "connect", "host", "first"], 1, "container cannot be disconnected from host network");
}

#[test]
fn the_docker_client_makes_lists_and_removes_networks() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let id = engine
        .docker(&["network", "create", "--driver", "bridge", "--label", "a=b", "--subnet", "10.77.0.0/24", "mine"])
        .text();
    assert_eq!(engine.docker(&["network", "inspect", "-f", "{{.Id}}", "mine"]).text(), id);
    let config = engine.docker(&["network", "inspect", "-f", "{{json .IPAM.Config}}", &id[..12]]).text();
    assert_eq!(config, "[{\"Subnet\":\"10.77.0.0/24\",\"Gateway\":\"10.77.0.1\"}]\n");
    for client in [Engine::docker, Engine::dozen] {
        let list =
            |filter: &str| client(&engine, &["network", "ls", "--filter", filter, "--format", "{{.Name}}"]).text();
        assert_eq!(list("type=custom"), "mine\n");
        assert_eq!(list("label=a=b"), "mine\n");
        assert_eq!(list("driver=host"), "host\n");
        assert_eq!(list("dangling=true"), "mine\n");
    }
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "mine",
            "--ip",
            "10.77.0.9",
            "--network-alias",
            "www",
            "busybox",
            "sleep",
            "1000",
        ])
        .expect(0);
    let inside = engine
        .docker(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "mine"])
        .text();
    assert_eq!(inside, "web 10.77.0.9/24\n");
    assert_eq!(
        engine.docker(&["ps", "--filter", "network=mine", "--format", "{{.Names}} {{.Networks}}"]).text(),
        "web mine\n"
    );
    engine.docker(&["network", "connect", "bridge", "web"]).expect(0);
    engine.docker(&["network", "disconnect", "mine", "web"]).expect(0);
    assert_eq!(inspect(&engine, "web", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"), "bridge");
    assert_eq!(engine.docker(&["network", "rm", "mine"]).text(), "mine\n");
    engine.docker(&["network", "inspect", "mine"]).refuses(1, &["network mine not found"]);
}
