//! What no SDK does any more, but Docker's API promises: connections taken over without an Upgrade header, on any
//! request of a connection; and clients that go away in the middle.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dozen_testbox::{Engine, Machine, patience, until};

/// A connection on which requests are written by hand.
struct Wire(BufReader<UnixStream>);

/// The status and the headers of an answer.
struct Head {
    status: u16,
    headers: String,
}

impl Wire {
    fn to(machine: &Machine) -> Self {
        let stream = UnixStream::connect(machine.socket()).unwrap();
        stream.set_read_timeout(Some(patience(Duration::from_secs(20)))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, request: &str, headers: &str, body: &str) {
        let length = body.len();
        let text = format!("{request} HTTP/1.1\r\nHost: box\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn head(&mut self) -> Head {
        let mut headers = String::new();
        while !headers.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut headers).unwrap(), 0, "hung up: {headers}");
        }
        Head { status: headers.split(' ').nth(1).unwrap().parse().unwrap(), headers: headers.to_ascii_lowercase() }
    }

    /// An answer with a known length.
    fn body(&mut self, head: &Head) -> String {
        let field = head.headers.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; field.map_or(0, |length| length.trim().parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Everything up to the end.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }

    fn half_close(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
    }
}

/// What each stream of a multiplexed answer says: 1 is standard output, 2 is standard error. Frames of one stream that
/// follow each other are joined: where one ends is the matter of whoever reads the process's output, and a terminal may
/// hand on a line before its end (docs.docker.com/reference/api/engine, "Attach to a container", "Stream format").
#[track_caller]
fn streams(mut frames: &[u8]) -> Vec<(u8, String)> {
    let mut said: Vec<(u8, Vec<u8>)> = Vec::new();
    while let Some((head, rest)) = frames.split_first_chunk::<8>() {
        let [stream, 0, 0, 0, length @ ..] = *head else { panic!("no head of a frame: {head:?}") };
        let length = u32::from_be_bytes(length) as usize;
        let (text, rest) = rest.split_at_checked(length).expect("the last frame is cut short");
        match said.last_mut().filter(|(last, _)| *last == stream) {
            Some((_, before)) => before.extend(text),
            None => said.push((stream, text.to_vec())),
        }
        frames = rest;
    }
    assert!(frames.is_empty(), "no frame: {frames:?}");
    said.into_iter().map(|(stream, text)| (stream, String::from_utf8(text).unwrap())).collect()
}

fn says(stream: u8, text: &str) -> (u8, String) {
    (stream, text.to_owned())
}

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

#[test]
fn attach_without_upgrade_on_the_second_request() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine
        .dozen(&["create", "-i", "--name", "cat", "--network", "none", "busybox", "sh", "-c", "cat; exit 3"])
        .expect(0);
    let mut attached = Wire::to(&machine);
    attached.send("GET /v1.24/_ping", "", "");
    let head = attached.head();
    assert_eq!((head.status, attached.body(&head).as_str()), (200, "OK"));
    attached.send("POST /v1.24/containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1", "", "");
    let head = attached.head();
    assert_eq!(head.status, 200);
    assert!(head.headers.contains("application/vnd.docker.raw-stream"), "{}", head.headers);
    assert!(!head.headers.contains("content-length") && !head.headers.contains("chunked"), "{}", head.headers);
    engine.dozen(&["start", "cat"]).expect(0);
    attached.0.get_mut().write_all(b"raw bytes").unwrap();
    attached.half_close();
    assert_eq!(streams(&attached.rest()), [says(1, "raw bytes")]);
    assert_eq!(engine.dozen(&["wait", "cat"]).text(), "3\n");
}

#[test]
fn attach_with_upgrade_and_input_that_comes_with_the_request() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let script = "cat; echo oops >&2";
    engine.dozen(&["create", "-i", "--name", "cat", "--network", "none", "busybox", "sh", "-c", script]).expect(0);
    let mut attached = Wire::to(&machine);
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    attached.send("POST /containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1", upgrade, "");
    // Impatient: before the head of the answer is there.
    attached.0.get_mut().write_all(b"early").unwrap();
    attached.half_close();
    let head = attached.head();
    assert_eq!(head.status, 101);
    assert!(head.headers.contains("application/vnd.docker.multiplexed-stream"), "{}", head.headers);
    engine.dozen(&["start", "cat"]).expect(0);
    assert_eq!(streams(&attached.rest()), [says(1, "early"), says(2, "oops\n")]);
}

#[test]
fn exec_without_upgrade_and_of_a_command_that_is_not_there() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "-d", "--name", "host", "--network", "none", "busybox", "sleep", "1000"]).expect(0);
    let json = "Content-Type: application/json\r\n";
    let mut wire = Wire::to(&machine);
    let made = |wire: &mut Wire, command: &str| {
        let body = format!(r#"{{"AttachStdout":true,"AttachStderr":true,"Cmd":{command}}}"#);
        wire.send("POST /containers/host/exec", json, &body);
        let head = wire.head();
        assert_eq!(head.status, 201);
        let answer: serde_json::Value = serde_json::from_str(&wire.body(&head)).unwrap();
        answer["Id"].as_str().unwrap().to_owned()
    };
    let good = made(&mut wire, r#"["echo","here"]"#);
    let bad = made(&mut wire, r#"["no-such-program"]"#);
    let terminal = made(&mut wire, r#"["echo","here"],"Tty":true"#);
    wire.send(&format!("POST /exec/{good}/start"), json, "{}");
    assert_eq!(wire.head().status, 200);
    assert_eq!(streams(&wire.rest()), [says(1, "here\n")]);
    // A terminal's output comes in frames, unless the start says that it is one's.
    let mut wire = Wire::to(&machine);
    wire.send(&format!("POST /exec/{terminal}/start"), json, "{}");
    assert_eq!(wire.head().status, 200);
    assert_eq!(streams(&wire.rest()), [says(1, "here\r\n")]);
    // Docker's clients read there why it did not start, and ask for the code afterwards.
    let mut wire = Wire::to(&machine);
    wire.send(&format!("POST /exec/{bad}/start"), json, "{}");
    assert_eq!(wire.head().status, 200);
    let said = String::from_utf8(wire.rest()).unwrap();
    assert!(said.contains("executable file not found in $PATH"), "{said}");
    let mut wire = Wire::to(&machine);
    wire.send(&format!("GET /exec/{bad}/json"), "", "");
    let head = wire.head();
    let found: serde_json::Value = serde_json::from_str(&wire.body(&head)).unwrap();
    assert_eq!((&found["ExitCode"], &found["Running"]), (&127.into(), &false.into()));
}

#[test]
fn every_version_is_spoken_and_no_other() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    for (name, version) in [("old", "v1.24"), ("middle", "v1.40"), ("new", "v1.51")] {
        let mut wire = Wire::to(&machine);
        let body = r#"{"Image":"busybox","Cmd":["sh","-c","exit 6"],"HostConfig":{"NetworkMode":"none"}}"#;
        let json = "Content-Type: application/json\r\n";
        wire.send(&format!("POST /{version}/containers/create?name={name}"), json, body);
        let head = wire.head();
        assert_eq!(head.status, 201, "{}", wire.body(&head));
        wire.body(&head);
        wire.send(&format!("POST /{version}/containers/{name}/start"), "", "");
        assert_eq!(wire.head().status, 204);
        assert_eq!(engine.dozen(&["wait", name]).text(), "6\n");
        wire.send(&format!("GET /{version}/containers/{name}/json"), "", "");
        let head = wire.head();
        let found: serde_json::Value = serde_json::from_str(&wire.body(&head)).unwrap();
        assert_eq!(found["State"]["ExitCode"], 6);
        // An old client of the docker CLI, too.
        let client = dozen_testbox::docker_program();
        let variables = [("DOCKER_API_VERSION", &version[1..])];
        let done = machine.run_with(client, &["ps", "-a", "--format", "{{.Names}}"], b"", &variables);
        assert!(done.text().contains(name));
    }
    for (version, words) in [("v1.52", "too new. Maximum supported API version is 1.51"), ("v1.23", "too old")] {
        let mut wire = Wire::to(&machine);
        wire.send(&format!("GET /{version}/info"), "", "");
        let head = wire.head();
        let body = wire.body(&head);
        assert!(head.status == 400 && body.contains(words), "{} {body}", head.status);
    }
}

/// What the engine has open, by kind; and how many threads run.
fn open(engine: &Engine<'_>) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).unwrap().count()
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["run", "-d", "--name", "host", "--network", "none", "-i", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["exec", "host", "true"]).expect(0);
    // The machine's own commands have connections that end a moment after them.
    let rest = || {
        let mut last = open(&engine);
        let mut same = 0;
        until("the engine comes to rest", || {
            let now = open(&engine);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            (same > 10).then_some(last)
        })
    };
    let before = rest();
    for request in [
        "POST /containers/host/wait",
        "POST /containers/host/wait?condition=removed",
        "GET /containers/host/logs?stdout=1&stderr=1&follow=1",
        "POST /containers/host/attach?stream=1&stdin=1&stdout=1&stderr=1",
        "GET /events",
    ] {
        let wires: Vec<Wire> = (0..20)
            .map(|_| {
                let mut wire = Wire::to(&machine);
                wire.send(request, "", "");
                assert_eq!(wire.head().status, 200);
                wire
            })
            .collect();
        assert!(open(&engine) >= before + 20, "{request}");
        drop(wires);
        until(&format!("{request} is forgotten"), || (open(&engine) <= before).then_some(()));
    }
    // The container is as it was.
    assert_eq!(engine.dozen(&["exec", "host", "echo", "alive"]).text(), "alive\n");
}

/// More than a user has inotify instances (128), and than would have a thread each beside all else.
#[test]
fn three_hundred_follow_one_log() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let script = "echo first; read -r line; echo $line";
    engine
        .dozen(&["run", "-d", "-i", "--name", "talker", "--network", "none", "busybox", "sh", "-c", script])
        .expect(0);
    until("it talks", || (engine.dozen(&["logs", "talker"]).text() == "first\n").then_some(()));
    let mut wires: Vec<Wire> = (0..300)
        .map(|_| {
            let mut wire = Wire::to(&machine);
            wire.send("GET /containers/talker/logs?stdout=1&follow=1", "Connection: close\r\n", "");
            wire
        })
        .collect();
    for wire in &mut wires {
        assert_eq!(wire.head().status, 200);
        // In a chunk, in a frame.
        let mut first = Vec::new();
        while !first.ends_with(b"first\n") {
            assert_ne!(wire.0.read_until(b'\n', &mut first).unwrap(), 0);
        }
    }
    let threads = std::fs::read_dir(format!("/proc/{}/task", engine.pid())).unwrap().count();
    assert!(threads < 100, "{threads} threads");
    // The engine has hands for other work.
    machine.run_with(dozen_testbox::dozen_program(), &["attach", "talker"], b"second\n", &[]).expect(0);
    for wire in &mut wires {
        let rest = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(rest.contains("second\n"), "{rest}");
    }
}

#[test]
fn one_who_attaches_and_does_not_read_holds_nobody_up_for_ever() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    // More than all buffers on the way hold.
    let script = "read -r line; yes $(printf %01000d 0) | head -n 3000; echo end; read -r line";
    let name = ["--name", "talker", "--network", "none"];
    let create = [&["run", "-d", "-i"][..], &name, &["busybox", "sh", "-c", script]].concat();
    engine.dozen(&create).expect(0);
    let attach = || {
        let mut wire = Wire::to(&machine);
        wire.send("POST /containers/talker/attach?stream=1&stdin=1&stdout=1", "", "");
        assert_eq!(wire.head().status, 200);
        wire
    };
    let _stalled = attach();
    let mut reader = attach();
    reader.0.get_mut().write_all(b"go\n").unwrap();
    let mut tail = Vec::new();
    while !tail.ends_with(b"end\n") {
        tail.clear();
        assert_ne!(reader.0.read_until(b'\n', &mut tail).unwrap(), 0);
    }
    assert_eq!(engine.dozen(&["logs", "--tail", "1", "talker"]).text(), "end\n");
    reader.0.get_mut().write_all(b"enough\n").unwrap();
    assert_eq!(engine.dozen(&["wait", "talker"]).text(), "0\n");
}

#[test]
fn half_a_request_and_nonsense_do_no_harm() {
    let machine = Machine::new();
    let engine = machine.engine();
    for bytes in
        [&b"GET /_pi"[..], b"\x16\x03\x01\x02\x00", b"POST /containers/create HTTP/1.1\r\nContent-Length: 999\r\n\r\n{"]
    {
        let mut wire = Wire::to(&machine);
        wire.0.get_mut().write_all(bytes).unwrap();
    }
    let mut wire = Wire::to(&machine);
    wire.send("POST /containers/create", "Content-Type: application/json\r\n", "{\"Image\":");
    let head = wire.head();
    assert_eq!(head.status, 400);
    assert!(wire.body(&head).contains("invalid JSON"));
    engine.dozen(&["version"]).expect(0);
}

/// They came with 1.47 in listings and with 1.48 here; a platform is one of them already.
#[test]
fn an_inspection_tells_of_manifests_since_there_are_any() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let mut wire = Wire::to(&machine);
    for (request, status, words) in [
        ("/v1.48/images/busybox/json?manifests=1", 200, "\"Kind\":\"image\""),
        ("/v1.47/images/json?manifests=true", 200, "\"Kind\":\"image\""),
        ("/v1.48/images/busybox/json?manifests=0&platform=linux", 200, "\"Id\""),
        ("/v1.48/images/busybox/json?manifests=1&platform=linux", 400, "cannot both be set"),
        ("/v1.46/images/json?manifests=1", 501, "manifests"),
    ] {
        wire.send(&format!("GET {request}"), "", "");
        let head = wire.head();
        let body = wire.body(&head);
        assert_eq!(head.status, status, "{request}: {body}");
        assert!(body.contains(words), "{request}: {body}");
    }
}
