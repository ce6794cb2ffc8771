//! `cargo xtask test`: sets everything up, runs every test, and looks whether anything stayed behind.

use std::time::Instant;

use crate::failure::Failure;
use crate::leftovers::{self, Snapshot};
use crate::{clients, host, images, packages, steps};

/// Marked `#[ignore]`, but no test: it prints figures.
const FIGURES: &str = "how_long_an_attach_takes";

/// Runs the suite.
pub fn test(quick: bool, filter: Option<&str>) -> Result<(), Failure> {
    let begun = Instant::now();
    host::need_root("test")?;
    packages::ensure("test")?;
    let heavy: &[&str] = if quick { &[] } else { &images::HEAVY };
    images::ensure(&[&images::USUAL[..], heavy].concat(), false)?;
    let python = clients::python()?;
    let docker = clients::docker()?;
    let dozen = steps::build_dozen()?;
    steps::step(format_args!("clients: {} and {}", docker_version(&docker), python.display()));
    let before = Snapshot::take();

    let has_nextest = steps::capture(steps::cargo().args(["nextest", "--version"])).is_ok();
    let mut runner = steps::cargo();
    if has_nextest {
        runner.args(["nextest", "run", "--workspace"]).args(filter);
    } else {
        // `--no-fail-fast`: one failing crate does not hide the others.
        runner.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    }
    if !quick {
        // But for those that need a machine of another kind.
        runner.args(["--", "--include-ignored", "--skip", crate::vm::HERE_ONLY, "--skip", FIGURES]);
    }
    runner.env("DOZEN_BINARY", &dozen).env("DOZEN_TEST_PYTHON", &python).env("DOZEN_TEST_DOCKER", &docker);
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
    steps::capture(std::process::Command::new(docker).arg("--version")).unwrap_or_else(|failure| failure.to_string())
}
