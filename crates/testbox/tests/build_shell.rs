//! `dozen build --debug-shell`: a shell where a step has failed, on the terminal of whoever builds.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::path::PathBuf;

use dozen_testbox::{Daemon, Machine, Screen, dozen_program, until};

fn directory(machine: &Machine, name: &str, dockerfile: &str) -> PathBuf {
    let at = machine.directory().join(name);
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), dockerfile).unwrap();
    at
}

fn build(machine: &Machine, flags: &[&str], at: &std::path::Path) -> Screen {
    machine.screen(&dozen_program(), &[&["build", "--debug-shell"], flags, &[at.to_str().unwrap()]].concat())
}

const OPENED: &str = "has failed; this is a shell in it";

#[test]
fn it_stands_where_the_command_has_stopped_and_the_build_fails_all_the_same() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    // Its bridge stays.
    engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
    let before = machine.snapshot();
    let dockerfile = "FROM busybox\nENV A=of-the-image\nRUN echo worker:x:1000:1000::/srv:/bin/sh >>/etc/passwd && mkdir /srv && chown worker /srv\n\
        USER worker\nWORKDIR /srv\n\
        RUN --mount=type=secret,id=t,env=S --mount=type=tmpfs,target=/scratch echo half > done; rm -r /tmp/x; exit 3\n";
    let at = directory(&machine, "fails", dockerfile);
    let secret = machine.directory().join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    let secret = format!("id=t,src={}", secret.display());
    for progress in ["plain", "tty"] {
        let mut screen = build(&machine, &["--secret", &secret, "--progress", progress, "-t", "never"], &at);
        screen.shows("RUN --mount=type=secret");
        screen.shows(OPENED);
        screen.shows("$ ");
        screen.type_in("echo \"$(cat done) $A ${#S} $(id -un) $PWD $(stat -f -c %T /scratch) $(hostname)\"\r");
        screen.shows("half of-the-image 7 worker /srv tmpfs buildkitsandbox");
        screen.type_in("exit 0\r");
        screen.shows("returned a non-zero code: 3");
        let (code, _) = screen.end();
        assert_eq!(code, 1);
        assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
    }
    engine.dozen(&["image", "inspect", "never"]).expect(1);
    assert!(!engine.log().contains("hunter2"));
    until("nothing of it is left", || machine.snapshot().is_subset(&before).then_some(()));
}

#[test]
fn who_goes_takes_it_along() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let at = directory(&machine, "fails", "FROM busybox\nRUN echo a > /a; false\n");
    let containers = |engine: &dozen_testbox::Engine<'_>| engine.dozen(&["ps", "-aq"]).text().lines().count();
    // By the keys for that.
    let mut screen = build(&machine, &[], &at);
    screen.shows(OPENED);
    screen.shows("# ");
    screen.type_in("\x10\x11");
    screen.shows("returned a non-zero code: 1");
    assert_eq!(screen.end().0, 1);
    assert_eq!(containers(&engine), 0);
    // With its terminal.
    let mut screen = build(&machine, &[], &at);
    screen.shows(OPENED);
    screen.shows("# ");
    assert_eq!(containers(&engine), 2);
    drop(screen);
    until("its containers are gone", || (containers(&engine) == 0).then_some(()));
    // With the engine.
    let mut screen = build(&machine, &[], &at);
    screen.shows(OPENED);
    screen.shows("# ");
    engine.kill();
    engine.restart();
    until("the next engine has removed them", || (containers(&engine) == 0).then_some(()));
    assert_eq!(screen.end().0, 1);
    for place in ["data/builds", "run/builds", "data/containers"] {
        let left = std::fs::read_dir(machine.directory().join(place)).into_iter().flatten().count();
        assert_eq!(left, 0, "{place}");
    }
}

#[test]
fn another_build_that_wants_the_step_does_not_wait_and_one_that_succeeds_opens_none() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let at = directory(&machine, "fails", "FROM busybox\nRUN echo said; exit 4\n");
    let mut screen = build(&machine, &[], &at);
    screen.shows(OPENED);
    screen.shows("# ");
    let done = engine.dozen(&["build", at.to_str().unwrap()]).expect(1);
    assert!(done.err.contains("returned a non-zero code: 4"), "{}", done.err);
    screen.type_in("exit 9\r");
    screen.shows("returned a non-zero code: 4");
    assert_eq!(screen.end().0, 1);

    let at = directory(&machine, "well", "FROM busybox\nRUN true\n");
    let (code, shown) = build(&machine, &["-t", "well"], &at).end();
    assert!(code == 0 && !shown.contains(OPENED), "{shown}");

    // Without a shell in it the build says so, and fails as it would have.
    let at = directory(
        &machine,
        "bare",
        "FROM busybox AS b\nFROM scratch\nCOPY --from=b /bin/busybox /false\nRUN [\"/false\"]\n",
    );
    let mut screen = build(&machine, &[], &at);
    screen.shows(OPENED);
    screen.shows("WARNING: no shell in the step that has failed");
    screen.shows("returned a non-zero code: 1");
    assert_eq!(screen.end().0, 1);
}

#[test]
fn it_has_users_of_its_own_where_the_step_had() {
    let machine = Machine::new();
    let daemon = Daemon::with_file(&machine, r#"{ "userns-remap": "auto" }"#);
    daemon.load("busybox");
    let dockerfile = "FROM busybox\nRUN echo a >/a && chown 5:6 /a && chmod 640 /a; exit 3\n";
    let mut screen = build(&machine, &[], &directory(&machine, "fails", dockerfile));
    screen.shows(OPENED);
    screen.shows("# ");
    screen.type_in("stat -c '%a %u:%g' /a; test $(awk '{print $2}' /proc/self/uid_map) -gt 0 && echo ma''pped\r");
    screen.shows("640 5:6");
    screen.shows("mapped");
    screen.type_in("exit\r");
    screen.shows("returned a non-zero code: 3");
    assert_eq!(screen.end().0, 1);
}

#[test]
fn it_needs_a_terminal() {
    let machine = Machine::new();
    let engine = machine.engine();
    let at = directory(&machine, "fails", "FROM scratch\n");
    let at = at.to_str().unwrap();
    engine.dozen(&["build", "--debug-shell", at]).refuses(1, &["--debug-shell needs a terminal on stdin"]);
    let (code, shown) = machine.screen(&dozen_program(), &["build", "--debug-shell", "-o", "-", at]).end();
    assert!(code != 0 && shown.contains("--debug-shell needs a terminal on stdout"), "{shown}");
    let mut stream = std::os::unix::net::UnixStream::connect(machine.socket()).unwrap();
    let request = "POST /build?debugshell=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("is for who reads the build's events"), "{answer}");
}
