//! Pushes that are disturbed: they go on where they were, or leave nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dozen_testbox::{Engine, Gate, Machine, dozen_program, until};

use crate::between::{Asked, Between, reply};
use crate::registry::Registry;
use crate::{build, inspect, remove_all};

pub fn tmp(machine: &Machine) -> usize {
    std::fs::read_dir(machine.directory().join("data/tmp")).map_or(0, Iterator::count)
}

/// What a push was packing is gone when it is over, a moment later at the most.
pub fn check_tmp_is_empty(machine: &Machine) {
    until("nothing is left of it", || (tmp(machine) == 0).then_some(()));
}

/// docker-registry writes its links where they are read: one that it was killed in is empty, and asked for what that leads to
/// it says 500 for ever. That is its keeper's to mend.
fn remove_cut_links(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (path, known) = (entry.path(), entry.metadata().unwrap());
        if known.is_dir() {
            remove_cut_links(&path);
        } else if entry.file_name() == "link" && known.len() == 0 {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

pub fn pushing(machine: &Machine, name: &str) -> Child {
    let mut command = machine.command(dozen_program());
    command.args(["push", name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait(gate: &Gate) {
    until("a layer is on its way", || (gate.visits() > 0).then_some(()));
}

pub fn gated(machine: &Machine, port: u16) -> (Between, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let kept = gate.clone();
    let between = Between::start(machine, port, move |asked| {
        if asked.is_layer() {
            // Half of it has come.
            kept.pass();
        }
        asked.forward()
    });
    (between, gate)
}

#[test]
fn a_registry_that_goes_away_is_waited_for() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let (between, gate) = gated(&machine, registry.port);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/app:1", between.host);
    build(&machine, &name);
    let id = inspect(&engine, &name)["Id"].clone();
    let push = pushing(&machine, &name);
    wait(&gate);
    // It is killed in the middle, and comes back with what it had.
    drop(registry);
    remove_cut_links(&machine.directory().join("registry-5000/data"));
    gate.open();
    let _registry = Registry::start(&machine);
    let done = push.wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    remove_all(&engine);
    engine.dozen(&["pull", &name]).expect(0);
    assert_eq!(inspect(&engine, &name)["Id"], id);
    check_tmp_is_empty(&machine);
    between.stop(&machine);
}

#[test]
fn an_engine_that_dies_meanwhile_leaves_nothing() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let (between, gate) = gated(&machine, registry.port);
    let mut engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/app:1", between.host);
    build(&machine, &name);
    let before = inspect(&engine, &name);
    let mut client = pushing(&machine, &name);
    wait(&gate);
    assert!(tmp(&machine) > 0, "nothing was packed");
    engine.kill();
    assert!(!client.wait().unwrap().success());
    gate.open();
    engine.restart();
    assert_eq!(tmp(&machine), 0);
    assert_eq!(inspect(&engine, &name), before);
    engine.dozen(&["push", &name]).expect(0);
    remove_all(&engine);
    engine.dozen(&["run", "--rm", &name, "cat", "/hello"]).expect(0);
    between.stop(&machine);
}

#[test]
fn on_a_full_disk_nothing_is_left_of_what_was_packed() {
    let machine = Machine::new();
    let data = machine.directory().join("data");
    machine.run("mount", &["-t", "tmpfs", "-o", "size=24m,mode=711", "tmpfs", data.to_str().unwrap()]).expect(0);
    let registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("127.0.0.1:{}/app:1", registry.port);
    build(&machine, &name);
    let before = inspect(&engine, &name);
    // Of its three megabytes of noise there is room for one.
    let ballast = data.join("ballast").display().to_string();
    let fill = "cat /dev/zero >$0; truncate -s -1M $0";
    machine.run("sh", &["-c", fill, &ballast]).expect(0);
    engine.dozen(&["push", &name]).refuses(1, &["No space left on device", "free some space"]);
    check_tmp_is_empty(&machine);
    assert_eq!(inspect(&engine, &name), before);
    machine.run("rm", &[&ballast]).expect(0);
    engine.dozen(&["push", &name]).expect(0);
    remove_all(&engine);
    engine.dozen(&["run", "--rm", "--network", "none", &name, "cat", "/hello"]).expect(0);
}

#[test]
fn a_push_ends_with_its_client() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let (between, gate) = gated(&machine, registry.port);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/app:1", between.host);
    build(&machine, &name);
    let mut client = pushing(&machine, &name);
    wait(&gate);
    client.kill().unwrap();
    client.wait().unwrap();
    check_tmp_is_empty(&machine);
    gate.open();
    // The image is free.
    remove_all(&engine);
    between.stop(&machine);
}

/// A registry of a test's own, which keeps what it has of an upload.
#[derive(Default)]
struct Keeping {
    uploads: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: usize,
    /// Bytes of layers that came.
    came: usize,
    /// How often a layer has been cut.
    cuts: usize,
    rests: Vec<String>,
    /// How often a layer came whose length nobody knew.
    without_length: usize,
}

impl Keeping {
    fn answer(state: &Mutex<Self>, asked: &Asked) -> Option<Vec<u8>> {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        // Half of a layer comes, twice; then the connection breaks.
        let is_cut = asked.is_layer() && {
            let mut state = state.lock().unwrap();
            state.cuts += 1;
            state.cuts <= 2
        };
        let body = match is_cut {
            true if asked.is_chunked() => asked.take(3 << 20).ok()?,
            true => asked.take(asked.length() / 2).ok()?,
            false => asked.body().ok()?,
        };
        let mut state = state.lock().unwrap();
        if asked.is_layer() {
            state.came += body.len();
        }
        let here = |upload: &str| format!("/v2/app/blobs/uploads/{upload}?again=1");
        match (asked.method.as_str(), path.contains("/uploads/"), path.contains("/manifests/")) {
            ("HEAD", false, false) => match state.blobs.get(&last) {
                Some(blob) => {
                    let length =
                        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", blob.len());
                    Some(length.into_bytes())
                }
                None => reply("404 Not Found", &[], b""),
            },
            ("POST", ..) => {
                let upload = format!("u{}", state.uploads.len());
                state.uploads.insert(upload.clone(), Vec::new());
                reply("202 Accepted", &[("Location", &here(&upload))], b"")
            }
            ("GET", true, _) => {
                let length = state.uploads[&last].len();
                let range = format!("0-{}", length.max(1) - 1);
                reply("204 No Content", &[("Location", &here(&last)), ("Range", &range)], b"")
            }
            ("PATCH", true, _) => {
                let at = state.uploads[&last].len();
                if asked.is_chunked() {
                    assert_eq!((at, asked.field("content-range")), (0, None), "it has no end yet");
                    state.without_length += 1;
                } else {
                    let range = asked.field("content-range").unwrap().to_owned();
                    assert!(range.starts_with(&format!("{at}-")), "{range}: there are {at}");
                    state.rests.push(range);
                }
                state.uploads.get_mut(&last).unwrap().extend(&body);
                if is_cut {
                    return None;
                }
                reply("202 Accepted", &[("Location", &here(&last))], b"")
            }
            ("PUT", true, _) => {
                let mut whole = state.uploads[&last].clone();
                whole.extend(&body);
                if is_cut {
                    state.uploads.insert(last, whole);
                    return None;
                }
                let digest = query.split("digest=").nth(1).unwrap().replace("%3A", ":");
                state.blobs.insert(digest, whole);
                reply("201 Created", &[], b"")
            }
            ("PUT", _, true) => {
                state.manifests += 1;
                reply("201 Created", &[], b"")
            }
            _ => reply("404 Not Found", &[], b""),
        }
    }
}

#[test]
fn a_connection_that_breaks_costs_only_the_rest() {
    go_on(|_, engine, name| _ = engine.dozen(&["tag", "busybox", name]).expect(0), false);
}

#[test]
fn what_is_still_compressed_costs_only_the_rest_too() {
    go_on(|machine, _, name| large(machine, name), true);
}

#[test]
fn a_registry_that_wants_a_length_is_told_one() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        if asked.method == "HEAD" {
            // The layer has no name before this is answered.
            until("a layer is on its way", || (count.load(Ordering::SeqCst) > 0).then_some(()));
        }
        if !asked.is_chunked() {
            return asked.forward();
        }
        asked.body().ok()?;
        count.fetch_add(1, Ordering::SeqCst);
        reply("411 Length Required", &[], b"")
    });
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/app:1", between.host);
    large(&machine, &name);
    let id = inspect(&engine, &name)["Id"].clone();
    engine.dozen(&["push", &name]).expect(0);
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    remove_all(&engine);
    engine.dozen(&["pull", &name]).expect(0);
    assert_eq!(inspect(&engine, &name)["Id"], id);
    between.stop(&machine);
}

/// An image of one layer, which is large enough to go while it is compressed.
fn large(machine: &Machine, name: &str) {
    let file =
        "FROM busybox AS a\nRUN dd if=/dev/urandom of=/noise bs=1M count=12\nFROM scratch\nCOPY --from=a /noise /\n";
    machine.run_with(dozen_program(), &["build", "-t", name, "-"], file.as_bytes(), &[]).expect(0);
}

/// `is_made`: while the layer goes for the first time it is still compressed, and has no name.
fn go_on(make: impl Fn(&Machine, &Engine<'_>, &str), is_made: bool) {
    let machine = Machine::new();
    let state: Arc<Mutex<Keeping>> = Arc::default();
    let kept = state.clone();
    let between = Between::start(&machine, 0, move |asked| {
        if is_made && asked.method == "HEAD" {
            // It has none before this is answered.
            until("a layer is on its way", || (kept.lock().unwrap().cuts > 0).then_some(()));
        }
        Keeping::answer(&kept, asked)
    });
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/app:1", between.host);
    make(&machine, &engine, &name);
    engine.dozen(&["push", &name]).expect(0);
    let state = state.lock().unwrap();
    let layer = state.blobs.values().map(Vec::len).max().unwrap();
    assert_eq!((state.manifests, state.rests.len(), state.came), (1, 2, layer), "{:?}", state.rests);
    assert_eq!(state.without_length, usize::from(is_made));
    for (digest, blob) in &state.blobs {
        let sum = machine.run_with("sha256sum", &[], blob, &[]).text();
        assert_eq!(digest, &format!("sha256:{}", &sum[..64]));
    }
    drop(state);
    between.stop(&machine);
}
