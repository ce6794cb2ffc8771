//! Other people's clients: the docker CLI and the docker SDK for Python, both as their users have them.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Machine, image_archive};

#[test]
fn the_docker_cli_runs_containers() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.docker(&["load", "--input", image_archive("busybox").to_str().unwrap()]).expect(0);
    assert!(engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).text().contains("busybox:latest"));
    assert_eq!(engine.docker(&["run", "--rm", "-e", "A=b", "busybox", "sh", "-c", "echo $A"]).text(), "b\n");
    engine.docker(&["run", "--rm", "busybox", "sh", "-c", "exit 3"]).expect(3);
    engine.docker(&["run", "--rm", "busybox", "no-such-program"]).expect(127);
    engine.docker(&["run", "-d", "--name", "cli", "busybox", "sleep", "1000"]).expect(0);
    assert_eq!(engine.docker(&["exec", "cli", "echo", "inside"]).text(), "inside\n");
    assert!(engine.docker(&["ps", "--format", "{{.Names}} {{.Status}}"]).text().starts_with("cli Up "));
    let inspected: serde_json::Value = serde_json::from_str(&engine.docker(&["inspect", "cli"]).text()).unwrap();
    assert_eq!(inspected[0]["State"]["Status"], "running");
    engine.docker(&["stop", "--time", "1", "cli"]).expect(0);
    assert_eq!(engine.docker(&["wait", "cli"]).text(), "137\n");
    engine.docker(&["rm", "cli"]).expect(0);
    engine.docker(&["inspect", "cli"]).expect(1);
    assert!(engine.docker(&["info"]).text().contains("Server Version"));
}

/// Runs a program of the docker SDK against an engine that has the busybox image.
fn python(program: &str) {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    assert_eq!(engine.python(program).text(), "passed\n");
}

#[test]
fn the_python_sdk_runs_containers() {
    python(include_str!("clients/sdk.py"));
}

#[test]
fn the_python_sdk_talks_to_processes() {
    python(include_str!("clients/sdk_streams.py"));
}

#[test]
fn the_python_sdk_keeps_images_volumes_and_ports() {
    python(include_str!("clients/sdk_things.py"));
}
