//! Networks without IPv4: containers on them have IPv6 alone.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dozen_testbox::{Engine, Machine, Side, until};

const SERVE: &str = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";
/// Of the machine on the wire, and of its neighbour.
const MACHINE_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb0, 0, 0, 0, 0, 2));
const NEIGHBOUR_6: &str = "2001:db8:b0::1";

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

fn create(engine: &Engine<'_>, options: &[&str], name: &str) {
    let line = [&["network", "create", "--ipv6", "--ipv4=false"], options, &[name]].concat();
    engine.dozen(&line).expect(0);
}

fn serve(engine: &Engine<'_>, name: &str, options: &[&str]) {
    let line = [&["run", "-d", "--name", name], options, &["busybox", "sh", "-c", SERVE]].concat();
    engine.dozen(&line).expect(0);
}

fn inspect(engine: &Engine<'_>, name: &str, format: &str) -> String {
    engine.dozen(&["inspect", "-f", format, name]).text().trim().to_owned()
}

/// What its place on a network says in this field.
fn place(engine: &Engine<'_>, name: &str, network: &str, field: &str) -> String {
    inspect(engine, name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"))
}

fn inside(engine: &Engine<'_>, name: &str, script: &str) -> String {
    engine.dozen(&["exec", name, "sh", "-c", script]).text()
}

fn gets(engine: &Engine<'_>, from: &str, host: &str) -> bool {
    let url = format!("http://{host}/");
    engine.dozen(&["exec", from, "timeout", "2", "wget", "-q", "-O", "-", &url]).code == 0
}

fn soon_gets(engine: &Engine<'_>, from: &str, host: &str) {
    until(&format!("{from} reaches {host}"), || gets(engine, from, host).then_some(()));
}

#[test]
fn containers_have_ipv6_alone_and_reach_each_other_and_out() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    create(&engine, &["--subnet", "fd77::/64"], "six");
    create(&engine, &[], "other");
    engine.dozen(&["network", "create", "both"]).expect(0);
    serve(&engine, "web", &["--network", "name=six,alias=www", "-p", "8080:80"]);
    serve(&engine, "friend", &["--network", "six"]);
    serve(&engine, "stranger", &["--network", "other"]);
    serve(&engine, "plain", &[]);
    assert_eq!(inside(&engine, "web", "ip -4 addr show dev eth0; ip -4 route"), "");
    assert_eq!(place(&engine, "web", "six", "IPAddress"), "");
    assert_eq!(place(&engine, "web", "six", "Gateway"), "");
    assert_eq!(place(&engine, "web", "six", "IPPrefixLen"), "0");
    assert_eq!(place(&engine, "web", "six", "GlobalIPv6Address"), "fd77::2");
    assert_eq!(place(&engine, "web", "six", "IPv6Gateway"), "fd77::1");
    let mac = place(&engine, "web", "six", "MacAddress");
    assert!(inside(&engine, "web", "cat /sys/class/net/eth0/address").starts_with(&mac), "{mac}");
    assert_ne!(mac, place(&engine, "friend", "six", "MacAddress"));
    let format = "{{.EnableIPv4}} {{.EnableIPv6}} {{json .IPAM.Config}}";
    assert_eq!(
        engine.dozen(&["network", "inspect", "-f", format, "six"]).text(),
        "false true [{\"Gateway\":\"fd77::1\",\"Subnet\":\"fd77::/64\"}]\n"
    );
    let ls = engine.dozen(&["network", "ls", "--format", "{{.Name}} {{.IPv4}} {{.IPv6}}"]).text();
    assert!(ls.contains("six false true\n") && ls.contains("both true false\n"), "{ls}");
    let shown = engine.dozen(&["network", "inspect", "-f", "{{range .Containers}}[{{.IPv4Address}}]{{end}}", "six"]);
    assert_eq!(shown.text(), "[][]\n");
    // The bridge has no IPv4 address either.
    let id = engine.dozen(&["network", "ls", "-q", "--filter", "name=six"]).text();
    let bridge = format!("dz-{}", id.trim());
    assert_eq!(machine.run("ip", &["-4", "-o", "addr", "show", "dev", &bridge]).text(), "");
    let check = |engine: &Engine<'_>| {
        // By name: 127.0.0.11 is loopback, which is there.
        for name in ["web", "www", "[fd77::2]"] {
            soon_gets(engine, "friend", name);
        }
        let lookup = inside(engine, "friend", "nslookup -type=aaaa web; nslookup -type=a web; nslookup fd77::2");
        assert!(lookup.contains("Address: fd77::2") && lookup.contains("name = web.six"), "{lookup}");
        let stranger = format!("[{}]", place(engine, "stranger", "other", "GlobalIPv6Address"));
        assert!(!gets(engine, "friend", &stranger) && !gets(engine, "stranger", "[fd77::2]"));
        assert!(!gets(engine, "plain", "[fd77::2]"));
        engine.dozen(&["exec", "web", "ping", "-c", "1", "-W", "5", NEIGHBOUR_6]).expect(0);
        // The neighbours of the default bridge go on as ever.
        engine.dozen(&["exec", "plain", "ping", "-c", "1", "-W", "5", "198.51.100.1"]).expect(0);
        assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_6, 8080)), "served\n");
        assert_eq!(machine.page(Side::Machine, SocketAddr::from((Ipv6Addr::LOCALHOST, 8080))), "served\n");
    };
    check(&engine);
    assert_eq!(engine.dozen(&["port", "web"]).text(), "80/tcp -> [::]:8080\n");
    let who = inside(&engine, "web", "cat /etc/hosts");
    assert!(who.lines().any(|line| line.starts_with("fd77::2\t")), "{who}");
    engine.kill();
    assert_eq!(machine.get(Side::Neighbour, SocketAddr::new(MACHINE_6, 8080)).as_deref(), Ok("served\n"));
    engine.restart();
    check(&engine);
    // Others are given to others.
    serve(&engine, "late", &["--network", "six"]);
    let late = place(&engine, "late", "six", "GlobalIPv6Address");
    assert!(!["fd77::2", &place(&engine, "friend", "six", "GlobalIPv6Address")].contains(&late.as_str()), "{late}");
    engine.dozen(&["rm", "-f", "web", "friend", "late", "stranger", "plain"]).expect(0);
    engine.dozen(&["network", "rm", "six", "other", "both"]).expect(0);
    assert!(!machine.snapshot().iter().any(|line| line.contains(&bridge)));
}

#[test]
fn ports_of_one_are_published_on_ipv6_alone() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    create(&engine, &[], "six");
    for address in ["127.0.0.1", "0.0.0.0"] {
        let port = format!("{address}:8080:80");
        engine
            .dozen(&["run", "--rm", "--network", "six", "-p", &port, "busybox", "true"])
            .refuses(125, &[&format!("cannot publish 80 on {address}: the network has no IPv4")]);
    }
    // What is in use on IPv4 is nobody's business here.
    serve(&engine, "four", &["-p", "0.0.0.0:8080:80"]);
    serve(&engine, "web", &["--network", "six", "-p", "8080:80"]);
    assert_eq!(
        inspect(&engine, "web", "{{json .NetworkSettings.Ports}}"),
        "{\"80/tcp\":[{\"HostIp\":\"::\",\"HostPort\":\"8080\"}]}"
    );
    // With a way out by each family, each has its own ports.
    engine.dozen(&["network", "create", "zfour"]).expect(0);
    serve(&engine, "two", &["--network", "six", "--network", "zfour", "-p", "8081:80"]);
    let ports: Vec<String> = engine.dozen(&["port", "two"]).text().lines().map(str::to_owned).collect();
    assert_eq!(ports, ["80/tcp -> 0.0.0.0:8081", "80/tcp -> [::]:8081"]);
    for address in [dozen_testbox::MACHINE_ADDRESS, MACHINE_6] {
        assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(address, 8081)), "served\n");
    }
    for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        assert_eq!(machine.page(Side::Machine, SocketAddr::new(loopback, 8081)), "served\n");
    }
    // Who leaves IPv4 keeps its ports on IPv6.
    engine.dozen(&["network", "disconnect", "zfour", "two"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_6, 8081)), "served\n");
    assert_eq!(machine.page(Side::Machine, SocketAddr::from((Ipv6Addr::LOCALHOST, 8081))), "served\n");
    assert!(machine.get(Side::Neighbour, SocketAddr::new(dozen_testbox::MACHINE_ADDRESS, 8081)).is_err());
    engine.dozen(&["network", "connect", "zfour", "two"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(dozen_testbox::MACHINE_ADDRESS, 8081)), "served\n");
}

#[test]
fn addresses_are_given_out_as_they_were_asked_for() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let options = ["--subnet", "fd78::/64", "--ip-range", "fd78::100/126", "--gateway", "fd78::fe"];
    create(&engine, &[&options[..], &["--aux-address", "router=fd78::101"]].concat(), "six");
    serve(&engine, "first", &["--network", "six"]);
    serve(&engine, "second", &["--network", "six"]);
    serve(&engine, "fixed", &["--network", "name=six,ip6=fd78::9"]);
    assert_eq!(
        ["first", "second", "fixed"].map(|name| place(&engine, name, "six", "GlobalIPv6Address")),
        ["fd78::100", "fd78::102", "fd78::9"]
    );
    assert!(inside(&engine, "first", "ip -6 route show default").starts_with("default via fd78::fe dev eth0"));
    let refuses = |options: &[&str], words: &str| {
        let line = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        engine.dozen(&line).refuses(125, &[words]);
    };
    refuses(&["--network", "six", "--ip6", "fd78::9"], "Address already in use");
    refuses(
        &["--network", "six", "--ip", "10.1.0.9"],
        "no configured subnet or ip-range contain the IP address 10.1.0.9",
    );
    serve(&engine, "plain", &[]);
    engine
        .dozen(&["network", "connect", "--ip", "10.1.0.9", "six", "plain"])
        .refuses(1, &["no configured subnet or ip-range contain the IP address 10.1.0.9"]);
    engine.dozen(&["network", "connect", "six", "plain"]).expect(0);
    soon_gets(&engine, "plain", "first");
    assert_eq!(inside(&engine, "plain", "ip -4 addr show dev eth1"), "");
    let create = |options: &[&str], words: &str| {
        let line = [&["network", "create"], options, &["new"]].concat();
        engine.dozen(&line).refuses(1, &[words]);
    };
    create(&["--ipv4=false"], "a network with neither IPv4 nor IPv6 is not built yet");
    create(&["--ipv4=false", "--ipv6", "--subnet", "10.9.0.0/24"], "an IPv4 subnet is given, and EnableIPv4 is false");
    create(&["--ipv4=false", "--ipv6", "--subnet", "fd78::/48"], "Pool overlaps with other one on this address space");
}

#[test]
fn an_internal_one_leads_nowhere() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    create(&engine, &["--internal"], "private");
    serve(&engine, "one", &["--network", "private"]);
    serve(&engine, "two", &["--network", "private", "-p", "8080:80"]);
    soon_gets(&engine, "two", "one");
    assert_ne!(engine.dozen(&["exec", "one", "ping", "-c", "1", "-W", "1", NEIGHBOUR_6]).code, 0);
    assert_eq!(place(&engine, "one", "private", "IPv6Gateway"), "");
    assert_eq!(engine.dozen(&["port", "two"]).text(), "");
}

#[test]
fn on_a_wire_containers_have_ipv6_alone_too() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let subnet = ["--subnet", "2001:db8:b0::/64", "--gateway", NEIGHBOUR_6, "--ip-range", "2001:db8:b0::8000/120"];
    create(&engine, &[&["-d", "macvlan", "-o", "parent=eth0"], &subnet[..]].concat(), "wire");
    serve(&engine, "web", &["--network", "wire"]);
    assert_eq!(inside(&engine, "web", "ip -4 addr show dev eth0"), "");
    let address: IpAddr = place(&engine, "web", "wire", "GlobalIPv6Address").parse().unwrap();
    assert_eq!(address, "2001:db8:b0::8000".parse::<IpAddr>().unwrap());
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(address, 80)), "served\n");
    engine.dozen(&["exec", "web", "ping", "-c", "1", "-W", "5", NEIGHBOUR_6]).expect(0);
    engine.kill();
    engine.restart();
    serve(&engine, "friend", &["--network", "wire"]);
    soon_gets(&engine, "friend", "web");
    assert_eq!(place(&engine, "friend", "wire", "GlobalIPv6Address"), "2001:db8:b0::8001");
}
