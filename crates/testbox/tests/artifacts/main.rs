//! Artifacts: made of files, sent to registries of both kinds (those that know what refers to what, and those that do not),
//! brought back, and given as files again.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod luck;
mod mounts;
mod referrers;
#[path = "../pull/registry.rs"]
#[allow(dead_code, reason = "the pull's tests need more of it")]
mod registry;
#[path = "../push/between.rs"]
#[allow(dead_code, reason = "the push's tests need more of it")]
mod sending;
#[path = "../registry_server/server.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod server;

use std::path::{Path, PathBuf};

use dozen_testbox::{Done, Engine, Machine};
use serde_json::{Value, json};

use registry::Registry;
use server::{HOST, Server};

const KIND: &str = "application/vnd.example.notes";

/// A file of the machine's own.
pub fn file(machine: &Machine, name: &str, bytes: &[u8]) -> String {
    let path = machine.directory().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn artifact(engine: &Engine<'_>, arguments: &[&str]) -> Done {
    engine.dozen(&[&["artifact"], arguments].concat())
}

pub fn inspect(engine: &Engine<'_>, name: &str) -> Value {
    serde_json::from_str(&artifact(engine, &["inspect", name]).text()).unwrap()
}

/// Several MiB that do not get smaller, and always the same.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..bytes).map(next).collect()
}

/// Files that the image store keeps, and those that are not finished.
pub fn kept(machine: &Machine) -> (usize, usize) {
    let count = |name: &str| std::fs::read_dir(machine.directory().join("data").join(name)).map_or(0, Iterator::count);
    (count("content/sha256"), count("tmp"))
}

fn directory(machine: &Machine, name: &str) -> PathBuf {
    let path = machine.directory().join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn read(directory: &Path, name: &str) -> Vec<u8> {
    std::fs::read(directory.join(name)).unwrap()
}

#[test]
fn files_become_an_artifact_and_files_again() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let (note, large) = (file(&machine, "note.txt", b"a note\n"), file(&machine, "large.bin", &noise(3 << 20)));
    let name = "registry.example/team/notes:1";
    let add = ["add", "--type", KIND, "--annotation", "date=today", name, &note, &large];
    let digest = artifact(&engine, &add).text();
    let digest = digest.trim();
    assert_eq!(digest.len(), 64, "{digest}");
    let listed = artifact(&engine, &["ls"]).text();
    let want = format!(
        "REPOSITORY                    TAG       DIGEST         SIZE\n\
         registry.example/team/notes   1         {}   3.146MB\n",
        &digest[..12]
    );
    assert_eq!(listed, want);
    assert_eq!(artifact(&engine, &["ls", "-q", "--no-trunc"]).text(), format!("{digest}\n"));
    assert_eq!(artifact(&engine, &["ls", "--format", "{{.Tag}} {{.Size}}"]).text(), "1 3.146MB\n");
    assert!(!artifact(&engine, &["ls", "-n"]).text().contains("REPOSITORY"));
    let shown = inspect(&engine, name);
    assert_eq!(shown["Name"], name);
    assert_eq!(shown["Digest"], format!("sha256:{digest}"));
    assert_eq!(shown["Manifest"]["artifactType"], KIND);
    let layers = shown["Manifest"]["layers"].as_array().unwrap();
    assert_eq!(
        (layers[0]["mediaType"].as_str(), layers[0]["size"].as_u64()),
        (Some("text/plain; charset=utf-8"), Some(7))
    );
    assert_eq!(layers[1]["mediaType"], "application/octet-stream");
    assert_eq!(layers[1]["annotations"], json!({ "date": "today", "org.opencontainers.image.title": "large.bin" }));
    let format = ["inspect", "-f", "{{.Manifest.artifactType}}", &digest[..12]];
    assert_eq!(artifact(&engine, &format).text(), format!("{KIND}\n"));
    // It is no image, and takes its place.
    assert_eq!(engine.dozen(&["images", "-aq"]).text(), "");
    engine.dozen(&["run", "--rm", "--pull", "never", name]).refuses(125, &["No such image"]);
    assert_eq!(engine.dozen(&["image", "prune", "-af"]).text().lines().last(), Some("Total reclaimed space: 0B"));
    // Its blobs take whole blocks of the disk.
    let usage = engine.dozen(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}"]).text();
    assert!(usage.contains("Images 0 ") && usage.contains("\nArtifacts 1 3.15"), "{usage}");
    // The next engine has it as well.
    engine.kill();
    engine.restart();
    let out = directory(&machine, "out");
    artifact(&engine, &["extract", name, out.to_str().unwrap()]).expect(0);
    assert_eq!(read(&out, "note.txt"), b"a note\n");
    assert!(read(&out, "large.bin") == noise(3 << 20));
    // One of them, into a file.
    let single = machine.directory().join("single");
    let single = single.to_str().unwrap();
    artifact(&engine, &["extract", name, single]).refuses(1, &["consists of several blobs and the target"]);
    artifact(&engine, &["extract", "--title", "note.txt", name, single]).expect(0);
    artifact(&engine, &["extract", "--title", "nothing", name, single])
        .refuses(1, &["no blob with the title \"nothing\""]);
    assert_eq!(std::fs::read(single).unwrap(), b"a note\n");
    let by_digest = layers[0]["digest"].as_str().unwrap();
    artifact(&engine, &["extract", "--digest", by_digest, name, out.to_str().unwrap()]).expect(0);
    assert_eq!(read(&out, &by_digest.replace(':', "-")), b"a note\n");

    artifact(&engine, &add).refuses(1, &["registry.example/team/notes:1: artifact already exists"]);
    let more = file(&machine, "more", b"more");
    artifact(&engine, &["add", "--append", name, &more]).expect(0);
    artifact(&engine, &["add", "-a", name, &more]).refuses(1, &["more: file already exists in artifact"]);
    artifact(&engine, &["add", "-a", "--type", "a/b", name, &note])
        .refuses(1, &["append option is not compatible with type"]);
    assert_eq!(inspect(&engine, name)["Manifest"]["layers"].as_array().unwrap().len(), 3);
    artifact(&engine, &["add", "--replace", "--file-type", "text/x-note", name, &more]).expect(0);
    assert_eq!(inspect(&engine, name)["Manifest"]["layers"][0]["mediaType"], "text/x-note");
    artifact(&engine, &["add", "other:1", "/nowhere"]).refuses(1, &["open /nowhere: no such file or directory"]);
    artifact(&engine, &["add", "other:1", "/etc"]).refuses(1, &["/etc is a directory"]);
    artifact(&engine, &["add", "--type", "notes", "other:1", &note]).refuses(1, &["invalid media type \"notes\""]);
    artifact(&engine, &["add", "other:1", &note, &note]).refuses(1, &["note.txt: file already exists in artifact"]);

    artifact(&engine, &["rm"]).refuses(1, &["an artifact name or digest must be specified"]);
    artifact(&engine, &["rm", "nothing"]).refuses(1, &["nothing:latest: artifact does not exist"]);
    artifact(&engine, &["rm", "--ignore", "nothing"]).expect(0);
    artifact(&engine, &["add", "other:1", &note]).expect(0);
    artifact(&engine, &["rm", "--all"]).expect(0);
    assert_eq!(artifact(&engine, &["ls", "-q"]).text(), "");
    assert_eq!(kept(&machine), (0, 0));
}

/// Away with it, and here again: the same to the byte.
fn goes_and_comes(machine: &Machine, engine: &Engine<'_>) {
    let large = noise(3 << 20);
    let files =
        [file(machine, "note.txt", b"a note\n"), file(machine, "large.bin", &large), file(machine, "empty", b"")];
    let name = format!("{HOST}/team/notes:1");
    let add = ["add", "--type", KIND, &name, &files[0], &files[1], &files[2]];
    let digest = artifact(engine, &add).text().trim().to_owned();
    let written = machine.directory().join("digest");
    let pushed = artifact(engine, &["push", "--digestfile", written.to_str().unwrap(), &name]).text();
    assert_eq!(pushed, format!("{name}: digest: sha256:{digest}\n"));
    assert_eq!(std::fs::read_to_string(written).unwrap(), format!("sha256:{digest}"));
    // Again, by its digest: nothing goes.
    assert_eq!(artifact(engine, &["push", "-q", &digest[..12]]).text(), "");
    let raw = machine
        .run("skopeo", &["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let raw = serde_json::from_str::<Value>(&raw.text()).unwrap();
    assert_eq!(raw, inspect(engine, &name)["Manifest"]);
    artifact(engine, &["rm", &name]).expect(0);
    assert_eq!(kept(machine), (0, 0));
    for name in [name.clone(), format!("{HOST}/team/notes@sha256:{digest}")] {
        assert_eq!(artifact(engine, &["pull", &name]).text(), format!("{digest}\n"));
        let out = directory(machine, "again");
        artifact(engine, &["extract", &name, out.to_str().unwrap()]).expect(0);
        assert_eq!((read(&out, "note.txt"), read(&out, "empty")), (b"a note\n".to_vec(), vec![]));
        assert!(read(&out, "large.bin") == large);
    }
    assert_eq!(artifact(engine, &["ls", "--format", "{{.Tag}}"]).text(), "<none>\n1\n");
    artifact(engine, &["pull", &format!("{HOST}/team/notes:2")]).refuses(1, &["manifest unknown"]);

    // It is no image: that is said, with what pulls it, to docker's clients as well.
    let words = format!("{name} is an artifact of type {KIND} and no image; pull it with: dozen artifact pull {name}");
    engine.dozen(&["pull", &name]).refuses(1, &[&words]);
    engine.docker(&["pull", &name]).refuses(1, &[&words]);
    engine.dozen(&["run", "--rm", &name]).refuses(125, &[&words]);
    let dockerfile = format!("FROM {name}\n");
    let built = machine.run_with(dozen_testbox::dozen_program(), &["build", "-"], dockerfile.as_bytes(), &[]);
    assert!(built.code != 0 && built.err.contains("dozen artifact pull"), "{built:?}");
    assert_eq!(engine.dozen(&["images", "-aq"]).text(), "");
    // Manifest, configuration and files, once.
    assert_eq!(kept(machine), (5, 0));
    artifact(engine, &["rm", "--all"]).expect(0);
    assert_eq!(kept(machine), (0, 0));
}

#[test]
fn it_goes_to_a_registry_of_our_own_and_comes_back() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    goes_and_comes(&machine, &machine.engine());
    drop(server);
    server::check(&machine).expect(0);
}

#[test]
fn it_goes_to_docker_registry_and_comes_back() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    goes_and_comes(&machine, &machine.engine());
}

/// An image and an artifact that have a blob in common: each goes without the other.
#[test]
fn what_an_image_has_too_stays_with_it() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("busybox", "team/box:1").expect(0);
    let engine = machine.engine();
    let name = format!("{HOST}/team/box:1");
    engine.dozen(&["pull", &name]).expect(0);
    let before = kept(&machine);
    // The whole image, as files.
    artifact(&engine, &["pull", &name]).expect(0);
    assert_eq!(kept(&machine), before);
    engine.dozen(&["rmi", "-f", &name]).expect(0);
    let out = directory(&machine, "out");
    artifact(&engine, &["extract", &name, out.to_str().unwrap()]).expect(0);
    engine.dozen(&["pull", &name]).expect(0);
    artifact(&engine, &["rm", &name]).expect(0);
    assert_eq!(engine.dozen(&["run", "--rm", "--pull", "never", &name, "echo", "hello"]).expect(0).out, "hello\n");
    engine.dozen(&["rmi", "-f", &name]).expect(0);
    assert_eq!(kept(&machine), (0, 0));
}
