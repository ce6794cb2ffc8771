//! Pulls that go wrong, and pulls that meet: nothing half stored, and nothing done twice.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dozen_testbox::{Daemon, Gate, Machine, dozen_program, until};

use crate::registry::{Asked, Between, Registry, reply};

/// Of what an engine keeps of images.
fn files(machine: &Machine) -> BTreeMap<&'static str, usize> {
    let count = |place: &str| {
        let entries = std::fs::read_dir(machine.directory().join("data").join(place));
        entries.map_or(0, Iterator::count)
    };
    ["layers", "content/sha256", "tmp"].map(|place| (place, count(place))).into()
}

pub fn check_nothing_is_left(machine: &Machine) {
    let nothing: BTreeMap<_, _> = [("layers", 0), ("content/sha256", 0), ("tmp", 0)].into();
    assert_eq!(files(machine), nothing);
}

/// A registry with one image.
fn filled(machine: &Machine) -> Registry<'_> {
    let registry = Registry::start(machine);
    registry.fill("busybox", "web:1");
    registry
}

/// The body's place in an answer.
fn body(answer: &[u8]) -> usize {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4)
}

/// Layers are large, documents small.
fn is_layer(asked: &Asked, answer: &[u8]) -> bool {
    asked.is_blob() && asked.method == "GET" && answer.len() > 100_000
}

#[test]
fn a_connection_that_breaks_costs_only_the_rest() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("nginx:1.22", "web:1");
    let rest = Arc::new(AtomicUsize::new(0));
    let asked_for_rest = rest.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let mut answer = asked.forward();
        if asked.field("range").is_some() {
            asked_for_rest.fetch_add(1, Ordering::SeqCst);
        } else if is_layer(asked, &answer) {
            let begin = body(&answer);
            answer.truncate(begin + (answer.len() - begin) / 2);
        }
        answer
    });
    // By one connection, so that no layer comes in parts.
    let engine = Daemon::with_file(&machine, r#"{ "max-concurrent-downloads": 1 }"#);
    let name = format!("{}/web:1", between.host);
    let pulled = engine.dozen(&["pull", &name]).text();
    let layers = pulled.matches(": Pull complete\n").count();
    assert_eq!((rest.load(Ordering::SeqCst), layers > 1), (layers, true), "{pulled}");
    engine.dozen(&["run", "--rm", &name, "true"]).expect(0);
    between.stop(&machine);
}

#[test]
fn a_registry_that_lies_is_found_out_and_leaves_nothing() {
    type Lie = fn(&Asked, Vec<u8>) -> Vec<u8>;
    let page: Lie = |asked, answer| match asked.path.contains("/manifests/") {
        true => reply("200 OK", &[("Content-Type", "text/html")], b"<html>Log in to this network</html>"),
        false => answer,
    };
    let layer_changed: Lie = |asked, mut answer| {
        if is_layer(asked, &answer) {
            let last = answer.len() - 100;
            answer[last] ^= 1;
        }
        answer
    };
    let layer_longer: Lie = |asked, answer| match is_layer(asked, &answer) {
        true => reply("200 OK", &[], &[&answer[body(&answer)..], b"more"].concat()),
        false => answer,
    };
    let bomb: Lie = |asked, answer| match is_layer(asked, &answer) {
        true => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 64 << 20), &mut packed).unwrap();
            let mut bytes = packed.finish().unwrap();
            // As long as it has to be.
            bytes.resize(answer.len() - body(&answer), 0);
            reply("200 OK", &[], &bytes)
        }
        false => answer,
    };
    let large: Lie = |asked, answer| match asked.path.contains("/manifests/") && asked.method == "GET" {
        true => b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n{".to_vec(),
        false => answer,
    };
    let circle: Lie = |asked, answer| match asked.is_blob() {
        true => reply("307 Temporary Redirect", &[("Location", &asked.path)], b""),
        false => answer,
    };
    let other_manifest: Lie = |asked, mut answer| {
        if asked.path.contains("/manifests/") && asked.method == "GET" {
            let last = answer.len() - 1;
            answer[last] = b' ';
        }
        answer
    };
    let gone: Lie = |asked, answer| if asked.is_blob() { reply("404 Not Found", &[], b"") } else { answer };
    let machine = Machine::new();
    let registry = filled(&machine);
    let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(page));
    let told = lie.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let lie = *told.lock().unwrap();
        lie(asked, asked.forward())
    });
    let engine = machine.engine();
    let name = format!("{}/web:1", between.host);
    for (next, words) in [
        (page, "what answers is a web page, no registry"),
        (layer_changed, "sha256:"),
        (layer_longer, "where"),
        (bomb, "cannot load layer"),
        (large, "is larger than 4194304 bytes"),
        (circle, "that is a circle"),
        (other_manifest, "is damaged: it has the digest"),
        (gone, "it answers 404 Not Found"),
    ] {
        *lie.lock().unwrap() = next;
        engine.dozen(&["pull", &name]).refuses(1, &[words]);
        check_nothing_is_left(&machine);
    }
    *lie.lock().unwrap() = |_, answer| answer;
    engine.dozen(&["pull", &name]).expect(0);
    between.stop(&machine);
}

#[test]
fn on_a_full_disk_nothing_of_an_image_is_kept() {
    let machine = Machine::new();
    let data = machine.directory().join("data").display().to_string();
    machine.run("mount", &["-t", "tmpfs", "-o", "size=24m,mode=711", "tmpfs", &data]).expect(0);
    let registry = filled(&machine);
    registry.fill("nginx:1.22", "large:1");
    let engine = machine.engine();
    let name = |name: &str| format!("127.0.0.1:{}/{name}", registry.port);
    for _ in 0..2 {
        engine.dozen(&["pull", &name("large:1")]).refuses(1, &["No space left on device", "free some space"]);
        check_nothing_is_left(&machine);
    }
    engine.dozen(&["run", "--rm", "--network", "none", &name("web:1"), "true"]).expect(0);
}

/// Somebody who sends layers when he is let.
fn gated(machine: &Machine, port: u16) -> (Between, Arc<Gate>, Arc<AtomicUsize>) {
    let (gate, blobs) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (kept, counted) = (gate.clone(), blobs.clone());
    let between = Between::start(machine, port, move |asked| {
        let answer = asked.forward();
        if is_layer(asked, &answer) {
            counted.fetch_add(1, Ordering::SeqCst);
            kept.pass();
        }
        answer
    });
    (between, gate, blobs)
}

fn pulling(machine: &Machine, name: &str) -> std::process::Child {
    let mut command: Command = machine.command(dozen_program());
    command.args(["pull", name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn two_pulls_of_one_image_are_one() {
    let machine = Machine::new();
    let registry = filled(&machine);
    let (between, gate, blobs) = gated(&machine, registry.port);
    let engine = machine.engine();
    let name = format!("{}/web:1", between.host);
    let first = pulling(&machine, &name);
    until("layers are asked for", || (gate.visits() > 0).then_some(()));
    let mut second = pulling(&machine, &name);
    // It has joined when it is told what the first was told.
    let mut told = std::io::BufReader::new(second.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Pulling fs layer") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut told, &mut line).unwrap() > 0, "it has ended");
    }
    gate.open();
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{first:?}");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut told, &mut rest).unwrap();
    assert!(second.wait().unwrap().success() && rest.contains("Status: Downloaded newer image"), "{rest}");
    let layers = rest.matches(": Pull complete\n").count();
    assert_eq!(blobs.load(Ordering::SeqCst), layers);
    drop(engine);
    between.stop(&machine);
}

#[test]
fn a_pull_that_nobody_waits_for_is_given_up() {
    let machine = Machine::new();
    let registry = filled(&machine);
    let (between, gate, _) = gated(&machine, registry.port);
    let engine = machine.engine();
    let name = format!("{}/web:1", between.host);
    let mut alone = pulling(&machine, &name);
    until("layers are asked for", || (gate.visits() > 0).then_some(()));
    alone.kill().unwrap();
    alone.wait().unwrap();
    until("nothing is left of it", || (files(&machine)["tmp"] == 0).then_some(()));
    gate.open();
    check_nothing_is_left(&machine);
    engine.dozen(&["pull", &name]).expect(0);
    between.stop(&machine);
}

#[test]
fn an_engine_that_dies_meanwhile_leaves_nothing() {
    let machine = Machine::new();
    let registry = filled(&machine);
    let (between, gate, _) = gated(&machine, registry.port);
    let mut engine = machine.engine();
    let name = format!("{}/web:1", between.host);
    let mut client = pulling(&machine, &name);
    until("layers are asked for", || (gate.visits() > 0).then_some(()));
    assert!(files(&machine)["tmp"] > 0);
    engine.kill();
    assert!(!client.wait().unwrap().success());
    gate.open();
    engine.restart();
    check_nothing_is_left(&machine);
    engine.dozen(&["pull", &name]).expect(0);
    engine.dozen(&["run", "--rm", &name, "true"]).expect(0);
    between.stop(&machine);
}
