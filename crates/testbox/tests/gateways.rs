//! Gateway modes of bridges: who reaches containers by their own addresses, and what leaves shows its own.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use dozen_testbox::{Engine, MACHINE_ADDRESS, Machine, Side, until};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};

/// Two pages: port 80 is published, port 81 is not.
const SERVE: &str = "mkdir /www; echo served >/www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www";
const MACHINE_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb0, 0, 0, 0, 0, 2));
const NEIGHBOUR: (&str, &str) = ("198.51.100.1", "2001:db8:b0::1");
const OF_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const OF_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

/// A network of 10.N.0.0/24 and fd00:N::/64 with these modes, to which the neighbour has routes.
fn create(machine: &Machine, engine: &Engine<'_>, number: u8, modes: [&str; 2], options: &[&str]) -> String {
    let (name, four, six) = (format!("net{number}"), format!("10.{number}.0.0/24"), format!("fd00:{number}::/64"));
    let modes = [format!("{OF_IPV4}={}", modes[0]), format!("{OF_IPV6}={}", modes[1])];
    let line = ["network", "create", "--ipv6", "--subnet", &four, "--subnet", &six, "-o", &modes[0], "-o", &modes[1]];
    engine.dozen(&[&line, options, &[&name]].concat()).expect(0);
    next_door(machine, &["ip", "route", "add", &four, "via", "198.51.100.2"]);
    next_door(machine, &["ip", "-6", "route", "add", &six, "via", "2001:db8:b0::2"]);
    name
}

fn next_door(machine: &Machine, line: &[&str]) {
    let status = machine.on(Side::Neighbour, || Command::new(line[0]).args(&line[1..]).status()).unwrap();
    assert!(status.success(), "{line:?}");
}

fn serve(engine: &Engine<'_>, name: &str, options: &[&str]) {
    let line = [&["run", "-d", "--name", name], options, &["busybox", "sh", "-c", SERVE]].concat();
    engine.dozen(&line).expect(0);
}

fn inspect(engine: &Engine<'_>, name: &str, format: &str) -> String {
    engine.dozen(&["inspect", "-f", format, name]).text().trim().to_owned()
}

/// The container's addresses on this network.
fn addresses(engine: &Engine<'_>, name: &str, network: &str) -> [IpAddr; 2] {
    let place = format!("index .NetworkSettings.Networks \"{network}\"");
    ["IPAddress", "GlobalIPv6Address"]
        .map(|field| inspect(engine, name, &format!("{{{{({place}).{field}}}}}")).parse().unwrap())
}

/// Whether the neighbour gets an answer from there; what is dropped is waited for a little.
fn is_open(machine: &Machine, to: SocketAddr) -> bool {
    let connect = || std::net::TcpStream::connect_timeout(&to, Duration::from_millis(500));
    machine.on(Side::Neighbour, connect).is_ok()
}

/// Whether the neighbour's echo request is answered (icmp(7): a socket of the kernel's own, which does the checksum).
fn pings(machine: &Machine, to: IpAddr) -> bool {
    let ask = || {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        let (family, protocol, request) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
        };
        let socket = rustix::net::socket(family, SocketType::DGRAM, Some(protocol))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(700)))?;
        rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
        rustix::net::send(&socket, &[request, 0, 0, 0, 0, 0, 0, 1], SendFlags::empty())?;
        Ok(rustix::net::recv(&socket, &mut [0; 64][..], RecvFlags::empty()).is_ok())
    };
    machine.on(Side::Neighbour, ask).unwrap()
}

/// What stands in a set of the engine's table, if anything.
fn elements(machine: &Machine, set: &str) -> String {
    let all = machine.run("nft", &["list", "ruleset"]).text();
    let of_set = all.split(&format!("set {set} {{")).nth(1).unwrap();
    // Its elements stand in braces of their own, before its own closing one.
    let of_set = of_set.split("\n\t}").next().unwrap();
    of_set.split("elements = {").nth(1).unwrap_or_default().trim().to_owned()
}

fn gets(engine: &Engine<'_>, from: &str, to: SocketAddr) -> bool {
    let url = format!("http://{to}/");
    engine.dozen(&["exec", from, "timeout", "2", "wget", "-q", "-O", "-", &url]).code == 0
}

/// As whom the container's packets arrive next door.
fn seen_as(machine: &Machine, engine: &Engine<'_>, from: &str, to: &str) -> IpAddr {
    let address = SocketAddr::new(to.parse().unwrap(), 7777);
    let listener = machine.on(Side::Neighbour, || TcpListener::bind(address)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let call = || {
        engine.dozen(&["exec", from, "timeout", "1", "nc", "-w", "1", to, "7777"]);
        listener.accept().ok()
    };
    until("the call arrives", call).1.ip()
}

#[test]
fn in_routed_mode_published_ports_are_the_containers_own() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let routed = create(&machine, &engine, 71, ["routed", "routed"], &[]);
    let mixed = create(&machine, &engine, 72, ["nat", "routed"], &[]);
    serve(&engine, "web", &["--network", &routed, "-p", "8080:80"]);
    serve(&engine, "half", &["--network", &mixed, "-p", "8081:80"]);
    serve(&engine, "shut", &["--network", &routed]);
    serve(&engine, "plain", &[]);
    let ports = "{{json .NetworkSettings.Ports}}";
    let [four, six] = ["0.0.0.0", "::"].map(|address| format!("{{\"HostIp\":\"{address}\",\"HostPort\":\"\"}}"));
    assert_eq!(inspect(&engine, "web", ports), format!("{{\"80/tcp\":[{four},{six}]}}"));
    let host = "{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"8081\"}";
    assert_eq!(inspect(&engine, "half", ports), format!("{{\"80/tcp\":[{host},{six}]}}"));
    assert_eq!(engine.dozen(&["port", "half"]).text().lines().next(), Some("80/tcp -> 0.0.0.0:8081"));
    let check = |engine: &Engine<'_>| {
        let (web, shut, half) =
            (addresses(engine, "web", "net71"), addresses(engine, "shut", "net71"), addresses(engine, "half", "net72"));
        for address in web {
            assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(address, 80)), "served\n");
            assert!(!is_open(&machine, SocketAddr::new(address, 81)), "what is not published stays shut");
            assert!(pings(&machine, address));
            // Containers of other networks reach it so too, and only what is published.
            assert!(
                gets(engine, "plain", SocketAddr::new(address, 80))
                    && gets(engine, "half", SocketAddr::new(address, 80))
            );
            assert!(!gets(engine, "plain", SocketAddr::new(address, 81)));
        }
        for address in shut {
            assert!(!is_open(&machine, SocketAddr::new(address, 80)));
        }
        assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(half[1], 80)), "served\n");
        assert!(
            !is_open(&machine, SocketAddr::new(half[0], 80)) && !pings(&machine, half[0]),
            "IPv4 is translated there"
        );
        assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8081)), "served\n");
        for (address, port) in [(MACHINE_ADDRESS, 8080), (MACHINE_6, 8080), (MACHINE_6, 8081)] {
            assert!(!is_open(&machine, SocketAddr::new(address, port)), "{address} {port} is not the host's");
        }
        // What leaves shows its own address, or the host's.
        assert_eq!(seen_as(&machine, engine, "web", NEIGHBOUR.0), web[0]);
        assert_eq!(seen_as(&machine, engine, "web", NEIGHBOUR.1), web[1]);
        assert_eq!(seen_as(&machine, engine, "half", NEIGHBOUR.0), MACHINE_ADDRESS);
        assert_eq!(seen_as(&machine, engine, "half", NEIGHBOUR.1), half[1]);
    };
    check(&engine);
    let web = addresses(&engine, "web", &routed);
    engine.kill();
    assert_eq!(machine.get(Side::Neighbour, SocketAddr::new(web[0], 80)).as_deref(), Ok("served\n"));
    engine.restart();
    check(&engine);
    // Somebody takes the firewall away, and it is there again with all that was open.
    machine.run("nft", &["flush", "ruleset"]).expect(0);
    let has_table = || machine.run("nft", &["list", "ruleset"]).text().contains("set direct4");
    until("the table is there again", || has_table().then_some(()));
    until("what is not published is shut", || (!is_open(&machine, SocketAddr::new(web[0], 81))).then_some(()));
    check(&engine);
    // Nothing stays open of one that is gone, nor of one that has left.
    engine.dozen(&["network", "connect", "bridge", "web"]).expect(0);
    engine.dozen(&["network", "disconnect", &routed, "web"]).expect(0);
    let open = |set: &str| elements(&machine, set);
    assert_eq!(open("direct4"), "");
    engine.dozen(&["network", "connect", &routed, "web"]).expect(0);
    engine.dozen(&["network", "disconnect", "bridge", "web"]).expect(0);
    let address = SocketAddr::new(addresses(&engine, "web", &routed)[0], 80);
    assert_eq!(machine.page(Side::Neighbour, address), "served\n");
    engine.dozen(&["rm", "-f", "web", "half"]).expect(0);
    assert_eq!(["direct4", "direct6"].map(open), ["", ""]);
    assert!(!is_open(&machine, address));
}

#[test]
fn of_one_that_an_engine_did_not_see_end_nothing_stays_open() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let routed = create(&machine, &engine, 73, ["routed", "routed"], &[]);
    serve(&engine, "web", &["--network", &routed, "-p", "80", "-p", "53:53/udp"]);
    serve(&engine, "other", &["--network", &routed, "-p", "[::]::80"]);
    let pid: i32 = inspect(&engine, "web", "{{.State.Pid}}").parse().unwrap();
    let [four, six] = addresses(&engine, "other", &routed);
    engine.kill();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    engine.restart();
    until("its ports are shut", || elements(&machine, "direct4").is_empty().then_some(()));
    assert!(elements(&machine, "direct6").contains(&six.to_string()));
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(six, 80)), "served\n");
    assert!(!is_open(&machine, SocketAddr::new(four, 80)), "it was published on IPv6 alone");
}

#[test]
fn unprotected_is_open_to_who_has_a_route_and_to_no_other_container() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let open = create(&machine, &engine, 74, ["nat-unprotected", "nat-unprotected"], &[]);
    let guarded = create(&machine, &engine, 75, ["nat", "nat"], &[]);
    serve(&engine, "web", &["--network", &open, "-p", "8080:80"]);
    serve(&engine, "safe", &["--network", &guarded, "-p", "8081:80"]);
    serve(&engine, "plain", &[]);
    for address in addresses(&engine, "web", &open) {
        assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(address, 81)), "served\n");
        assert!(pings(&machine, address));
        assert!(
            !gets(&engine, "plain", SocketAddr::new(address, 80))
                && !gets(&engine, "safe", SocketAddr::new(address, 81))
        );
    }
    for address in addresses(&engine, "safe", &guarded) {
        assert!(!is_open(&machine, SocketAddr::new(address, 80)) && !pings(&machine, address));
    }
    for address in [MACHINE_ADDRESS, MACHINE_6] {
        assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(address, 8080)), "served\n");
    }
    assert_eq!(seen_as(&machine, &engine, "web", NEIGHBOUR.0), MACHINE_ADDRESS);
}

#[test]
fn an_isolated_network_is_cut_off_from_the_host_too() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    engine
        .dozen(&["network", "create", "-o", &format!("{OF_IPV4}=isolated"), "alone"])
        .refuses(1, &["gateway mode 'isolated' can only be used for an internal network"]);
    let alone = create(&machine, &engine, 76, ["isolated", "isolated"], &["--internal"]);
    let inside = create(&machine, &engine, 77, ["nat", "nat"], &["--internal"]);
    serve(&engine, "one", &["--network", &alone]);
    serve(&engine, "two", &["--network", &alone]);
    serve(&engine, "known", &["--network", &inside]);
    let id = engine.dozen(&["network", "ls", "-q", "--filter", &format!("name={alone}")]).text();
    let bridge = format!("dz-{}", id.trim());
    let check = |engine: &Engine<'_>| {
        assert_eq!(machine.run("ip", &["-o", "addr", "show", "dev", &bridge]).text(), "");
        for address in addresses(engine, "one", "net76") {
            until("they reach each other", || gets(engine, "two", SocketAddr::new(address, 80)).then_some(()));
            assert!(machine.get(Side::Machine, SocketAddr::new(address, 80)).is_err(), "{address}");
        }
        let known = addresses(engine, "known", "net77")[0];
        assert_eq!(machine.page(Side::Machine, SocketAddr::new(known, 80)), "served\n");
    };
    check(&engine);
    let shown = engine.dozen(&["network", "inspect", "-f", "{{json .IPAM.Config}}", &alone]).text();
    assert_eq!(shown, "[{\"Subnet\":\"10.76.0.0/24\"},{\"Subnet\":\"fd00:76::/64\"}]\n");
    // Nor by another of the host's addresses, where somebody inside knows the bridge's hardware address.
    let heard = machine.on(Side::Machine, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9999))).unwrap();
    heard.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let shout = |from: &str, network: &str| {
        let id = engine.dozen(&["network", "ls", "-q", "--filter", &format!("name={network}")]).text();
        let link = machine.run("cat", &[&format!("/sys/class/net/dz-{}/address", id.trim())]).text();
        let namespace = format!("/proc/{}/ns/net", inspect(&engine, from, "{{.State.Pid}}"));
        let by = |line: &str| {
            let line: Vec<&str> = line.split(' ').collect();
            machine.run("nsenter", &[&[&format!("--net={namespace}")[..], "ip"], &line[..]].concat()).expect(0);
        };
        by("route add 198.51.100.2 dev eth0");
        by(&format!("neigh replace 198.51.100.2 lladdr {} dev eth0 nud permanent", link.trim()));
        let file = std::fs::File::open(&namespace).unwrap();
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(file.as_fd(), kind).unwrap();
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().send_to(b"hello", (MACHINE_ADDRESS, 9999)).unwrap()
            });
            sent.join().unwrap();
        });
        heard.recv(&mut [0; 16]).is_ok()
    };
    assert!(shout("known", &inside), "this is how one would be heard");
    assert!(!shout("one", &alone), "the host hears it");
    engine.kill();
    engine.restart();
    check(&engine);
}

#[test]
fn a_bridge_may_have_somebody_elses_gateway() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let line = ["network", "create", "--subnet", "10.78.0.0/24", "-o", "com.docker.network.bridge.inhibit_ipv4=true"];
    engine.dozen(&[&line[..], &["-o", "com.docker.network.bridge.name=own0", "own"]].concat()).expect(0);
    serve(&engine, "web", &["--network", "own", "-p", "8080:80"]);
    let addresses_of = || machine.run("ip", &["-4", "-o", "addr", "show", "dev", "own0"]).text();
    assert_eq!(addresses_of(), "");
    let route = engine.dozen(&["exec", "web", "ip", "route", "show", "default"]).text();
    assert!(route.starts_with("default via 10.78.0.1 dev eth0"), "{route}");
    // Whoever makes the host the gateway after all keeps what he has set.
    machine.run("ip", &["addr", "add", "10.78.0.1/24", "dev", "own0"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "served\n");
    engine.kill();
    engine.restart();
    assert!(addresses_of().contains("10.78.0.1/24"), "{}", addresses_of());
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "served\n");
}

#[test]
fn a_network_says_where_ports_are_published_that_name_no_address() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let create = |name: &str, address: &str| {
        let option = format!("com.docker.network.bridge.host_binding_ipv4={address}");
        engine.dozen(&["network", "create", "--ipv6", "-o", &option, name]).expect(0);
    };
    create("four", "127.0.0.1");
    create("six", "::1");
    for (name, port, want) in [("four", "8080", "127.0.0.1:8080"), ("six", "8081", "[::1]:8081")] {
        serve(&engine, name, &["--network", name, "-p", &format!("{port}:80")]);
        assert_eq!(engine.dozen(&["port", name]).text(), format!("80/tcp -> {want}\n"));
        assert_eq!(machine.page(Side::Machine, want.parse().unwrap()), "served\n");
        let port = port.parse().unwrap();
        assert!([MACHINE_ADDRESS, MACHINE_6].iter().all(|host| !is_open(&machine, SocketAddr::new(*host, port))));
    }
}
