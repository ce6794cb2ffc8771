//! Build caches that lie in a registry: what one engine has built another one finds there, and what is wrong with them costs
//! time and nothing else.

use std::path::{Path, PathBuf};

use dozen_testbox::{Done, Engine, Machine};
use serde_json::{Value, json};

use crate::between::{Between, reply};
use crate::luck::check_tmp_is_empty;
use crate::registry::Registry;
use crate::{HOST, raw};

const DOCKERFILE: &str = "FROM busybox AS build\nCOPY source /source\n\
    RUN head -c 300000 /dev/urandom > /made; cat /source >> /made\n\
    FROM busybox\nENV A=b\nWORKDIR /w\nRUN echo here; date +%s%N > /w/time\nCOPY --from=build /made /made\nRUN true\n";

/// The steps of it that do something.
const STEPS: usize = 6;

fn context(machine: &Machine) -> PathBuf {
    let at = machine.directory().join("context");
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), DOCKERFILE).unwrap();
    std::fs::write(at.join("source"), "source\n").unwrap();
    at
}

fn build(engine: &Engine<'_>, at: &Path, flags: &[&str]) -> Done {
    engine.dozen(&[&["build", "--network", "none", "-t", "made"], flags, &[at.to_str().unwrap()]].concat())
}

fn cached(done: &Done) -> usize {
    done.err.lines().filter(|line| line.ends_with(" CACHED")).count()
}

fn id(engine: &Engine<'_>) -> String {
    engine.dozen(&["image", "inspect", "-f", "{{.Id}}", "made"]).text()
}

fn to(name: &str, more: &str) -> String {
    format!("type=registry,ref={name}{more}")
}

fn layers_on_disk(machine: &Machine) -> usize {
    std::fs::read_dir(machine.directory().join("data/layers")).unwrap().count()
}

/// Nothing of what was built is left here: another engine would be in the same place.
fn forget(machine: &Machine, engine: &Engine<'_>) -> usize {
    engine.dozen(&["rmi", "-f", "made"]).expect(0);
    engine.dozen(&["image", "prune", "-f"]).expect(0);
    engine.dozen(&["builder", "prune", "-af"]).expect(0);
    layers_on_disk(machine)
}

#[test]
fn an_image_that_is_only_in_a_registry_has_its_cache_inside() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let at = context(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let from = |name: &str| format!("type=registry,ref={name}");
    // By itself, and in an index with what is said of it.
    for (name, more) in [("team/app:1", &[][..]), ("team/app:2", &["--provenance=true"])] {
        let name = format!("{HOST}/{name}");
        build(&engine, &at, &[&["--cache-to", "type=inline"], more].concat()).expect(0);
        let first = engine.dozen(&["run", "--rm", "--network", "none", "made", "cat", "/w/time"]).text();
        engine.dozen(&["tag", "made", &name]).expect(0);
        engine.dozen(&["push", &name]).expect(0);
        engine.dozen(&["rmi", "-f", &name]).expect(0);
        forget(&machine, &engine);
        let again = build(&engine, &at, &["--cache-from", &from(&name)]).expect(0);
        assert!(cached(&again) > 0, "{}", again.err);
        let then = engine.dozen(&["run", "--rm", "--network", "none", "made", "cat", "/w/time"]).text();
        assert_eq!(then, first);
        forget(&machine, &engine);
    }
    // One without is named in a warning, and built all the same.
    build(&engine, &at, &[]).expect(0);
    let name = format!("{HOST}/team/bare:1");
    engine.dozen(&["tag", "made", &name]).expect(0);
    engine.dozen(&["push", &name]).expect(0);
    let warned = build(&engine, &at, &["--no-cache", "--cache-from", &from(&name)]).expect(0);
    assert!(warned.err.contains("it is an image with none inside"), "{}", warned.err);
}

#[test]
fn what_one_engine_has_built_another_finds_in_a_registry() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let at = context(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{HOST}/team/app:cache");
    for (more, form) in [(",mode=max", "gzip"), (",mode=max,compression=zstd,compression-level=5", "zstd")] {
        let built = build(&engine, &at, &["--cache-to", &to(&name, more)]).expect(0);
        assert!(built.err.contains(&format!("exporting cache to registry {name}")), "{}", built.err);
        assert!(built.err.contains("writing cache manifest sha256:"), "{}", built.err);
        let first = id(&engine);
        let manifest: Value = serde_json::from_str(&raw(&machine, &name)).unwrap();
        assert_eq!(manifest["artifactType"], json!("application/vnd.dozen.build-cache.v1"));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 4, "{manifest}");
        let wanted = format!("application/vnd.oci.image.layer.v1.tar+{form}");
        assert!(layers.iter().all(|layer| layer["mediaType"] == json!(wanted)), "{manifest}");
        check_tmp_is_empty(&machine);

        let before = forget(&machine, &engine);
        for (flag, source) in [("--cache-from", to(&name, "")), ("--cache-from", name.clone())] {
            let again = build(&engine, &at, &[flag, &source]).expect(0);
            assert_eq!((cached(&again), id(&engine)), (STEPS, first.clone()), "{}", again.err);
            // Those of the image alone have come.
            assert_eq!(layers_on_disk(&machine), before + 3, "{source}");
            let made = ["run", "--rm", "--network", "none", "made", "tail", "-1", "/made"];
            assert!(engine.dozen(&made).text().ends_with("source\n"));
            assert_eq!(cached(&build(&engine, &at, &[]).expect(0)), 0, "nobody else is told so");
            forget(&machine, &engine);
        }
    }
    drop(engine);
    std::fs::remove_dir_all(machine.directory().join("data")).unwrap();
    let engine = machine.engine();
    engine.load("busybox");
    // By an engine that has nothing but the image's base: a cache goes on from one tag to another, and to another
    // repository, and layers that nothing has needed stay where they are.
    let second = format!("{HOST}/team/other:cache");
    let flags = ["--cache-from", &to(&name, ""), "--cache-to", &to(&second, ",mode=max"), "--cache-to", &to(&name, "")];
    let before = layers_on_disk(&machine);
    let built = build(&engine, &at, &flags).expect(0);
    assert_eq!((cached(&built), layers_on_disk(&machine)), (STEPS, before + 3), "{}", built.err);
    let count = |name: &str| {
        let manifest: Value = serde_json::from_str(&raw(&machine, name)).unwrap();
        manifest["layers"].as_array().unwrap().len()
    };
    assert_eq!((count(&second), count(&name)), (4, 3), "mode=max has all stages, mode=min the image's");
    forget(&machine, &engine);
    assert_eq!(cached(&build(&engine, &at, &["--cache-from", &second]).expect(0)), STEPS);
    check_tmp_is_empty(&machine);
}

#[test]
fn what_cannot_be_read_is_a_warning_and_what_cannot_be_written_an_error() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let at = context(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    registry.fill("busybox", "box:1");
    for (name, words) in [
        (format!("{HOST}/no/cache:1"), "not found"),
        (format!("{HOST}/box:1"), "it is an image with none inside; one is built with --cache-to type=inline"),
        ("127.0.0.1:9/nobody:1".to_owned(), "127.0.0.1:9"),
    ] {
        let built = build(&engine, &at, &["--cache-from", &to(&name, "")]).expect(0);
        let said = format!("no cache is imported from {name}: ");
        let line = built.err.lines().find(|line| line.contains("WARNING") && line.contains(&said));
        assert!(line.is_some_and(|line| line.contains(words)), "{name}: {}", built.err);
    }
    let nowhere = "127.0.0.1:9/nobody:1";
    let failed = build(&engine, &at, &["--cache-to", &to(nowhere, ",mode=max")]);
    failed.refuses(1, &[&format!("failed to export cache to {nowhere}: "), "the image is there"]);
    assert!(id(&engine).starts_with("sha256:"));
    let built = build(&engine, &at, &["--cache-to", &to(nowhere, ",ignore-error=true")]).expect(0);
    assert!(built.err.contains(&format!("WARNING: failed to export cache to {nowhere}: ")), "{}", built.err);
    check_tmp_is_empty(&machine);
}

#[test]
fn a_registry_is_told_who_asks() {
    let machine = Machine::new();
    let file = machine.directory().join("htpasswd");
    std::fs::write(&file, "me:$2b$04$9ULVbFsTw5Nq1NZDdtLuPOjZ0qqRPXpuo9rf9/CTesD895H0xI756\n").unwrap();
    let guarded = format!("auth: {{ htpasswd: {{ realm: r, path: {} }} }}", file.display());
    let registry = Registry::with(&machine, 5001, &guarded);
    let at = context(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/app:cache");
    let config = machine.directory().join("docker-config");
    std::fs::create_dir_all(&config).unwrap();
    let auth = |pair: &str| {
        std::fs::write(config.join("config.json"), json!({ "auths": { &host: { "auth": pair } } }).to_string())
            .unwrap();
    };
    // Of `me:wrong`.
    auth("bWU6d3Jvbmc=");
    let failed = build(&engine, &at, &["--cache-to", &to(&name, "")]);
    failed.refuses(1, &["failed to export cache to", "unauthorized: authentication required", "dozen login"]);
    let built = build(&engine, &at, &["--cache-from", &to(&name, "")]).expect(0);
    assert!(built.err.contains(&format!("no cache is imported from {name}: ")), "{}", built.err);
    // Of `me:sesame-open`.
    auth("bWU6c2VzYW1lLW9wZW4=");
    build(&engine, &at, &["--cache-to", &to(&name, ",mode=max")]).expect(0);
    forget(&machine, &engine);
    let built = build(&engine, &at, &["--cache-from", &name]).expect(0);
    assert_eq!(cached(&built), STEPS, "{}", built.err);
    let log = engine.log();
    assert!(!log.contains("sesame-open") && !log.contains("bWU6c2VzYW1lLW9wZW4="), "{log}");
}

/// Whoever stands before the registry gives other bytes for layers, or none.
#[test]
fn a_layer_that_is_not_what_it_should_be_is_made_anew() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let at = context(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    build(&engine, &at, &["--cache-to", &to(&format!("{HOST}/app:cache"), ",mode=max")]).expect(0);
    let first = id(&engine);
    let manifest: Value = serde_json::from_str(&raw(&machine, &format!("{HOST}/app:cache"))).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    for (what, damages_config) in [("noise", false), ("missing", false), ("shorter", false), ("noise", true)] {
        let config = config.clone();
        let between = Between::start(&machine, registry.port, move |asked| {
            let is_damaged = asked.method == "GET" && asked.path.contains("/blobs/");
            if !is_damaged || asked.path.contains(&config) != damages_config {
                return asked.forward();
            }
            match what {
                "missing" => reply("404 Not Found", &[], br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"x"}]}"#),
                "shorter" => reply("200 OK", &[], b"short"),
                // As long as it is said to be.
                _ => {
                    let whole = asked.forward()?;
                    let at = whole.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
                    Some([&whole[..at], &vec![7; whole.len() - at]].concat())
                }
            }
        });
        let before = forget(&machine, &engine);
        let name = format!("{}/app:cache", between.host);
        let built = build(&engine, &at, &["--cache-from", &to(&name, "")]).expect(0);
        let words = if damages_config { "no cache is imported from" } else { "of an imported cache cannot be had" };
        assert!(built.err.contains("WARNING") && built.err.contains(words), "{what}: {}", built.err);
        assert_ne!(id(&engine), first, "{what}");
        let made = ["run", "--rm", "--network", "none", "made", "tail", "-1", "/made"];
        assert!(engine.dozen(&made).text().ends_with("source\n"), "{what}");
        check_tmp_is_empty(&machine);
        between.stop(&machine);
        assert_eq!(forget(&machine, &engine), before, "{what}");
    }
    // By docker's own client nothing changes: its names are images of the engine's.
    let line = ["build", "--network", "none", "--cache-from", "none:1", at.to_str().unwrap()];
    let built = machine.run_with(dozen_testbox::docker_program(), &line, b"", &[("DOCKER_BUILDKIT", "0")]).expect(0);
    assert!(built.out.contains("Successfully built"), "{}", built.out);
}
