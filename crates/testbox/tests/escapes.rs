//! Ways out of a container that were open once. Each test fails with the code of that time.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use dozen_testbox::Machine;

/// Stops whatever appears in its pid namespace, looks through it for a file of the host's, and lets it go on.
const HUNTER: &str = r#"
while :; do
    kill -STOP -1
    for process in /proc/[0-9]*; do
        [ "$process" = /proc/1 ] && continue
        [ -e "$process/root/$MARKER" ] && { echo escaped; exit 1; }
        kill -CONT "${process#/proc/}"
    done
done 2>/dev/null
"#;

/// A process on its way into a container must have nothing of the host's from the moment on at which it can be seen
/// inside: a root that may trace (CAP_SYS_PTRACE) would take its root directory, its descriptors and its rights.
#[test]
fn an_exec_shows_nothing_of_the_host() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let marker = machine.directory().join("marker");
    std::fs::write(&marker, "").unwrap();
    let marker = format!("MARKER={}", marker.display());
    engine
        .dozen(&[
            "run",
            "-d",
            "--name",
            "hunter",
            "--cap-add",
            "SYS_PTRACE",
            "-e",
            &marker,
            "busybox",
            "sh",
            "-c",
            HUNTER,
        ])
        .expect(0);
    for _ in 0..20 {
        // It may be stopped for good, which is an error after a while; it must not be looked through.
        engine.dozen(&["exec", "hunter", "true"]);
        assert_eq!(engine.dozen(&["logs", "hunter"]).expect(0).out, "");
    }
    engine.dozen(&["rm", "-f", "hunter"]).expect(0);
}

/// An exec that is stopped from inside must not take the monitor, and with it `rm -f`, along.
#[test]
fn a_container_that_stops_its_execs_can_be_removed() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let stopper = "while :; do kill -STOP -1; done 2>/dev/null";
    engine.dozen(&["run", "-d", "--name", "stopper", "busybox", "sh", "-c", stopper]).expect(0);
    let begun = Instant::now();
    engine.dozen(&["exec", "stopper", "true"]);
    engine.dozen(&["rm", "-f", "stopper"]).expect(0);
    // Not a figure: without a limit of the exec's both hang for ever.
    assert!(begun.elapsed() < Duration::from_secs(60));
}
