//! Attaching by WebSocket, as browsers do it, written by hand.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dozen_testbox::{Engine, Machine, patience, until};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

/// A client, after its request.
struct Client(BufReader<UnixStream>);

impl Client {
    /// The answer's head, in lower case.
    fn ask(machine: &Machine, path: &str, headers: &str) -> (Self, String) {
        let stream = UnixStream::connect(machine.socket()).unwrap();
        stream.set_read_timeout(Some(patience(Duration::from_secs(20)))).unwrap();
        let mut client = Self(BufReader::new(stream));
        let text = format!("GET {path} HTTP/1.1\r\nHost: box\r\n{headers}\r\n");
        client.0.get_mut().write_all(text.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(client.0.read_line(&mut head).unwrap(), 0, "hung up: {head}");
        }
        (client, head.to_ascii_lowercase())
    }

    fn attach(machine: &Machine, path: &str) -> Self {
        let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let (client, head) = Self::ask(machine, path, headers);
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        client
    }

    /// Masked with zeros.
    fn send(&mut self, flags: u8, payload: &[u8]) {
        let frame = [&[flags, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
        self.0.get_mut().write_all(&frame).unwrap();
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut long = [0; 2];
                self.0.read_exact(&mut long).unwrap();
                usize::from(u16::from_be_bytes(long))
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// What comes, until it is so long: how it is cut is nobody's promise.
    fn hear(&mut self, length_bytes: usize) -> String {
        let mut heard = Vec::new();
        while heard.len() < length_bytes {
            let (flags, payload) = self.frame();
            assert_eq!(flags, BINARY, "{payload:?} after {:?}", String::from_utf8_lossy(&heard));
            heard.extend(payload);
        }
        String::from_utf8(heard).unwrap()
    }
}

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

#[test]
fn messages_are_input_and_output_comes_in_messages() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let script = "read line; echo got $line; echo oops >&2; cat; exit 3";
    engine.dozen(&["create", "-i", "--name", "cat", "--network", "none", "busybox", "sh", "-c", script]).expect(0);
    let mut client = Client::attach(&machine, "/containers/cat/attach/ws?stream=1&stdin=1&stdout=1&stderr=1");
    engine.dozen(&["start", "cat"]).expect(0);
    client.send(TEXT, b"a line\n");
    let heard = client.hear(16);
    assert!(heard == "got a line\noops\n" || heard == "oops\ngot a line\n", "{heard}");
    // Bytes are what they were.
    client.send(BINARY, &[0, 0xff, b'\n']);
    assert_eq!(client.frame(), (BINARY, vec![0, 0xff, b'\n']));
    client.send(0x89, b"there?");
    assert_eq!(client.frame(), (0x8a, b"there?".to_vec()));
    // Another looks on, from the beginning; an older version's client has all streams without asking.
    let mut onlooker = Client::attach(&machine, "/v1.41/containers/cat/attach/ws?stream=1&logs=1");
    let begun = onlooker.hear(16);
    assert!(begun.contains("got a line\n") && begun.contains("oops\n"), "{begun}");
    // Its goodbye is the end of its input, which is that of the process.
    client.send(CLOSE, &[3, 0xe8]);
    assert_eq!(client.frame(), (CLOSE, vec![3, 0xe8]));
    engine.dozen(&["stop", "-t", "0", "cat"]).expect(0);
    let mut frame = onlooker.frame();
    while frame.0 == BINARY {
        frame = onlooker.frame();
    }
    assert_eq!(frame, (CLOSE, vec![3, 0xe8]));
    // What is over can still be read.
    let mut late = Client::attach(&machine, "/containers/cat/attach/ws?logs=1&stdout=1");
    assert!(late.hear(11).starts_with("got a line\n"));
    engine.dozen(&["rm", "cat"]).expect(0);
}

#[test]
fn a_terminal_is_left_with_the_detach_keys() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "-dit", "--name", "shell", "--network", "none", "busybox", "cat"]).expect(0);
    let path = "/containers/shell/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,q";
    let mut client = Client::attach(&machine, path);
    client.send(BINARY, b"hello\r");
    assert!(client.hear(7).starts_with("hello\r\n"));
    client.send(BINARY, &[24]);
    client.send(BINARY, b"q");
    let mut frame = client.frame();
    while frame.0 == BINARY {
        frame = client.frame();
    }
    assert_eq!(frame.0, CLOSE);
    assert_eq!(engine.dozen(&["ps", "--format", "{{.Names}}"]).text(), "shell\n");
    engine.dozen(&["rm", "-f", "shell"]).expect(0);
}

#[test]
fn who_reads_nothing_holds_nobody_up_for_ever() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let directory = machine.directory().join("in");
    std::fs::create_dir(&directory).unwrap();
    let volume = format!("{}:/in", directory.display());
    let script = "while [ ! -e /in/go ]; do usleep 10000; done; dd if=/dev/zero bs=65536 count=256 2>/dev/null; touch /in/done; sleep 1000";
    let line = ["run", "-d", "--name", "talker", "--network", "none", "--log-driver", "none", "-v", &volume];
    engine.dozen(&[&line[..], &["busybox", "sh", "-c", script]].concat()).expect(0);
    let _silent = Client::attach(&machine, "/containers/talker/attach/ws?stream=1&stdout=1");
    std::fs::write(directory.join("go"), "").unwrap();
    until("it goes on", || directory.join("done").exists().then_some(()));
    engine.dozen(&["rm", "-f", "talker"]).expect(0);
}

#[test]
fn what_is_no_websocket_is_refused() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["create", "--name", "still", "busybox", "true"]).expect(0);
    let path = "/containers/still/attach/ws?stream=1";
    let (_, head) = Client::ask(&machine, path, "");
    assert!(head.starts_with("http/1.1 400 "), "{head}");
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n";
    let (_, head) = Client::ask(&machine, path, headers);
    assert!(head.starts_with("http/1.1 426 ") && head.contains("sec-websocket-version: 13\r\n"), "{head}");
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (_, head) = Client::ask(&machine, "/containers/nobody/attach/ws?stream=1", headers);
    assert!(head.starts_with("http/1.1 404 "), "{head}");
    engine.dozen(&["rm", "still"]).expect(0);
}

/// A container's check goes on to its image, and a client of an older version sees what it knows of it.
#[test]
fn a_commit_keeps_the_health_check() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let line = ["create", "--name", "checked", "--health-cmd", "true", "--health-interval", "7s"];
    let more = ["--health-start-interval", "2s", "--health-start-period", "9s", "busybox", "sleep", "1000"];
    engine.docker(&[&line[..], &more].concat()).expect(0);
    engine.docker(&["commit", "checked", "checked:1"]).expect(0);
    let wanted =
        r#"{"Test":["CMD-SHELL","true"],"Interval":7000000000,"StartPeriod":9000000000,"StartInterval":2000000000}"#;
    let wanted: serde_json::Value = serde_json::from_str(wanted).unwrap();
    let shown = |name: &str| -> serde_json::Value {
        let text = engine.dozen(&["inspect", "--format", "{{json .Config.Healthcheck}}", name]).text();
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!((shown("checked"), shown("checked:1")), (wanted.clone(), wanted));
    engine.dozen(&["create", "--name", "again", "--no-healthcheck", "checked:1"]).expect(0);
    engine.dozen(&["commit", "again", "again:1"]).expect(0);
    assert_eq!(shown("again:1"), serde_json::json!({ "Test": ["NONE"] }));
    for (path, is_there) in [("/v1.43/containers/checked/json", false), ("/v1.44/containers/checked/json", true)] {
        let (mut client, head) = Client::ask(&machine, path, "Connection: close\r\n");
        let mut body = String::new();
        client.0.read_to_string(&mut body).unwrap();
        assert!(head.starts_with("http/1.1 200 ") && body.contains("StartPeriod"), "{head}{body}");
        assert_eq!(body.contains("StartInterval"), is_there, "{path}");
    }
    engine.dozen(&["rm", "checked", "again"]).expect(0);
    engine.dozen(&["rmi", "checked:1", "again:1"]).expect(0);
}
