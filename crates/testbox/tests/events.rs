//! What is told of volumes, images and prunes, in Docker's words, and that a later engine tells of it too.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dozen_testbox::{Engine, Machine, next_second, patience, until};
use serde_json::{Value, json};

/// What docker's own CLI hears of a type, since the first engine began.
fn events(engine: &Engine<'_>, kind: &str) -> Vec<Value> {
    let (until, kind) = (next_second(), format!("type={kind}"));
    let line = ["events", "--since", "1h", "--until", &until, "--filter", &kind, "--format", "json"];
    engine.docker(&line).text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Action, id and attributes.
fn told(engine: &Engine<'_>, kind: &str) -> Vec<(String, String, Value)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let part =
        |event: Value| (word(&event["Action"]), word(&event["Actor"]["ID"]), event["Actor"]["Attributes"].clone());
    events(engine, kind).into_iter().map(part).collect()
}

fn actions(engine: &Engine<'_>, kind: &str) -> Vec<String> {
    told(engine, kind).into_iter().map(|(action, ..)| action).collect()
}

#[test]
fn volumes_tell_when_they_are_mounted() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let mounts = ["-v", "data:/data", "-v", "data:/again:ro", "-v", "/srv:/bound"];
    let line =
        [&["run", "-d", "--name", "web", "--network", "none"][..], &mounts, &["busybox", "sleep", "1000"]].concat();
    // Docker's client before 28 sends binds in whatever order.
    let id = engine.dozen(&line).text().trim().to_owned();
    // A run that one engine began and another ends.
    engine.kill();
    engine.restart();
    engine.docker(&["rm", "-f", "web"]).expect(0);
    engine.docker(&["volume", "rm", "data"]).expect(0);
    let mount = |place: &str, writable: &str| {
        let attributes = json!({ "container": id, "destination": place, "driver": "local", "propagation": "",
            "read/write": writable });
        ("mount".to_owned(), "data".to_owned(), attributes)
    };
    let unmount = ("unmount".to_owned(), "data".to_owned(), json!({ "container": id, "driver": "local" }));
    let own = |action: &str| (action.to_owned(), "data".to_owned(), json!({ "driver": "local" }));
    let want =
        [own("create"), mount("/data", "true"), mount("/again", "false"), unmount.clone(), unmount, own("destroy")];
    assert_eq!(told(&engine, "volume"), want);
    // A start that fails takes back what it has said.
    engine.docker(&["run", "--name", "bad", "-v", "other:/o", "busybox", "/no-such-program"]).expect(127);
    let last = actions(&engine, "volume").split_off(want.len());
    assert_eq!(last, ["create", "mount", "unmount"]);
}

#[test]
fn images_tell_what_becomes_of_their_names() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let first = told(&engine, "image").len();
    engine.docker(&["run", "--name", "it", "busybox", "true"]).expect(0);
    let made = engine.docker(&["commit", "-m", "why", "-c", "LABEL team=x", "it", "made:1"]).text().trim().to_owned();
    engine.docker(&["tag", "made:1", "made:2"]).expect(0);
    engine
        .docker(&["save", "-o", machine.directory().join("made.tar").to_str().unwrap(), "made:1", "made:2"])
        .expect(0);
    engine.docker(&["rmi", "made:1"]).expect(0);
    engine.docker(&["rmi", "made:2"]).expect(0);
    let all = told(&engine, "image").split_off(first);
    let named = |action: &str, name: &str| (action.to_owned(), made.clone(), json!({ "name": name, "team": "x" }));
    let want = [
        named("tag", "made:1"),
        named("tag", "made:2"),
        named("save", &made),
        named("untag", "made:1"),
        named("untag", "made:2"),
        named("delete", &made),
    ];
    assert_eq!(all, want);
    let commit = told(&engine, "container").into_iter().find(|(action, ..)| action == "commit").unwrap().2;
    let want = json!({ "name": "it", "image": "busybox", "comment": "why", "imageID": made, "imageRef": "made:1" });
    assert_eq!(commit, want);
}

#[test]
fn a_prune_tells_how_much_room_it_made() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let write = "dd if=/dev/zero of=/v/zero bs=1k count=100; dd if=/dev/zero of=/own bs=1k count=200";
    engine.docker(&["run", "-v", "/v", "busybox", "sh", "-c", write]).expect(0);
    engine.docker(&["network", "create", "idle"]).expect(0);
    for kind in ["container", "volume", "network"] {
        engine.docker(&[kind, "prune", "-f"]).expect(0);
    }
    engine.docker(&["image", "prune", "-af"]).expect(0);
    for (kind, least_bytes) in [("container", 200 << 10), ("volume", 100 << 10), ("image", 100 << 10), ("network", 0)] {
        let event = events(&engine, kind).pop().unwrap();
        assert_eq!(event["Action"], "prune", "{kind}: {event}");
        assert_eq!(event["Actor"]["ID"], "", "{event}");
        let reclaimed: u64 = event["Actor"]["Attributes"]["reclaimed"].as_str().unwrap().parse().unwrap();
        assert!(reclaimed >= least_bytes && (kind != "network" || reclaimed == 0), "{event}");
    }
}

fn post(machine: &Machine, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    let head = "Host: box\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn who_leaves_a_terminal_is_told_of() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.docker(&["run", "-dit", "--name", "it", "--network", "none", "busybox", "cat"]).expect(0);
    // Docker's own client looks for the keys itself; others leave that to the engine.
    let exec =
        post(&machine, "/containers/it/exec", r#"{"Cmd":["cat"],"Tty":true,"AttachStdin":true,"AttachStdout":true}"#);
    let exec = exec.split("\"Id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for (path, body) in [
        ("/containers/it/attach?stream=1&stdin=1&stdout=1".to_owned(), ""),
        (format!("/exec/{exec}/start"), r#"{"Tty":true}"#),
    ] {
        let mut stream = UnixStream::connect(machine.socket()).unwrap();
        stream.set_read_timeout(Some(patience(Duration::from_secs(20)))).unwrap();
        let head = "Host: box\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json";
        write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answered = [0; 12];
        stream.read_exact(&mut answered).unwrap();
        assert_eq!(&answered, b"HTTP/1.1 101", "{path}");
        stream.write_all(b"\x10\x11").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
    for action in ["detach", "exec_detach"] {
        until(action, || actions(&engine, "container").iter().any(|told| told == action).then_some(()));
    }
    engine.docker(&["rm", "-f", "it"]).expect(0);
}

#[test]
fn a_later_engine_knows_what_an_earlier_one_saw() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.docker(&["run", "--name", "old", "--network", "none", "busybox", "true"]).expect(0);
    let before = actions(&engine, "container");
    assert_eq!(before, ["create", "attach", "start", "die"]);
    engine.kill();
    engine.restart();
    assert_eq!(actions(&engine, "container"), before, "after one that was killed");
    engine.docker(&["rm", "old"]).expect(0);
    engine.restart();
    assert_eq!(actions(&engine, "container").last().unwrap(), "destroy", "after one that ended in order");
}
