//! Other people's clients for node, from npm, as their users have them.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Machine, node_program};

/// Runs a program against an engine that has these images.
fn node(program: &str, images: &[&str]) {
    let machine = Machine::new();
    let engine = machine.engine();
    images.iter().for_each(|image| engine.load(image));
    // The reaper is an image of a registry's.
    let variables = [("TESTCONTAINERS_RYUK_DISABLED", "true")];
    assert_eq!(machine.run_with(node_program(), &["-e", program], b"", &variables).text(), "passed\n");
}

#[test]
fn dockerode_does_what_its_users_do() {
    node(include_str!("clients/dockerode.js"), &["busybox"]);
}

#[test]
fn testcontainers_for_node_waits_copies_and_cleans_up() {
    node(include_str!("clients/testcontainers.js"), &["busybox", "python:3.11-slim"]);
}
