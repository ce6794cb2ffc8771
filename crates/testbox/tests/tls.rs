//! Engines over TCP: who is let in, and that everything works there as it does on a socket of this machine's.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use dozen_testbox::{Daemon, Done, MACHINE_ADDRESS, Machine, Side, docker_program, dozen_program};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustix::process::Signal;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A directory with `ca.pem`, `cert.pem` and `key.pem`, as docker names them: good until that year, for whoever speaks
    /// at the box's addresses.
    fn sign(&self, directory: PathBuf, year: i32) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), MACHINE_ADDRESS.to_string(), "engine.example".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        for (file, text) in [("ca", self.pem.clone()), ("cert", certificate.pem()), ("key", key.serialize_pem())] {
            std::fs::write(directory.join(format!("{file}.pem")), text).unwrap();
        }
        directory
    }
}

/// An engine with the certificates of this directory.
fn with_certificates<'a>(machine: &'a Machine, host: &str, directory: &Path) -> Daemon<'a> {
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| format!("{}/{name}.pem", directory.display()));
    let files = ["--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    start(machine, &[&["-H", host, "--tlsverify"][..], &files].concat())
}

/// It listens where machines in boxes look for it, too.
fn start<'a>(machine: &'a Machine, arguments: &[&str]) -> Daemon<'a> {
    let daemon = Daemon::start(machine, &[&["-H", "unix://"], arguments].concat());
    daemon.says("listening on tcp://", 1);
    daemon
}

const HOST: &str = "tcp://127.0.0.1:2376";

/// A command by TLS with the certificates of this directory.
fn by_tls(machine: &Machine, program: &Path, certificates: &Path, arguments: &[&str], input: &[u8]) -> Done {
    let certificates = certificates.to_str().unwrap();
    let variables = [("DOCKER_HOST", HOST), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", certificates)];
    machine.run_with(program, arguments, input, &variables)
}

#[test]
fn both_command_lines_do_everything_through_tls() {
    let machine = Machine::new();
    let authority = Authority::new("ours");
    let own = authority.sign(machine.directory().join("engine"), 3000);
    let client = authority.sign(machine.directory().join("client"), 3000);
    let daemon = with_certificates(&machine, HOST, &own);
    daemon.load("busybox");
    for program in [docker_program(), dozen_program()] {
        let run = |arguments: &[&str], input: &[u8]| by_tls(&machine, &program, &client, arguments, input);
        // Half-closed: sort says what it has only at the end of its input.
        assert_eq!(run(&["run", "--rm", "-i", "busybox", "sort"], b"b\na\n").text(), "a\nb\n");
        run(&["run", "--rm", "busybox", "sh", "-c", "exit 7"], b"").expect(7);
        run(&["run", "-d", "--name", "host", "-i", "busybox", "cat"], b"").expect(0);
        let echoed = run(&["exec", "-i", "host", "sh", "-c", "cat; echo oops >&2; exit 4"], b"typed").expect(4);
        assert_eq!((echoed.out.as_str(), echoed.err.as_str()), ("typed", "oops\n"));
        // A megabyte to and fro.
        let large = vec![b'x'; 1 << 20];
        let count = run(&["exec", "-i", "host", "wc", "-c"], &large).text();
        assert_eq!(count.trim(), "1048576");
        let back = run(&["exec", "host", "dd", "if=/dev/zero", "bs=1048576", "count=4", "status=none"], b"").text();
        assert_eq!(back.len(), 4 << 20);
        // What is typed reaches the container, which ends with it.
        run(&["create", "-i", "--name", "echo", "busybox", "cat"], b"").expect(0);
        assert_eq!(run(&["start", "-a", "-i", "echo"], b"hello\n").text(), "hello\n");
        run(&["rm", "-f", "host", "echo"], b"").expect(0);
    }
    // A client that is killed in the middle of a stream leaves an engine that goes on.
    let mut following = machine.command(dozen_program());
    following.env("DOCKER_HOST", HOST).env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", &client);
    let mut following = following.arg("events").spawn().unwrap();
    following.kill().unwrap();
    following.wait().unwrap();
    by_tls(&machine, &docker_program(), &client, &["version"], b"").expect(0);
    // No key is in the log.
    let key = std::fs::read_to_string(own.join("key.pem")).unwrap();
    assert!(!daemon.said().contains(key.lines().nth(1).unwrap()));
}

#[test]
fn who_has_no_good_certificate_is_refused() {
    let machine = Machine::new();
    let authority = Authority::new("ours");
    let directory = |name: &str| machine.directory().join(name);
    let own = authority.sign(directory("engine"), 3000);
    let good = authority.sign(directory("good"), 3000);
    let daemon = with_certificates(&machine, "tcp://0.0.0.0:2376", &own);
    by_tls(&machine, &docker_program(), &good, &["version"], b"").expect(0);
    by_tls(&machine, &dozen_program(), &good, &["version"], b"").expect(0);

    let expired = authority.sign(directory("expired"), 2020);
    let foreign = Authority::new("another").sign(directory("foreign"), 3000);
    std::fs::copy(own.join("ca.pem"), foreign.join("ca.pem")).unwrap();
    for (bad, word) in [(&expired, "xpired"), (&foreign, "UnknownCA")] {
        for program in [docker_program(), dozen_program()] {
            let done = by_tls(&machine, &program, bad, &["ps"], b"").expect(1);
            assert!(program == docker_program() || done.err.contains(word), "{done:?}");
        }
    }
    daemon.says("was refused: invalid peer certificate: certificate expired", 1);
    daemon.says("was refused: invalid peer certificate: UnknownIssuer", 1);
    // An engine whose certificate is another authority's than we trust, or for another name.
    std::fs::write(good.join("ca.pem"), Authority::new("third").pem).unwrap();
    for program in [docker_program(), dozen_program()] {
        let error = by_tls(&machine, &program, &good, &["ps"], b"").expect(1).err;
        assert!(error.contains("certificate"), "{error}");
    }
    std::fs::write(good.join("ca.pem"), &authority.pem).unwrap();
    let variables = [("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", good.to_str().unwrap())];
    let wrong = machine.run_with(dozen_program(), &["-H", "tcp://127.0.0.2:2376", "ps"], b"", &variables).expect(1);
    assert!(wrong.err.contains("not valid for name"), "{wrong:?}");
    // None at all: not even a word of HTTP.
    let address = SocketAddr::new(MACHINE_ADDRESS, 2376);
    let mut plain = machine.connect(Side::Neighbour, address).unwrap();
    plain.write_all(b"GET /_ping HTTP/1.1\r\nHost: box\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    machine.run_with(dozen_program(), &["-H", "tcp://127.0.0.1:2376", "ps"], b"", &[]).expect(1);

    // Those who never say who they are hold nobody up.
    let silent: Vec<TcpStream> = (0..300).map(|_| machine.connect(Side::Neighbour, address).unwrap()).collect();
    by_tls(&machine, &docker_program(), &good, &["version"], b"").expect(0);
    drop(silent);
}

#[test]
fn certificates_are_read_again_on_sighup() {
    let machine = Machine::new();
    let (first, next) = (Authority::new("first"), Authority::new("next"));
    let own = first.sign(machine.directory().join("engine"), 3000);
    let old = first.sign(machine.directory().join("old"), 3000);
    let new = next.sign(machine.directory().join("new"), 3000);
    let daemon = with_certificates(&machine, HOST, &own);
    by_tls(&machine, &dozen_program(), &old, &["version"], b"").expect(0);
    // Bad ones change nothing.
    let certificate = std::fs::read(own.join("cert.pem")).unwrap();
    std::fs::write(own.join("cert.pem"), "nothing").unwrap();
    daemon.signal(Signal::HUP);
    daemon.says("the settings stay as they were", 1);
    by_tls(&machine, &dozen_program(), &old, &["version"], b"").expect(0);
    std::fs::write(own.join("cert.pem"), certificate).unwrap();
    next.sign(own, 3000);
    daemon.signal(Signal::HUP);
    daemon.says("the settings have been read again", 1);
    by_tls(&machine, &dozen_program(), &new, &["version"], b"").expect(0);
    by_tls(&machine, &dozen_program(), &old, &["version"], b"").expect(1);
}

#[test]
fn contexts_carry_certificates_between_both_command_lines() {
    let machine = Machine::new();
    let authority = Authority::new("ours");
    let own = authority.sign(machine.directory().join("engine"), 3000);
    let client = authority.sign(machine.directory().join("client"), 3000);
    let _daemon = with_certificates(&machine, HOST, &own);
    let none = [("DOCKER_HOST", "")];
    let run = |program: PathBuf, arguments: &[&str]| machine.run_with(program, arguments, b"", &none);
    let file = |name: &str| format!("{}/{name}.pem", client.display());
    let endpoint = format!("host={HOST},ca={},cert={},key={}", file("ca"), file("cert"), file("key"));
    run(dozen_program(), &["context", "create", "ours", "--docker", &endpoint]).expect(0);
    run(docker_program(), &["context", "create", "theirs", "--docker", &endpoint]).expect(0);
    // The files are the context's own from now on.
    std::fs::remove_dir_all(&client).unwrap();
    for context in ["ours", "theirs"] {
        for program in [dozen_program(), docker_program()] {
            run(program, &["--context", context, "version"]).expect(0);
        }
    }
    let material = "{{json .TLSMaterial}}";
    let shown = |program| run(program, &["context", "inspect", "-f", material, "ours"]).text();
    assert_eq!(shown(dozen_program()), shown(docker_program()));
    run(dozen_program(), &["context", "create", "copy", "--from", "ours"]).expect(0);
    run(dozen_program(), &["--context", "copy", "version"]).expect(0);
    run(dozen_program(), &["context", "rm", "ours"]).expect(0);
    let half = format!("host={HOST},ca={}/ca.pem", own.display());
    let refused = run(dozen_program(), &["context", "create", "half", "--docker", &half]).expect(1);
    assert!(refused.err.contains("takes all three: ca=, cert= and key="), "{refused:?}");
}

#[test]
fn tcp_without_tls_is_loopbacks_or_what_is_meant() {
    let machine = Machine::new();
    // Beyond loopback it is said, or refused.
    let refused = machine.run(dozen_program(), &["daemon", "-H", "tcp://0.0.0.0:2375"]).expect(1);
    assert!(refused.err.contains("tcp://0.0.0.0:2375 is refused without TLS and client certificates"), "{refused:?}");
    let daemon = start(&machine, &["-H", "tcp://127.0.0.1:2375"]);
    daemon.says("has neither TLS nor client certificates: every user of this machine is root", 1);
    daemon.load("busybox");
    for program in [docker_program(), dozen_program()] {
        let bare = [("DOCKER_HOST", "tcp://127.0.0.1:2375")];
        let sorted = machine.run_with(program, &["run", "--rm", "-i", "busybox", "sort"], b"b\na\n", &bare);
        assert_eq!(sorted.text(), "a\nb\n");
    }
    drop(daemon);
    let daemon = start(&machine, &["-H", "tcp://0.0.0.0:2375", "--tls=false"]);
    daemon.says("everyone who reaches it is root", 1);
    let mut plain = machine.connect(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 2375)).unwrap();
    plain.write_all(b"GET /_ping HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"));
    // On the way there somebody may be listening.
    let warned = machine.run_with(dozen_program(), &["-H", "tcp://198.51.100.2", "version"], b"", &[]).expect(0);
    assert!(warned.err.contains("WARNING: tcp://198.51.100.2:2375 without TLS"), "{warned:?}");
}

#[test]
fn web_pages_of_others_are_kept_out() {
    let machine = Machine::new();
    let path = machine.directory().join("daemon.json");
    std::fs::write(&path, r#"{ "hosts": ["unix://", "tcp://127.0.0.1:2375"] }"#).unwrap();
    let daemon = Daemon::start(&machine, &["--config-file", path.to_str().unwrap()]);
    daemon.says("listening on tcp://", 1);
    daemon.dozen(&["volume", "create", "precious"]).expect(0);
    let ask = |line: &str, headers: &str| {
        let mut stream = machine.connect(Side::Machine, "127.0.0.1:2375".parse().unwrap()).unwrap();
        let text = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let prune = "POST /v1.43/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D";
    // A name that its owner has pointed at 127.0.0.1.
    let rebound = ask("GET /v1.43/volumes", "Host: evil.example:2375\r\n");
    assert!(rebound.starts_with("HTTP/1.1 403 ") && !rebound.contains("precious"), "{rebound}");
    assert!(rebound.contains("--allowed-host evil.example"), "{rebound}");
    // A form that is sent by itself, and a socket that a script opens.
    let sent = ask(prune, "Host: 127.0.0.1:2375\r\nOrigin: http://evil.example\r\n");
    assert!(sent.starts_with("HTTP/1.1 403 ") && sent.contains("a web page from http://evil.example"), "{sent}");
    let socket = "Host: localhost:2375\r\nOrigin: null\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    assert!(ask("GET /containers/web/attach/ws?stream=1", socket).starts_with("HTTP/1.1 403 "));
    assert_eq!(daemon.dozen(&["volume", "ls", "-q"]).text(), "precious\n");
    // Who is no page is served as ever, and so is a page of the engine's own address.
    assert!(ask("GET /v1.43/volumes", "Host: localhost:2375\r\n").contains("precious"));
    assert!(
        ask("GET /_ping", "Host: 127.0.0.1:2375\r\nOrigin: http://127.0.0.1:2375\r\n").starts_with("HTTP/1.1 200 ")
    );
    daemon.reload(r#"{ "hosts": ["unix://", "tcp://127.0.0.1:2375"], "allowed-hosts": ["build.example"] }"#);
    assert!(ask("GET /_ping", "Host: build.example:2375\r\n").starts_with("HTTP/1.1 200 "));
    let by_name = [("DOCKER_HOST", "tcp://build.example:2375")];
    let hosts = machine.directory().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 build.example evil.example\n").unwrap();
    machine.run("mount", &["--bind", hosts.to_str().unwrap(), "/etc/hosts"]).expect(0);
    for program in [docker_program(), dozen_program()] {
        machine.run_with(&program, &["volume", "ls"], b"", &by_name).expect(0);
        let refused =
            machine.run_with(&program, &["-H", "tcp://evil.example:2375", "volume", "ls"], b"", &[]).expect(1);
        assert!(refused.err.contains("this engine is not called \"evil.example\""), "{refused:?}");
    }
}
