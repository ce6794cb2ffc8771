//! Images to registries: to Debian's docker-registry, with and without passwords, and to such as mean ill or are away.

#![allow(clippy::unwrap_used, missing_docs)]

mod between;
mod caches;
mod compression;
mod hostile;
mod lists;
mod luck;
mod memory;
mod platforms;
#[path = "../pull/registry.rs"]
#[allow(dead_code, reason = "the pull's tests need more of it")]
mod registry;
mod secrets;
mod signatures;

use dozen_testbox::{Daemon, Engine, Machine, dozen_program};
use registry::Registry;
use serde_json::{Value, json};

pub const HOST: &str = "127.0.0.1:5000";

fn inspect(engine: &Engine<'_>, name: &str) -> Value {
    let text = engine.dozen(&["image", "inspect", name]).text();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// A manifest as the registry has it.
fn raw(machine: &Machine, name: &str) -> String {
    let name = format!("docker://{name}");
    machine.run("skopeo", &["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &name]).text()
}

fn remove_all(engine: &Engine<'_>) {
    engine.dozen(&["image", "prune", "-af"]).expect(0);
    assert_eq!(engine.dozen(&["images", "-aq"]).text(), "");
}

/// An image of one's own: a file of several MiB that does not get smaller, and one that does.
fn build(machine: &Machine, tag: &str) {
    let file = "FROM busybox\nRUN dd if=/dev/urandom of=/noise bs=1M count=3 && dd if=/dev/zero of=/zero bs=1M count=8\n\
                ENV A=b\nRUN echo hello > /hello\n";
    machine.run_with(dozen_program(), &["build", "-t", tag, "-"], file.as_bytes(), &[]).expect(0);
}

#[test]
fn an_image_goes_and_comes_back() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{HOST}/team/app:1");
    build(&machine, &name);
    let before = inspect(&engine, &name);
    let pushed = engine.dozen(&["push", &name]).text();
    let lines: Vec<&str> = pushed.lines().collect();
    assert_eq!(lines[0], format!("The push refers to repository [{HOST}/team/app]"));
    assert_eq!(pushed.matches(": Preparing\n").count(), 3, "{pushed}");
    assert_eq!(pushed.matches(": Pushed\n").count(), 3, "{pushed}");
    let digest = lines.last().unwrap().strip_prefix("1: digest: ").unwrap();
    let (digest, size) = digest.split_once(" size: ").unwrap();
    let manifest = raw(&machine, &name);
    assert_eq!(size, manifest.len().to_string());
    // Layers are compressed there: eight MiB of nothing are nothing.
    let parsed: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(parsed["mediaType"], json!("application/vnd.oci.image.manifest.v1+json"));
    for layer in parsed["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], json!("application/vnd.oci.image.layer.v1.tar+gzip"));
        assert!(layer["size"].as_u64().unwrap() < 5 << 20, "{layer}");
    }
    let image = inspect(&engine, &name);
    assert_eq!(image["RepoDigests"], json!([format!("{HOST}/team/app@{digest}")]));
    assert_eq!((&image["Id"], &parsed["config"]["digest"]), (&before["Id"], &before["Id"]));
    engine.dozen(&["run", "--rm", "--pull", "never", &format!("{HOST}/team/app@{digest}"), "cat", "/hello"]).expect(0);

    // Again: nothing goes, and nothing is compressed.
    let again = engine.dozen(&["push", &name]).text();
    assert_eq!(again.matches(": Layer already exists\n").count(), 3, "{again}");
    assert_eq!(again.lines().last(), lines.last().copied());
    assert_eq!(engine.dozen(&["push", "-q", &name]).text(), format!("{name}\n"));
    // What was pushed is what the registry has.
    let pulled = engine.dozen(&["pull", &name]).text();
    assert!(pulled.contains(&format!("Status: Image is up to date for {name}\n")), "{pulled}");

    remove_all(&engine);
    engine.dozen(&["pull", &name]).expect(0);
    assert_eq!(inspect(&engine, &name)["Id"], before["Id"]);
    assert_eq!(engine.dozen(&["run", "--rm", &name, "cat", "/hello"]).text(), "hello\n");
    luck::check_tmp_is_empty(&machine);
    let events = engine.dozen(&["events", "--since", "1h", "--until", "0s", "--filter", "event=push"]).text();
    assert_eq!(
        events.lines().filter(|line| line.contains(" image push ") && line.contains(&name)).count(),
        3,
        "{events}"
    );
}

#[test]
fn what_is_not_there_is_named() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let missing = engine.dozen(&["push", &format!("{HOST}/no/thing")]).expect(1);
    assert!(missing.out.starts_with("Using default tag: latest\nThe push refers to repository"), "{missing:?}");
    let words = format!("An image does not exist locally with the tag: {HOST}/no/thing");
    assert!(missing.err.contains(&words), "{}", missing.err);
    engine.dozen(&["tag", "busybox", &format!("{HOST}/box:1")]).expect(0);
    let words = format!("tag does not exist: {HOST}/box:2");
    engine.dozen(&["push", &format!("{HOST}/box:2")]).refuses(1, &[&words]);
    engine.dozen(&["push", "-a", &format!("{HOST}/box:1")]).refuses(1, &["tag can't be used with --all-tags/-a"]);
    let digest = format!("{HOST}/box@sha256:{}", "0".repeat(64));
    engine.dozen(&["push", &digest]).refuses(1, &["cannot push a digest reference"]);
    engine
        .dozen(&["push", "--platform", "linux/arm64", &format!("{HOST}/box:1")])
        .refuses(1, &["was found but does not provide the specified platform (linux/arm64)"]);
    drop(registry);
    engine.dozen(&["push", &format!("{HOST}/box:1")]).refuses(1, &["cannot reach the registry 127.0.0.1:5000"]);
    luck::check_tmp_is_empty(&machine);
}

#[test]
fn all_tags_go_and_layers_are_taken_over() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let mut engine = machine.engine();
    engine.load("busybox");
    let repository = format!("{HOST}/all/app");
    for tag in ["1", "2"] {
        build(&machine, &format!("{repository}:{tag}"));
    }
    engine.dozen(&["tag", "busybox", &format!("{repository}:plain")]).expect(0);
    let pushed = engine.dozen(&["push", "--all-tags", &repository]).text();
    for tag in ["1", "2", "plain"] {
        assert!(pushed.contains(&format!("\n{tag}: digest: sha256:")), "{pushed}");
    }
    assert_eq!(engine.dozen(&["push", "-aq", &repository]).text(), format!("{repository}\n"));
    // The registry has its layers, which the next engine knows too.
    engine.kill();
    engine.restart();
    let other = format!("{HOST}/other:1");
    engine.dozen(&["tag", &format!("{repository}:1"), &other]).expect(0);
    let mounted = engine.dozen(&["push", &other]).text();
    assert_eq!(mounted.matches(": Mounted from all/app\n").count(), 3, "{mounted}");
    // What was pulled from there is taken over as well.
    remove_all(&engine);
    engine.dozen(&["pull", &other]).expect(0);
    let third = format!("{HOST}/third:1");
    engine.dozen(&["tag", &other, &third]).expect(0);
    let mounted = engine.dozen(&["push", &third]).text();
    assert_eq!(mounted.matches(": Mounted from other\n").count(), 3, "{mounted}");
    assert_eq!(raw(&machine, &third), raw(&machine, &other));
}

#[test]
fn what_was_loaded_goes_as_it_came() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    build(&machine, "made:1");
    let [saved, file] = ["saved.tar", "gzip.tar"].map(|name| machine.directory().join(name).display().to_string());
    engine.dozen(&["save", "-o", &saved, "made:1"]).expect(0);
    remove_all(&engine);
    // An OCI layout whose layers somebody else has compressed.
    let (source, archive) = (format!("oci-archive:{saved}"), format!("oci-archive:{file}:web"));
    let copy = ["--insecure-policy", "copy", "-q", "--dest-compress-format", "gzip", &source, &archive];
    machine.run("skopeo", &copy).expect(0);
    let loaded = engine.dozen(&["load", "-i", &file]).text();
    let id = loaded.split("Loaded image").nth(1).unwrap().split_once(": ").unwrap().1.trim().to_owned();
    let name = format!("{HOST}/web:1");
    engine.dozen(&["tag", &id, &name]).expect(0);
    engine.dozen(&["push", &name]).expect(0);
    let manifest = raw(&machine, &name);
    let own = machine.run("skopeo", &["--insecure-policy", "inspect", "--raw", &archive]).text();
    assert_eq!(manifest, own);
    // The registry's blobs are the archive's.
    let unpacked = machine.directory().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    machine.run("tar", &["-xf", &file, "-C", unpacked.to_str().unwrap()]).expect(0);
    let parsed: Value = serde_json::from_str(&manifest).unwrap();
    let blobs = parsed["layers"].as_array().unwrap().iter().chain([&parsed["config"]]);
    for blob in blobs {
        let hex = blob["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let stored = format!("registry-5000/data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        let stored = std::fs::read(machine.directory().join(stored)).unwrap();
        assert!(stored == std::fs::read(unpacked.join("blobs/sha256").join(hex)).unwrap(), "{hex}");
    }
    remove_all(&engine);
    engine.dozen(&["run", "--rm", &name, "cat", "/hello"]).expect(0);
}

#[test]
fn dockers_command_line_pushes() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{HOST}/box:1");
    engine.docker(&["tag", "busybox", &name]).expect(0);
    let pushed = engine.docker(&["push", &name]).text();
    assert!(pushed.starts_with(&format!("The push refers to repository [{HOST}/box]\n")), "{pushed}");
    assert!(pushed.contains(": Pushed\n") && pushed.contains("\n1: digest: sha256:"), "{pushed}");
    let again = engine.docker(&["push", &name]).text();
    assert!(again.contains(": Layer already exists\n"), "{again}");
    engine.docker(&["tag", "busybox", &format!("{HOST}/box:2")]).expect(0);
    let all = engine.docker(&["push", "-a", &format!("{HOST}/box")]).text();
    assert!(all.contains("1: digest: ") && all.contains("2: digest: "), "{all}");
    assert_eq!(engine.docker(&["push", "-q", &name]).text(), format!("{name}\n"));
    let words = format!("An image does not exist locally with the tag: {HOST}/none");
    engine.docker(&["push", &format!("{HOST}/none")]).refuses(1, &[&words]);
}

#[test]
fn what_is_damaged_does_not_go() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{HOST}/box:1");
    build(&machine, &name);
    let layers = std::fs::read_dir(machine.directory().join("data/layers")).unwrap();
    let file = layers.map(|layer| layer.unwrap().path().join("hello")).find(|file| file.exists()).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&file, damaged).unwrap();
    engine.dozen(&["push", &name]).refuses(1, &["is damaged: it no longer gives the digest"]);
    let tags = machine.run("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{HOST}/box")]);
    assert!(!tags.out.contains("\"1\""), "{tags:?}");
    std::fs::write(&file, whole).unwrap();
    engine.dozen(&["push", &name]).expect(0);
    luck::check_tmp_is_empty(&machine);
}

#[test]
fn as_many_go_at_once_as_the_settings_say() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let daemon = Daemon::with_file(&machine, r#"{ "max-concurrent-uploads": 1 }"#);
    daemon.load("busybox");
    let name = format!("{HOST}/app:1");
    build(&machine, &name);
    let pushed = daemon.dozen(&["push", &name]).text();
    assert_eq!(pushed.matches(": Waiting\n").count(), 2, "{pushed}");
    assert_eq!(pushed.matches(": Pushed\n").count(), 3, "{pushed}");
}

#[test]
fn a_build_pushes_what_it_has_made() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let names = ["built/app:1", "built/other:1"].map(|name| format!("{HOST}/{name}"));
    let metadata = machine.directory().join("metadata.json").display().to_string();
    let build = |options: &[&str]| {
        let arguments = [&["build"], options, &["-"]].concat();
        machine.run_with(dozen_program(), &arguments, b"FROM busybox\nRUN echo hello > /hello\n", &[])
    };
    let built = build(&["--push", "-t", &names[0], "-t", &names[1], "--metadata-file", &metadata]).expect(0);
    assert!(built.err.contains(&format!("The push refers to repository [{HOST}/built/app]\n")), "{}", built.err);
    assert!(built.err.contains(": Mounted from built/app\n"), "{}", built.err);
    assert_eq!(built.out, "");
    let manifest = raw(&machine, &names[1]);
    assert_eq!(raw(&machine, &names[0]), manifest);
    let said: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let sum = machine.run_with("sha256sum", &[], manifest.as_bytes(), &[]).text();
    assert_eq!(said["containerimage.digest"], json!(format!("sha256:{}", &sum[..64])));
    // The same in other words, and without any.
    let third = format!("type=image,name={HOST}/built/third:1,push=true");
    let quiet = build(&["-q", "-o", &third]).expect(0);
    assert_eq!((quiet.err.as_str(), quiet.out.trim()), ("", said["containerimage.config.digest"].as_str().unwrap()));
    assert_eq!(raw(&machine, &format!("{HOST}/built/third:1")), manifest);
    build(&["--push"]).refuses(1, &["ERROR: tag is needed when pushing to registry"]);
    build(&["--push", "-t", &names[0], "-o", "out"])
        .refuses(1, &["beside an --output that is no image is not built yet"]);
    drop(registry);
    let words = format!("ERROR: failed to push {}: cannot reach the registry {HOST}", names[0]);
    build(&["--push", "-t", &names[0]]).refuses(1, &[&words]);
}
