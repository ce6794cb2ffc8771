//! Other people's clients: the docker CLI and those of PyPI, as their users have them. Those of npm are in
//! `node_clients.rs`.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Machine, docker_program, image_archive, python_program};

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

#[test]
fn python_on_whales_drives_the_docker_cli() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let docker = docker_program();
    let variables = [("DOCKER_CLI", docker.to_str().unwrap())];
    let program = include_str!("clients/whales.py");
    let said = machine.run_with(python_program(), &["-c", program], b"", &variables).text();
    // The CLI's own words come before.
    assert!(said.ends_with("passed\n"), "{said}");
}

#[test]
fn testcontainers_for_python_waits_copies_and_cleans_up() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.load("python:3.11-slim");
    let program = include_str!("clients/testcontainers_suite.py");
    let variables = [("TESTCONTAINERS_RYUK_DISABLED", "true")];
    assert_eq!(machine.run_with(python_program(), &["-c", program], b"", &variables).text(), "passed\n");
}
