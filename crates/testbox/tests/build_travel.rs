//! Build caches that travel from one machine to another, and what becomes of those that did not come well.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dozen_testbox::{Daemon, Done, Engine, Machine, dozen_program, until};
use serde_json::Value;

const DOCKERFILE: &str = "FROM busybox AS build\nCOPY source /source\nRUN head -c 300000 /dev/urandom > /made; cat /source >> /made\n\
    FROM busybox\nENV A=b\nWORKDIR /w\nRUN echo here; date +%s%N > /w/time\nCOPY --from=build /made /made\nRUN true\n";

/// The steps of it that do something.
const STEPS: usize = 6;

/// The same context on each machine.
fn context(machine: &Machine) -> PathBuf {
    let at = machine.directory().join("context");
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), DOCKERFILE).unwrap();
    std::fs::write(at.join("source"), "source\n").unwrap();
    at
}

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

fn build(engine: &Engine<'_>, flags: &[&str], at: &Path) -> Done {
    engine.dozen(&[&["build", "--network", "none"], flags, &[at.to_str().unwrap()]].concat())
}

fn cached(done: &Done) -> usize {
    done.err.lines().filter(|line| line.ends_with(" CACHED")).count()
}

fn id(engine: &Engine<'_>, image: &str) -> String {
    engine.dozen(&["image", "inspect", "-f", "{{.Id}}", image]).text()
}

fn to(directory: &Path, more: &str) -> String {
    format!("type=local,dest={}{more}", directory.display())
}

fn from(directory: &Path) -> String {
    format!("type=local,src={}", directory.display())
}

fn document(directory: &Path, digest: &Value) -> Value {
    serde_json::from_slice(&std::fs::read(blob(directory, digest)).unwrap()).unwrap()
}

fn blob(directory: &Path, digest: &Value) -> PathBuf {
    directory.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
}

fn manifest(directory: &Path) -> Value {
    let index: Value = serde_json::from_slice(&std::fs::read(directory.join("index.json")).unwrap()).unwrap();
    document(directory, &index["manifests"][0]["digest"])
}

/// The blob of the layer that this step has made.
fn layer(directory: &Path, step: &str) -> PathBuf {
    let manifest = manifest(directory);
    let config = document(directory, &manifest["config"]["digest"]);
    let mut steps = config["steps"].as_array().unwrap().iter();
    let made = steps.find(|it| it["description"].as_str().unwrap().contains(step)).unwrap();
    let mut diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap().iter();
    let number = diff_ids.position(|it| *it == made["layer"]).unwrap();
    blob(directory, &manifest["layers"][number]["digest"])
}

fn layers_on_disk(machine: &Machine) -> usize {
    std::fs::read_dir(machine.directory().join("data/layers")).unwrap().count()
}

/// What was built on a machine that is no more; its image's id.
fn carried(more: &str) -> (tempfile::TempDir, String) {
    let carried = tempfile::tempdir().unwrap();
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let cache = carried.path().join("cache");
    build(&engine, &["-t", "made", "--cache-to", &to(&cache, more)], &context(&machine)).expect(0);
    (carried, id(&engine, "made"))
}

#[test]
fn what_one_machine_has_built_another_need_not() {
    for more in [",mode=max", ",mode=max,compression=zstd", ",mode=max,compression=uncompressed,tag=main"] {
        let (carried, first) = carried(more);
        let cache = carried.path().join("cache");
        let machine = Machine::new();
        let engine = with_busybox(&machine);
        let before = layers_on_disk(&machine);
        let flags = ["-t", "made", "--cache-from", &from(&cache)];
        let built = build(&engine, &flags, &context(&machine)).expect(0);
        assert_eq!(cached(&built), STEPS, "{}", built.err);
        assert_eq!(id(&engine, "made"), first, "{more}");
        // Those of the image alone have come.
        assert_eq!(layers_on_disk(&machine), before + 3, "{more}");
        let made =
            engine.dozen(&["run", "--rm", "--network", "none", "made", "sh", "-c", "tail -1 /made; ls /w"]).text();
        assert!(made.ends_with("source\ntime\n"), "{made}");

        // Nobody else is told so: without the flag nothing is known.
        let other = build(&engine, &[], &context(&machine)).expect(0);
        assert_eq!(cached(&other), 0, "{}", other.err);
        assert_eq!(cached(&build(&engine, &flags, &context(&machine)).expect(0)), STEPS);
        // What is done on the way is done upon it, and goes on from there.
        let text = DOCKERFILE.replace("cat /source >> /made\n", "cat /source >> /made\nRUN tail -1 /made > /again\n");
        let at = context(&machine);
        std::fs::write(at.join("Dockerfile"), text.replace("COPY --from=build /made", "COPY --from=build /again"))
            .unwrap();
        let next = build(&engine, &flags, &at).expect(0);
        assert_eq!(cached(&next), 4, "{}", next.err);
    }
}

#[test]
fn the_image_alone_may_travel_and_a_cache_goes_on() {
    let (carried, first) = carried("");
    let cache = carried.path().join("cache");
    assert_eq!(manifest(&cache)["layers"].as_array().unwrap().len(), 3);
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    // The stage that the image takes from is not in it, and so is another one now.
    let grown = carried.path().join("grown");
    let flags = ["-t", "made", "--cache-from", &from(&cache), "--cache-to", &to(&grown, ",mode=max")];
    let built = build(&engine, &flags, &context(&machine)).expect(0);
    assert!(built.err.contains("exporting cache to client directory"), "{}", built.err);
    assert_eq!(cached(&built), 2, "{}", built.err);
    assert_ne!(id(&engine, "made"), first);
    drop(engine);
    drop(machine);
    // A chain: each goes on from what the one before has left, in one directory.
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let flags = ["-t", "made", "--cache-from", &from(&grown), "--cache-to", &to(&grown, ",mode=max")];
    let before = std::fs::read_dir(grown.join("blobs/sha256")).unwrap().count();
    for _ in 0..2 {
        let built = build(&engine, &flags, &context(&machine)).expect(0);
        assert_eq!(cached(&built), STEPS, "{}", built.err);
    }
    assert_eq!(std::fs::read_dir(grown.join("blobs/sha256")).unwrap().count(), before, "nothing is new");
}

#[test]
fn a_cache_inside_an_image_goes_with_it() {
    let carried = tempfile::tempdir().unwrap();
    let archive = carried.path().join("made.tar");
    let archive = archive.to_str().unwrap();
    let first = {
        let machine = Machine::new();
        let engine = with_busybox(&machine);
        let at = context(&machine);
        build(&engine, &["-t", "made", "--cache-to", "type=inline"], &at).expect(0);
        let first = id(&engine, "made");
        build(&engine, &["-t", "made", "--build-arg", "BUILDKIT_INLINE_CACHE=1"], &at).expect(0);
        assert_eq!(id(&engine, "made"), first, "the same however it was asked for, and however it was built");
        engine.dozen(&["save", "-o", archive, "made"]).expect(0);
        first
    };
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    engine.dozen(&["load", "-i", archive]).expect(0);
    let at = context(&machine);
    let built = build(&engine, &["-t", "again", "--cache-from", "made,none"], &at).expect(0);
    assert_eq!(cached(&built), 2, "{}", built.err);
    assert!(built.err.contains("no cache is imported from none: there is no such image"), "{}", built.err);
    // By docker's own client.
    let variables = [("DOCKER_BUILDKIT", "0")];
    let line = [
        "build",
        "--network",
        "none",
        "--no-cache=false",
        "--cache-from",
        "made",
        "-t",
        "docker",
        at.to_str().unwrap(),
    ];
    let built = machine.run_with(dozen_testbox::docker_program(), &line, b"", &variables).expect(0);
    assert_eq!(built.out.matches("Using cache").count(), STEPS, "{}", built.out);
    let built = build(&engine, &["--cache-from", "busybox"], &at).expect(0);
    assert!(built.err.contains("no cache is imported from busybox: it has none inside"), "{}", built.err);
    assert_ne!(first, id(&engine, "again"), "the other stage was built anew");
}

/// What is wrong with a cache costs time, and nothing else.
#[test]
fn a_cache_that_is_damaged_is_done_without() {
    let (carried, first) = carried(",mode=max");
    let whole = carried.path().join("cache");
    let machine = Machine::new();
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        let at = carried.path().join(name);
        machine.run("cp", &["-a", whole.to_str().unwrap(), at.to_str().unwrap()]).expect(0);
        damage(&at);
        at
    };
    let mine = |at: &Path| layer(at, "date");
    let config = |at: &Path| blob(at, &manifest(at)["config"]["digest"]);
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    // (what, how much of it is still found, what is said)
    type Damage<'a> = (&'a str, usize, &'a str, Box<dyn Fn(&Path) + 'a>);
    let cases: Vec<Damage<'_>> = vec![
        ("missing", 4, "no such file or directory", Box::new(|at| std::fs::remove_file(mine(at)).unwrap())),
        (
            "shorter",
            4,
            "bytes, and is to have",
            Box::new(|at| {
                let path = mine(at);
                let bytes = std::fs::read(&path).unwrap();
                write(&path, &bytes[..bytes.len() - 1]);
            }),
        ),
        (
            "noise",
            4,
            "the layer",
            Box::new(|at| {
                let path = mine(at);
                let size = std::fs::metadata(&path).unwrap().len();
                write(&path, &vec![7; usize::try_from(size).unwrap()]);
            }),
        ),
        (
            "another",
            4,
            "an imported cache cannot be had",
            Box::new(|at| {
                let (path, other) = (mine(at), layer(at, "WORKDIR"));
                let mut bytes = std::fs::read(other).unwrap();
                bytes.resize(usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap(), 0);
                write(&path, &bytes);
            }),
        ),
        (
            "link",
            4,
            "an imported cache cannot be had",
            Box::new(|at| {
                std::fs::remove_file(mine(at)).unwrap();
                std::os::unix::fs::symlink("/etc/shadow", mine(at)).unwrap();
            }),
        ),
        (
            "all",
            4,
            "an imported cache cannot be had",
            Box::new(|at| {
                let texts = ["COPY source", "urandom", "WORKDIR", "date"];
                texts.iter().for_each(|text| std::fs::remove_file(layer(at, text)).unwrap());
            }),
        ),
        (
            "config",
            0,
            "no cache is imported",
            Box::new(|at| {
                let path = config(at);
                let text = std::fs::read_to_string(&path).unwrap();
                write(&path, text.replacen("RUN", "RNU", 1).as_bytes());
            }),
        ),
        (
            "large",
            0,
            "no cache is imported",
            Box::new(|at| {
                std::fs::File::options().write(true).open(config(at)).unwrap().set_len(100 << 20).unwrap();
            }),
        ),
        ("empty", 0, "index.json: no such file", Box::new(|at| std::fs::remove_file(at.join("index.json")).unwrap())),
        (
            "pipe",
            0,
            "no cache is imported",
            Box::new(|at| {
                std::fs::remove_file(at.join("index.json")).unwrap();
                machine.run("mkfifo", &[at.join("index.json").to_str().unwrap()]).expect(0);
            }),
        ),
    ];
    for (name, found, words, damage) in cases {
        let at = damaged(name, &*damage);
        let engine = with_busybox(&machine);
        let built = build(&engine, &["-t", "made", "--cache-from", &from(&at)], &context(&machine)).expect(0);
        assert!(built.err.contains("WARNING") && built.err.contains(words), "{name}: {}", built.err);
        let again = cached(&built);
        assert!(if found == 0 { again == 0 } else { again >= found }, "{name}: {again} of {found}\n{}", built.err);
        let made = engine.dozen(&["run", "--rm", "--network", "none", "made", "tail", "-1", "/made"]).text();
        assert!(made.ends_with("source\n"), "{name}: {made}");
        assert_ne!(id(&engine, "made"), first, "{name}");
        engine.dozen(&["system", "prune", "-af"]).expect(0);
        until("nothing is left", || {
            let left = std::fs::read_dir(machine.directory().join("data/tmp")).unwrap().count();
            (left == 0).then_some(())
        });
        drop(engine);
    }
}

#[test]
fn what_nothing_needs_is_not_missed() {
    let (carried, first) = carried(",mode=max");
    let cache = carried.path().join("cache");
    let lost = layer(&cache, "COPY source");
    std::fs::remove_file(&lost).unwrap();
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let next = carried.path().join("next");
    let flags = ["-t", "made", "--cache-from", &from(&cache), "--cache-to", &to(&next, ",mode=max")];
    let built = build(&engine, &flags, &context(&machine)).expect(0);
    assert_eq!((cached(&built), id(&engine, "made")), (STEPS, first), "{}", built.err);
    assert!(built.err.contains("cannot be had, and is left out"), "{}", built.err);
    assert_eq!(manifest(&next)["layers"].as_array().unwrap().len(), 3);
    assert!(!next.join("blobs/sha256").join(lost.file_name().unwrap()).exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_said() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let at = context(&machine);
    let file = machine.directory().join("file");
    std::fs::write(&file, "").unwrap();
    build(&engine, &["--cache-to", &to(&file, "")], &at).refuses(1, &["failed to prepare the cache directory"]);
    // One that becomes full.
    let small = machine.directory().join("small");
    std::fs::create_dir(&small).unwrap();
    machine.run("mount", &["-t", "tmpfs", "-o", "size=200k", "none", small.to_str().unwrap()]).expect(0);
    let cache = small.join("cache");
    let failed = build(&engine, &["-t", "made", "--cache-to", &to(&cache, ",mode=max")], &at);
    failed.refuses(1, &["failed to export cache to", "o space left on device", "the image is there"]);
    let listed = machine.run("ls", &["-A", cache.join("blobs/sha256").to_str().unwrap()]).text();
    assert!(!listed.contains("unfinished"), "{listed}");
    assert!(id(&engine, "made").starts_with("sha256:"));
    let built = build(&engine, &["--cache-to", &to(&cache, ",mode=max,ignore-error=true")], &at).expect(0);
    assert!(built.err.contains("WARNING: failed to export cache"), "{}", built.err);
    machine.run("umount", &[small.to_str().unwrap()]).expect(0);
}

#[test]
fn who_is_killed_in_the_middle_leaves_the_cache_that_was() {
    let (carried, first) = carried(",mode=max");
    let cache = carried.path().join("cache");
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let at = context(&machine);
    std::fs::write(at.join("source"), "another\n").unwrap();
    let whole = std::fs::read(cache.join("index.json")).unwrap();
    // Somebody else writes: the client waits for it, with all built.
    let lock =
        std::fs::File::options().write(true).create(true).truncate(false).open(cache.join("index.json.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    std::fs::write(cache.join("blobs/sha256/.unfinished-1"), "half").unwrap();
    let mut command = machine.command(dozen_program());
    command.args([
        "build",
        "--network",
        "none",
        "-t",
        "made",
        "--cache-to",
        &to(&cache, ",mode=max"),
        at.to_str().unwrap(),
    ]);
    let mut client = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it has built", || engine.dozen(&["images", "-q", "made"]).text().lines().next().map(str::to_owned));
    client.kill().unwrap();
    client.wait().unwrap();
    drop(lock);
    until("its build is over", || {
        let left = std::fs::read_dir(machine.directory().join("data/builds")).map_or(0, Iterator::count);
        (left == 0).then_some(())
    });
    assert_eq!(std::fs::read(cache.join("index.json")).unwrap(), whole);
    // An engine that dies while it is waited for.
    let lock = std::fs::File::options().write(true).open(cache.join("index.json.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    engine.dozen(&["rmi", "made"]).expect(0);
    let mut command = machine.command(dozen_program());
    command.args([
        "build",
        "--network",
        "none",
        "-t",
        "made",
        "--cache-to",
        &to(&cache, ",mode=max"),
        at.to_str().unwrap(),
    ]);
    let mut client = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it has built", || engine.dozen(&["images", "-q", "made"]).text().lines().next().map(str::to_owned));
    engine.kill();
    drop(lock);
    engine.restart();
    assert!(!client.wait().unwrap().success());
    assert_eq!(std::fs::read(cache.join("index.json")).unwrap(), whole);
    std::fs::write(at.join("source"), "source\n").unwrap();
    // What this machine has done itself it would take before what others have.
    engine.dozen(&["rmi", "-f", "made"]).expect(0);
    engine.dozen(&["builder", "prune", "-af"]).expect(0);
    let flags = ["-t", "made", "--cache-from", &from(&cache), "--cache-to", &to(&cache, ",mode=max")];
    let built = build(&engine, &flags, &at).expect(0);
    assert_eq!((cached(&built), id(&engine, "made")), (STEPS, first), "{}", built.err);
    assert!(!cache.join("blobs/sha256/.unfinished-1").exists());
}

/// Wherever an engine dies that takes layers in, the next one has all of them or none, and goes on.
#[test]
fn an_engine_that_dies_while_a_cache_comes_leaves_nothing() {
    let (carried, first) = carried(",mode=max");
    let cache = carried.path().join("cache");
    let machine = Machine::new();
    let failpoints = machine.directory().join("failpoints");
    let at = context(&machine);
    let mut daemon = Daemon::with_failpoints(&machine, &failpoints);
    daemon.load("busybox");
    let flags = ["build", "--network", "none", "-t", "made", "--cache-from", &from(&cache), at.to_str().unwrap()];
    for failpoint in [
        "engine.image.step.before",
        "engine.image.layer_placed",
        "engine.image.recipe_placed",
        "engine.image.step.rows",
        "engine.build.image.before",
    ] {
        daemon.dozen(&["builder", "prune", "-af"]).expect(0);
        let before = layers_on_disk(&machine);
        std::fs::write(failpoints.join(failpoint), "").unwrap();
        let mut command = machine.command(dozen_program());
        let mut client = command.args(flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until(failpoint, || (!failpoints.join(failpoint).exists()).then_some(()));
        drop(daemon);
        daemon = Daemon::with_failpoints(&machine, &failpoints);
        assert!(!client.wait().unwrap().success(), "{failpoint}");
        for place in ["data/builds", "run/builds", "data/tmp"] {
            let left = std::fs::read_dir(machine.directory().join(place)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{failpoint}: {place}");
        }
        daemon.dozen(&["builder", "prune", "-af"]).expect(0);
        assert_eq!(layers_on_disk(&machine), before, "{failpoint}");
        let built = daemon.dozen(&flags).expect(0);
        assert_eq!(cached(&built), STEPS, "{failpoint}: {}", built.err);
        assert_eq!(daemon.dozen(&["image", "inspect", "-f", "{{.Id}}", "made"]).text(), first, "{failpoint}");
        daemon.dozen(&["rmi", "made"]).expect(0);
    }
}
