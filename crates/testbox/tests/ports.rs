//! Published ports at their edges: what cannot be published, what the host's firewall drops, and a keeper that dies.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dozen_testbox::{Engine, MACHINE_ADDRESS, Machine, NEIGHBOUR_ADDRESS, Side, until};
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, Signal};

const SERVE: &str = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

/// Answers each datagram with a number that every run of it has of its own.
const NUMBER: &str = "use IO::Socket::INET; $me = int(rand(1 << 30)); \
    $s = IO::Socket::INET->new(Proto => 'udp', LocalPort => 53) or die; \
    while (defined $s->recv($asked, 100)) { $s->send($me) }";
const PERL: &str = "debian:bookworm-slim";

#[test]
fn udp_is_published_on_every_loopback() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load(PERL);
    engine.dozen(&["run", "-d", "--name", "all", "-p", "5353:53/udp", PERL, "perl", "-e", NUMBER]).expect(0);
    engine.dozen(&["run", "-d", "--name", "one", "-p", "[::1]:5354:53/udp", PERL, "perl", "-e", NUMBER]).expect(0);
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, 5353));
    let [all, one] = [5353, 5354].map(|port| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let ask = |address| String::from_utf8(machine.datagram(Side::Machine, address, b"?")).unwrap();
    let (first, second) = (ask(all), ask(one));
    assert_eq!(ask(four), first);
    assert_ne!(first, second);
    engine.kill();
    assert_eq!((ask(all), ask(one)), (first, second.clone()), "without an engine");
    engine.restart();
    engine.dozen(&["restart", "--time", "0", "one"]).expect(0);
    assert_ne!(ask(one), second);
    engine.dozen(&["rm", "-f", "all", "one"]).expect(0);
    for address in ["[::]:5353", "[::1]:5354"] {
        machine.on(Side::Machine, || UdpSocket::bind(address)).expect("let go");
    }
}

#[test]
fn a_chain_of_the_hosts_firewall_that_drops_is_named() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).expect(0);
    let rules =
        "add table inet strict; add chain inet strict forwarded { type filter hook forward priority 0; policy drop; }";
    machine.run("nft", &[rules]).expect(0);
    let done = engine.dozen(&["create", "-p", "8080:80", "busybox"]).expect(0);
    for words in ["inet strict forwarded", "nft insert rule inet strict forwarded iifname"] {
        assert!(done.err.contains(words), "create does not say '{words}':\n{}", done.err);
        let info = engine.dozen(&["info"]).expect(0);
        assert!((info.out + &info.err).contains(words), "info does not say '{words}'");
    }
}

#[test]
fn a_keeper_that_dies_is_replaced_without_anyone_asking() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE]).expect(0);
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 8080));
    assert_eq!(machine.page(Side::Machine, loopback), "served\n");
    rustix::process::kill_process(keeper(&machine), Signal::KILL).unwrap();
    assert_eq!(machine.page(Side::Machine, loopback), "served\n");
    assert!(engine.log().contains("the keeper has died"), "{}", engine.log());
    // The API's socket is the same, and a restart of the container finds its port, connections in TIME_WAIT or not.
    engine.dozen(&["restart", "--time", "0", "web"]).expect(0);
    assert_eq!(machine.page(Side::Machine, loopback), "served\n");
}

/// Nobody but who publishes a port waits for a keeper that hangs; those get another one.
#[test]
fn a_keeper_that_hangs_holds_up_nobody_else_and_is_replaced() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let serve = |name, port| ["run", "-d", "--name", name, "-p", port, "busybox", "sh", "-c", SERVE];
    engine.dozen(&serve("web", "8080:80")).expect(0);
    let pages = |port: u16| {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
            assert_eq!(machine.page(Side::Machine, address), "served\n");
        }
        assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, port)), "served\n");
    };
    pages(8080);

    let stopped = keeper(&machine);
    rustix::process::kill_process(stopped, Signal::STOP).unwrap();
    let mut publisher = machine.command(dozen_testbox::dozen_program()).args(serve("late", "8081:80")).spawn().unwrap();
    until("the keeper is asked", || {
        std::fs::read_to_string(machine.directory().join("run/keeper.json")).unwrap().contains("8081").then_some(())
    });
    assert_eq!(engine.dozen(&["ps", "--format", "{{.Names}}", "--filter", "name=web"]).text(), "web\n");
    assert_eq!(engine.dozen(&["inspect", "--format", "{{.State.Status}}", "web"]).text(), "running\n");
    assert_eq!(engine.dozen(&["run", "--rm", "busybox", "echo", "hello"]).text(), "hello\n");
    engine.dozen(&["info"]).expect(0);
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    assert_eq!(machine.get(Side::Machine, loopback).as_deref(), Ok("served\n"));
    assert_eq!(publisher.try_wait().unwrap(), None, "the keeper still hangs, and only who publishes waits for it");

    assert!(publisher.wait().unwrap().success());
    assert_ne!(keeper(&machine), stopped);
    assert!(engine.log().contains("has not answered for 10 s"), "{}", engine.log());
    pages(8080);
    pages(8081);
}

/// An upgrade: the keeper becomes the new engine's program, and even a connection through it goes on.
#[test]
fn an_engine_of_another_build_takes_the_keeper_along() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let echo = ["run", "-d", "--name", "echo", "-p", "8080:80", "busybox", "nc", "-l", "-p", "80", "-e", "cat"];
    engine.dozen(&echo).expect(0);
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 8080));
    // The server may not listen yet, and it serves but one.
    engine.dozen(&["exec", "echo", "sh", "-c", "until netstat -ltn | grep -q :80; do :; done"]).expect(0);
    let mut connection = machine.connect(Side::Machine, loopback).unwrap();
    let mut say = |word: &str| {
        connection.write_all(word.as_bytes()).unwrap();
        let mut answer = vec![0; word.len()];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(answer, word.as_bytes());
    };
    say("before");
    let before = keeper(&machine);
    engine.kill();
    let newer = machine.directory().join("dozen-newer");
    std::fs::copy(dozen_testbox::dozen_program(), &newer).unwrap();
    let mut next = machine.command(&newer).arg("daemon").spawn().unwrap();
    until("the newer engine answers", || machine.run(&newer, &["ps", "-q"]).out.lines().next().map(|_| ()));
    assert_eq!(keeper(&machine), before);
    let inode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    assert_eq!(inode(format!("/proc/{before}/exe").as_ref()), inode(&newer));
    say("after");
    next.kill().unwrap();
    next.wait().unwrap();
}

/// As `systemctl restart nftables` does, or anyone who runs `nft flush ruleset`.
#[test]
fn a_flushed_firewall_does_not_close_published_ports() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE]).expect(0);
    let outside = SocketAddr::new(MACHINE_ADDRESS, 8080);
    assert_eq!(machine.page(Side::Neighbour, outside), "served\n");
    machine.run("nft", &["flush ruleset"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, outside), "served\n");
    assert_eq!(machine.page(Side::Machine, SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))), "served\n");
    engine.dozen(&["exec", "web", "ping", "-c", "1", &NEIGHBOUR_ADDRESS.to_string()]).expect(0);
    assert!(engine.log().contains("somebody deleted the firewall table"), "{}", engine.log());
}

/// A client that keeps its own port, as resolvers and VPNs do, is not bound to the container that is gone.
#[test]
fn a_client_of_udp_that_never_pauses_follows_the_container_through_its_restart() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load(PERL);
    let run = ["run", "-d", "--name", "server", "-p", "5353:53/udp", PERL, "perl", "-e", NUMBER];
    engine.dozen(&run).expect(0);
    let client = machine.on(Side::Neighbour, || UdpSocket::bind("0.0.0.0:40000")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let ask = || {
        client.send_to(b"?", SocketAddr::new(MACHINE_ADDRESS, 5353)).unwrap();
        let mut answer = [0; 100];
        client.recv(&mut answer).ok().map(|length| String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let mut last = until("the server answers", ask);
    for how in [&["restart", "--time", "0", "server"][..], &["kill", "server"], &["rm", "-f", "server"]] {
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    ask();
                }
            });
            engine.dozen(how).expect(0);
            match how[0] {
                "kill" => drop(engine.dozen(&["start", "server"]).expect(0)),
                "rm" => drop(engine.dozen(&run).expect(0)),
                _ => {}
            }
            enough.store(true, Ordering::Relaxed);
        });
        last = until("another run of the server answers", || ask().filter(|answer| *answer != last));
    }
}

/// Its own network namespace is all that a container with CAP_NET_ADMIN can change.
#[test]
fn a_container_that_administers_its_network_leaves_everybody_elses_alone() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE]).expect(0);
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    assert_eq!(machine.page(Side::Machine, inside), "served\n");
    let before = machine.snapshot();
    let address = engine.dozen(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]).text();
    let gateway = engine.dozen(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "web"]).text();
    let wreck = format!(
        "gateway={}; web={}
        mac=$(ip neigh show $gateway | sed 's/.*lladdr //; s/ .*//')
        ping -c 1 $gateway && mac=$(ip neigh show $gateway | sed 's/.*lladdr //; s/ .*//')
        # The bridge's own hardware and protocol addresses, said again and again.
        ip link set eth0 down; ip link set eth0 address $mac; ip link set eth0 up
        ip addr flush dev eth0; ip addr add $gateway/16 dev eth0; ip route add default dev eth0
        for i in 1 2 3; do arping -U -c 1 -I eth0 $gateway; ping -c 1 -W 1 $web; done
        ip link set lo down; ip link add dozen0 type bridge; ip link del eth0
        echo 0 >/proc/sys/net/ipv4/ip_forward
        ip link | grep -c eth0",
        gateway.trim(),
        address.trim()
    );
    let done = engine.dozen(&["run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", &wreck]);
    assert!(done.out.ends_with("\n0\n"), "it did not get so far: {} {}", done.out, done.err);
    assert_eq!(machine.get(Side::Machine, inside).as_deref(), Ok("served\n"));
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "served\n");
    engine.dozen(&["exec", "web", "ping", "-c", "1", &NEIGHBOUR_ADDRESS.to_string()]).expect(0);
    until("all is as before", || (machine.snapshot() == before).then_some(()));
}

fn keeper(machine: &Machine) -> Pid {
    let lock = std::fs::File::open(machine.directory().join("run/keeper.lock")).unwrap();
    let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
    rustix::process::fcntl_getlk(&lock, &any).unwrap().unwrap().pid.unwrap()
}

/// The path of a socket has 108 bytes (unix(7)); a monitor's is longer here.
#[test]
fn a_run_root_may_have_a_long_path() {
    let machine = Machine::new();
    let run_root = machine.directory().join("r".repeat(93 - machine.directory().as_os_str().len()));
    let dozen = |arguments: &[&str]| {
        let mut command = machine.command(dozen_testbox::dozen_program());
        command.env("DOZEN_RUN_ROOT", &run_root);
        command.env("DOCKER_HOST", format!("unix://{}", run_root.join("dozen.sock").display()));
        command.args(arguments);
        command
    };
    let mut engine = dozen(&["daemon"]).spawn().unwrap();
    until("the engine answers", || dozen(&["info"]).output().unwrap().status.success().then_some(()));
    let archive = dozen_testbox::image_archive("busybox");
    assert!(dozen(&["load", "-i", archive.to_str().unwrap()]).output().unwrap().status.success());
    let output = dozen(&["run", "--rm", "busybox", "echo", "hello"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{}", String::from_utf8_lossy(&output.stderr));
    engine.kill().unwrap();
    engine.wait().unwrap();
}
