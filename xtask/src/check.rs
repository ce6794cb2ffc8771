//! `cargo xtask check`: what needs neither root nor network.

use crate::failure::Failure;
use crate::{arrows, packages, steps};

type Check = fn() -> Result<(), Failure>;

/// Formatting, lints, arrows, declared packages: all of them, then the verdict.
pub fn check() -> Result<(), Failure> {
    let checks: [(&str, Check); 4] = [
        ("formatting", || steps::run(steps::cargo().args(["fmt", "--all", "--check"]))),
        ("the arrows between crates", arrows::check),
        ("the list of Debian packages", packages::lint),
        ("clippy", || {
            steps::run(steps::cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
        }),
    ];
    let mut failed = Vec::new();
    for (what, check) in checks {
        steps::step(what);
        if let Err(failure) = check() {
            eprintln!("error: {failure}");
            failed.push(what);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("not in order: {}", failed.join(", ")))) }
}
