//! A root file system as a tar, made by mmdebstrap in a mount and pid namespace of its own: whatever happens to us,
//! no mount and no process of it stays behind.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::recipe::{Recipe, SOURCE_DATE_EPOCH};
use super::sources::{SUITE, Sources};
use crate::failure::{Attempt, Failure};

/// What dpkg leaves out, as Debian's own slim images do: documentation, but for the licences; translations.
const LEFT_OUT: [&str; 6] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// `mmdebstrap`, isolated.
pub fn mmdebstrap() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["mmdebstrap", "--mode=root"]);
    command.env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string()).env("LC_ALL", "C.UTF-8");
    command
}

/// Makes the recipe's root file system, its bases included: a tar in `scratch`.
pub fn build(recipe: &Recipe, sources: &Sources, scratch: &Path) -> Result<PathBuf, Failure> {
    let target = scratch.join("root.tar");
    let mut command = mmdebstrap();
    command.env("TMPDIR", scratch).args(["--format=tar", "--skip=output/dev"]);
    command.arg(if recipe.install { "--variant=minbase" } else { "--variant=extract" });
    if recipe.install {
        command.args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
    }
    command.args(sources.apt_options.iter().map(|option| format!("--aptopt={option}")));
    let mut packages: Vec<&str> = Vec::new();
    for (number, link) in recipe.chain().into_iter().enumerate() {
        packages.extend(link.packages);
        let hook = scratch.join(format!("script-{number}"));
        std::fs::write(&hook, format!("#!/bin/sh\nset -eu\n{}\n", link.script)).attempting("write a script")?;
        std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).attempting("make a script executable")?;
        // What is only extracted is never customized (mmdebstrap(1), "extract"): its hook runs after the extraction.
        let stage = if recipe.install { "customize" } else { "extract" };
        command.arg(format!("--{stage}-hook={}", hook.display()));
    }
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    command.arg(SUITE).arg(&target).args(&sources.lines);
    run(&mut command, recipe.name)?;
    Ok(target)
}

/// Runs it with its talk on one line, and all of the talk in the failure.
pub fn run(command: &mut Command, what: &str) -> Result<(), Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .attempting("run mmdebstrap")?;
    let spinner = super::spinner();
    let mut said = Vec::new();
    let talk = BufReader::new(child.stderr.take().expect("it was piped"));
    for line in talk.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        spinner.set_message(line.clone());
        said.push(line);
    }
    let status = child.wait().attempting("wait for mmdebstrap")?;
    spinner.finish_and_clear();
    if status.success() {
        return Ok(());
    }
    let tail = said[said.len().saturating_sub(30)..].join("\n    ");
    Err(Failure::new(format!("mmdebstrap could not make {what} ({status}); it said last:\n    {tail}"))
        .with_hint("is Debian's mirror reachable from here? apt-get update tells"))
}
