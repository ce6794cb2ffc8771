//! `pause` and `unpause`.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine, until};

const WRITES: &str = "trap 'exit 4' TERM; while :; do echo >>/file; sleep 0.02; done";

fn writer(engine: &Engine<'_>, name: &str) {
    engine.docker(&["run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", WRITES]).expect(0);
}

fn state(engine: &Engine<'_>, name: &str) -> String {
    engine
        .docker(&[
            "inspect",
            "--format",
            "{{.State.Status}} {{.State.Paused}} {{.State.Running}} {{.State.ExitCode}}",
            name,
        ])
        .text()
        .trim()
        .to_owned()
}

fn length(machine: &Machine, engine: &Engine<'_>, name: &str) -> u64 {
    let id = engine.docker(&["inspect", "--format", "{{.Id}}", name]).text();
    let file = machine.directory().join("data/containers").join(id.trim()).join("upper/file");
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

fn writes(machine: &Machine, engine: &Engine<'_>, name: &str) {
    let before = length(machine, engine, name);
    until("it writes", || (length(machine, engine, name) > before).then_some(()));
}

#[test]
fn a_paused_container_stands_still_also_for_the_next_engine() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    writer(&engine, "writer");
    writes(&machine, &engine, "writer");
    engine.docker(&["unpause", "writer"]).refuses(1, &["is not paused"]);
    engine.docker(&["pause", "writer"]).expect(0);
    assert_eq!(state(&engine, "writer"), "paused true true 0");
    let before = length(&machine, &engine, "writer");
    let row = engine.docker(&["ps", "--filter", "status=paused", "--format", "{{.Status}}"]).text();
    assert!(row.starts_with("Up ") && row.ends_with(" (Paused)\n"), "{row}");
    assert_eq!(engine.docker(&["info", "--format", "{{.ContainersPaused}} {{.ContainersRunning}}"]).text(), "1 0\n");
    engine.docker(&["pause", "writer"]).refuses(1, &["is already paused"]);
    engine.docker(&["exec", "writer", "true"]).refuses(1, &["is paused, unpause the container before exec"]);
    engine.docker(&["rm", "writer"]).refuses(1, &["container is paused and must be unpaused first"]);
    // It stands still for that anyway, and goes on doing so.
    engine.docker(&["commit", "writer", "still:1"]).expect(0);
    engine.kill();
    engine.restart();
    assert_eq!(state(&engine, "writer"), "paused true true 0");
    assert_eq!(length(&machine, &engine, "writer"), before);
    engine.docker(&["unpause", "writer"]).expect(0);
    writes(&machine, &engine, "writer");
    engine.docker(&["exec", "writer", "true"]).expect(0);
    engine.docker(&["stop", "writer"]).expect(0);
    engine.docker(&["pause", "writer"]).refuses(1, &["is not running"]);
}

/// Who is to end has to move for that.
#[test]
fn a_paused_container_can_be_stopped_killed_restarted_and_removed() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let paused = |name: &str| {
        writer(&engine, name);
        writes(&machine, &engine, name);
        engine.docker(&["pause", name]).expect(0);
    };
    paused("stopped");
    engine.docker(&["stop", "--time", "100", "stopped"]).expect(0);
    assert_eq!(state(&engine, "stopped"), "exited false false 4");
    paused("killed");
    engine.docker(&["kill", "killed"]).expect(0);
    assert_eq!(state(&engine, "killed"), "exited false false 137");
    paused("told");
    // Not a signal that is to end it: it waits.
    engine.docker(&["kill", "--signal", "WINCH", "told"]).expect(0);
    assert_eq!(state(&engine, "told"), "paused true true 0");
    engine.docker(&["kill", "--signal", "TERM", "told"]).expect(0);
    until("it has ended", || (state(&engine, "told") == "exited false false 4").then_some(()));
    paused("restarted");
    engine.docker(&["restart", "restarted"]).expect(0);
    assert_eq!(state(&engine, "restarted"), "running false true 0");
    writes(&machine, &engine, "restarted");
    paused("removed");
    engine.docker(&["rm", "-f", "removed"]).expect(0);
    let all = ["stopped", "killed", "told", "restarted"];
    engine.docker(&[&["rm", "-f"][..], &all].concat()).expect(0);
    assert_eq!(engine.docker(&["ps", "-aq"]).text(), "");
}
