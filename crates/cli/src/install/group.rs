//! The socket's group: made and removed by the machine's own programs, which keep all of its files in step.

use std::path::Path;
use std::process::Command;

use super::manifest::below;
use crate::failure::Failure;

/// Whether group(5) has it.
pub fn is_there(root: &Path, group: &str) -> bool {
    let text = std::fs::read_to_string(below(root, Path::new("/etc/group"))).unwrap_or_default();
    text.lines().any(|line| line.split(':').next() == Some(group))
}

/// groupadd(8).
pub fn add(root: &Path, group: &str) -> Result<(), Failure> {
    run(root, "groupadd", &["--system"], group)
}

/// groupdel(8).
pub fn remove(root: &Path, group: &str) -> Result<(), Failure> {
    run(root, "groupdel", &[], group)
}

fn run(root: &Path, program: &str, options: &[&str], group: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(format!("{program} {group}: {why}"));
    let mut command = Command::new(program);
    if root != Path::new("/") {
        command.arg("--prefix").arg(root);
    }
    let output = command.args(options).arg(group).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
