//! The box itself, without an engine: these tests need no dozen.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{SocketAddr, TcpListener};

use dozen_testbox::{MACHINE_ADDRESS, Machine, Side};

#[test]
fn a_machine_sees_only_itself_and_its_neighbour() {
    let machine = Machine::new();
    assert_eq!(machine.run("ls", &["/sys/class/net"]).text(), "eth0\nlo\n");
    assert!(machine.run("cat", &["/proc/self/cgroup"]).text().lines().all(|line| line.ends_with(":/box")));
    machine.run("sh", &["-c", "exit 7"]).expect(7);
    assert_eq!(machine.run("cat", &["/etc/resolv.conf"]).text(), "nameserver 198.51.100.1\n");
    assert!(machine.run("nft", &["list", "ruleset"]).text().is_empty());
}

#[test]
fn the_host_is_not_reachable_from_it() {
    let machine = Machine::new();
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(machine.connect(Side::Machine, host.local_addr().unwrap()).is_err());
    // The neighbour is on the wire: it reaches the machine, which refuses what nobody listens on.
    let refused = machine.connect(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 9)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_left_is_seen_and_goes_with_the_box() {
    let machine = Machine::new();
    let before = machine.snapshot();
    assert_eq!(machine.snapshot(), before);
    // A process that has left its session, and interfaces: what a monitor and a bridge look like.
    let stray = machine.run("sh", &["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]).text();
    machine.run("ip", &["link", "add", "dz-test", "type", "bridge"]).expect(0);
    let after = machine.snapshot();
    let new: Vec<&String> = after.difference(&before).collect();
    assert!(new.iter().any(|line| line.as_str() == "interface dz-test"), "{new:?}");
    assert!(new.iter().any(|line| line.starts_with("process") && line.contains("sleep 1000")), "{new:?}");
    drop(machine);
    let stray = stray.trim();
    let state = std::fs::read_to_string(format!("/proc/{stray}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(" Z "), "process {stray} lives on: {state}");
    assert!(!std::path::Path::new("/sys/class/net/dz-test").exists());
}
