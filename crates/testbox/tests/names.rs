//! Names: what a container's resolv.conf says, and what it is answered.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use dozen_testbox::{Engine, Machine, Side, until};
use rustix::process::{Flock, FlockOffsetType, FlockType};

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

/// The lines of its resolv.conf that are no comments.
fn resolv_conf(engine: &Engine<'_>, flags: &[&str]) -> Vec<String> {
    let words = [&["run", "--rm"][..], flags, &["busybox", "cat", "/etc/resolv.conf"]].concat();
    let text = engine.dozen(&words).expect(0).out;
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn what_is_asked_of_dns_stands_in_resolv_conf_and_in_inspect() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let host = machine.run("cat", &["/etc/resolv.conf"]).text();
    let asked = ["--dns", "192.0.2.7", "--dns", "fd00::7", "--dns-search", "x.org", "--dns-option", "ndots:3"];
    let want = ["nameserver 192.0.2.7", "nameserver fd00::7", "search x.org", "options ndots:3"];
    for network in ["bridge", "none", "host"] {
        let flags = [&["--network", network][..], &asked].concat();
        assert_eq!(resolv_conf(&engine, &flags), want, "{network}");
    }
    let without_search = resolv_conf(&engine, &["--dns-search", ".", "--dns-opt", "use-vc"]);
    assert!(without_search.iter().all(|line| !line.starts_with("search") && !line.starts_with("domain")));
    assert_eq!(without_search.last().unwrap(), "options use-vc");
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "host", "busybox", "cat", "/etc/resolv.conf"]).text(), host);

    engine.dozen(&[&["create", "--name", "one"][..], &asked, &["busybox", "true"]].concat()).expect(0);
    let format = "{{json .HostConfig.Dns}} {{json .HostConfig.DnsSearch}} {{json .HostConfig.DnsOptions}}";
    let shown = engine.dozen(&["inspect", "--format", format, "one"]).expect(0).out;
    assert_eq!(shown, "[\"192.0.2.7\",\"fd00::7\"] [\"x.org\"] [\"ndots:3\"]\n");
    for (flags, words) in [
        (&["--dns", "nonsense"][..], "IP address is not correctly formatted"),
        (&["--dns-search", "a b"], "is not a single word"),
        (&["--network", "container:one", "--dns", "1.1.1.1"], "conflicting options: dns and the network mode"),
    ] {
        let done = engine.dozen(&[&["create"][..], flags, &["busybox"]].concat());
        assert!(done.code != 0 && done.err.contains(words), "{done:?}");
    }
}

const A: u16 = 1;
const PTR: u16 = 12;
const SRV: u16 = 33;

/// What a running container hears when it asks 127.0.0.11 by datagram: addresses, or the result's number. A target of
/// SRV or PTR is shown as the bytes of its name.
fn ask(engine: &Engine<'_>, container: &str, name: &str, kind: u16) -> String {
    ask_inside(pid(engine, container), name, kind)
}

fn pid(engine: &Engine<'_>, container: &str) -> i32 {
    engine.dozen(&["inspect", "--format", "{{.State.Pid}}", container]).text().trim().parse().unwrap()
}

/// The same without an engine.
fn ask_inside(pid: i32, name: &str, kind: u16) -> String {
    let question = question(name, kind);
    let socket = inside(pid, || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(dozen_testbox::patience(Duration::from_secs(10)))).unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    socket.send(&question).unwrap();
    let mut answer = [0; 4096];
    let count = socket.recv(&mut answer).unwrap();
    said(&question, &answer[..count])
}

/// In the network namespace of that process.
fn inside<T: Send + 'static>(pid: i32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let enter = move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), network).unwrap();
        work()
    };
    std::thread::spawn(enter).join().unwrap()
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.extend([&[0][..], &kind.to_be_bytes(), &[0, 1]].concat());
    message
}

fn said(question: &[u8], answer: &[u8]) -> String {
    assert_eq!(answer[..2], question[..2]);
    if answer[3] & 15 != 0 {
        return format!("result {}", answer[3] & 15);
    }
    let (mut words, mut at) = (Vec::new(), question.len());
    for _ in 0..answer[7] {
        // Every answer here begins with a pointer to the question.
        let length = usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]));
        let data = &answer[at + 12..at + 12 + length];
        words.push(match length {
            4 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(data).unwrap()).to_string(),
            _ => String::from_utf8_lossy(data).replace(|c: char| c.is_control(), "."),
        });
        at += 12 + length;
    }
    words.join(" ")
}

/// The address that `inspect` shows.
fn address(engine: &Engine<'_>, container: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    engine.dozen(&["inspect", "--format", &format, container]).text().trim().to_owned()
}

const SLEEP: [&str; 3] = ["busybox", "sleep", "1000"];

#[test]
fn containers_of_a_network_find_each_other_whoever_is_dead() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    engine.dozen(&["network", "create", "Back"]).expect(0);
    let run = |engine: &Engine<'_>, flags: &[&str]| {
        engine.dozen(&[&["run", "-d", "--network", "Back"][..], flags, &SLEEP].concat()).text().trim().to_owned()
    };
    let id = run(&engine, &["--name", "db", "--network-alias", "base", "--hostname", "h1", "--expose", "5432"]);
    run(&engine, &["--name", "web"]);
    let db = address(&engine, "db", "Back");
    for name in ["db", "DB", "base", "h1", &id[..12], "db.back"] {
        assert_eq!(ask(&engine, "web", name, A), db, "{name}");
    }
    let reversed: Vec<&str> = db.rsplit('.').collect();
    assert_eq!(ask(&engine, "web", &(reversed.join(".") + ".in-addr.arpa"), PTR), ".db.back.");
    assert!(ask(&engine, "web", "_5432._tcp.db", SRV).ends_with(".db.back."));
    assert_eq!(ask(&engine, "db", "web", A), address(&engine, "web", "Back"));
    // By the resolver of whatever runs there.
    let answer = engine.dozen(&["exec", "web", "nslookup", "-type=a", "base"]).text();
    assert!(answer.contains("127.0.0.11") && answer.contains(&db), "{answer}");
    let files = engine.dozen(&["exec", "web", "cat", "/etc/resolv.conf"]).text();
    assert!(files.contains("\nnameserver 127.0.0.11\n") && files.contains("\noptions ndots:0\n"), "{files}");
    assert!(files.contains("# ExtServers: [host(198.51.100.1)]"), "{files}");
    // The default bridge has no names, and its containers ask the host's servers.
    engine.dozen(&[&["run", "-d", "--name", "plain"][..], &SLEEP].concat()).expect(0);
    let files = engine.dozen(&["exec", "plain", "cat", "/etc/resolv.conf"]).text();
    assert!(!files.contains("127.0.0.11"), "{files}");

    let web = pid(&engine, "web");
    engine.kill();
    assert_eq!(ask_inside(web, "base", A), db, "without an engine");
    engine.restart();
    assert_eq!(ask_inside(web, "base", A), db);
    // A keeper that dies is replaced, and answers again.
    dozen_keeper_dies(&machine);
    until("names are found again", || {
        let socket = inside(web, || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        let _ = socket.send(&question("base", A));
        socket.recv(&mut [0; 512]).ok()
    });

    engine.dozen(&["rename", "db", "data"]).expect(0);
    assert_eq!(ask(&engine, "web", "data", A), db);
    assert_eq!(ask(&engine, "web", "base", A), db);
    assert_ne!(ask(&engine, "web", "db", A), db);
    engine.dozen(&["restart", "-t", "0", "data"]).expect(0);
    assert_eq!(ask(&engine, "web", "data", A), address(&engine, "data", "Back"));
    engine.dozen(&["rm", "-f", "data"]).expect(0);
    assert_ne!(ask(&engine, "web", "data", A), db);
    engine.dozen(&["rm", "-f", "web", "plain"]).expect(0);
    engine.dozen(&["network", "rm", "Back"]).expect(0);
}

fn dozen_keeper_dies(machine: &Machine) {
    let file = std::fs::File::open(machine.directory().join("run/keeper.lock")).unwrap();
    let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
    let pid = rustix::process::fcntl_getlk(&file, &any).unwrap().unwrap().pid.unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn other_names_are_asked_of_the_hosts_server_unless_the_network_is_internal() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let server = machine.on(Side::Neighbour, || UdpSocket::bind("198.51.100.1:53")).unwrap();
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, client)) = server.recv_from(&mut buffer) {
            let mut reply = buffer[..count].to_vec();
            (reply[2], reply[3], reply[7]) = (0x81, 0x80, 1);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 80]);
            let _ = tell.send(client);
            let _ = server.send_to(&reply, client);
        }
    });
    engine.dozen(&["network", "create", "out"]).expect(0);
    engine.dozen(&["network", "create", "--internal", "in"]).expect(0);
    for network in ["out", "in"] {
        engine.dozen(&[&["run", "-d", "--name", network, "--network", network][..], &SLEEP].concat()).expect(0);
    }
    assert_eq!(ask(&engine, "out", "example.org", A), "192.0.2.80");
    assert_eq!(asked.try_iter().count(), 1);
    assert_eq!(ask(&engine, "in", "example.org", A), "result 2");
    assert_eq!(ask(&engine, "in", "in", A), address(&engine, "in", "in"));
    assert_eq!(asked.try_iter().count(), 0);
    engine.dozen(&["rm", "-f", "out", "in"]).expect(0);
}

#[test]
fn names_follow_connect_and_disconnect() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    for network in ["one", "two"] {
        engine.dozen(&["network", "create", network]).expect(0);
    }
    engine.dozen(&[&["run", "-d", "--name", "aa", "--network", "one"][..], &SLEEP].concat()).expect(0);
    engine.dozen(&[&["run", "-d", "--name", "bb", "--network", "two"][..], &SLEEP].concat()).expect(0);
    let b = address(&engine, "bb", "two");
    assert_ne!(ask(&engine, "aa", "bb", A), b);
    engine.dozen(&["network", "connect", "--alias", "guest", "two", "aa"]).expect(0);
    assert_eq!(ask(&engine, "aa", "bb", A), b);
    assert_eq!(ask(&engine, "bb", "guest", A), address(&engine, "aa", "two"));
    engine.dozen(&["network", "disconnect", "two", "aa"]).expect(0);
    assert_ne!(ask(&engine, "aa", "bb", A), b);
    // From the default bridge to a network with names.
    engine.dozen(&[&["run", "-d", "--name", "cc"][..], &SLEEP].concat()).expect(0);
    engine.dozen(&["network", "connect", "two", "cc"]).expect(0);
    let answer = engine.dozen(&["exec", "cc", "nslookup", "-type=a", "bb"]).text();
    assert!(answer.contains(&b), "{answer}");
    engine.dozen(&["rm", "-f", "aa", "bb", "cc"]).expect(0);
}
