//! `dozen build --check` by the built binary: it finds a Dockerfile's faults without an engine.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use dozen_testbox::dozen_program;

/// In a directory of its own, where no engine is, nor may be started.
fn build(directory: &Path, arguments: &[&str], stdin: Option<&Path>) -> (Option<i32>, String, String) {
    let mut command = Command::new(dozen_program());
    command.arg("build").args(arguments).current_dir(directory);
    command.env("DOZEN_AUTOSTART", "0").env("DOZEN_HOST", "unix:///nonexistent/dozen.sock").env_remove("DOCKER_HOST");
    command.stdin(stdin.map_or_else(Stdio::null, |path| std::fs::File::open(path).unwrap().into()));
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_dockerfile_is_checked_without_an_engine() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("Dockerfile"), "FROM a AS web\nCOPY . /srv\n").unwrap();
    std::fs::write(at.join("other"), "FROM a\nCMD run me\n").unwrap();
    std::fs::write(at.join("broken"), "FROM a AS Web\nCPOY . /srv\n").unwrap();

    let clean = (Some(0), "Check complete, no warnings found.\n".to_owned(), String::new());
    assert_eq!(build(at, &["--check", "."], None), clean);
    assert_eq!(build(at, &["--check", "-"], Some(&at.join("Dockerfile"))), clean);

    let (code, out, err) = build(at, &["--check", "-f", "other", "."], None);
    assert_eq!((code, err.as_str()), (Some(1), ""));
    let expected = "Check complete, 1 warning has been found!\n\n\
        WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\
        JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n\
        other:2\n--------------------\n   1 |     FROM a\n   2 | >>> CMD run me\n   3 |\n--------------------\n";
    assert_eq!(out, expected);

    let (code, out, err) = build(at, &["--check", "-f", "-", "."], Some(&at.join("broken")));
    assert_eq!(code, Some(1));
    assert!(out.contains("WARNING: StageNameCasing"), "{out}");
    assert!(
        err.starts_with("ERROR: dockerfile parse error on line 2: unknown instruction: CPOY (did you mean COPY?)\n")
    );
    assert!(err.contains("   2 | >>> CPOY . /srv\n     |     ^^^^\n"), "{err}");

    let (code, out, _) = build(at, &["--call", "check,format=json", "-f", "other", "."], None);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["warnings"][0]["ruleName"]), (Some(1), &"JSONArgsRecommended".into()));
    assert_eq!(found["warnings"][0]["location"]["ranges"][0]["start"]["line"], 2);

    // To build takes an engine.
    let (code, out, err) = build(at, &["."], None);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("Cannot connect to the Docker daemon at unix:///nonexistent/dozen.sock"), "{err}");
}
