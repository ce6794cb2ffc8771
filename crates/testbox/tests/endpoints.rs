//! What is asked of a container's interface on a network: its name, its settings, further addresses.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine};

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const NAME: &str = "com.docker.network.endpoint.ifname";

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

fn runs(engine: &Engine<'_>, name: &str, options: &[&str]) {
    let line = [&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat();
    engine.dozen(&line).expect(0);
}

fn inside(engine: &Engine<'_>, name: &str, script: &str) -> String {
    engine.dozen(&["exec", name, "sh", "-c", script]).text()
}

fn inspect(engine: &Engine<'_>, name: &str, format: &str) -> String {
    engine.dozen(&["inspect", "-f", format, name]).text().trim().to_owned()
}

#[test]
fn an_interface_has_the_name_and_the_settings_that_it_was_given() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    engine.dozen(&["network", "create", "back"]).expect(0);
    let prefix = "com.docker.network.container_iface_prefix=lan";
    engine.dozen(&["network", "create", "--ipv6", "-o", prefix, "six"]).expect(0);
    let options = format!(
        "name=back,\"driver-opt={SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.ucast_solicit=7\",\
         driver-opt={NAME}=eth7"
    );
    runs(&engine, "web", &["--network", &options]);
    let seen = "ls /sys/class/net | tr '\\n' ' '; cd /proc/sys/net/ipv4; cat conf/eth7/log_martians neigh/eth7/ucast_solicit; \
                cat conf/default/log_martians";
    assert_eq!(inside(&engine, "web", seen), "eth7 lo 1\n7\n0\n");
    let shown = format!("{{{{index .NetworkSettings.Networks.back.DriverOpts \"{NAME}\"}}}}");
    assert_eq!(inspect(&engine, "web", &shown), "eth7");
    engine.dozen(&["exec", "web", "ping", "-c", "1", "-W", "5", "198.51.100.1"]).expect(0);
    // The same of one that is connected while it runs; the network has a word for those that name none.
    let accept = format!("{SYSCTLS}=net.ipv6.conf.IFNAME.accept_ra=2");
    engine.dozen(&["network", "connect", "--driver-opt", &accept, "six", "web"]).expect(0);
    assert_eq!(inside(&engine, "web", "cat /proc/sys/net/ipv6/conf/lan0/accept_ra"), "2\n");
    // All of it holds at the next start, and with the next engine.
    engine.kill();
    engine.restart();
    engine.dozen(&["restart", "-t", "0", "web"]).expect(0);
    let seen = "ls /sys/class/net | tr '\\n' ' '; cat /proc/sys/net/ipv4/conf/eth7/log_martians /proc/sys/net/ipv6/conf/lan0/accept_ra";
    assert_eq!(inside(&engine, "web", seen), "eth7 lan0 lo 1\n2\n");
    // Who names none leaves alone what another one asks for.
    let second = format!("name=six,driver-opt={NAME}=eth0");
    runs(&engine, "two", &["--network", "back", "--network", &second]);
    assert_eq!(inside(&engine, "two", "ls /sys/class/net | tr '\\n' ' '"), "eth0 eth1 lo ");
    let taken = format!("{NAME}=eth1");
    engine
        .dozen(&["network", "connect", "--driver-opt", &taken, "bridge", "two"])
        .refuses(1, &["the container's interface eth1 is there already, for the network back"]);
    assert_eq!(inside(&engine, "two", "ls /sys/class/net | tr '\\n' ' '"), "eth0 eth1 lo ");
}

#[test]
fn settings_that_cannot_be_are_refused_and_nothing_is_left() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["network", "create", "back"]).expect(0);
    engine.dozen(&["network", "create", "--ipv6", "--ipv4=false", "six"]).expect(0);
    runs(&engine, "plain", &["--network", "back"]);
    let before = machine.snapshot();
    let refuses = |option: &str, network: &str, words: &str| {
        let place = format!("name={network},\"driver-opt={option}\"");
        engine.dozen(&["run", "--rm", "--network", &place, "busybox", "true"]).refuses(125, &[words]);
        let line = ["network", "connect", "--driver-opt", option, network, "plain"];
        if network != "back" {
            engine.dozen(&line).refuses(1, &[words]);
        }
    };
    let unknown = "unrecognised network interface sysctl";
    for sysctl in [
        "net.ipv4.ip_forward=1",
        "net.ipv4.conf.all.forwarding=1",
        "kernel.core_pattern=x",
        "net.ipv4.conf/../../../kernel.IFNAME.core_pattern=x",
        "net.ipv4.conf.IFNAME./../../../../kernel/core_pattern=x",
        "net.ipv4.conf.IFNAME.log_martians",
    ] {
        refuses(&format!("{SYSCTLS}={sysctl}"), "bridge", unknown);
    }
    refuses(&format!("{SYSCTLS}=net.ipv4.conf.IFNAME.no_such=1"), "bridge", "is not a sysctl file");
    refuses(
        &format!("{SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=many"),
        "bridge",
        "unable to write \"many\" to '/proc/sys/net/ipv4/conf/",
    );
    refuses(
        &format!("{SYSCTLS}=net.ipv6.conf.IFNAME.disable_ipv6=1"),
        "six",
        "an IPv6 address is asked for, and the interface has no IPv6",
    );
    refuses(&format!("{NAME}=lo"), "bridge", "invalid interface name \"lo\"");
    refuses(&format!("{NAME}=a/b"), "bridge", "invalid interface name \"a/b\"");
    refuses("com.example.colour=red", "bridge", "the endpoint option \"com.example.colour\" is not built yet");
    // A namespace that is going takes its links along in its own time; bridges stay.
    let is_link = |line: &&String| line.starts_with("interface dz") && !line.starts_with("interface dz-");
    dozen_testbox::until("no link is left", || {
        machine.snapshot().difference(&before).all(|line| !is_link(&line)).then_some(())
    });
    assert_eq!(inside(&engine, "plain", "ls /sys/class/net | tr '\\n' ' '"), "eth0 lo ");
    // IPv6 that is not wanted is not had, and not told of.
    engine.dozen(&["network", "create", "--ipv6", "both"]).expect(0);
    let off = format!("name=both,driver-opt={SYSCTLS}=net.ipv6.conf.IFNAME.disable_ipv6=1");
    runs(&engine, "four", &["--network", &off]);
    assert_eq!(inspect(&engine, "four", "{{.NetworkSettings.Networks.both.GlobalIPv6Address}}"), "");
    assert_eq!(inside(&engine, "four", "ip -6 addr show dev eth0"), "");
}

#[test]
fn an_interface_has_the_further_addresses_that_it_was_given() {
    let machine = Machine::new();
    // Where br_netfilter puts frames between containers through the host's rules, those let nobody speak as another.
    machine
        .run("sh", &["-c", "for all in /proc/sys/net/bridge/bridge-nf-call-ip*; do echo 0 >$all || true; done"])
        .expect(0);
    let mut engine = with_busybox(&machine);
    engine.dozen(&["network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "back"]).expect(0);
    runs(&engine, "one", &["--network", "back", "--link-local-ip", "169.254.7.7", "--link-local-ip", "fe80::77"]);
    runs(&engine, "two", &["--network", "name=back,link-local-ip=169.254.7.8"]);
    let check = |engine: &Engine<'_>| {
        let seen = inside(engine, "one", "ip addr show dev eth0");
        assert!(seen.contains("169.254.7.7/16") && seen.contains("fe80::77/64"), "{seen}");
        assert_eq!(
            inspect(engine, "one", "{{json .NetworkSettings.Networks.back.IPAMConfig}}"),
            r#"{"LinkLocalIPs":["169.254.7.7","fe80::77"]}"#
        );
        engine.dozen(&["exec", "two", "ping", "-c", "1", "-W", "5", "169.254.7.7"]).expect(0);
        engine.dozen(&["exec", "two", "ping", "-c", "1", "-W", "5", "198.51.100.1"]).expect(0);
    };
    check(&engine);
    engine.kill();
    engine.restart();
    check(&engine);
    runs(&engine, "late", &[]);
    engine.dozen(&["network", "connect", "--link-local-ip", "57.123.22.11", "back", "late"]).expect(0);
    assert!(inside(&engine, "late", "ip addr show dev eth1").contains("57.123.22.11/16"));
    engine.dozen(&["network", "disconnect", "back", "late"]).expect(0);
    let refuses = |address: &str, network: &str, words: &str| {
        let line = ["run", "--rm", "--network", network, "--link-local-ip", address, "busybox", "true"];
        engine.dozen(&line).refuses(125, &[words]);
    };
    refuses("10.77.0.9", "back", "is of the network's own subnet, and no link-local one");
    refuses("127.0.0.9", "back", "invalid link-local IP address: 127.0.0.9");
    refuses("169.254.7.9", "host", "driver-opt, link-local-ip and the network mode");
    // Which subnet a network has is the engine's choice where nobody says.
    engine.dozen(&["network", "create", "auto"]).expect(0);
    let subnet = engine.dozen(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "auto"]).text();
    refuses("fe80::9", "auto", "the network auto has no IPv6");
    refuses(subnet.trim(), "auto", "is of the network's own subnet, and no link-local one");
}

#[test]
fn the_docker_client_asks_for_the_same() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    // Clients before 28 have no --ipv4.
    engine.dozen(&["network", "create", "--ipv6", "--ipv4=false", "--subnet", "fd79::/64", "six"]).expect(0);
    let option = format!(
        "name=six,ip6=fd79::9,\"driver-opt={SYSCTLS}=net.ipv6.conf.IFNAME.hop_limit=77\",driver-opt={NAME}=lan7"
    );
    engine.docker(&["run", "-d", "--name", "web", "--network", &option, "busybox", "sleep", "1000"]).expect(0);
    let seen =
        "cat /proc/sys/net/ipv6/conf/lan7/hop_limit; ip -6 addr show dev lan7 scope global; ip -4 addr show dev lan7";
    let seen = inside(&engine, "web", seen);
    assert!(seen.starts_with("77\n") && seen.contains("fd79::9/64") && !seen.contains("inet "), "{seen}");
    let options = "{{json (index .NetworkSettings.Networks \"six\").DriverOpts}}";
    let shown = engine.docker(&["inspect", "-f", options, "web"]).text();
    assert!(shown.contains(&format!("\"{NAME}\":\"lan7\"")), "{shown}");
    engine.docker(&["network", "create", "back"]).expect(0);
    let line = [
        "network",
        "connect",
        "--driver-opt",
        &format!("{NAME}=lan8"),
        "--link-local-ip",
        "169.254.8.8",
        "back",
        "web",
    ];
    engine.docker(&line).expect(0);
    assert!(inside(&engine, "web", "ip addr show dev lan8").contains("169.254.8.8/16"));
}
