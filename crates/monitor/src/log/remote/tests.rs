use std::collections::BTreeMap;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};

use dozen_model::SyslogFormat;

use super::super::settings::Protocol;
use super::*;

fn settings(address: RemoteAddress, delivery: LogDelivery) -> RemoteSettings {
    RemoteSettings {
        protocol: Protocol::Syslog { format: SyslogFormat::Local, facility: 3, hostname: "host".to_owned() },
        address,
        tag: "web".to_owned(),
        container_id: "0123456789abcdef".to_owned(),
        container_name: "web".to_owned(),
        image_name: "nginx".to_owned(),
        attributes: BTreeMap::new(),
        delivery,
        may_be_absent: false,
        retry_wait_ms: 1,
    }
}

fn say(remote: &mut Remote, text: &str) {
    remote.push(Piece { text: format!("{text}\n").as_bytes(), part: 0 }, Stream::Stdout, &Now::new());
    remote.flush(Instant::now());
}

/// What follows the head of each message.
fn texts(received: &[u8]) -> Vec<String> {
    let text = |line: &str| line.split_once("]: ").map_or_else(|| line.to_owned(), |(_, text)| text.to_owned());
    String::from_utf8_lossy(received).lines().map(text).collect()
}

#[test]
fn datagrams_are_a_message_each() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = RemoteAddress::Udp(server.local_addr().unwrap());
    let mut remote = Remote::open(settings(address, LogDelivery::Blocking)).unwrap();
    say(&mut remote, "one");
    say(&mut remote, "two");
    let mut buffer = [0; 512];
    for want in ["one", "two"] {
        let count = server.recv(&mut buffer).unwrap();
        assert_eq!(texts(&buffer[..count]), [want]);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let server = UnixDatagram::bind(&path).unwrap();
    let mut remote = Remote::open(settings(RemoteAddress::UnixDatagram(path), LogDelivery::Blocking)).unwrap();
    say(&mut remote, "three");
    let count = server.recv(&mut buffer).unwrap();
    assert_eq!(texts(&buffer[..count]), ["three"]);
}

#[test]
fn a_server_that_is_not_there_is_an_error_unless_it_may_be_absent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server");
    let mut wanted = settings(RemoteAddress::Unix(path.clone()), LogDelivery::Blocking);
    assert_eq!(Remote::open(wanted.clone()).unwrap_err().kind(), io::ErrorKind::NotFound);
    wanted.may_be_absent = true;
    let mut remote = Remote::open(wanted).unwrap();
    say(&mut remote, "early");
    assert!(remote.deadline().is_some());
    let server = UnixListener::bind(&path).unwrap();
    remote.tick(Instant::now() + Duration::from_secs(1));
    let (mut stream, _) = server.accept().unwrap();
    remote.finish();
    drop(remote);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(texts(&received), ["early"]);
}

#[test]
fn a_connection_that_was_lost_is_made_again() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = RemoteAddress::Tcp(server.local_addr().unwrap());
    let mut remote = Remote::open(settings(address, LogDelivery::Blocking)).unwrap();
    let (mut first, _) = server.accept().unwrap();
    say(&mut remote, "one");
    let mut buffer = [0; 512];
    let count = first.read(&mut buffer).unwrap();
    assert_eq!(texts(&buffer[..count]), ["one"]);
    drop(first);
    // The end is heard of before anything is sent into the void.
    let Link::Up(socket) = &remote.link else { panic!("it is down") };
    assert!(poll(socket, PollFlags::IN, Duration::from_secs(30)));
    remote.on_event(Instant::now());
    assert!(matches!(remote.link, Link::Down(_)));
    say(&mut remote, "two");
    remote.tick(Instant::now() + Duration::from_secs(1));
    let (mut second, _) = server.accept().unwrap();
    remote.finish();
    drop(remote);
    let mut received = Vec::new();
    second.read_to_end(&mut received).unwrap();
    assert_eq!(texts(&received), ["two"]);
}

/// A server that accepts, and reads nothing.
fn hung(delivery: LogDelivery) -> (Remote, std::os::unix::net::UnixStream, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server");
    let server = UnixListener::bind(&path).unwrap();
    let remote = Remote::open(settings(RemoteAddress::Unix(path), delivery)).unwrap();
    (remote, server.accept().unwrap().0, directory)
}

#[test]
fn a_hung_server_is_waited_for_only_so_long() {
    let (mut remote, mut stream, _directory) = hung(LogDelivery::Blocking);
    let long = "x".repeat(8000);
    while remote.has_room() {
        say(&mut remote, &long);
    }
    let deadline = remote.deadline().unwrap();
    assert!(deadline <= Instant::now() + PATIENCE);
    remote.tick(deadline);
    assert!(remote.has_room(), "the container goes on");
    while remote.missing().is_none() {
        say(&mut remote, &long);
        assert!(remote.queued_bytes <= BLOCKING_LIMIT_BYTES);
    }
    say(&mut remote, "dropped");
    // It comes to its senses, and hears what is missing where it is missing.
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let Link::Up(socket) = &remote.link else { panic!("it is down") };
    assert!(poll(socket, PollFlags::OUT, Duration::from_secs(30)));
    remote.on_event(Instant::now());
    while remote.missing().is_some() {
        say(&mut remote, "more");
    }
    say(&mut remote, "last");
    remote.finish();
    drop(remote);
    let received = texts(&reader.join().unwrap());
    let notice = received.iter().position(|text| text.contains("messages are missing here")).unwrap();
    assert!(received[notice].ends_with("did not take them in time"), "{}", received[notice]);
    assert!(!received.contains(&"dropped".to_owned()));
    assert_eq!(received.last().map(String::as_str), Some("last"));
}

#[test]
fn who_does_not_block_never_waits_and_never_holds_more_than_the_buffer() {
    let (mut remote, _stream, _directory) = hung(LogDelivery::NonBlocking { buffer_bytes: 4096 });
    for number in 0..20_000 {
        assert!(remote.has_room());
        say(&mut remote, &format!("message {number}"));
        assert!(remote.queued_bytes <= 4096);
    }
    assert!(remote.missing().unwrap().0 > 0);
    assert!(remote.deadline().is_none(), "there is nothing to wake up for");
}

/// What the first server has not taken the second one gets, and what it has taken the second one does not.
#[test]
fn another_server_takes_over() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| RemoteAddress::Unix(directory.path().join(name));
    let listen = |name: &str| UnixListener::bind(directory.path().join(name)).unwrap();
    let (first, second) = (listen("first"), listen("second"));
    let mut remote = Remote::open(settings(at("first"), LogDelivery::Blocking)).unwrap();
    let (mut stream, _) = first.accept().unwrap();
    say(&mut remote, "one");
    let mut changed = settings(at("second"), LogDelivery::NonBlocking { buffer_bytes: 4096 });
    changed.tag = "db".to_owned();
    remote.change(changed.clone());
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(texts(&received), ["one"]);
    say(&mut remote, "two");
    // Nothing of the connection has changed: it goes on.
    changed.delivery = LogDelivery::Blocking;
    remote.change(changed);
    say(&mut remote, "three");
    let (mut stream, _) = second.accept().unwrap();
    remote.finish();
    drop(remote);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(texts(&received), ["two", "three"]);
    assert!(String::from_utf8_lossy(&received).contains("db["));
}
