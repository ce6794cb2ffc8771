//! The keeper as a process of its own, in a network namespace that each test makes for itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use dozen_keeper::{Keeper, PortReservation, Snapshot};
use dozen_model::{Classified, ErrorKind as Kind, Protocol};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dozen-keeper-probe");
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A keeper of this test's own; ended when the test ends, however it ends.
struct Bench {
    run_root: TempDir,
    keeper: Keeper,
}

impl Bench {
    fn new() -> Self {
        fresh_network();
        let run_root = tempfile::tempdir().unwrap();
        let keeper = Keeper::connect_or_spawn(Path::new(PROGRAM), run_root.path(), None).unwrap();
        Self { run_root, keeper }
    }

    fn apply(&self, ports: &[PortReservation]) -> Vec<(u16, i32)> {
        let snapshot = Snapshot { ports: ports.to_vec(), ..Snapshot::default() };
        let failures = self.keeper.apply(&snapshot).unwrap();
        failures.iter().map(|failure| (failure.host_port, failure.errno)).collect()
    }

    /// The keeper's process, from its lock.
    fn pid(&self) -> rustix::process::Pid {
        let file = std::fs::File::open(self.run_root.path().join("keeper.lock")).unwrap();
        let any = rustix::process::Flock {
            start: 0,
            length: 0,
            pid: None,
            typ: rustix::process::FlockType::ReadLock,
            offset_type: rustix::process::FlockOffsetType::Set,
        };
        rustix::process::fcntl_getlk(&file, &any).unwrap().unwrap().pid.unwrap()
    }

    fn kill(&self) {
        let pid = self.pid();
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL).unwrap();
        let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.keeper.is_alive() {
            self.kill();
        }
    }
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

fn tcp(address: IpAddr, host_port: u16) -> PortReservation {
    PortReservation {
        container_id: "c1".to_owned(),
        host_address: address,
        host_port,
        protocol: Protocol::Tcp,
        forward_to: None,
    }
}

fn forward(host_port: u16, to: SocketAddr) -> PortReservation {
    PortReservation { forward_to: Some(to), ..tcp(LOOPBACK6, host_port) }
}

fn in_use<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

#[test]
fn a_reserved_port_is_in_use_in_both_directions() {
    let bench = Bench::new();
    let udp = PortReservation { protocol: Protocol::Udp, ..tcp(ANY4, 5300) };
    assert_eq!(bench.apply(&[tcp(ANY4, 8080), tcp(ANY6, 8080), udp.clone()]), []);
    // std's listeners set SO_REUSEADDR.
    for address in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "[::1]:8080"] {
        assert!(in_use(TcpListener::bind(address)), "{address}");
    }
    assert!(in_use(UdpSocket::bind("127.0.0.1:5300")));
    // Bound, but nobody answers there: the kernel's translation must not be shadowed.
    assert_eq!(TcpStream::connect("127.0.0.1:8080").unwrap_err().kind(), ErrorKind::ConnectionRefused);

    let _taken = TcpListener::bind("127.0.0.1:9090").unwrap();
    assert_eq!(bench.apply(&[tcp(ANY4, 8080), tcp(ANY4, 9090)]), [(9090, libc::EADDRINUSE)]);
    assert!(in_use(TcpListener::bind("0.0.0.0:8080")));
    UdpSocket::bind("0.0.0.0:5300").expect("let go");
    let nowhere = tcp("192.0.2.1".parse().unwrap(), 80);
    assert_eq!(bench.apply(&[nowhere]), [(80, libc::EADDRNOTAVAIL)]);
    TcpListener::bind("0.0.0.0:8080").expect("let go");
}

#[test]
fn a_port_in_time_wait_can_be_taken() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
    let mut client = TcpStream::connect("127.0.0.1:8080").unwrap();
    // The side that closes first waits.
    drop(listener.accept().unwrap());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop((client, listener));
    assert_eq!(bench.apply(&[tcp(ANY4, 8080)]), []);
}

#[test]
fn loopback_of_ipv6_is_forwarded_with_half_close() {
    let bench = Bench::new();
    let container = TcpListener::bind("127.0.0.1:7000").unwrap();
    let to = container.local_addr().unwrap();
    assert_eq!(bench.apply(&[tcp(ANY4, 8080), forward(8080, to), tcp(ANY6, 8080)]), []);
    assert!(in_use(TcpListener::bind("[::]:8080")));

    let mut client = TcpStream::connect("[::1]:8080").unwrap();
    let (mut served, _) = container.accept().unwrap();
    // More than sockets and pipes hold, so that both ends have to wait for each other.
    let sent: Vec<u8> = (0..8_000_000_u32).map(|number| (number % 251) as u8).collect();
    let expected = sent.clone();
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    served.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == expected, "{} bytes", received.len());
    // The other half is still open.
    let mut answer = String::new();
    served.write_all(b"all of it").unwrap();
    drop(served);
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "all of it");

    // Connections that were closed from this side wait, and the port can be taken again all the same.
    assert_eq!(bench.apply(&[]), []);
    TcpListener::bind("[::]:8080").expect("let go");
    assert_eq!(bench.apply(&[tcp(ANY4, 8080), forward(8080, to), tcp(ANY6, 8080)]), []);

    // A container that refuses looks refused, and one that goes takes its connections along.
    let mut open = TcpStream::connect("[::1]:8080").unwrap();
    let _accepted = container.accept().unwrap();
    assert_eq!(bench.apply(&[]), []);
    assert!(matches!(open.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect("[::1]:8080").is_err());
}

#[test]
fn datagrams_to_the_loopback_of_ipv6_are_carried_there_and_back() {
    let bench = Bench::new();
    let container = UdpSocket::bind("127.0.0.1:7000").unwrap();
    let to = container.local_addr().unwrap();
    let [all, alone] = [(ANY6, 53), (LOOPBACK6, 54)].map(|(address, port)| PortReservation {
        protocol: Protocol::Udp,
        forward_to: Some(to),
        ..tcp(address, port)
    });
    assert_eq!(bench.apply(&[all.clone(), alone.clone()]), []);
    for port in [53, 54] {
        assert!(in_use(UdpSocket::bind((Ipv6Addr::LOCALHOST, port))));
        let clients = ["[::1]:0"; 3].map(|address| UdpSocket::bind(address).unwrap());
        for client in &clients {
            client.connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
        let exchange = |client: &UdpSocket, length: usize| {
            let mut buffer = vec![0; 65_536];
            let sent: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            client.send(&sent).unwrap();
            let (count, flow) = container.recv_from(&mut buffer).unwrap();
            assert!(buffer[..count] == sent);
            container.send_to(&sent, flow).unwrap();
            // Connected: an answer from another address would not arrive.
            assert_eq!(client.recv(&mut buffer).unwrap(), length);
            assert!(buffer[..length] == sent);
            flow
        };
        // Each client is someone else for the container, and the same as before the next time.
        let flows: Vec<SocketAddr> = clients.iter().map(|client| exchange(client, 10)).collect();
        assert!(flows[0] != flows[1] && flows[1] != flows[2] && flows[0] != flows[2]);
        for length in [0, 1, 1400, 9000, 65_000] {
            let again: Vec<SocketAddr> = clients.iter().map(|client| exchange(client, length)).collect();
            assert_eq!(again, flows);
        }
    }
    // Beside the loopback, nothing is carried: those are the kernel's to translate.
    assert!(in_use(UdpSocket::bind("[::]:53")));

    // A container that does not listen for a moment is found again.
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.connect("[::1]:53").unwrap();
    drop(container);
    client.send(b"lost").unwrap();
    let container = UdpSocket::bind("127.0.0.1:7000").unwrap();
    container.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    client.send(b"found").unwrap();
    let mut buffer = [0; 8];
    loop {
        let (count, _) = container.recv_from(&mut buffer).unwrap();
        if &buffer[..count] == b"found" {
            break;
        }
    }

    assert_eq!(bench.apply(&[]), []);
    UdpSocket::bind("[::]:53").expect("let go");
    UdpSocket::bind("[::1]:54").expect("let go");
}

/// Without a free descriptor a client waits until there is one, and the keeper does not ask for it all the time.
#[test]
fn a_keeper_without_free_descriptors_rests() {
    let bench = Bench::new();
    let container = TcpListener::bind("127.0.0.1:7000").unwrap();
    assert_eq!(bench.apply(&[forward(8080, container.local_addr().unwrap())]), []);
    let pid = bench.pid();
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = |current: Option<u64>| {
        let wanted = rustix::process::Rlimit { current, maximum: limits.maximum };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, wanted).unwrap();
    };
    limit(Some(3));
    let mut client = TcpStream::connect("[::1]:8080").unwrap();
    let before = processor_ticks(pid);
    // As long as nobody answers, time passes.
    client.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let spent = processor_ticks(pid) - before;
    assert!(spent < 10, "{spent} of 50 ticks were spent on asking again");
    limit(limits.current);
    let (mut served, _) = container.accept().unwrap();
    served.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

/// Hundredths of a second of processor time (proc_pid_stat(5), utime and stime).
fn processor_ticks(pid: rustix::process::Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn the_listener_survives_the_engine() {
    let bench = Bench::new();
    let path = bench.run_root.path().join("api.sock");
    let first: UnixListener = bench.keeper.listener(&path, 0o660, Some(12)).unwrap().into();
    let meta = std::fs::metadata(&path).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o660, 12));
    drop(first);
    // The engine is dead; a client connects and waits.
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"hello").unwrap();
    let keeper = Keeper::connect_or_spawn(Path::new(PROGRAM), bench.run_root.path(), None).unwrap();
    let second: UnixListener = keeper.listener(&path, 0o660, Some(12)).unwrap().into();
    second.set_nonblocking(false).unwrap();
    let mut greeting = [0; 5];
    second.accept().unwrap().0.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello");

    let taken = bench.run_root.path().join("taken.sock");
    let _other = UnixListener::bind(&taken).unwrap();
    let precious = bench.run_root.path().join("file");
    std::fs::write(&precious, "x").unwrap();
    for (path, kind, hint) in [
        (taken, Kind::Conflict, "another program listens there"),
        (precious.clone(), Kind::Conflict, "what is there is no socket"),
        (bench.run_root.path().join("missing/api.sock"), Kind::Invalid, "make the directory first"),
        (bench.run_root.path().join("x".repeat(120)), Kind::Invalid, "107 bytes"),
    ] {
        let error = keeper.listener(&path, 0o600, None).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(error.hint().is_some_and(|words| words.contains(hint)), "{error}: {:?}", error.hint());
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "x");

    keeper.shutdown().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_keeper_that_died_is_replaced_and_takes_the_ports_back() {
    let bench = Bench::new();
    let path = bench.run_root.path().join("api.sock");
    let listener = bench.keeper.listener(&path, 0o600, None).unwrap();
    assert_eq!(bench.apply(&[tcp(ANY4, 8080)]), []);
    bench.kill();
    assert!(!bench.keeper.is_alive());
    TcpListener::bind("127.0.0.1:8080").expect("nobody holds it now");

    let keeper = Keeper::connect_or_spawn(Path::new(PROGRAM), bench.run_root.path(), None).unwrap();
    assert!(in_use(TcpListener::bind("127.0.0.1:8080")));
    keeper.adopt(&path, std::os::fd::AsFd::as_fd(&listener)).unwrap();
    drop(listener);
    UnixStream::connect(&path).expect("the new keeper holds it");
    keeper.shutdown().unwrap();
    assert!(!path.exists());
}

/// An upgrade of dozen: the keeper becomes the new program, and nobody who uses what it holds can tell.
#[test]
fn a_keeper_becomes_another_program_with_all_that_it_holds() {
    let bench = Bench::new();
    let pid = bench.pid();
    let path = bench.run_root.path().join("api.sock");
    let api: UnixListener = bench.keeper.listener(&path, 0o600, None).unwrap().into();
    let container = TcpListener::bind("127.0.0.1:7000").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:7000").unwrap();
    let to = container.local_addr().unwrap();
    let udp = PortReservation { protocol: Protocol::Udp, forward_to: Some(to), ..tcp(ANY6, 53) };
    let all = [tcp(ANY4, 8080), PortReservation { forward_to: Some(to), ..tcp(ANY6, 8080) }, udp];
    assert_eq!(bench.apply(&all), []);

    // A connection with bytes on their way, one that has ended in one direction, and a flow of datagrams.
    let mut busy = TcpStream::connect("[::1]:8080").unwrap();
    let (mut busy_served, _) = container.accept().unwrap();
    let sent: Vec<u8> = (0..40_000_000_u32).map(|number| (number % 251) as u8).collect();
    busy.set_nonblocking(true).unwrap();
    let mut count = 0;
    while let Ok(more) = busy.write(&sent[count..]) {
        count += more;
    }
    assert!(count < sent.len(), "sockets and pipes hold all of it");
    busy.set_nonblocking(false).unwrap();
    let mut ended = TcpStream::connect("[::1]:8080").unwrap();
    let (mut ended_served, _) = container.accept().unwrap();
    ended.write_all(b"all").unwrap();
    ended.shutdown(Shutdown::Write).unwrap();
    let mut all_of_it = String::new();
    ended_served.read_to_string(&mut all_of_it).unwrap();
    let asker = UdpSocket::bind("[::1]:0").unwrap();
    asker.connect("[::1]:53").unwrap();
    let ask = || {
        asker.send(b"?").unwrap();
        let (_, flow) = datagrams.recv_from(&mut [0]).unwrap();
        datagrams.send_to(b"!", flow).unwrap();
        asker.recv(&mut [0]).unwrap();
        flow
    };
    let flow = ask();

    let other = bench.run_root.path().join("newer");
    std::fs::copy(PROGRAM, &other).unwrap();
    assert!(bench.keeper.runs(Path::new(PROGRAM)) && !bench.keeper.runs(&other));
    bench.keeper.upgrade(&other).unwrap();
    assert_eq!(bench.pid(), pid);
    assert!(bench.keeper.runs(&other));

    let writing = std::thread::spawn(move || {
        busy.write_all(&sent[count..]).unwrap();
        busy.shutdown(Shutdown::Write).unwrap();
        sent
    });
    let mut received = Vec::new();
    busy_served.read_to_end(&mut received).unwrap();
    assert!(received == writing.join().unwrap(), "{} bytes", received.len());
    ended_served.write_all(b"answer").unwrap();
    drop(ended_served);
    let mut answer = String::new();
    ended.read_to_string(&mut answer).unwrap();
    assert_eq!((all_of_it.as_str(), answer.as_str()), ("all", "answer"));
    assert_eq!(ask(), flow);
    let _new = TcpStream::connect("[::1]:8080").unwrap();
    container.accept().unwrap();
    for address in ["0.0.0.0:8080", "[::]:8080", "[::1]:8080"] {
        assert!(in_use(TcpListener::bind(address)), "{address}");
    }
    assert!(in_use(UdpSocket::bind("[::]:53")));
    drop(api);
    UnixStream::connect(&path).expect("it holds the API's socket");
    // It knows what it holds, and what the older one held beside descends to no one.
    assert_eq!(bench.apply(&all), []);
    let left: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().collect();
    assert_eq!(bench.apply(&[]), []);
    UdpSocket::bind("[::]:53").expect("let go");

    // What cannot be run leaves it as it was, again and again.
    let broken = bench.run_root.path().join("broken");
    std::fs::write(&broken, "no program").unwrap();
    assert_eq!(bench.apply(&[tcp(ANY4, 8081)]), []);
    for _ in 0..3 {
        let error = bench.keeper.upgrade(&broken).unwrap_err();
        assert!(error.to_string().starts_with("the keeper cannot become another program"), "{error}");
        assert!(in_use(TcpListener::bind("0.0.0.0:8081")));
    }
    let now: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().collect();
    assert!(now.len() < left.len(), "{left:?} {now:?}");
    assert_eq!(bench.pid(), pid);
    bench.keeper.clone().shutdown().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_run_root_has_one_keeper() {
    let bench = Bench::new();
    let first = bench.pid();
    std::fs::remove_file(bench.run_root.path().join("keeper.sock")).unwrap();
    let error = Keeper::connect_or_spawn(Path::new(PROGRAM), bench.run_root.path(), None).unwrap_err();
    assert!(error.to_string().contains(&format!("process {first}")), "{error}");
    assert_eq!(bench.pid(), first);
    // As for one that hangs, the way out is to end it.
    Keeper::kill(bench.run_root.path()).unwrap();
    Keeper::connect_or_spawn(Path::new(PROGRAM), bench.run_root.path(), None).unwrap();
    assert_ne!(bench.pid(), first);
}
