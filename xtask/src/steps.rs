//! Says what is done, and runs other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Attempt, Failure};

/// Announces a step.
pub fn step(what: impl std::fmt::Display) {
    eprintln!("==> {what}");
}

/// The root of the work tree.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the work tree").to_owned()
}

/// How a command line looks to someone who would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a command that talks to the terminal itself.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let line = shown(command);
    let status = command.stdin(Stdio::null()).status().attempting(format_args!("run {line}"))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("'{line}' failed ({status})"))) }
}

/// The same, for a command that may read the terminal too.
pub fn run_here(command: &mut Command) -> Result<(), Failure> {
    let line = shown(command);
    let status = command.status().attempting(format_args!("run {line}"))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("'{line}' failed ({status})"))) }
}

/// Runs a command and answers its standard output without the last line's end; its standard error is shown in the
/// failure, and only there.
pub fn capture(command: &mut Command) -> Result<String, Failure> {
    let line = shown(command);
    let output = command.stdin(Stdio::null()).output().attempting(format_args!("run {line}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("'{line}' failed ({}): {}", output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// `cargo` as the one that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    command
}

/// Whether a program of this name is on the PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Builds the `dozen` binary with the profile for development, the one that is built soonest, and answers its path.
/// `DOZEN_BINARY` names one that is there already.
pub fn build_dozen() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("DOZEN_BINARY").map(PathBuf::from) {
        step(format_args!("taking dozen from {}", path.display()));
        return Ok(path);
    }
    step("building dozen (cargo build --package dozen)");
    let mut command = cargo();
    command.args(["build", "--package", "dozen", "--message-format", "json-render-diagnostics"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().attempting("run cargo build")?;
    if !output.status.success() {
        return Err(Failure::new("dozen does not build: the compiler's messages are above"));
    }
    executables(&output.stdout, |message| message["target"]["name"] == "dozen")
        .pop()
        .ok_or_else(|| Failure::new("cargo built no executable named dozen"))
}

/// The executables in cargo's JSON messages for which `wanted` holds.
pub fn executables(messages: &[u8], wanted: impl Fn(&serde_json::Value) -> bool) -> Vec<PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && wanted(message))
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo it's", "", "a/b.c"]);
        assert_eq!(shown(&command), r"sh -c 'echo it'\''s' '' a/b.c");
    }

    #[test]
    fn executables_are_found_among_other_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":"/t/x"}
not json
{"reason":"compiler-artifact","target":{"name":"dozen"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"dozen"},"executable":"/t/dozen"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages, |message| message["target"]["name"] == "dozen");
        assert_eq!(found, [PathBuf::from("/t/dozen")]);
    }
}
