//! What a test runs: dozen, the clients, the images. `cargo xtask test` says where they are; a test that is run by
//! hand asks cargo.

use std::path::PathBuf;
use std::process::{Command, Output};

/// What a command has done.
#[derive(Debug)]
pub struct Done {
    /// As it was typed.
    pub line: String,
    /// Its exit code; 128 and the signal's number if it was killed, as a shell has it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    pub(crate) fn new(line: String, output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { line, code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn text(self) -> String {
        self.expect(0).out
    }

    /// Fails the test unless the exit code is this.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self { line, code: is, out, err } = &self;
        assert_eq!(*is, code, "exit code of '{line}'\n-- stdout\n{out}\n-- stderr\n{err}");
        self
    }

    /// Fails the test unless the exit code is this and every word is on standard error.
    #[track_caller]
    pub fn refuses(self, code: i32, words: &[&str]) {
        let done = self.expect(code);
        for word in words {
            assert!(done.err.contains(word), "'{}' does not say '{word}':\n{}", done.line, done.err);
        }
    }
}

/// The binary under test: `DOZEN_BINARY`, else what cargo builds beside this test.
pub fn dozen_program() -> PathBuf {
    if let Some(path) = std::env::var_os("DOZEN_BINARY") {
        return path.into();
    }
    // target/<triple>/debug/deps/<test>: the binary lies two above.
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("dozen");
    if !path.is_file() {
        let status = cargo().args(["build", "--package", "dozen"]).status().unwrap();
        assert!(status.success(), "dozen does not build");
    }
    path
}

/// The archive of an image of `cargo xtask images`, by its recipe's name: `python:3.11-slim`.
pub fn image_archive(name: &str) -> PathBuf {
    let Some(directory) = std::env::var_os("DOZEN_TEST_IMAGES") else {
        return asked(&["images", "--path", name]);
    };
    let prefix = format!("{}-", name.replace([':', '/'], "-"));
    let is_it = |file: &str| {
        let hash = file.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".tar"));
        hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let entries = std::fs::read_dir(&directory).unwrap().flatten();
    let found = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_it)).map(|entry| entry.path()).next();
    found.unwrap_or_else(|| panic!("no archive of {name}: cargo xtask images {name}"))
}

/// The docker CLI.
pub fn docker_program() -> PathBuf {
    std::env::var_os("DOZEN_TEST_DOCKER").map_or_else(|| asked(&["clients", "docker"]), PathBuf::from)
}

/// A node that can `require` dockerode and testcontainers.
pub fn node_program() -> PathBuf {
    std::env::var_os("DOZEN_TEST_NODE").map_or_else(|| asked(&["clients", "node"]), PathBuf::from)
}

/// The root of Debian 13's engines: docker, podman, buildah.
pub fn peers_root() -> PathBuf {
    std::env::var_os("DOZEN_TEST_PEERS").map_or_else(|| asked(&["clients", "peers"]), PathBuf::from)
}

/// A python that can import docker, python_on_whales and testcontainers.
pub fn python_program() -> PathBuf {
    std::env::var_os("DOZEN_TEST_PYTHON").map_or_else(|| asked(&["clients", "python"]), PathBuf::from)
}

fn asked(arguments: &[&str]) -> PathBuf {
    let output = cargo().arg("xtask").args(arguments).stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "cargo xtask {} failed", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}
