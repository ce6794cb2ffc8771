//! The network that a container is in, and its published ports.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use dozen_testbox::{MACHINE_ADDRESS, Side, until};

use crate::{Program, for_both};

for_both!(kinds_of_networks, published_ports, ranges_and_all, the_wire);

/// Answers its name on port 80 and 81.
const SERVE: &str = "mkdir /www; echo served >/www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www";

fn kinds_of_networks(program: Program) {
    program.with(|cli| {
        assert_eq!(cli.say(&["--network", "none"], "ls /sys/class/net"), "lo\n");
        let host = cli.say(&["--network", "host"], "ls /sys/class/net; hostname");
        assert!(host.contains("eth0\nlo\n"), "{host}");
        assert_eq!(cli.say(&["--network", "bridge"], "ls /sys/class/net"), "eth0\nlo\n");
        cli.background("web", &["--hostname", "webhost"], SERVE);
        let shared = ["--network", "container:web"];
        let page = until("the neighbour serves", || {
            let done = cli.script(&shared, "wget -qO- http://127.0.0.1/ && hostname && ip -4 -o address show eth0");
            (done.code == 0).then_some(done.out)
        });
        let address = cli.inspect("web", "{{.NetworkSettings.IPAddress}}");
        assert!(page.starts_with("served\nwebhost\n") && page.contains(&address), "{page} {address}");
        cli.script(&["--network", "container:nobody"], "true").refuses(125, &["No such container: nobody"]);
        cli.script(&["--network", "mine"], "true").refuses(125, &["mine"]);
        let both = ["--network", "container:web", "-p", "80:80"];
        cli.script(&both, "true").refuses(125, &["conflicting options"]);
    });
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn published_ports(program: Program) {
    program.with(|cli| {
        cli.background("web", &["-p", "8080:80", "-p", "127.0.0.1:8081:81", "-p", "81"], SERVE);
        let (machine, outside) = (cli.machine, |port| SocketAddr::new(MACHINE_ADDRESS, port));
        assert_eq!(machine.page(Side::Machine, loopback(8080)), "served\n");
        assert_eq!(machine.page(Side::Neighbour, outside(8080)), "served\n");
        assert_eq!(machine.page(Side::Machine, (Ipv6Addr::LOCALHOST, 8080).into()), "served\n");
        let outside_v6 = "[2001:db8:b0::2]:8080".parse().unwrap();
        assert_eq!(machine.page(Side::Neighbour, outside_v6), "served\n");
        assert_eq!(machine.page(Side::Machine, loopback(8081)), "served\n");
        assert!(machine.get(Side::Neighbour, outside(8081)).is_err());
        // One that the engine has chosen.
        let template = "{{range (index .NetworkSettings.Ports \"81/tcp\")}}{{.HostIp}}:{{.HostPort}} {{end}}";
        let bound = cli.inspect("web", template);
        let chosen = bound.split_whitespace().find_map(|one| one.strip_prefix("0.0.0.0:")).unwrap();
        assert_eq!(machine.page(Side::Neighbour, outside(chosen.parse().unwrap())), "served\n");
        // In use: by us, and by someone else on the machine.
        cli.run(&["run", "-d", "--name", "late", "-p", "8080:80", "busybox", "true"])
            .refuses(125, &["8080", "port is already allocated"]);
        assert_eq!(cli.inspect("late", "{{.State.Status}}"), "created");
        cli.text(&["rm", "-f", "web"]);
        assert!(machine.get(Side::Machine, loopback(8080)).is_err());
        cli.text(&["start", "late"]);
    });
}

fn ranges_and_all(program: Program) {
    program.with(|cli| {
        cli.background("range", &["-p", "7000-7001:80-81"], SERVE);
        for port in [7000, 7001] {
            assert_eq!(cli.machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, port)), "served\n");
        }
        // The first free one of several.
        cli.background("next", &["-p", "7000-7005:80"], SERVE);
        let port: u16 =
            cli.inspect("next", "{{(index .NetworkSettings.Ports \"80/tcp\" 0).HostPort}}").parse().unwrap();
        assert!((7002..=7005).contains(&port), "{port}");
        assert_eq!(cli.machine.page(Side::Machine, loopback(port)), "served\n");
        cli.background("all", &["-P", "--expose", "80"], SERVE);
        let port = cli.inspect("all", "{{(index .NetworkSettings.Ports \"80/tcp\" 0).HostPort}}");
        assert_eq!(cli.machine.page(Side::Machine, loopback(port.parse().unwrap())), "served\n");
        for (bad, words) in [("7000-7001:80-85", "7000-7001"), ("80:80:80:80", "80:80"), ("70000:80", "70000")] {
            cli.run(&["run", "--rm", "-p", bad, "busybox", "true"]).refuses(125, &[words]);
        }
    });
}

/// Answers each datagram.
const ECHO: &str = "use IO::Socket::INET; $s = IO::Socket::INET->new(Proto => 'udp', LocalPort => 53) or die; \
                    while (defined $s->recv($_, 999)) { $s->send(\"got $_\") }";

#[test]
fn datagrams() {
    Program::Dozen.with(|cli| {
        let perl = "debian:bookworm-slim";
        cli.run(&["load", "-i", dozen_testbox::image_archive(perl).to_str().unwrap()]).expect(0);
        cli.text(&["run", "-d", "--name", "echo", "-p", "5353:53/udp", perl, "perl", "-e", ECHO]);
        let ask = |from, address| cli.machine.datagram(from, address, b"asked");
        let outside = SocketAddr::new(MACHINE_ADDRESS, 5353);
        assert_eq!(ask(Side::Neighbour, outside), b"got asked");
        assert_eq!(ask(Side::Machine, loopback(5353)), b"got asked");
        // The same number by TCP is another port.
        cli.background("tcp", &["-p", "5353:80"], SERVE);
        assert_eq!(cli.machine.page(Side::Machine, loopback(5353)), "served\n");
        cli.run(&["run", "-d", "-p", "5353:1/udp", "busybox", "true"]).refuses(125, &["port is already allocated"]);
    });
}

fn the_wire(program: Program) {
    program.with(|cli| {
        // Out through the machine's address, by either protocol: the neighbour answers a ping.
        cli.say(&[], "ping -c 1 -W 5 198.51.100.1 && ping -6 -c 1 -W 5 2001:db8:b0::1");
        cli.background("web", &[], SERVE);
        let address = cli.inspect("web", "{{.NetworkSettings.IPAddress}}");
        let script = format!("wget -qO- http://{address}/");
        let page = until("one container reaches the other", || {
            Some(cli.script(&[], &script)).filter(|done| done.code == 0).map(|done| done.out)
        });
        assert_eq!(page, "served\n");
        assert!(cli.say(&[], "cat /etc/resolv.conf").contains("nameserver 198.51.100.1"));
        // Nobody gets from a container to what listens on the machine's own loopback address.
        let mut stream = cli.machine.connect(Side::Machine, loopback(22)).err();
        if let Some(error) = stream.take() {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn connections_go_on_for_as_long_as_they_like() {
    Program::Dozen.with(|cli| {
        cli.background("echo", &["-p", "9000:9000"], "nc -l -p 9000 -e cat");
        let address = SocketAddr::new(MACHINE_ADDRESS, 9000);
        let mut stream = until("it listens", || cli.machine.connect(Side::Neighbour, address).ok());
        let mut answer = [0; 6];
        for _ in 0..3 {
            stream.write_all(b"hello\n").unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello\n");
        }
    });
}
