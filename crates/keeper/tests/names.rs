//! The keeper answers for names, in network namespaces that stand for containers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dozen_keeper::Keeper;
use dozen_names::{Asker, Member, NetworkZone, Zones};
use dozen_runtime::Cgroup;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dozen-keeper-probe");
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// A host with a resolv.conf of its own, and its keeper.
struct Bench {
    run_root: TempDir,
    keeper: Keeper,
    zones: Zones,
}

impl Bench {
    fn new(resolv_conf: &str) -> Self {
        fresh_network();
        let run_root = tempfile::tempdir().unwrap();
        let file = run_root.path().join("resolv.conf");
        std::fs::write(&file, resolv_conf).unwrap();
        // SAFETY: unshare(2) of the mount namespace touches no memory.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
        use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount_bind(&file, "/etc/resolv.conf").unwrap();
        let keeper = Keeper::connect_or_spawn(Path::new(PROGRAM), run_root.path(), None).unwrap();
        Self { run_root, keeper, zones: Zones::default() }
    }

    fn resolv_conf(&self, text: &str) {
        std::fs::write(self.run_root.path().join("resolv.conf"), text).unwrap();
    }

    /// A network with `db` (172.18.0.5, fd00::5), `web` and `www` (172.18.0.6).
    fn with_network(mut self) -> Self {
        let member = |names: &[&str], addresses: &[&str]| Member {
            names: names.iter().map(ToString::to_string).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ports: Vec::new(),
        };
        let members = vec![member(&["db"], &["172.18.0.5", "fd00::5"]), member(&["web", "www"], &["172.18.0.6"])];
        self.zones.networks.insert("n1".into(), NetworkZone { name: "net".into(), members });
        self
    }

    fn apply(&self) {
        assert_eq!(self.keeper.name(&self.zones).unwrap(), []);
    }

    /// Gives a container names.
    fn admit(&mut self, container: &Container, change: impl FnOnce(&mut Asker)) {
        let networks = vec!["n1".to_owned()];
        let mut asker = Asker { pid: container.pid(), networks, forwards: true, ..Asker::default() };
        change(&mut asker);
        self.zones.askers.insert(container.id.clone(), asker);
        self.apply();
    }

    fn process(&self) -> std::os::fd::OwnedFd {
        self.keeper.process().unwrap()
    }

    fn kill(&self) {
        Keeper::kill(self.run_root.path()).unwrap();
    }

    /// The keeper's descriptors, without the connections to those who talk to it: it closes one when it comes to see that
    /// the other end is closed.
    fn descriptors(&self) -> usize {
        let file = std::fs::File::open(self.run_root.path().join("keeper.lock")).unwrap();
        let any = rustix::process::Flock {
            start: 0,
            length: 0,
            pid: None,
            typ: rustix::process::FlockType::ReadLock,
            offset_type: rustix::process::FlockOffsetType::Set,
        };
        let pid = rustix::process::fcntl_getlk(&file, &any).unwrap().unwrap().pid.unwrap();
        // proc_net(5): the inode is the seventh column.
        let local = std::fs::read_to_string("/proc/thread-self/net/unix").unwrap();
        let local: Vec<String> =
            local.lines().filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(6)?))).collect();
        let entries = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).unwrap().flatten();
        let leads =
            entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
        leads.filter(|leads| !local.contains(leads)).count()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = Keeper::kill(self.run_root.path());
    }
}

/// A process in a network namespace and a cgroup of its own.
struct Container {
    id: String,
    process: Child,
    cgroup: Cgroup,
}

impl Container {
    fn new(name: &str) -> Self {
        let id = format!("{name}{:x}{:016x}", std::process::id(), rand());
        let start = || {
            fresh_network();
            Command::new("sleep").arg("1000").spawn().unwrap()
        };
        let process = std::thread::spawn(start).join().unwrap();
        let cgroup = Cgroup::create(&format!("/dozen-test-names-{id}")).unwrap();
        cgroup.add(i32::try_from(process.id()).unwrap()).unwrap();
        Self { id, process, cgroup }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    /// Runs it in the container's network namespace.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = PathBuf::from(format!("/proc/{}/ns/net", self.pid()));
        let enter = move || {
            let namespace = std::fs::File::open(namespace).unwrap();
            use std::os::fd::AsFd;
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), network).unwrap();
            work()
        };
        std::thread::spawn(enter).join().unwrap()
    }

    /// What the container hears when it asks by datagram.
    fn ask(&self, name: &str, kind: u16) -> String {
        let question = question(name, kind);
        self.inside(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            socket.send(&question).unwrap();
            let mut answer = [0; 4096];
            let count = socket.recv(&mut answer).unwrap();
            said(&question, &answer[..count])
        })
    }

    /// And when it asks all of these by one stream, at once.
    fn ask_by_stream(&self, names: &[&str]) -> Vec<String> {
        let questions: Vec<Vec<u8>> = names.iter().map(|name| question(name, A)).collect();
        self.inside(move || {
            let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let all: Vec<u8> = questions.iter().flat_map(|it| framed(it)).collect();
            stream.write_all(&all).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).unwrap();
            let mut rest = answers.as_slice();
            let mut heard: Vec<String> = Vec::new();
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let (message, next) = after.split_at(usize::from(u16::from_be_bytes(*length)));
                // In any order: found by their question.
                let of = questions.iter().find(|it| message[12..].starts_with(&it[12..])).unwrap();
                heard.push(said(of, message));
                rest = next;
            }
            heard.sort();
            heard
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.cgroup.delete();
    }
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let id = rand().to_be_bytes();
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.extend([&[0][..], &kind.to_be_bytes(), &[0, 1]].concat());
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// The addresses in an answer to this question, or its result; `+` for one that is cut short.
fn said(question: &[u8], answer: &[u8]) -> String {
    assert_eq!(answer[..2], question[..2], "another id");
    assert_eq!(answer[12..question.len()], question[12..], "another question");
    if answer[2] & 2 != 0 {
        return "+".to_owned();
    }
    let mut words = vec![match answer[3] & 15 {
        0 => String::new(),
        result => format!("result {result}"),
    }];
    let mut at = question.len();
    for _ in 0..answer[7] {
        // Every answer here begins with a pointer to the question.
        let length = usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]));
        let data = &answer[at + 12..at + 12 + length];
        words.push(match length {
            4 => IpAddr::from(<[u8; 4]>::try_from(data).unwrap()).to_string(),
            16 if answer[at + 3] == 28 => IpAddr::from(<[u8; 16]>::try_from(data).unwrap()).to_string(),
            _ => String::from_utf8_lossy(data).into_owned(),
        });
        at += 12 + length;
    }
    words.join(" ").trim().to_owned()
}

/// Moves this thread, and what it spawns, to a new network namespace with loopback up.
fn fresh_network() {
    // SAFETY: unshare(2) of the network namespace touches no memory.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "the tests need root");
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: an all-zero ifreq is a valid one, and the kernel reads no more than it (netdevice(7)).
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as _;
        request.ifr_name[1] = b'o' as _;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        use std::os::fd::AsRawFd;
        assert_eq!(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request), 0);
    }
}

/// A name server at this address, which answers everything with one address, and tells what it was asked. It ends with
/// the test.
fn name_server(at: &'static str, answer: [u8; 4]) -> mpsc::Receiver<String> {
    let socket = UdpSocket::bind((at, 53)).unwrap();
    let streams = TcpListener::bind((at, 53)).unwrap();
    let (told, asked) = mpsc::channel();
    let tell = told.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((count, client)) = socket.recv_from(&mut buffer) {
            let _ = told.send(asked_name(&buffer[..count]));
            let mut message = answered(&buffer[..count], answer);
            if asked_name(&buffer[..count]).starts_with("long") {
                message[2] |= 2;
            }
            // Nobody believes these: another id, and another question.
            let mut wrong = message.clone();
            wrong[0] ^= 1;
            socket.send_to(&wrong, client).unwrap();
            wrong[0] ^= 1;
            wrong[13] ^= 1;
            socket.send_to(&wrong, client).unwrap();
            socket.send_to(&message, client).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = streams.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            let _ = tell.send(asked_name(&message) + " by stream");
            stream.write_all(&framed(&answered(&message, answer))).unwrap();
        }
    });
    asked
}

fn asked_name(message: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &message[12..];
    while let Some((length @ 1.., after)) = rest.split_first() {
        let (label, next) = after.split_at(usize::from(*length));
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = next;
    }
    labels.join(".")
}

fn answered(message: &[u8], answer: [u8; 4]) -> Vec<u8> {
    let mut reply = message.to_vec();
    reply[2] = 0x81;
    reply[3] = 0x80;
    reply[7] = 1;
    reply.extend([&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4][..], &answer].concat());
    reply
}

/// Asks again until it is so, for a while.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn heard(asked: &mpsc::Receiver<String>) -> Vec<String> {
    asked.try_iter().collect()
}

#[test]
fn a_container_finds_its_neighbours_by_datagram_and_by_stream() {
    let mut bench = Bench::new("").with_network();
    let container = Container::new("a");
    // Its own name server is where it is.
    let own = container.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    bench.admit(&container, |_| {});
    assert_eq!(container.ask("db", A), "172.18.0.5");
    assert_eq!(container.ask("Web.Net", A), "172.18.0.6");
    assert_eq!(container.ask("db", AAAA), "fd00::5");
    assert_eq!(container.ask("www", AAAA), "");
    assert_eq!(container.ask("6.0.18.172.in-addr.arpa", PTR), "\u{3}web\u{3}net\0");
    // The host has no name server.
    assert_eq!(container.ask("example.org", A), "result 2");
    assert_eq!(container.ask_by_stream(&["db", "web"]), ["172.18.0.5", "172.18.0.6"]);
    assert_eq!(container.ask_by_stream(&[]), [""; 0]);
    own.set_nonblocking(true).unwrap();
    assert!(own.recv(&mut [0]).is_err(), "the container's own name server was asked");
    // A name that is new, and one that is gone.
    bench.zones.networks.get_mut("n1").unwrap().members[0].names = vec!["base".into()];
    bench.apply();
    assert_eq!(container.ask("base", A), "172.18.0.5");
    assert_eq!(container.ask("db", A), "result 2");
    // What is no question gets no answer, and does no harm.
    container.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        for message in [&b""[..], b"x", &[0xff; 4096], &[0; 65_000]] {
            socket.send(message).unwrap();
        }
        let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
        stream.write_all(&[0xff; 64]).unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    assert_eq!(container.ask("base", A), "172.18.0.5");
}

#[test]
fn what_a_container_had_is_closed_when_it_ends_or_is_no_longer_named() {
    let mut bench = Bench::new("").with_network();
    // A request that is answered: what the keeper needs for its own beginning is closed.
    bench.apply();
    let before = bench.descriptors();
    let mut container = Container::new("a");
    let other = Container::new("b");
    bench.admit(&container, |_| {});
    bench.admit(&other, |_| {});
    assert_eq!(bench.descriptors(), before + 6);
    let stream = container.inside(|| TcpStream::connect("127.0.0.11:53").unwrap());
    container.process.kill().unwrap();
    container.process.wait().unwrap();
    until("a container that has ended has sockets", || bench.descriptors() == before + 3);
    drop(stream);
    bench.zones.askers.remove(&other.id);
    bench.apply();
    assert_eq!(bench.descriptors(), before);
    // Its number is nobody's now, or somebody else's: that one gets no names of another's.
    bench.apply();
    bench.zones.askers.insert(container.id.clone(), Asker { pid: other.pid(), ..Asker::default() });
    bench.apply();
    assert_eq!(bench.descriptors(), before);
}

#[test]
fn other_names_are_the_hosts_name_servers_business() {
    let mut bench = Bench::new("nameserver 127.0.0.1\n").with_network();
    let asked = name_server("127.0.0.1", [192, 0, 2, 1]);
    let container = Container::new("a");
    bench.admit(&container, |_| {});
    assert_eq!(container.ask("Example.org", A), "192.0.2.1");
    assert_eq!(container.ask("db", A), "172.18.0.5");
    assert_eq!(heard(&asked), ["example.org"]);
    // It is good for five minutes, for everybody.
    let other = Container::new("b");
    bench.admit(&other, |_| {});
    assert_eq!(other.ask("example.ORG", A), "192.0.2.1");
    assert_eq!(heard(&asked), [""; 0]);
    // What is cut short is asked again by stream, and so is it of the server.
    assert_eq!(container.ask("long.org", A), "+");
    assert_eq!(container.ask_by_stream(&["long.org", "db"]), ["172.18.0.5", "192.0.2.1"]);
    assert_eq!(heard(&asked), ["long.org", "long.org by stream"]);
    // Other servers: what the former ones said is forgotten.
    let new = name_server("127.0.0.2", [192, 0, 2, 2]);
    bench.resolv_conf("nameserver 127.0.0.2\n");
    assert_eq!(container.ask("example.org", A), "192.0.2.2");
    assert_eq!((heard(&asked), heard(&new)), (vec![], vec!["example.org".to_owned()]));
    // One that is dead, by silence or by refusal, is left behind.
    let _silent = UdpSocket::bind("127.0.0.3:53").unwrap();
    bench.resolv_conf("nameserver 127.0.0.4\nnameserver 127.0.0.3\nnameserver 127.0.0.2\n");
    assert_eq!(container.ask("dead.org", A), "192.0.2.2");
    assert_eq!(container.ask_by_stream(&["dead.example"]), ["192.0.2.2"]);
    // On an internal network nobody outside is asked.
    heard(&new);
    bench.admit(&container, |asker| asker.forwards = false);
    assert_eq!(container.ask("secret.org", A), "result 2");
    assert_eq!(container.ask("db", A), "172.18.0.5");
    assert_eq!(heard(&new), [""; 0]);
}

#[test]
fn servers_of_its_own_are_asked_from_the_containers_namespace() {
    let mut bench = Bench::new("nameserver 127.0.0.1\n").with_network();
    let hosts = name_server("127.0.0.1", [192, 0, 2, 1]);
    let (container, other) = (Container::new("a"), Container::new("b"));
    let own = container.inside(|| name_server("127.0.0.1", [192, 0, 2, 7]));
    bench.admit(&container, |asker| asker.servers = vec!["127.0.0.1".parse().unwrap()]);
    // To ask itself would never end.
    bench.admit(&other, |asker| asker.servers = vec!["127.0.0.11".parse().unwrap()]);
    assert_eq!(container.ask("example.org", A), "192.0.2.7");
    assert_eq!(container.ask_by_stream(&["stream.org"]), ["192.0.2.7"]);
    assert_eq!(other.ask("example.org", A), "result 2");
    assert_eq!(heard(&own), ["example.org", "stream.org by stream"]);
    assert_eq!(heard(&hosts), [""; 0]);
    bench.admit(&container, |_| {});
    assert_eq!(container.ask("example.org", A), "192.0.2.1");
}

#[test]
fn a_keeper_that_died_is_replaced_and_answers_again() {
    let mut bench = Bench::new("").with_network();
    let container = Container::new("a");
    bench.admit(&container, |_| {});
    assert_eq!(container.ask("db", A), "172.18.0.5");
    bench.kill();
    bench.keeper = Keeper::connect_or_spawn(Path::new(PROGRAM), bench.run_root.path(), None).unwrap();
    // Nobody has told it anything.
    assert_eq!(container.ask("db", A), "172.18.0.5");
    assert_eq!(container.ask_by_stream(&["web"]), ["172.18.0.6"]);
    bench.keeper.clone().shutdown().unwrap();
    assert!(!bench.run_root.path().join("names.json").exists());
}

#[test]
fn a_keeper_that_becomes_another_program_loses_no_question() {
    let mut bench = Bench::new("nameserver 127.0.0.1\n").with_network();
    let silent = UdpSocket::bind("127.0.0.1:53").unwrap();
    let container = Container::new("a");
    bench.admit(&container, |_| {});
    // A request that is answered: what the keeper needs for its own beginning is closed.
    bench.apply();
    let before = bench.descriptors();
    let id = container.pid();
    let waiting = std::thread::spawn({
        let question = question("Slow.org", A);
        let namespace = std::fs::File::open(format!("/proc/{id}/ns/net")).unwrap();
        move || {
            use std::os::fd::AsFd;
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), network).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            socket.send(&question).unwrap();
            let mut answer = [0; 4096];
            let count = socket.recv(&mut answer).unwrap();
            said(&question, &answer[..count])
        }
    });
    let mut buffer = [0; 4096];
    let (count, _) = silent.recv_from(&mut buffer).unwrap();
    assert_eq!(asked_name(&buffer[..count]), "slow.org");
    let process = bench.process();
    let other = bench.run_root.path().join("newer");
    std::fs::copy(PROGRAM, &other).unwrap();
    bench.keeper.upgrade(&other).unwrap();
    assert!(bench.keeper.runs(&other));
    // It asks once more, by another socket; the former one's answer would come to nobody.
    let (count, keeper) = silent.recv_from(&mut buffer).unwrap();
    silent.send_to(&answered(&buffer[..count], [192, 0, 2, 9]), keeper).unwrap();
    assert_eq!(waiting.join().unwrap(), "192.0.2.9");
    assert_eq!(container.ask("db", A), "172.18.0.5");
    assert_eq!(container.ask_by_stream(&["web"]), ["172.18.0.6"]);
    bench.apply();
    until("something is left open", || bench.descriptors() == before);
    let mut ended = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut ended, Some(&at_once)).unwrap(), 0, "it is the same process");
}
