//! Other people's firewalls on the host: who can reach a published port beside them, and what is opened when asked.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};

use dozen_testbox::{Engine, MACHINE_ADDRESS, Machine, NEIGHBOUR_ADDRESS, Side, until};

const SERVE: &str = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";

/// As the tools of today's distributions leave them, with what is of no matter left out.
const UFW: &str = "table ip filter {
    chain ufw-user-forward { }
    chain ufw-before-forward { ct state related,established counter accept; counter jump ufw-user-forward; }
    chain ufw-reject-forward { }
    chain FORWARD { type filter hook forward priority 0; policy drop;
        counter jump ufw-before-forward; counter jump ufw-reject-forward; } }";
const DOCKER: &str = "table ip filter {
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority 0; policy drop;
        counter jump DOCKER-USER; oifname docker0 ct state established counter accept;
        iifname docker0 oifname != docker0 counter accept; } }";
const FIREWALLD: &str = "table inet firewalld {
    chain filter_FWD_public { icmp type timestamp-request drop; }
    chain filter_FORWARD_ZONES { iifname eth0 goto filter_FWD_public; goto filter_FWD_public; }
    chain filter_FORWARD { type filter hook forward priority 10; policy accept;
        ct state established,related accept; ct status dnat accept; iifname lo accept;
        jump filter_FORWARD_ZONES; reject with icmpx type admin-prohibited; } }";

struct Host<'a> {
    machine: &'a Machine,
    engine: Engine<'a>,
}

impl<'a> Host<'a> {
    fn with_web(machine: &'a Machine) -> Self {
        let engine = machine.engine();
        engine.load("busybox");
        let run = ["run", "-d", "--name", "web", "-p", "0.0.0.0:8080:80", "busybox", "sh", "-c", SERVE];
        engine.dozen(&run).expect(0);
        let host = Self { machine, engine };
        assert_eq!(machine.page(Side::Neighbour, outside()), "served\n");
        assert_eq!(host.reach(), "everybody\n");
        host
    }

    fn load(&self, rules: &str) {
        self.machine.run_with("nft", &["-f", "-"], rules.replace("} }", "}\n}").as_bytes(), &[]).expect(0);
    }

    fn reach(&self) -> String {
        self.engine.dozen(&["system", "ports", "--format", "{{.Reach}}"]).text()
    }

    fn neighbour_reaches_it(&self) -> bool {
        self.machine.get(Side::Neighbour, outside()).is_ok()
    }

    fn it_reaches_the_neighbour(&self) -> bool {
        let ping = ["exec", "web", "ping", "-c", "1", "-W", "2", &NEIGHBOUR_ADDRESS.to_string()];
        self.engine.dozen(&ping).code == 0
    }

    fn our_rules(&self) -> usize {
        let rules = self.machine.run("nft", &["--stateless", "list", "ruleset"]).text();
        rules.lines().filter(|line| line.contains("comment \"dozen")).count()
    }
}

fn outside() -> SocketAddr {
    SocketAddr::new(MACHINE_ADDRESS, 8080)
}

fn opened_and_closed_again(rules: &str, chain: &str, published_pass: bool) {
    let machine = Machine::new();
    let mut host = Host::with_web(&machine);
    host.load(rules);
    assert_eq!(host.reach(), if published_pass { "everybody\n" } else { "machine\n" });
    assert_eq!(host.neighbour_reaches_it(), published_pass);
    assert!(!host.it_reaches_the_neighbour());
    assert_eq!(machine.page(Side::Machine, SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))), "served\n");
    let shown = host.engine.dozen(&["system", "firewall", "show"]).text();
    assert!(shown.contains(chain) && shown.contains("is left alone"), "{shown}");
    assert_eq!(host.our_rules(), 0, "nobody has asked");

    let shown = host.engine.dozen(&["system", "firewall", "allow"]).text();
    assert!(shown.contains("No chain is known to drop"), "{shown}");
    assert_eq!(host.reach(), "everybody\n");
    assert!(host.neighbour_reaches_it() && host.it_reaches_the_neighbour());
    assert_eq!(host.our_rules(), 2);

    // The firewall's own tool loads its rules anew, while an engine is there and while none is.
    let delete = format!("delete table {}\n{rules}", chain.rsplit_once(' ').unwrap().0);
    host.load(&delete);
    until("the rules are there again", || (host.our_rules() == 2).then_some(()));
    assert!(host.neighbour_reaches_it() && host.it_reaches_the_neighbour());
    host.engine.kill();
    host.load(&delete);
    host.engine.restart();
    until("the next engine adds them", || (host.our_rules() == 2).then_some(()));
    assert!(host.neighbour_reaches_it() && host.it_reaches_the_neighbour());

    host.engine.dozen(&["system", "firewall", "forget"]).expect(0);
    assert_eq!(host.our_rules(), 0);
    assert_eq!(host.neighbour_reaches_it(), published_pass);
    assert!(!host.it_reaches_the_neighbour());
}

#[test]
fn beside_ufw_what_is_published_is_reached_once_that_is_allowed() {
    opened_and_closed_again(UFW, "ip filter FORWARD", false);
}

#[test]
fn beside_docker_what_is_published_is_reached_once_that_is_allowed() {
    opened_and_closed_again(DOCKER, "ip filter FORWARD", false);
}

#[test]
fn beside_firewalld_what_is_published_is_reached_and_containers_reach_out_once_that_is_allowed() {
    opened_and_closed_again(FIREWALLD, "inet firewalld filter_FORWARD", true);
}

/// A network that is made later is let through as well, and takes its rules along.
#[test]
fn what_was_allowed_is_so_for_networks_that_come() {
    let machine = Machine::new();
    let host = Host::with_web(&machine);
    host.load(UFW);
    host.engine.dozen(&["system", "firewall", "allow"]).expect(0);
    host.engine.dozen(&["network", "create", "back"]).expect(0);
    let ping = ["run", "--rm", "--network", "back", "busybox", "ping", "-c", "1", &NEIGHBOUR_ADDRESS.to_string()];
    host.engine.dozen(&ping).expect(0);
    assert_eq!(host.our_rules(), 4);
    host.engine.dozen(&["network", "rm", "back"]).expect(0);
    assert_eq!(host.our_rules(), 2);
    // Docker's own words for a rule: iptables can read what we wrote.
    let listed = machine.run("iptables-nft", &["-S", "FORWARD"]).text();
    assert_eq!(listed.lines().filter(|line| line.starts_with("-A FORWARD") && line.ends_with("-j ACCEPT")).count(), 2);
}

#[test]
fn every_published_port_is_listed_with_who_can_reach_it() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    assert_eq!(engine.dozen(&["system", "ports"]).text().lines().count(), 1, "the headings");
    let publish = |name: &str, ports: &[&str]| {
        let ports = ports.iter().flat_map(|port| ["-p", port]);
        let words = ["run", "-d", "--name", name].into_iter().chain(ports).chain(["busybox", "sleep", "1000"]);
        engine.dozen(&words.collect::<Vec<_>>()).expect(0);
    };
    machine.run("ip", &["address", "add", "10.9.9.9/24", "dev", "eth0"]).expect(0);
    publish("all", &["8080:80"]);
    publish("some", &["127.0.0.1:8081:80/udp", "[::1]:8082:80", "10.9.9.9:8083:80"]);
    let line = "{{.Names}} {{.Address}} {{.Port}} {{.ReachableBy}}";
    let mut lines: Vec<String> =
        engine.dozen(&["system", "ports", "--format", line]).text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "all 0.0.0.0:8080 80/tcp everybody",
            "all [::]:8080 80/tcp everybody",
            "some 10.9.9.9:8083 80/tcp eth0 (10.9.9.0/24), containers",
            "some 127.0.0.1:8081 80/udp this machine",
            "some [::1]:8082 80/tcp this machine",
        ]
    );
    // The address goes: nobody can send to it.
    machine.run("ip", &["address", "del", "10.9.9.9/24", "dev", "eth0"]).expect(0);
    let gone = engine.dozen(&["system", "ports"]);
    assert!(gone.out.contains("nobody (!)") && gone.err.contains("no interface of this machine has the address"));
    assert!(gone.err.contains("Not known: what routers and firewalls beyond this machine let through"), "{}", gone.err);
    // What somebody does to the table is seen: it is the kernel that is asked.
    let table = machine.run("nft", &["list", "tables"]).text();
    let table = table.lines().find_map(|line| line.strip_prefix("table ").filter(|it| it.contains("dozen"))).unwrap();
    machine.run("nft", &[&format!("flush map {table} published4")]).expect(0);
    let reach = engine.dozen(&["system", "ports", "--format", "{{.HostIP}} {{.Reach}}"]).text();
    assert!(reach.lines().any(|line| line == "0.0.0.0 nobody"), "{reach}");
    engine.dozen(&["rm", "-f", "all", "some"]).expect(0);
    assert_eq!(engine.dozen(&["system", "ports", "-q"]).text(), "");
}
