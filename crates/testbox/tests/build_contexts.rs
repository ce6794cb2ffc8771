//! Builds that are given more than one context, and what a build says of itself in the end.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use dozen_testbox::{Done, Engine, Machine};
use serde_json::Value;

/// A directory with these files, beside the engine's.
fn directory(machine: &Machine, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let at = machine.directory().join(name);
    for (file, text) in files {
        let file = at.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    at
}

fn build(engine: &Engine<'_>, flags: &[&str], at: &Path) -> Done {
    engine.dozen(&[&["build", "--network", "none"], flags, &[at.to_str().unwrap()]].concat())
}

fn run(engine: &Engine<'_>, image: &str, command: &str) -> String {
    engine.dozen(&["run", "--rm", "--network", "none", image, "sh", "-c", command]).text()
}

#[test]
fn directories_and_images_stand_for_stages_and_images() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["tag", "busybox", "team/base:2"]).expect(0);
    let files = [("a", "a\n"), ("sub/b", "b\n"), ("left-out", "no\n"), (".dockerignore", "left-*\n")];
    let source = directory(&machine, "source", &files);
    let tools = directory(&machine, "tools", &[("tool", "t\n")]);
    let unused = directory(&machine, "unused", &[("large", &"x".repeat(4 << 20))]);
    let at = directory(
        &machine,
        "context",
        &[
            ("own", "own\n"),
            (
                "Dockerfile",
                "FROM nowhere AS tools\nRUN exit 9\n\
                 FROM example.org/base\nCOPY own /own\nCOPY --from=source / /got/\nCOPY --from=tools /tool /tool\n\
                 RUN --mount=from=source,target=/m,source=/sub cat /m/b /tool > /seen\n",
            ),
        ],
    );
    let named = |name: &str, path: &Path| format!("{name}={}", path.display());
    let (source_flag, tools_flag) = (named("source", &source), named("tools:latest", &tools));
    let flags = [
        "--build-context",
        &source_flag,
        "--build-context",
        &tools_flag,
        "--build-context",
        "example.org/base=docker-image://team/base:2",
        "--build-context",
        &named("unused", &unused),
        "-t",
        "made",
    ];
    let built = build(&engine, &flags, &at).expect(0);
    assert_eq!(
        run(&engine, "made", "cat /seen /own; find /got -type f | sort"),
        "b\nt\nown\n/got/.dockerignore\n/got/a\n/got/sub/b\n"
    );
    let sent = built.err.lines().find(|line| line.contains("transferring context")).unwrap();
    assert!(!sent.contains("MB"), "what nothing names is not sent: {sent}");

    // The steps are known by the files, and by nothing else.
    let cached = |done: &Done| done.err.matches("CACHED").count();
    assert_eq!(cached(&build(&engine, &flags, &at).expect(0)), 4);
    std::fs::write(source.join("left-out"), "more\n").unwrap();
    assert_eq!(cached(&build(&engine, &[&flags[..], &["--compress"]].concat(), &at).expect(0)), 4);
    std::fs::write(tools.join("tool"), "T\n").unwrap();
    assert_eq!(cached(&build(&engine, &flags, &at).expect(0)), 2);
    assert_eq!(run(&engine, "made", "cat /seen"), "b\nT\n");
}

#[test]
fn a_directory_is_a_root_to_begin_from() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let root = directory(&machine, "root", &[("etc/motd", "hello\n")]);
    let at = directory(
        &machine,
        "context",
        &[("Dockerfile", "FROM root AS base\nENV A=b\nFROM base\nCOPY Dockerfile /d\n")],
    );
    let (flag, out) = (format!("root={}", root.display()), machine.directory().join("out"));
    build(&engine, &["--build-context", &flag, "-t", "made", "-o", out.to_str().unwrap()], &at).expect(0);
    assert_eq!(std::fs::read_to_string(out.join("etc/motd")).unwrap(), "hello\n");
    assert!(out.join("d").exists());
    let history = engine.dozen(&["image", "history", "--format", "json", "--no-trunc", "made"]).text();
    let said: Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert_eq!(said["CreatedBy"], "local source for root");
    // A context of the stage's own name takes its place, and so does one that is empty.
    let empty = directory(&machine, "empty", &[(".keep", "")]);
    let flag = format!("base={}", empty.display());
    build(&engine, &["--build-context", &flag, "-o", machine.directory().join("other").to_str().unwrap()], &at)
        .expect(0);
    let names = std::fs::read_dir(machine.directory().join("other")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".keep", "d"]);
}

#[test]
fn an_image_comes_from_an_oci_layout_without_a_name() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let (archive, layout) = (machine.directory().join("b.tar"), directory(&machine, "layout", &[]));
    std::fs::create_dir_all(&layout).unwrap();
    engine.dozen(&["save", "-o", archive.to_str().unwrap(), "busybox"]).expect(0);
    machine.run("tar", &["-C", layout.to_str().unwrap(), "-xf", archive.to_str().unwrap()]).expect(0);
    engine.dozen(&["rmi", "busybox"]).expect(0);
    let at = directory(&machine, "context", &[("Dockerfile", "FROM base\nRUN echo a > /a\n")]);
    let flag = format!("base=oci-layout://{}:latest", layout.display());
    build(&engine, &["--build-context", &flag, "-t", "made"], &at).expect(0);
    assert_eq!(run(&engine, "made", "cat /a"), "a\n");
    let names = engine.dozen(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).text();
    assert!(!names.contains("busybox"), "{names}");
    // Of a layout that is damaged nothing comes in.
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let manifest = layout.join("blobs").join(digest);
    std::fs::write(&manifest, std::fs::read_to_string(&manifest).unwrap().replace("layers", "Layers")).unwrap();
    build(&engine, &["--build-context", &flag], &at).refuses(1, &["its content is not what its name says"]);
}

#[test]
fn what_only_a_trigger_names_is_said() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let base = directory(&machine, "base", &[("Dockerfile", "FROM busybox\nONBUILD COPY --from=late /a /a\n")]);
    build(&engine, &["-t", "base"], &base).expect(0);
    let at = directory(&machine, "context", &[("Dockerfile", "FROM base\n"), ("a", "a\n")]);
    let flag = format!("late={}", at.display());
    build(&engine, &["--build-context", &flag], &at)
        .refuses(1, &["the named context late was not sent", "COPY --from=late"]);
    let text = "FROM base\nRUN --mount=from=late,target=/m true\n";
    std::fs::write(at.join("Dockerfile"), text).unwrap();
    build(&engine, &["--build-context", &flag, "-t", "made"], &at).expect(0);
    assert_eq!(run(&engine, "made", "cat /a"), "a\n");
}

#[test]
fn a_build_says_what_it_has_made() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let at = directory(&machine, "context", &[("Dockerfile", "FROM busybox\nLABEL a=b\n")]);
    let (metadata, id) = (machine.directory().join("m.json"), machine.directory().join("id"));
    let flags = [
        "--metadata-file",
        metadata.to_str().unwrap(),
        "--iidfile",
        id.to_str().unwrap(),
        "-t",
        "web:1",
        "-t",
        "web:2",
    ];
    build(&engine, &flags, &at).expect(0);
    let said: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let id = std::fs::read_to_string(&id).unwrap();
    let name = "docker.io/library/web:1,docker.io/library/web:2";
    assert_eq!((&said["containerimage.config.digest"], &said["image.name"]), (&id.into(), &name.into()));
    // One that fails says nothing.
    std::fs::write(at.join("Dockerfile"), "FROM busybox\nRUN false\n").unwrap();
    build(&engine, &flags, &at).refuses(1, &["returned a non-zero code: 1"]);
    assert!(!metadata.exists());
}

#[test]
fn the_step_that_has_failed_is_the_one_that_is_shown() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    // The other one speaks after the one that fails has said its last word.
    let text = "FROM busybox AS other\nRUN while true; do echo other; sleep 0.1; done\n\
        FROM busybox AS failing\nRUN echo mine; sleep 1; exit 3\nFROM busybox\nCOPY --from=other /a /a\nCOPY --from=failing /b /b\n";
    let at = directory(&machine, "context", &[("Dockerfile", text)]);
    let failed = engine.dozen(&["build", "--network", "none", "--progress", "plain", at.to_str().unwrap()]);
    let last = failed.err.split("------\n").nth(1).unwrap();
    assert!(last.contains("RUN echo mine") && last.contains("mine\n") && !last.contains("other"), "{}", failed.err);
    assert_eq!(failed.code, 1);
}
