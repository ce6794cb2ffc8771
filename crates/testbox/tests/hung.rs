//! A monitor that hangs: nobody waits for it for ever, and its container can be ended without it.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine, until};
use rustix::process::{Pid, Signal, kill_process};

/// The monitor of a running container: the parent of its first process.
fn monitor(engine: &Engine<'_>, name: &str) -> Pid {
    let pid = engine.dozen(&["inspect", "--format", "{{.State.Pid}}", name]).text();
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(parent.trim().parse().unwrap()).unwrap()
}

fn stop(pid: Pid) {
    kill_process(pid, Signal::STOP).unwrap();
    until("the monitor is stopped", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
        status.contains("State:\tT").then_some(())
    });
}

fn background(engine: &Engine<'_>, name: &str) {
    engine.dozen(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).expect(0);
}

#[test]
fn a_monitor_that_was_stopped_is_named_and_goes_on_later() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, "hung");
    background(&engine, "well");
    let pid = monitor(&engine, "hung");
    stop(pid);
    let hint = format!("kill -CONT {}", pid.as_raw_nonzero());
    std::thread::scope(|scope| {
        let exec = scope.spawn(|| engine.dozen(&["exec", "hung", "touch", "/late"]));
        let signal = scope.spawn(|| engine.dozen(&["kill", "-s", "USR1", "hung"]));
        // Meanwhile nobody else notices.
        assert_eq!(engine.dozen(&["ps", "--format", "{{.Names}} {{.State}}"]).text(), "well running\nhung running\n");
        assert_eq!(engine.dozen(&["inspect", "--format", "{{.State.Status}}", "hung"]).text(), "running\n");
        assert_eq!(engine.dozen(&["exec", "well", "echo", "here"]).text(), "here\n");
        engine.dozen(&["rm", "-f", "well"]).expect(0);
        assert!(!exec.is_finished() && !signal.is_finished(), "a stopped monitor has answered");
        signal.join().unwrap().refuses(1, &["has not answered for 10 s", &hint]);
        exec.join().unwrap().refuses(1, &["has not answered for 15 s", &hint]);
    });
    kill_process(pid, Signal::CONT).unwrap();
    // What was refused is not done later.
    engine.dozen(&["exec", "hung", "ls", "/late"]).expect(1);
    engine.dozen(&["stop", "-t", "0", "hung"]).expect(0);
    assert_eq!(engine.dozen(&["inspect", "--format", "{{.State.ExitCode}}{{.State.Error}}", "hung"]).text(), "137\n");
}

#[test]
fn a_container_is_ended_without_its_monitor() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    background(&engine, "first");
    engine.dozen(&["rm", "-f", "first"]).expect(0);
    let before = machine.snapshot();
    let names = ["killed", "stopped", "removed"];
    for name in names {
        background(&engine, name);
        stop(monitor(&engine, name));
    }
    // An engine that begins does not wait for them either.
    engine.restart();
    let engine = &engine;
    std::thread::scope(|scope| {
        for arguments in [["kill", "killed"].as_slice(), &["stop", "stopped"], &["rm", "-f", "removed"]] {
            scope.spawn(move || engine.dozen(arguments).expect(0));
        }
        assert_eq!(engine.dozen(&["ps", "-q"]).text().lines().count(), 3);
    });
    for name in ["killed", "stopped"] {
        let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
        let state = engine.dozen(&["inspect", "--format", state, name]).text();
        assert_eq!(state, "exited 137 the container's monitor did not answer and was killed with it\n");
        engine.dozen(&["start", name]).expect(0);
        engine.dozen(&["exec", name, "true"]).expect(0);
        engine.dozen(&["rm", "-f", name]).expect(0);
    }
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
    until("nothing is left of them", || machine.snapshot().is_subset(&before).then_some(()));
}
