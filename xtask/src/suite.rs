//! `cargo xtask test`: sets everything up, runs every test, and looks whether anything stayed behind. `cargo xtask
//! soak`: the same, for one of the tests that take an hour.

use std::process::Command;
use std::time::Instant;

use crate::bench::peers;
use crate::failure::Failure;
use crate::leftovers::{self, Snapshot};
use crate::{clients, host, images, packages, steps};

/// Marked `#[ignore]`, but no test: it prints figures.
const FIGURES: &str = "how_long_an_attach_takes";

/// Marked `#[ignore]`: they take an hour, and have a verb of their own. Of the engine; of the registry's server.
pub const SOAK: &str = "an_hour_of_everything_leaves_nothing";
pub const REGISTRY_SOAK: &str = "an_hour_of_pushes_loses_nothing";

/// What `cargo xtask soak` is about.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Of {
    /// Containers, networks and images, with an engine, a keeper and monitors that are killed.
    Engine,
    /// A registry's server, in a directory and in a store, that is killed, moved and loses its disk.
    Registry,
}

/// `cargo xtask test`.
pub fn test(quick: bool, filter: Option<&str>) -> Result<(), Failure> {
    let heavy: &[&str] = if quick { &[] } else { &images::HEAVY };
    run("test", heavy, |runner| {
        runner.arg("--workspace").args(filter);
        if !quick {
            // But for those that need a machine of another kind, or an hour.
            let others = [crate::vm::HERE_ONLY, FIGURES, SOAK, REGISTRY_SOAK];
            runner.args(["--", "--include-ignored"]).args(others.iter().flat_map(|name| ["--skip", name]));
        }
    })
}

/// `cargo xtask soak`.
pub fn soak(of: Of, minutes: u32) -> Result<(), Failure> {
    let (binary, test) = match of {
        Of::Engine => ("crash", SOAK),
        Of::Registry => ("registry_soak", REGISTRY_SOAK),
    };
    run("soak", &[], |runner| {
        runner.args(["-p", "dozen-testbox", "--test", binary, test, "--", "--ignored"]);
        runner.env("DOZEN_TEST_SOAK_MINUTES", minutes.to_string());
        // What it finds is the point.
        runner.env("NEXTEST_SUCCESS_OUTPUT", "final");
    })
}

/// Sets everything up, runs the tests that are chosen, and looks what they leave.
fn run(verb: &str, heavy: &[&str], choose: impl FnOnce(&mut Command)) -> Result<(), Failure> {
    let begun = Instant::now();
    host::need_root(verb)?;
    packages::ensure(verb)?;
    images::ensure(&[&images::USUAL[..], heavy].concat(), false)?;
    let python = clients::python()?;
    let node = clients::node()?;
    let docker = clients::docker()?;
    // Only what is heavy pushes to our registry by other engines, and looks at its page.
    let peers = if heavy.is_empty() { None } else { Some(peers::root()?) };
    if !heavy.is_empty() {
        clients::browser()?;
    }
    let dozen = steps::build_dozen()?;
    steps::step(format_args!("clients: {} and {}", docker_version(&docker), python.display()));
    let before = Snapshot::take();

    let has_nextest = steps::capture(steps::cargo().args(["nextest", "--version"])).is_ok();
    let mut runner = steps::cargo();
    // `--no-fail-fast`: one failing crate does not hide the others.
    runner.args(if has_nextest { &["nextest", "run"][..] } else { &["test", "--no-fail-fast"] });
    choose(&mut runner);
    runner.env("DOZEN_BINARY", &dozen).env("DOZEN_TEST_PYTHON", &python).env("DOZEN_TEST_DOCKER", &docker);
    runner.env("DOZEN_TEST_NODE", &node);
    runner.envs(peers.map(|root| ("DOZEN_TEST_PEERS", root)));
    runner.env("DOZEN_TEST_IMAGES", images::directory()?);
    steps::step(if has_nextest { "cargo nextest run" } else { "cargo test (no nextest on this machine)" });
    let outcome = steps::run(&mut runner);
    let left = leftovers::compare(&before, "the tests");
    steps::step(format_args!("{} s in all", begun.elapsed().as_secs()));
    match (outcome, left) {
        (Err(failed), Err(left)) => Err(Failure::new(format!("{failed}; and {left}"))),
        (outcome, left) => outcome.and(left),
    }
}

fn docker_version(docker: &std::path::Path) -> String {
    steps::capture(Command::new(docker).arg("--version")).unwrap_or_else(|failure| failure.to_string())
}
