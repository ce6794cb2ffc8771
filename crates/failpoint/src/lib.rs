//! Places where the crash suite kills a process of ours: before and after every effect.
//!
//! `DOZEN_FAILPOINTS` names a directory. A process that comes to the failpoint `engine.launch.before` removes the file
//! of that name there and, if there was one, dies by SIGKILL. So one file kills exactly once, whoever comes first;
//! the suite arms a running engine by making a file, and sees by its absence that the kill has happened. Without the
//! variable, which is read once, a failpoint costs one comparison.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The environment variable: the absolute path of a directory.
pub const VARIABLE: &str = "DOZEN_FAILPOINTS";

/// Dies here if the failpoint `<process>.<name>` is armed.
pub fn reached(process: &str, name: &str) {
    if disarmed(process, name) {
        // Nothing is flushed or dropped on the way: that is the point.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Whether the failpoint `<process>.<name>` was armed, for a process that must die in a way of its own. It is armed no
/// longer.
pub fn disarmed(process: &str, name: &str) -> bool {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    directory.as_ref().is_some_and(|directory| disarm(directory, process, name))
}

/// Lets a process that is started with an empty environment know of the failpoints, if there are any.
pub fn pass_on(command: &mut Command) {
    if let Some(directory) = std::env::var_os(VARIABLE) {
        command.env(VARIABLE, directory);
    }
}

/// True for the one who removed the file.
fn disarm(directory: &Path, process: &str, name: &str) -> bool {
    std::fs::remove_file(directory.join(format!("{process}.{name}"))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_fires_once_and_only_if_it_is_armed() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!disarm(directory.path(), "engine", "save.before"));
        std::fs::write(directory.path().join("engine.save.before"), "").unwrap();
        assert!(!disarm(directory.path(), "keeper", "save.before"));
        assert!(disarm(directory.path(), "engine", "save.before"));
        assert!(!disarm(directory.path(), "engine", "save.before"));
    }
}
