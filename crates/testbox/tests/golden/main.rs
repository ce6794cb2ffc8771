//! Golden responses: what docker 20.10 and 26.1 answered to a fixed row of requests, and what dozen answers to the same
//! row at the same version of the API. The same fields, of the same types, null and empty where Docker has them so; the
//! differences that are meant stand in `exceptions.rs`, each with its reason.
//!
//! `cargo xtask golden` records them anew, from Debian's packages of both.

#![allow(clippy::unwrap_used, missing_docs)]
#![recursion_limit = "256"]

mod exceptions;
mod http;
mod scenario;
mod shape;

use std::collections::BTreeSet;

use dozen_testbox::Machine;
use serde_json::Value;

use scenario::Recording;

/// A dockerd to record from, the version of the API to speak with it, and the file to write.
const RECORD: [&str; 3] = ["DOZEN_GOLDEN_SOCKET", "DOZEN_GOLDEN_API", "DOZEN_GOLDEN_FILE"];

#[test]
fn answers_at_version_1_41_are_those_of_docker_20_10() {
    check("1.41", include_str!("docker-20.10.json"));
}

#[test]
fn answers_at_version_1_45_are_those_of_docker_26_1() {
    check("1.45", include_str!("docker-26.1.json"));
}

fn check(version: &str, golden: &str) {
    if let [Some(socket), Some(api), Some(file)] = RECORD.map(|name| std::env::var(name).ok()) {
        if api == version {
            let recording = scenario::play(socket.as_ref(), version);
            std::fs::write(file, serde_json::to_string_pretty(&recording).unwrap() + "\n").unwrap();
        }
        return;
    }
    let golden: Recording = serde_json::from_str(golden).unwrap();
    let machine = Machine::new();
    let engine = machine.engine();
    let answers = scenario::play(&machine.socket(), version);
    drop(engine);
    let mut differences = Vec::new();
    let mut used = BTreeSet::new();
    let steps: BTreeSet<&String> = golden.keys().chain(answers.keys()).collect();
    for step in steps.into_iter().filter(|step| is_compared(step)) {
        let lines = match (golden.get(step), answers.get(step)) {
            (Some(want), Some(got)) => shape::differences(want, got),
            (Some(_), None) => vec!["Docker has this, and dozen not".to_owned()],
            (None, _) => vec!["dozen has this, and Docker not".to_owned()],
        };
        for line in lines {
            match exceptions::reason(version, step, &line) {
                Some(number) => drop(used.insert(number)),
                None => differences.push(format!("{step}: {line}")),
            }
        }
    }
    let unused = exceptions::unused(version, &used).filter(|row| is_compared(row));
    differences.extend(unused.map(|row| format!("no longer an exception: {row}")));
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// What was recorded are the counters of version 1 of cgroups; those of version 2 are fewer, as Docker shows them, too.
fn is_compared(step: &str) -> bool {
    let has_version_1 = !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    has_version_1 || !step.starts_with("GET /containers/plain/stats")
}

/// One answer: `status`, `type` of its content, and `shape` (path → types) or the `message` of an error.
pub type Answer = serde_json::Map<String, Value>;
