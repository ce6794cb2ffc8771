//! A monitor that hangs: nobody waits for it for ever, and its container can be ended without it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use dozen_testbox::{Engine, Machine, dozen_program, until};
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

/// What is on the machine now and was not before, but for the engine, which is another one.
fn left(machine: &Machine, before: &BTreeSet<String>) -> Vec<String> {
    machine.snapshot().difference(before).filter(|line| !line.contains(" daemon")).cloned().collect()
}

/// A command that is not waited for yet.
fn begin(machine: &Machine, arguments: &[&str]) -> Child {
    machine.command(dozen_program()).args(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Its exit code, and what it has complained of.
fn end(command: Child) -> (i32, String) {
    let output = command.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
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
    let (number, hint) = (pid.as_raw_nonzero(), format!("kill -CONT {}", pid.as_raw_nonzero()));
    let mut exec = begin(&machine, &["exec", "hung", "touch", "/late"]);
    let mut signal = begin(&machine, &["kill", "-s", "USR1", "hung"]);
    // Meanwhile nobody else notices.
    assert_eq!(engine.dozen(&["ps", "--format", "{{.Names}} {{.State}}"]).text(), "well running\nhung running\n");
    assert_eq!(engine.dozen(&["inspect", "--format", "{{.State.Status}}", "hung"]).text(), "running\n");
    assert_eq!(engine.dozen(&["exec", "well", "echo", "here"]).text(), "here\n");
    engine.dozen(&["rm", "-f", "well"]).expect(0);
    assert!(exec.try_wait().unwrap().is_none() && signal.try_wait().unwrap().is_none(), "a stopped monitor answers");
    let (code, words) = end(signal);
    let why = |patience| format!("the container's monitor (process {number}) has not answered for {patience}");
    assert!(code == 1 && words.contains(&why("10 s")) && words.contains(&hint), "{code} {words}");
    let (code, words) = end(exec);
    assert!(code == 126 && words.contains(&why("15 s")) && words.contains(&hint), "{code} {words}");
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
    let commands = [["kill", "killed"].as_slice(), &["stop", "stopped"], &["rm", "-f", "removed"]];
    let commands = commands.map(|arguments| begin(&machine, arguments));
    assert_eq!(engine.dozen(&["ps", "-q"]).text().lines().count(), 3);
    for command in commands {
        assert_eq!(end(command), (0, String::new()));
    }
    for name in ["killed", "stopped"] {
        let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
        let state = engine.dozen(&["inspect", "--format", state, name]).text();
        assert_eq!(state, "exited 137 the container's monitor did not answer and was killed with it\n");
        engine.dozen(&["start", name]).expect(0);
        engine.dozen(&["exec", name, "true"]).expect(0);
        engine.dozen(&["rm", "-f", name]).expect(0);
    }
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
    until("nothing is left of them", || left(&machine, &before).is_empty().then_some(()));
}

/// Its process is gone, its monitor has not said so yet, and its namespace can be entered no more.
#[test]
fn who_dies_while_it_is_taken_off_a_network_holds_no_place_there() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["network", "create", "backend"]).expect(0);
    background(&engine, "dying");
    engine.dozen(&["network", "connect", "backend", "dying"]).expect(0);
    let monitor = monitor(&engine, "dying");
    stop(monitor);
    let pid = engine.dozen(&["inspect", "--format", "{{.State.Pid}}", "dying"]).text();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    until("the container's process has ended", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
        status.contains("State:\tZ").then_some(())
    });
    engine.dozen(&["network", "disconnect", "backend", "dying"]).expect(0);
    kill_process(monitor, Signal::CONT).unwrap();
    engine.dozen(&["wait", "dying"]).expect(0);
    engine.dozen(&["rm", "dying"]).expect(0);
    engine.dozen(&["network", "rm", "backend"]).expect(0);
}
