//! `dozen build --ssh`: steps use the keys of whoever builds, and see none of them.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dozen_testbox::{Daemon, Done, Engine, Machine, dozen_program, until};

/// Says what an agent answers to messages of these kinds: the answer's kind, and the rest of it.
const ASK: &str = r#"
import os, socket, struct, sys
agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ["SSH_AUTH_SOCK"])
for kind in map(int, sys.argv[1:]):
    agent.sendall(struct.pack(">IB", 2, kind) + b"q")
    length, = struct.unpack(">I", agent.recv(4, socket.MSG_WAITALL))
    answer = agent.recv(length, socket.MSG_WAITALL)
    print(kind, answer[0], answer[1:].decode())
"#;

/// An agent that answers each message with its own words, at that path, until the test ends; the kinds that it was asked for.
fn agent(path: &Path, words: &'static str) -> Arc<Mutex<Vec<u8>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (listener, log) = (UnixListener::bind(path).unwrap(), asked.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, log) = (stream.unwrap(), log.clone());
            std::thread::spawn(move || {
                let mut prefix = [0; 4];
                while stream.read_exact(&mut prefix).is_ok() {
                    let mut message = vec![0; u32::from_be_bytes(prefix) as usize];
                    stream.read_exact(&mut message).unwrap();
                    log.lock().unwrap().push(message[0]);
                    let answer = [&[message[0] + 1], words.as_bytes()].concat();
                    let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &answer].concat());
                }
            });
        }
    });
    asked
}

fn directory(machine: &Machine, name: &str, dockerfile: &str) -> PathBuf {
    let at = machine.directory().join(name);
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(at.join("ask.py"), ASK).unwrap();
    at
}

fn build(machine: &Machine, socket: &str, flags: &[&str], at: &Path) -> Done {
    let line = [&["build", "--progress", "plain"], flags, &[at.to_str().unwrap()]].concat();
    machine.run_with(dozen_program(), &line, b"", &[("SSH_AUTH_SOCK", socket)])
}

fn with_python(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("python:3.11-slim");
    engine
}

#[test]
fn a_step_lists_and_uses_keys_and_nothing_of_the_agent_is_left() {
    let machine = Machine::new();
    let engine = with_python(&machine);
    let (default, other) = (machine.directory().join("default"), machine.directory().join("other"));
    let (asked, of_other) = (agent(&default, "default"), agent(&other, "other"));
    // Its bridge stays.
    engine.dozen(&["run", "--rm", "python:3.11-slim", "true"]).expect(0);
    let before = machine.snapshot();
    let dockerfile = "FROM python:3.11-slim\nCOPY ask.py /\n\
        RUN --mount=type=ssh python3 /ask.py 11 17 13 19 25 27 >/said; echo $SSH_AUTH_SOCK >>/said\n\
        RUN test -z \"$SSH_AUTH_SOCK\" && ! test -e /run/buildkit\n\
        RUN --mount=type=ssh --mount=type=ssh,id=other,target=/o,uid=7,gid=8,mode=0660 \
        stat -c '%n %a %u:%g %F' $SSH_AUTH_SOCK /o >>/said && SSH_AUTH_SOCK=/o python3 /ask.py 11 >>/said\n\
        RUN --mount=type=ssh,id=absent test -z \"$SSH_AUTH_SOCK\"\n\
        RUN --mount=type=ssh,uid=9,id=other setpriv --reuid 9 python3 /ask.py 13 >>/said; \
        setpriv --reuid 10 python3 /ask.py 13 2>&1 | tail -1 >>/said\n";
    let at = directory(&machine, "ssh", dockerfile);
    let other = format!("other={}", other.display());
    build(&machine, default.to_str().unwrap(), &["--ssh", "default", "--ssh", &other, "-t", "ssh"], &at).expect(0);
    assert_eq!(
        engine.dozen(&["run", "--rm", "--network", "none", "ssh", "cat", "/said"]).text(),
        // What is not refused is the agent's answer.
        "11 12 default\n17 5 \n13 14 default\n19 5 \n25 5 \n27 5 \n/run/buildkit/ssh_agent.0\n\
         /run/buildkit/ssh_agent.0 600 0:0 socket\n/o 660 7:8 socket\n11 12 other\n13 14 other\n\
         PermissionError: [Errno 13] Permission denied\n"
    );
    assert_eq!((asked.lock().unwrap().clone(), of_other.lock().unwrap().clone()), (vec![11, 13], vec![11, 13]));
    let listed = engine.dozen(&["run", "--rm", "--network", "none", "ssh", "ls", "-A", "/run", "/"]).text();
    assert!(!listed.contains("buildkit") && !listed.lines().any(|line| line == "o"), "{listed}");
    until("nothing of it is left", || machine.snapshot().is_subset(&before).then_some(()));
    assert_eq!(std::fs::read_dir(machine.directory().join("run/builds")).unwrap().count(), 0);
}

#[test]
fn a_step_with_users_of_its_own_reaches_it_too() {
    let machine = Machine::new();
    let daemon = Daemon::with_file(&machine, r#"{ "userns-remap": "auto" }"#);
    daemon.load("python:3.11-slim");
    let socket = machine.directory().join("agent");
    agent(&socket, "theirs");
    let dockerfile = "FROM python:3.11-slim\nCOPY ask.py /\n\
        RUN --mount=type=ssh,uid=9 python3 /ask.py 11 && setpriv --reuid 9 python3 /ask.py 13 && \
        ! setpriv --reuid 10 python3 /ask.py 13\n";
    let at = directory(&machine, "ssh", dockerfile);
    let done = build(&machine, socket.to_str().unwrap(), &["--ssh", "default"], &at).expect(0);
    assert!(done.err.contains("11 12 theirs") && done.err.contains("13 14 theirs"), "{}", done.err);
}

#[test]
fn an_agent_that_is_wanted_and_not_given_is_said() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let (socket, key) = (machine.directory().join("agent"), machine.directory().join("key.pem"));
    agent(&socket, "a");
    std::fs::write(&key, "").unwrap();
    let at = directory(&machine, "ssh", "FROM busybox\nRUN --mount=type=ssh,required=true true\n");
    let words = "no SSH key \"default\" forwarded from the client";
    build(&machine, "", &[], &at).refuses(1, &[words, "--ssh default"]);
    build(&machine, "", &["--ssh", "default"], &at).refuses(125, &["make sure SSH_AUTH_SOCK is set"]);
    let key = format!("default={}", key.display());
    build(&machine, "", &["--ssh", &key], &at).refuses(1, &["is not built yet", "ssh-add"]);
    build(&machine, socket.to_str().unwrap(), &["--ssh", "default"], &at).expect(0);
}

#[test]
fn an_agents_connection_is_taken_once_and_goes_with_its_client() {
    let machine = Machine::new();
    let _engine = machine.engine();
    let name = "0f".repeat(32);
    let say = |text: String| {
        let mut stream = UnixStream::connect(machine.socket()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let head = |stream: &mut UnixStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    };
    let open = |name: &str| {
        let body = format!("{{\"Name\":\"{name}\"}}");
        let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json";
        say(format!(
            "POST /build/agent HTTP/1.1\r\nHost: d\r\n{upgrade}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let build = || {
        let body = format!("{{\"Agents\":{{\"default\":\"{name}\"}}}}\n");
        let kind = "Content-Type: application/vnd.dozen.build-context.v1\r\nConnection: close";
        let mut stream =
            say(format!("POST /build HTTP/1.1\r\nHost: d\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(head(&mut open("short")).starts_with("HTTP/1.1 400 "));
    let mut first = open(&name);
    assert!(head(&mut first).starts_with("HTTP/1.1 101 "));
    assert!(head(&mut open(&name)).starts_with("HTTP/1.1 400 "));
    // A build takes it, fails, and has let go of it.
    assert!(build().contains("failed to read dockerfile"));
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    assert!(build().contains("the agent \\\"default\\\" has no connection"));
    let mut second = open(&name);
    assert!(head(&mut second).starts_with("HTTP/1.1 101 "));
    drop(second);
    until("the name is free", || {
        let mut third = open(&name);
        head(&mut third).starts_with("HTTP/1.1 101 ").then_some(())
    });
}
